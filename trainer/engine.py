"""The trainer without Kafka and without files: items and examples in, snapshots out.

Every decision depends on the records and their order alone: batches are cut by count, publications by event time or by
count. What it has learned is its state, with the offsets that the state includes: a trainer that is restored and given
the records from these offsets on comes to the same weights as one that was never stopped, bit for bit on the CPU.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import structlog
import torch

from contracts.config.settings import Arm, LearnFrom, Settings
from contracts.features import Floats
from contracts.messages.attribution import is_late
from contracts.snapshots.delta import Delta
from contracts.snapshots.snapshot import Snapshot
from contracts.wire.events_pb2 import Example, Exposure
from trainer.data.batches import Batch, encode
from trainer.data.catalogue import Announced, Catalogue
from trainer.distributed.ranks import ALONE, Ranks
from trainer.learn.arm_propensity import ArmPropensity
from trainer.learn.objective import Objective
from trainer.meters import Meters
from trainer.model_line import Ended, ModelLine, Reached
from trainer.publish.snapshots import Boundaries

log = structlog.get_logger()

Publication: TypeAlias = Snapshot | Delta
Move: TypeAlias = Publication | Ended  # of what is served

EXPIRY_BEATS = 64  # searches for idle items in the time after which an item is idle


def learns_from(
    model: str, arms: Sequence[str], learn_from: LearnFrom, definitions: Mapping[str, Arm]
) -> npt.NDArray[np.bool_]:
    """Which examples a model learns from, by the arm that showed each; (B,).

    "pooled": all. "diverted": those of the arms that the model itself serves; an arm that the settings do not know is
    another experiment's, so nobody's own. "own": these and those outside any experiment. "weighted": those of all arms
    that the settings know, and those outside, whatever each may weigh.

    >>> arms = {"a": Arm(weight=1, model="t2diff"), "b": Arm(weight=1, model="two_tower")}
    >>> learns_from("t2diff", ["", "a", "b", "z"], "own", arms).tolist()
    [True, True, False, False]
    >>> learns_from("t2diff", ["", "a", "b", "z"], "diverted", arms).tolist()
    [False, True, False, False]
    >>> learns_from("t2diff", ["", "a", "b", "z"], "pooled", arms).tolist()
    [True, True, True, True]
    >>> learns_from("t2diff", ["", "a", "b", "z"], "weighted", arms).tolist()
    [True, True, True, False]
    """
    if learn_from == "pooled":
        return np.ones(len(arms), bool)
    served = {arm for arm, definition in definitions.items() if learn_from == "weighted" or model in definition.models}
    if learn_from != "diverted":
        served.add("")
    return np.array([arm in served for arm in arms], bool)


def neutral_to(model: str, arms: Sequence[str], definitions: Mapping[str, Arm]) -> npt.NDArray[np.bool_]:
    """By which examples the gate may judge a model, by the arm that showed each; (B,).

    In the arms that a model serves it is its live snapshot that chose what could be watched. Where no arm is another
    model's, there is nothing else to judge by.

    >>> arms = {"a": Arm(weight=1, model="t2diff"), "b": Arm(weight=1, model="two_tower")}
    >>> neutral_to("t2diff", ["", "a", "b"], arms).tolist()
    [True, False, True]
    >>> neutral_to("t2diff", ["", "a", "c"], {"a": arms["a"], "c": arms["a"]}).tolist()
    [True, True, True]
    """
    own = {arm for arm, definition in definitions.items() if model in definition.models}
    if len(own) == len(definitions):
        return np.ones(len(arms), bool)
    return np.array([arm not in own for arm in arms], bool)


def choose_device(wanted: str) -> torch.device:
    """The device that settings ask for; "auto" is CUDA where there is some."""
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(wanted)


class Engine:
    """Tests and teaches all models on one stream of examples."""

    def __init__(self, settings: Settings, meters: Meters, ranks: Ranks = ALONE) -> None:
        self._settings = settings
        self._meters = meters
        self._catalogue = Catalogue()
        device = choose_device(settings.trainer.device)
        self._names = settings.trainer.models
        self.lines = [ModelLine(name, settings, device, meters, ranks) for name in self._names]
        arms = settings.experiment.arms
        weigh = settings.trainer.models if settings.trainer.learn_from == "weighted" else ()
        self._propensities: dict[str, ArmPropensity] = {name: ArmPropensity(name, arms) for name in weigh}
        self._objective = Objective(settings.trainer.objective)
        self._boundaries = Boundaries(settings.trainer.publish_every_ms)
        self._batch: list[Example] = []
        self._batch_size = settings.trainer.model.batch_size
        self._offsets: dict[str, int] = {}  # of the examples that have been taken
        self._learned_offsets: dict[str, int] = {}
        self._item_offsets: dict[str, int] = {}
        self._exposure_offsets: dict[str, int] = {}
        self._newest_exposure_ms: dict[str, int] = {}  # of each partition
        self._event_time_ms = 0
        self.tested = 0  # examples, since the beginning

    @property
    def offsets(self) -> dict[str, int]:
        """The first offset of each "topic:partition" that the state does not include, as it includes whole batches."""
        return self._learned_offsets | self._item_offsets | self._exposure_offsets

    def state(self) -> dict[str, Any]:
        """All that has been learned, with its offsets; see the top."""
        return {
            "catalogue": self._catalogue.state(),
            "pupils": {line.name: line.state() for line in self.lines},  # checkpoints have them under this name
            "propensities": {name: each.state() for name, each in self._propensities.items()},
            "objective": self._objective.state(),
            "boundaries": self._boundaries.state(),
            "learned_offsets": dict(self._learned_offsets),
            "item_offsets": dict(self._item_offsets),
            "exposure_offsets": dict(self._exposure_offsets),
            "newest_exposure_ms": dict(self._newest_exposure_ms),
            "event_time_ms": self._event_time_ms,
            "tested": self.tested,
        }

    def restore(self, state: dict[str, Any]) -> list[str]:
        """Go on from a state; the next records are those from `offsets` on.

        A model that the state does not have begins with these records, and one that the settings no longer have is let
        go: neither changes what the others have learned.

        Returns:
            The names of models that were let go.

        """
        self._catalogue.restore(state["catalogue"])
        kept = state["pupils"]
        for line in self.lines:
            if line.name in kept:
                line.restore(kept[line.name], self._catalogue)
        for name, propensity in self._propensities.items():
            if name in state["propensities"]:
                propensity.restore(state["propensities"][name])
        begun, gone = [line.name for line in self.lines if line.name not in kept], sorted(kept.keys() - {*self._names})
        if begun or gone:
            log.warning("other models than in the checkpoint", begin_anew=begun, let_go=gone)
        self._objective.restore(state["objective"])
        self._boundaries.restore(state["boundaries"])
        self._learned_offsets = dict(state["learned_offsets"])
        self._offsets = dict(self._learned_offsets)
        self._item_offsets = dict(state["item_offsets"])
        self._exposure_offsets = dict(state["exposure_offsets"])
        self._newest_exposure_ms = dict(state["newest_exposure_ms"])
        self._event_time_ms = state["event_time_ms"]
        self.tested = state["tested"]
        self._meters.tested.set(self.tested)
        return gone

    def begin(self, offsets: Mapping[str, int]) -> None:
        """Begin at these offsets ("topic:partition") instead of at the first records."""
        self._offsets = dict(offsets)
        self._learned_offsets = dict(offsets)

    def knows(self, item_id: int) -> bool:
        """Whether an item is in the catalogue."""
        return item_id in self._catalogue

    def take_item(self, announced: Announced, time_ms: int, partition: str, offset: int) -> None:
        """Add an item to the catalogue, replace its categories, or remove it.

        Args:
            announced: the record.
            time_ms: event time of the announcement.
            partition: "topic:number" where the record lies.
            offset: its place there.

        """
        if announced.item is None:
            self._catalogue.remove(announced.item_id)
        else:
            self._catalogue.put(announced.item_id, announced.item.category_ids, time_ms)
        self._item_offsets[partition] = offset + 1

    def take_exposure(self, exposure: Exposure, partition: str, offset: int) -> None:
        """Take what was shown: it counts in the trial of the snapshot that answered, if there is one.

        Args:
            exposure: as `decode_exposure` lets it pass.
            partition: "topic:number" where the record lies.
            offset: its place there.

        """
        newest_ms = self._newest_exposure_ms.get(partition, 0)
        self._exposure_offsets[partition] = offset + 1
        self._newest_exposure_ms[partition] = max(newest_ms, exposure.time_ms)
        if is_late(exposure.time_ms, newest_ms, self._settings.stream.allowed_lateness_ms):
            return
        experiment = self._settings.experiment
        arm = experiment.arms.get(exposure.arm or experiment.control)
        for line in self.lines:
            # Where the control's model stands in for another arm's, the users of that arm are no sample of its own.
            if arm is not None and line.name == exposure.model == arm.model:
                line.show(exposure)

    def take(self, example: Example, partition: str, offset: int) -> list[Move]:
        """Take the next example, which lies at `offset` of `partition` ("topic:number").

        Returns the snapshots and deltas that are due, one a model, mostly none, after the trials that have ended.
        Snapshots that the gate rejected are among them, and say so in their manifest.

        Raises:
            CatalogueTooLargeError: the catalogue has outgrown the full softmax.

        """
        moves: list[Move] = []
        if self._boundaries.crossed(example.time_ms):
            moves += self._step()
            moves += self._snapshots(self.lines)
        self._batch.append(example)
        self._offsets[partition] = offset + 1
        if len(self._batch) == self._batch_size:
            moves += self._step()
            moves += self._due_by_count()
        return moves

    def forget(self, user_id: int, partition: str, offset: int) -> None:
        """Let go of all that is a user's, the examples that wait for a batch among it.

        Args:
            user_id: whose.
            partition: "topic:number" where the request lies.
            offset: its place there.

        """
        self._batch = [example for example in self._batch if example.user_id != user_id]
        for line in self.lines:
            line.forget(user_id)
        self._offsets[partition] = offset + 1
        if not self._batch:
            self._learned_offsets = dict(self._offsets)

    def snapshots(self, model: str | None = None) -> list[Move]:
        """What has been learned up to now: a snapshot of each model, or of one, that has learned since its last.

        Before it, as in `take`, comes the end of the trial of the one before.
        """
        return self._snapshots([p for p in self.lines if p.unpublished and model in (None, p.name)])

    def deltas(self) -> list[Publication]:
        """What has moved since the last publication, one delta of each model that has learned since."""
        changes = (line.delta(self._catalogue, self._reached()) for line in self.lines if line.unsent)
        return [delta for delta in changes if delta is not None]

    def renumber(self, snapshot: Snapshot) -> Snapshot:
        """The same snapshot under the next version that is free on the disk."""
        return self._line(snapshot.manifest.model).renumber(snapshot)

    def not_served(self, model: str) -> None:
        """Note that replicas do not serve what was published last of a model."""
        self._line(model).not_served()

    def _due_by_count(self) -> Sequence[Move]:
        settings = self._settings.trainer
        full = settings.publish_every_examples
        if full is not None and any(line.unpublished >= full for line in self.lines):
            return self._snapshots(self.lines)
        part = settings.deltas_every_examples
        if part is not None and any(line.unsent >= part for line in self.lines):
            return self.deltas()
        return []

    def _snapshots(self, lines: Sequence[ModelLine]) -> list[Move]:
        moves: list[Move] = []
        for line in lines:
            ended = line.trial_ended(next_is_due=True)
            moves += [ended] if ended is not None else []
            moves.append(line.snapshot(self._catalogue, self._reached()))
        return moves

    def _reached(self) -> Reached:
        return Reached(self._learned_offsets, self._event_time_ms)

    def _line(self, model: str) -> ModelLine:
        (wanted,) = (line for line in self.lines if line.name == model)
        return wanted

    def _step(self) -> list[Ended]:
        """Test what is waiting on every model, then let each learn from its share; the trials that end with it."""
        in_catalogue = self._catalogue.rows(np.array([e.item_id for e in self._batch], np.int64)) >= 0
        examples = [e for e, is_known in zip(self._batch, in_catalogue, strict=True) if is_known]
        self._meters.skipped.inc(len(self._batch) - len(examples))
        self._meters.items.set(len(self._catalogue))
        if examples:
            self._learn(examples)
            self._meters.examples.inc(len(examples))
            self.tested += len(examples)
            self._meters.tested.set(self.tested)
            self._event_time_ms = max(self._event_time_ms, *(e.time_ms for e in examples))
            item_ids = np.array([e.item_id for e in examples], np.int64)
            self._catalogue.touch(self._catalogue.rows(item_ids), np.array([e.time_ms for e in examples], np.int64))
            self._expire()
        for line in self.lines:
            self._meters.event_time.labels(line.name).set(self._event_time_ms / 1000)
            for example in self._batch:
                line.view(example)
        self._batch = []
        self._learned_offsets = dict(self._offsets)
        return [ended for line in self.lines if (ended := line.trial_ended()) is not None]

    def _learn(self, examples: list[Example]) -> None:
        """Test and teach all models; the items of these examples are in the catalogue."""
        batch = encode(examples, self._catalogue, self._settings.trainer.model.window)
        self._teach(examples, batch, self._objective.weigh(examples))

    def _teach(self, examples: Sequence[Example], batch: Batch, wanted: Floats) -> None:
        """Test every model on a batch, then let it learn from its share; `wanted` (B,) is by the objective."""
        policy, arms = self._settings.trainer.learn_from, self._settings.experiment.arms
        for line in self.lines:
            with self._meters.train_seconds.labels(line.name).time():
                foresight = line.foresee(examples, batch, self._catalogue, neutral_to(line.name, batch.arms, arms))
                weights = learns_from(line.name, batch.arms, policy, arms).astype(np.float32)
                if policy == "weighted":
                    item_ids = np.array([e.item_id for e in examples], np.int64)
                    weights = self._propensities[line.name].weigh(batch.arms, item_ids, foresight.ranks)
                line.learn(examples, batch, weights * wanted, self._catalogue)

    def _expire(self) -> None:
        lifetime_ms = self._settings.trainer.vocabulary.expire_after_ms
        if lifetime_ms is not None:
            beat_ms = max(lifetime_ms // EXPIRY_BEATS, 1)  # so that the catalogue is not searched at every step
            expired = self._catalogue.expire(self._event_time_ms // beat_ms * beat_ms - lifetime_ms)
            self._meters.expired.inc(expired)
