"""The trainer without Kafka and without files: items and examples in, snapshots out.

Every decision depends on the examples and their order alone: batches are cut by count, publications by event time.
"""

import contextlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from contracts.settings import Arm, LearnFrom, Settings
from contracts.snapshot import Snapshot, SnapshotError, live, read
from contracts.wire.events_pb2 import Example, Item
from trainer.batches import Batch, encode
from trainer.catalogue import Catalogue
from trainer.drift import DriftDetector
from trainer.export import TowerTemplate
from trainer.gatekeeper import Gatekeeper
from trainer.learner import Learner
from trainer.meters import Meters
from trainer.progress import Progress
from trainer.publish import Boundaries, EvenSample, Learned, next_version, sampling_seed, snapshot_of, versions_on_disk

DRIFT_AT = 100  # drift is looked for in recall@100: at 20 there are too few hits to see it soon


def learns_from(model: str, arms: Sequence[str], learn_from: LearnFrom, of: Mapping[str, Arm]) -> npt.NDArray[np.bool_]:
    """Which examples a model learns from, by the arm that showed each; (B,).

    "pooled": all. "diverted": those of the arms that the model itself serves; an arm that the settings do not know is
    another experiment's, so nobody's own. "own": these and those outside any experiment.

    >>> arms = {"a": Arm(weight=1, model="t2diff"), "b": Arm(weight=1, model="two_tower")}
    >>> learns_from("t2diff", ["", "a", "b", "z"], "own", arms).tolist()
    [True, True, False, False]
    >>> learns_from("t2diff", ["", "a", "b", "z"], "diverted", arms).tolist()
    [False, True, False, False]
    >>> learns_from("t2diff", ["", "a", "b", "z"], "pooled", arms).tolist()
    [True, True, True, True]
    """
    if learn_from == "pooled":
        return np.ones(len(arms), bool)
    served = {arm for arm, of_arm in of.items() if of_arm.model == model}
    if learn_from == "own":
        served.add("")
    return np.array([arm in served for arm in arms], bool)


def choose_device(wanted: str) -> torch.device:
    """The device that settings ask for; "auto" is CUDA where there is some."""
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(wanted)


class Pupil:
    """A learner and what is told about it: what it learned from, how well it foresaw, its next version."""

    def __init__(self, name: str, settings: Settings, device: torch.device) -> None:
        model = settings.trainer.model
        self._seed = settings.seed
        self.learner = Learner(name, model, settings.seed, device)
        self.template = TowerTemplate(self.learner.model.encoder, model.dim, model.window)
        self.progress = Progress()
        self.drift = DriftDetector()
        self.gate = Gatekeeper(settings.trainer.gate, model.window, settings.seed, device)
        self._seat_live(settings)
        self.shares: Counter[str] = Counter()
        self.arrivals = EvenSample()
        self.number(next_version(versions_on_disk(settings.snapshots, name)))

    def number(self, version: int) -> None:
        """Give the coming snapshot its number, and with it the sampling noise that tests are made with."""
        self.version = version
        self.learner.sampling_seed = sampling_seed(self._seed, version)

    def _seat_live(self, settings: Settings) -> None:
        """What is live must not give way to a worse one, even if nothing else is left of the trainer that made it."""
        version = live(settings.snapshots, self.learner.name)
        if version is not None:
            with contextlib.suppress(SnapshotError):  # replicas refuse a damaged one, too: any other is better
                self.gate.seat(read(settings.snapshots, self.learner.name, version))


class Engine:
    """Tests and teaches all models on one stream of examples."""

    def __init__(self, settings: Settings, meters: Meters) -> None:
        self._settings = settings
        self._meters = meters
        self._catalogue = Catalogue()
        device = choose_device(settings.trainer.device)
        self.pupils = [Pupil(name, settings, device) for name in settings.trainer.models]
        self._boundaries = Boundaries(settings.trainer.publish_every_ms)
        self._batch: list[Example] = []
        self._offsets: dict[str, int] = {}  # of what has been taken
        self._learned_offsets: dict[str, int] = {}
        self._event_time_ms = 0

    def add_item(self, item: Item) -> None:
        """Add an item to the catalogue, or replace its categories."""
        self._catalogue.put(item.item_id, item.category_ids)

    def take(self, example: Example, partition: str, offset: int) -> list[Snapshot]:
        """Take the next example, which lies at `offset` of `partition` ("topic:number").

        Returns the snapshots that are due before it, one a model, mostly none. Those that the gate rejected are among
        them, and say so in their manifest.

        Raises:
            CatalogueTooLargeError: the catalogue has outgrown the full softmax.

        """
        snapshots: list[Snapshot] = []
        if self._boundaries.crossed(example.time_ms):
            self._step()
            snapshots = [self._snapshot(pupil) for pupil in self.pupils]
        self._batch.append(example)
        self._offsets[partition] = offset + 1
        if len(self._batch) == self._settings.trainer.model.batch_size:
            self._step()
        return snapshots

    def _step(self) -> None:
        """Test what is waiting on every model, then let each learn from its share."""
        known = self._catalogue.rows(np.array([e.item_id for e in self._batch], np.int64)) >= 0
        examples = [e for e, is_known in zip(self._batch, known, strict=True) if is_known]
        self._meters.skipped.inc(len(self._batch) - len(examples))
        self._meters.items.set(len(self._catalogue))
        if examples:
            batch = encode(examples, self._catalogue, self._settings.trainer.model.window)
            for pupil in self.pupils:
                with self._meters.train_seconds.labels(pupil.learner.name).time():
                    self._teach(pupil, batch, examples)
                self._meters.show(pupil.learner.name, pupil.progress, pupil.drift)
            self._meters.examples.inc(len(examples))
            self._event_time_ms = max(self._event_time_ms, *(e.time_ms for e in examples))
        self._batch = []
        self._learned_offsets = dict(self._offsets)

    def _teach(self, pupil: Pupil, batch: Batch, examples: Sequence[Example]) -> None:
        learner = pupil.learner
        learner.follow(self._catalogue)
        foresight = learner.evaluate(batch)
        pupil.progress.add(foresight, batch.arms, learner.learned(batch.targets))
        self._meters.count_drifts(learner.name, pupil.drift.add(foresight.ranks <= DRIFT_AT))
        pupil.gate.watch(examples, batch, foresight, self._catalogue)
        own = learns_from(learner.name, batch.arms, self._settings.trainer.learn_from, self._settings.experiment.arms)
        if not own.any():
            return
        share = batch.only(own)
        if not learner.learn(share):
            self._meters.nan_steps.labels(learner.name).inc()
            return
        self._meters.learned.labels(learner.name).inc(len(share))
        pupil.shares.update(share.arms)
        for example, is_own in zip(examples, own, strict=True):
            if is_own:
                pupil.arrivals.offer(example.sent_at_ms)

    def _snapshot(self, pupil: Pupil) -> Snapshot:
        learner = pupil.learner
        learner.follow(self._catalogue)
        learned = Learned(pupil.shares, self._learned_offsets, self._event_time_ms, pupil.arrivals.take())
        snapshot = snapshot_of(learner, self._catalogue, pupil.template, pupil.progress, learned, pupil.version)
        verdict = pupil.gate.judge(snapshot, learner, self._catalogue)
        self._meters.show_verdict(learner.name, verdict)
        if not verdict.passed:  # what it would have served is still to be served
            for sent_at_ms in learned.sent_at_ms:
                pupil.arrivals.offer(sent_at_ms)
        pupil.number(pupil.version + 1)
        policy = self._settings.trainer.learn_from
        return replace(snapshot, manifest=replace(snapshot.manifest, learn_from=policy, gate=verdict.figures()))
