"""Policies: what decides which items a user is shown. Each learns from the examples that it is given, or from none.

A learned policy is the trainer's engine and the answers of a replica: what the engine publishes and its gate passes is
what answers, from the moment at which it is published.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from abtest.assignment.assign import assign
from contracts.config.experiment import validated
from contracts.config.settings import Experiment, KafkaSettings, Settings, TrainerSettings
from contracts.features import Ints, rows_of
from contracts.snapshots.canary import trial_of
from contracts.snapshots.delta import Delta
from contracts.wire.events_pb2 import Example, Exposure, Item
from contracts.wire.recall_pb2 import Context, RecalledItem, RecallReply, RecallRequest
from serving.answer import FeaturedRequest, NoAnswer, answer
from serving.answerer import reply_to
from serving.model import LoadedModel, OnTrial
from trainer.data.catalogue import Announced
from trainer.engine import Engine, Move
from trainer.meters import Meters
from trainer.model_line import Ended
from world.base import Visit, World, WorldError

EXAMPLES, EXPOSURES, ITEMS = "examples:0", "exposures:0", "items:0"  # where an engine is told that its records lie


class LabError(WorldError):
    """A week that cannot be simulated; one sentence says why."""


class Published(NamedTuple):
    """A publication and what the gate said of it."""

    time_ms: int  # event time at which it fell due
    version: str
    passed: bool
    reason: str
    replaced: bool = False  # by the next one while it was on trial, so it never went live for all


class Asked(NamedTuple):
    """A visit's request, with what is known of its user."""

    visit: Visit
    featured: FeaturedRequest

    @property
    def request(self) -> RecallRequest:
        """As the demo's driver sends it."""
        visit = self.visit
        return RecallRequest(
            user_id=visit.user_id,
            k=visit.k,
            request_id=f"visit-{visit.index}",
            context=Context(time_ms=visit.time_ms, simulated=True),
        )


class Policy(Protocol):
    """What the week asks of a policy."""

    published: list[Published]

    def take_item(self, item: Item, time_ms: int) -> None:
        """An item was announced."""

    def take(self, example: Example) -> None:
        """An example was made, in the order of event time; of all users, whoever served them."""

    def show(self, exposure: Exposure) -> None:
        """A page was shown in the experiment, in the order of event time; whoever served it."""

    def begin(self, time_ms: int) -> None:
        """The warm-up is over."""

    def answer(self, asked: Sequence[Asked]) -> list[RecallReply]:
        """What each visit is shown.

        Raises:
            LabError: there is nothing to answer with.

        """


class Learned:
    """A model that learns by the trainer's rules and is served by a replica's."""

    def __init__(self, settings: Settings, *, frozen: bool = False) -> None:
        """Make an engine of one model.

        Args:
            settings: `trainer.models` names the model; `snapshots` is a folder in which no snapshot lies.
            frozen: neither learns nor publishes any more once the warm-up is over.

        """
        (self._name,) = settings.trainer.models
        self._experiment = settings.experiment
        self._engine = Engine(settings, Meters())
        self._served: dict[str, LoadedModel] = {}
        self._on_trial: dict[str, OnTrial] = {}
        self._frozen, self._begun = frozen, False
        self._now_ms = 0
        self._items = self._examples = self._exposures = 0
        self.published: list[Published] = []

    @property
    def learned(self) -> int:
        """Examples that it has learned from."""
        return sum(self._engine.lines[0].shares.values())

    def take_item(self, item: Item, time_ms: int) -> None:
        self._engine.take_item(Announced(item.item_id, item), time_ms, ITEMS, self._items)
        self._items += 1

    def take(self, example: Example) -> None:
        if self._frozen and self._begun:
            return
        self._now_ms = max(self._now_ms, example.time_ms)
        self._publish(self._engine.take(example, EXAMPLES, self._examples))
        self._examples += 1

    def show(self, exposure: Exposure) -> None:
        if not self._frozen:
            self._engine.take_exposure(exposure, EXPOSURES, self._exposures)
            self._exposures += 1

    def begin(self, time_ms: int) -> None:
        """What was learned by the start is published at the start, so that all models begin from the same data."""
        self._now_ms = max(self._now_ms, time_ms)
        self._publish(self._engine.snapshots())
        self._begun = True
        if not self._served:
            raise LabError(f"The warm-up gave {self._name} too little to learn from: it has nothing to serve.")

    def answer(self, asked: Sequence[Asked]) -> list[RecallReply]:
        featured = [each.featured for each in asked]
        answers = answer(self._experiment, self._served, featured, lambda _time_ms: None, self._on_trial)
        replies = []
        for each, answered in zip(asked, answers, strict=True):
            if isinstance(answered, NoAnswer):
                raise LabError(f"{self._name} cannot answer: {answered}.")
            replies.append(reply_to(each.request, answered))
        return replies

    def _publish(self, moves: Sequence[Move]) -> None:
        """As the trainer's publisher and a replica's swapper do it, without the disk between them."""
        for move in moves:
            manifest = move.manifest
            if isinstance(move, Ended):
                self._end(move)
                continue
            verdict = str(manifest.gate.get("reason", ""))
            self.published.append(Published(self._now_ms, manifest.version, not manifest.rejected, verdict))
            if manifest.rejected:
                continue
            trial = trial_of(manifest)
            if trial and not isinstance(move, Delta) and self._name in self._on_trial:
                replaced = self._on_trial[self._name].canary.version
                self.published = [
                    each._replace(replaced=True) if each.version == replaced else each for each in self.published
                ]
            if isinstance(move, Delta):
                before = self._on_trial[self._name].model if trial else self._served[self._name]
                loaded = before.updated([move])
            else:
                loaded = LoadedModel(move)
            if trial:
                self._on_trial[self._name] = OnTrial(loaded, trial)
            else:
                self._served[self._name] = loaded

    def _end(self, ended: Ended) -> None:
        """All get what was on trial, or nobody does; its publications are then among those that were held."""
        tried = self._on_trial.pop(self._name)
        if ended.promoted:
            self._served[self._name] = tried.model
        if not ended.promoted:
            self.published = [
                each._replace(passed=False, reason=ended.reason)
                if each.version.partition("+")[0] in ended.bases
                else each
                for each in self.published
            ]


class _Ranked:
    """A policy without a model: the best items by a score, of those that the user has not seen."""

    def __init__(self, experiment: Experiment) -> None:
        self._experiment = experiment
        self.published: list[Published] = []

    def take_item(self, item: Item, time_ms: int) -> None: ...
    def take(self, example: Example) -> None: ...
    def show(self, exposure: Exposure) -> None: ...
    def begin(self, time_ms: int) -> None: ...

    def _reply(self, asked: Asked, items: Sequence[int]) -> RecallReply:
        arm = assign(self._experiment, asked.visit.user_id, asked.visit.time_ms).arm or ""
        reply = RecallReply(request_id=asked.request.request_id, experiment=self._experiment.name, arm=arm)
        reply.items.extend(RecalledItem(item_id=item, source="lab") for item in items)
        return reply


class Popularity(_Ranked):
    """The items with the most effective views so far, the older id first where two have as many."""

    def __init__(self, experiment: Experiment) -> None:
        super().__init__(experiment)
        self._counts: dict[int, int] = {}

    def take_item(self, item: Item, time_ms: int) -> None:  # noqa: ARG002
        self._counts.setdefault(item.item_id, 0)

    def take(self, example: Example) -> None:
        self._counts[example.item_id] += 1

    def answer(self, asked: Sequence[Asked]) -> list[RecallReply]:
        best = sorted(self._counts, key=lambda item: (-self._counts[item], item))
        replies = []
        for each in asked:
            seen, wanted = each.featured.want.seen, each.visit.k
            fresh = (item for item in best if item not in seen)
            replies.append(self._reply(each, [item for item, _ in zip(fresh, range(wanted), strict=False)]))
        return replies


class Logging(_Ranked):
    """What the policy behind the world's log shows; it does not mind what a user has seen."""

    def __init__(self, experiment: Experiment, world: World) -> None:
        super().__init__(experiment)
        self._world = world

    def answer(self, asked: Sequence[Asked]) -> list[RecallReply]:
        pages = self._world.logged_choice([each.visit for each in asked])
        return [self._reply(each, page.tolist()) for each, page in zip(asked, pages, strict=True)]


class Omniscient(_Ranked):
    """Knows each visitor's affinity to each item at that moment, and shows the best; it does not plan ahead."""

    def __init__(self, experiment: Experiment, world: World) -> None:
        super().__init__(experiment)
        self._world = world

    def answer(self, asked: Sequence[Asked]) -> list[RecallReply]:
        affinities = self._world.affinities([each.visit for each in asked])
        if affinities is None:
            raise LabError(f"The world {self._world.name} does not know its users' affinities: leave out omniscient.")
        ids = self._world.catalogue.item_ids
        replies = []
        for each, scores in zip(asked, affinities, strict=True):
            seen = rows_of(np.fromiter(each.featured.want.seen, np.int64), ids)
            scores[seen[seen >= 0]] = -np.inf
            best: Ints = np.argsort(-scores, kind="stable")[: each.visit.k]
            replies.append(self._reply(each, ids[best[np.isfinite(scores[best])]].tolist()))
        return replies


def settings_of(trainer: TrainerSettings, model: str, experiment: Experiment, seed: int, empty: Path) -> Settings:
    """The settings of an engine of one model that finds no earlier snapshot; nothing is read or written but that.

    Raises:
        SettingsError: the settings do not go with the model.

    """
    content = {
        "kafka": KafkaSettings(bootstrap_servers="none:1"),
        "feature_repo": empty,
        "snapshots": empty,
        "state": empty,
        "seed": seed,
        "trainer": trainer.model_copy(update={"models": (model,)}),
        "experiment": experiment,
    }
    return validated(Settings, content, "laboratory")
