"""The trainer without Kafka and without files: items and examples in, snapshots out.

Every decision depends on the examples and their order alone: batches are cut by count, publications by event time.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch

from contracts.settings import Arm, Settings
from contracts.snapshot import Snapshot
from contracts.wire.events_pb2 import Example, Item
from trainer.batches import Batch, encode
from trainer.catalogue import Catalogue
from trainer.export import TowerTemplate
from trainer.learner import Learner
from trainer.meters import Meters
from trainer.progress import Progress
from trainer.publish import Boundaries, EvenSample, Learned, next_version, sampling_seed, snapshot_of, versions_on_disk

EXPIRY_BEATS = 64  # searches for idle items in the time after which an item is idle


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
        self.learner = Learner(name, settings.trainer, settings.seed, device)
        self.template = TowerTemplate(self.learner.model.encoder, model.dim, model.window)
        self.progress = Progress()
        self.shares: Counter[str] = Counter()
        self.arrivals = EvenSample()
        self.number(next_version(versions_on_disk(settings.snapshots, name)))

    def number(self, version: int) -> None:
        """Give the coming snapshot its number, and with it the sampling noise that tests are made with."""
        self.version = version
        self.learner.sampling_seed = sampling_seed(self._seed, version)


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

    def add_item(self, item: Item, time_ms: int) -> None:
        """Add an item that was announced at an event time to the catalogue, or replace its categories."""
        self._catalogue.put(item.item_id, item.category_ids, time_ms)

    def remove_item(self, item_id: int) -> None:
        """Remove an item from the catalogue, if it is there."""
        self._catalogue.remove(item_id)

    def take(self, example: Example, partition: str, offset: int) -> list[Snapshot]:
        """Take the next example, which lies at `offset` of `partition` ("topic:number").

        Returns the snapshots that are due before it, one a model, mostly none.

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
                self._meters.show(pupil.learner.name, pupil.progress)
            self._meters.examples.inc(len(examples))
            self._event_time_ms = max(self._event_time_ms, *(e.time_ms for e in examples))
            self._catalogue.touch(batch.targets, np.array([e.time_ms for e in examples], np.int64))
            self._expire()
        self._batch = []
        self._learned_offsets = dict(self._offsets)

    def _expire(self) -> None:
        lifetime_ms = self._settings.trainer.vocabulary.expire_after_ms
        if lifetime_ms is not None:
            beat_ms = max(lifetime_ms // EXPIRY_BEATS, 1)  # so that the catalogue is not searched at every step
            expired = self._catalogue.expire(self._event_time_ms // beat_ms * beat_ms - lifetime_ms)
            self._meters.expired.inc(expired)

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
        return snapshot
