"""A week: users come, are answered, respond; what they did is joined, and learned from. In event time, without a clock.

Order: what happened up to a visit is joined before the visit is answered, so every user is answered with everything
that this user did before. Visits are answered in waves of at most ten minutes in which no user comes twice; examples
reach the learners in the order of event time, as the trainer's merge has them, up to the beginning of a wave.
"""

import heapq
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from abtest.assignment.assign import assign
from contracts.config.settings import Experiment, StreamSettings
from contracts.features import Ints
from contracts.kafka import bus
from contracts.runtime.clock import DAY_MS, MINUTE_MS
from contracts.wire.events_pb2 import Example, Exposure
from contracts.wire.recall_pb2 import RecallReply
from evaluation.lab.join import Join
from evaluation.lab.policy import Asked, Policy
from evaluation.lab.shown import Shown
from serving.answer import FeaturedRequest
from serving.exposures import AnsweredRequest, exposure_of
from world.base import Response, Visit, World, waves
from world.records import Announcement, Record, announcements, in_order_of_receipt, response_records

WAVE_MS = 10 * MINUTE_MS
REPLICA = "lab"

Retell: TypeAlias = Callable[[Example], Iterable[Example]]
Tap: TypeAlias = Callable[[Record | Exposure | Example | Announcement], None]


@dataclass
class Tally:
    """What came of the visits that one policy answered."""

    user_ids: Ints  # (U,) sorted: everybody who comes
    views: Ints  # (U, D) items shown, by day of the experiment
    effective: Ints  # (U, D) effective views among them
    shown: Shown  # what was shown, and what else came of it
    viewed_ms: dict[int, list[int]] = field(default_factory=dict)  # of items born in the experiment: effective views


def run_week(
    world: World,
    policies: Mapping[str, Policy],
    experiment: Experiment,
    stream: StreamSettings,
    *,
    progress: Callable[[float], None] = lambda _share: None,
    tap: Tap = lambda _event: None,
    retell: Retell = lambda example: (example,),
) -> dict[str, Tally]:
    """Simulate the warm-up and the experiment of a world that nobody has used before.

    Args:
        world: is used up: its users remember.
        policies: one that answers everybody, or one for each arm of the experiment, by the arm's name.
        experiment: assigns the users where there are several policies.
        stream: how events are joined.
        progress: is told the share of the visits that are answered.
        tap: is shown every record as it comes, and every announcement, exposure and example as policies are told of it.

        retell: what policies are told in the place of an example, for streams that go wrong.

    Raises:
        LabError: a policy has nothing to answer with.

    """
    return _Week(world, policies, experiment, stream, tap, retell).run(progress)


class _Week:
    """The state of a week under way."""

    def __init__(
        self,
        world: World,
        policies: Mapping[str, Policy],
        experiment: Experiment,
        stream: StreamSettings,
        tap: Tap,
        retell: Retell,
    ) -> None:
        self._world = world
        self._policies = policies
        self._experiment = experiment
        self._tap = tap
        self._retell = retell
        self._join = Join(stream)
        self._arrival = itertools.count()
        self._items = iter(announcements(world.catalogue, world.start_ms))
        self._next_item = next(self._items, None)
        self._future: list[tuple[int, int, Record]] = []  # heap of what users will have done: (time, arrival, record)
        # Heap of what no policy was told of: (time, whether an example, arrival, …). Exposures come first, as in the
        # trainer.
        self._untold: list[tuple[int, bool, int, Example | Exposure]] = []
        users = np.unique(np.array([visit.user_id for visit in world.visits()], np.int64))
        days = self._day(world.end_ms - 1) + 1
        shape = users.size, days
        self._tallies = {
            name: Tally(
                users, np.zeros(shape, np.int64), np.zeros(shape, np.int64), Shown.nothing(world.catalogue, users.size)
            )
            for name in policies
        }
        self._place = {user: at for at, user in enumerate(users.tolist())}
        born_ms = world.catalogue.born_ms
        late = () if born_ms is None else world.catalogue.item_ids[born_ms >= world.experiment_start_ms].tolist()
        self._born = frozenset(late)

    def run(self, progress: Callable[[float], None]) -> dict[str, Tally]:
        self._warm_up()
        visits = self._world.visits()
        answered = 0
        for wave in waves(visits, WAVE_MS):
            self._happen(wave[-1].time_ms)
            self._learn(wave[0].time_ms)
            self._answer(wave)
            self._join.forget()
            answered += len(wave)
            progress(answered / len(visits))
        self._happen(self._world.end_ms + DAY_MS)
        self._learn(self._world.end_ms + DAY_MS)
        return self._tallies

    def _warm_up(self) -> None:
        start_ms = self._world.experiment_start_ms
        for record in in_order_of_receipt(self._world.warmup(), simulated=self._world.simulated_log):
            if record.received_ms < start_ms:
                self._announce(record.received_ms)
                self._take(record)
                self._learn(record.received_ms)
            else:  # what the log's last visits go on to do is the experiment's present
                heapq.heappush(self._future, (record.received_ms, next(self._arrival), record))
        self._announce(start_ms)
        self._learn(start_ms)
        for policy in self._policies.values():
            policy.begin(start_ms)

    def _happen(self, until_ms: int) -> None:
        """Join what users do up to a moment."""
        while self._future and self._future[0][0] <= until_ms:
            at_ms, _, record = heapq.heappop(self._future)
            self._announce(at_ms)
            self._take(record)
        self._announce(until_ms)

    def _announce(self, until_ms: int) -> None:
        while self._next_item is not None and self._next_item.time_ms <= until_ms:
            self._tap(self._next_item)
            self._join.known_items.add(self._next_item.item.item_id)
            for policy in self._policies.values():
                policy.take_item(self._next_item.item, self._next_item.time_ms)
            self._next_item = next(self._items, None)

    def _take(self, record: Record) -> None:
        self._tap(record)
        example = self._join.take(record)
        if example is not None:
            heapq.heappush(self._untold, (example.time_ms, True, next(self._arrival), example))

    def _learn(self, until_ms: int) -> None:
        """Hand over exposures and examples up to a moment: none that belongs before one of them can still come."""
        while self._untold and self._untold[0][0] <= until_ms:
            *_, event = heapq.heappop(self._untold)
            self._tap(event)
            told = [*self._retell(event)] if isinstance(event, Example) else []
            for policy in self._policies.values():
                if isinstance(event, Exposure):
                    policy.show(event)
                for example in told:
                    policy.take(example)

    def _answer(self, wave: Sequence[Visit]) -> None:
        asked = [Asked(visit, self._featured(visit)) for visit in wave]
        replies = self._replies(asked)
        shown = [np.array([item.item_id for item in reply.items], np.int64) for reply in replies]
        for (visit, _), reply, response in zip(asked, replies, self._world.respond(wave, shown), strict=True):
            self._show(visit, reply, response)

    def _featured(self, visit: Visit) -> FeaturedRequest:
        return FeaturedRequest(visit.user_id, visit.time_ms, visit.k, self._join.row(visit.user_id))

    def _replies(self, asked: Sequence[Asked]) -> list[RecallReply]:
        by_policy: dict[str, list[int]] = {}
        for at, each in enumerate(asked):
            by_policy.setdefault(self._policy_of(each.visit), []).append(at)
        replies: dict[int, RecallReply] = {}
        for name, places in by_policy.items():
            replies.update(zip(places, self._policies[name].answer([asked[at] for at in places]), strict=True))
        return [replies[at] for at in range(len(asked))]

    def _policy_of(self, visit: Visit) -> str:
        if len(self._policies) == 1:
            return next(iter(self._policies))
        return str(assign(self._experiment, visit.user_id, visit.time_ms).arm)

    def _show(self, visit: Visit, reply: RecallReply, response: Response) -> None:
        if reply.items:  # a reply without items shows nothing
            exposure = exposure_of(AnsweredRequest(visit.user_id, visit.time_ms, True, reply, 0.0), REPLICA)
            self._take(Record(bus.EXPOSURES, visit.user_id, visit.time_ms, exposure.SerializeToString()))
            heapq.heappush(self._untold, (exposure.time_ms, False, next(self._arrival), exposure))
        for record in response_records(visit, reply, response):
            heapq.heappush(self._future, (record.received_ms, next(self._arrival), record))
        tally = self._tallies[self._policy_of(visit)]
        place = self._place[visit.user_id], self._day(visit.time_ms)
        tally.views[place] += len(reply.items)
        tally.effective[place] += int(response.effective_view.sum())
        tally.shown.note(self._world.catalogue, place[0], [item.item_id for item in reply.items], response)
        for item, at_ms, viewed in zip(reply.items, response.start_ms, response.effective_view, strict=True):
            if viewed and item.item_id in self._born:
                tally.viewed_ms.setdefault(item.item_id, []).append(int(at_ms))

    def _day(self, time_ms: int) -> int:
        offset_ms = self._world.day_offset_ms
        return (time_ms + offset_ms) // DAY_MS - (self._world.experiment_start_ms + offset_ms) // DAY_MS
