"""The trainer without Kafka and without files: items and examples in, snapshots out.

Every decision depends on the records and their order alone: batches are cut by count, publications by event time or by
count. What it has learned is its state, with the offsets that the state includes: a trainer that is restored and given
the records from these offsets on comes to the same weights as one that was never stopped, bit for bit on the CPU.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from contracts.settings import Arm, Settings
from contracts.snapshot import Snapshot, version_name
from contracts.wire.events_pb2 import Example, Item
from trainer.batches import Batch, encode
from trainer.catalogue import Catalogue
from trainer.export import TowerTemplate
from trainer.learner import Learner
from trainer.meters import Meters
from trainer.progress import Progress
from trainer.publish import Boundaries, EvenSample, Learned, next_version, sampling_seed, snapshot_of, versions_on_disk


def learns_from(model: str, arms: Sequence[str], learn_from: str, of: Mapping[str, Arm]) -> npt.NDArray[np.bool_]:
    """Which examples a model learns from, by the arm that showed each; (B,).

    "pooled": all. "own": those outside any experiment, and those of the arms that the model itself serves; an arm
    that the settings do not know is another experiment's, so nobody's own.

    >>> arms = {"a": Arm(weight=1, model="t2diff"), "b": Arm(weight=1, model="two_tower")}
    >>> learns_from("t2diff", ["", "a", "b", "z"], "own", arms).tolist()
    [True, True, False, False]
    """
    if learn_from == "pooled":
        return np.ones(len(arms), bool)
    return np.array([not arm or (arm in of and of[arm].model == model) for arm in arms], bool)


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
            "shares": dict(self.shares),
            "arrivals": self.arrivals.state(),
            "version": self.version,
            "unpublished": self.unpublished,
        }

    def restore(self, state: dict[str, Any], catalogue: Catalogue) -> None:
        """Go on from a state."""
        self.learner.restore(state["learner"], catalogue)
        self.progress.restore(state["progress"])
        self.shares = Counter(state["shares"])
        self.arrivals.restore(state["arrivals"])
        self.number(state["version"])
        self.unpublished = state["unpublished"]


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

        Returns the snapshots that are due, one a model, mostly none.

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
                self._meters.show(pupil.learner.name, pupil.progress)
            self._meters.examples.inc(len(examples))
            self.tested += len(examples)
            self._event_time_ms = max(self._event_time_ms, *(e.time_ms for e in examples))
        self._batch = []
        self._learned_offsets = dict(self._offsets)

    def _teach(self, pupil: Pupil, batch: Batch, examples: Sequence[Example]) -> None:
        learner = pupil.learner
        learner.follow(self._catalogue)
        pupil.progress.add(learner.evaluate(batch), batch.arms)
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
        pupil.number(pupil.version + 1)
        pupil.unpublished = 0
        return snapshot
