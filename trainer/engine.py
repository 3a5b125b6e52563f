"""The trainer without Kafka and without files: items and examples in, snapshots out.

Every decision depends on the records and their order alone: batches are cut by count, publications by event time or by
count. What it has learned is its state, with the offsets that the state includes: a trainer that is restored and given
the records from these offsets on comes to the same weights as one that was never stopped, bit for bit on the CPU.
"""

import contextlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from contracts import delta
from contracts.settings import Arm, LearnFrom, Settings
from contracts.snapshot import Snapshot, SnapshotError, live, version_name
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
        self.unpublished = 0  # learned from since the last snapshot

    def number(self, version: int) -> None:
        """Give the coming snapshot its number, and with it the sampling noise that tests are made with."""
        self.version = version
        self.learner.sampling_seed = sampling_seed(self._seed, version)

    def state(self) -> dict[str, Any]:
        """All of it, for a checkpoint."""
        return {
            "learner": self.learner.state(),
            "progress": self.progress.state(),
            "drift": self.drift.state(),
            "gate": self.gate.state(),
            "shares": dict(self.shares),
            "arrivals": self.arrivals.state(),
            "version": self.version,
            "unpublished": self.unpublished,
        }

    def restore(self, state: dict[str, Any], catalogue: Catalogue) -> None:
        """Go on from a state."""
        self.learner.restore(state["learner"], catalogue)
        self.progress.restore(state["progress"])
        self.drift.restore(state["drift"])
        self.gate.restore(state["gate"])
        self.shares = Counter(state["shares"])
        self.arrivals.restore(state["arrivals"])
        self.number(state["version"])
        self.unpublished = state["unpublished"]

    def _seat_live(self, settings: Settings) -> None:
        """What is live must not give way to a worse one, even if nothing else is left of the trainer that made it."""
        version = live(settings.snapshots, self.learner.name)
        if version is not None:
            with contextlib.suppress(SnapshotError):  # replicas refuse a damaged one, too: any other is better
                self.gate.seat(delta.read(settings.snapshots, self.learner.name, version))


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
        self._offsets: dict[str, int] = {}  # of the examples that have been taken
        self._learned_offsets: dict[str, int] = {}
        self._item_offsets: dict[str, int] = {}
        self._event_time_ms = 0
        self.tested = 0  # examples, since the beginning

    @property
    def offsets(self) -> dict[str, int]:
        """The first offset of each "topic:partition" that the state does not include, as it includes whole batches."""
        return self._learned_offsets | self._item_offsets

    def state(self) -> dict[str, Any]:
        """All that has been learned, with its offsets; see the top."""
        return {
            "catalogue": self._catalogue.state(),
            "pupils": {pupil.learner.name: pupil.state() for pupil in self.pupils},
            "boundaries": self._boundaries.state(),
            "learned_offsets": dict(self._learned_offsets),
            "item_offsets": dict(self._item_offsets),
            "event_time_ms": self._event_time_ms,
            "tested": self.tested,
            "randomness": torch.get_rng_state(),  # dropout draws from it
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state; the next records are those from `offsets` on."""
        self._catalogue.restore(state["catalogue"])
        for pupil in self.pupils:
            pupil.restore(state["pupils"][pupil.learner.name], self._catalogue)
        self._boundaries.restore(state["boundaries"])
        self._learned_offsets = dict(state["learned_offsets"])
        self._offsets = dict(self._learned_offsets)
        self._item_offsets = dict(state["item_offsets"])
        self._event_time_ms = state["event_time_ms"]
        self.tested = state["tested"]
        torch.set_rng_state(state["randomness"])

    def begin(self, offsets: Mapping[str, int]) -> None:
        """Begin at these offsets ("topic:partition") instead of at the first records."""
        self._offsets = dict(offsets)
        self._learned_offsets = dict(offsets)

    def knows(self, item_id: int) -> bool:
        """Whether an item is in the catalogue."""
        return item_id in self._catalogue

    def add_item(self, item: Item, partition: str, offset: int) -> None:
        """Add an item to the catalogue, or replace its categories; its record lies at `offset` of `partition`."""
        self._catalogue.put(item.item_id, item.category_ids)
        self._item_offsets[partition] = offset + 1

    def take(self, example: Example, partition: str, offset: int) -> list[Snapshot]:
        """Take the next example, which lies at `offset` of `partition` ("topic:number").

        Returns the snapshots that are due, one a model, mostly none. Those that the gate rejected are among them, and
        say so in their manifest.

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
            every = self._settings.trainer.publish_every_examples
            if every is not None and any(pupil.unpublished >= every for pupil in self.pupils):
                snapshots += [self._snapshot(pupil) for pupil in self.pupils]
        return snapshots

    def snapshots(self) -> list[Snapshot]:
        """What has been learned up to now, one snapshot of each model that has learned since its last one."""
        return [self._snapshot(pupil) for pupil in self.pupils if pupil.unpublished]

    def renumber(self, snapshot: Snapshot) -> Snapshot:
        """The same snapshot under the next version that is free on the disk."""
        (pupil,) = (pupil for pupil in self.pupils if pupil.learner.name == snapshot.manifest.model)
        pupil.number(next_version(versions_on_disk(self._settings.snapshots, pupil.learner.name)))
        manifest = replace(
            snapshot.manifest, version=version_name(pupil.version), sampling_seed=pupil.learner.sampling_seed
        )
        pupil.number(pupil.version + 1)
        return replace(snapshot, manifest=manifest)

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
            self.tested += len(examples)
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
        pupil.unpublished += len(share)
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
        pupil.unpublished = 0
        policy = self._settings.trainer.learn_from
        return replace(snapshot, manifest=replace(snapshot.manifest, learn_from=policy, gate=verdict.figures()))
