"""One log through both who join it: the stream learns from the same views as the experiment's collector counts."""

import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st
from kafka import TopicPartition
from prometheus_client import CollectorRegistry

from abtest.collect.records import IMPRESSIONS, NOT_SERVED, NOTHING_SHOWN, EventSums, Unused
from abtest.collect.rules import Rules
from abtest.collect.state import CollectorState, folded, live, merge
from abtest.collect.store import Saved
from abtest.collect.worker import Meters, close_settled, step
from contracts.config.settings import StreamSettings
from contracts.messages.events import BadEvent, decode_exposure, decode_feedback
from contracts.messages.ids import id_of_text
from contracts.messages.received import exposure_of, feedback_of
from contracts.runtime.clock import DAY_MS
from stream.join import Origin
from stream.outputs import Learned, Output, Rejected
from stream.state import MemoryState
from stream.step import on_exposure, on_feedback, on_time, watermark
from tests.abtest.abtest_cases import START, experiment, exposure, feedback, impression

WINDOW_MS, LATENESS_MS = 1000, 500
LIMITS = StreamSettings(
    session_gap_ms=100, attribution_window_ms=WINDOW_MS, allowed_lateness_ms=LATENESS_MS, history_limit=10_000
)
RULES = Rules(experiment(), LIMITS.session_gap_ms, WINDOW_MS, LATENESS_MS)
RECEIVED_MS = START + DAY_MS
PARTITIONS = 2
TOPICS = ("exposures", "feedback")
TEXTS = {id_of_text(text): text for text in ("anna", "film")}  # by their numbers, which may stand in their place
ANNA, FILM = TEXTS
USERS = (1, 2, 3, ANNA)
SHOWN = (1, 2, FILM)
CATALOGUE = {*range(1, 10), FILM}
REQUESTS = 5
APART_MS = 600  # of two requests
DELAYS_MS = st.lists(st.sampled_from((0, 0, 0, 100, 400, 900, 2000)), min_size=1, max_size=3)  # of an event's copies
AFTER_MS = st.sampled_from((-1, 0, 10, 100, 100, 400, 400, WINDOW_MS, WINDOW_MS + 1)) | st.integers(-300, 1500)
DECODING: dict[str, Any] = {
    "received_ms": RECEIVED_MS,
    "future_tolerance_ms": LIMITS.future_tolerance_ms,
    "max_bytes": LIMITS.max_event_bytes,
}


class Totals(NamedTuple):
    """One user's. `told`: items of requests that feedback tells of, be it by an impression."""

    told: int
    effective_views: int
    follows: int
    play_ms: int


class Known(NamedTuple):
    """What a reading of a log has found."""

    totals: dict[int, Totals]  # by user
    views: dict[int, int]  # items shown, by user
    pages: dict[tuple[str, str], set[int]]  # what a request had shown by then, by its id and the id of each view of it


class Sent(NamedTuple):
    """A record on its way to the log."""

    arrives_ms: int
    topic: str
    user_id: int
    value: bytes | None


@dataclass
class Record:
    value: bytes | None
    partition: int
    offset: int
    timestamp: int = RECEIVED_MS


Log = dict[tuple[str, int], list[Record]]  # by topic and partition


# Logs


def user_of(request: int) -> int:
    return USERS[request % len(USERS)]


@st.composite
def spelled(draw: st.DrawFn, message: Any) -> bytes:
    """A message with text ids in the place of their numbers, or beside them, or without."""
    kept = type(message).FromString(message.SerializeToString())
    for named in (kept, *getattr(kept, "items", ())):
        for number, text in (("user_id", "user_key"), ("item_id", "item_key")):
            if getattr(named, number, 0) in TEXTS and draw(st.booleans()):
                setattr(named, text, TEXTS[getattr(named, number)])
                if draw(st.booleans()):
                    named.ClearField(number)
    return bytes(kept.SerializeToString())


def log_of(sent: Sequence[Sent]) -> Log:
    log: Log = {(topic, partition): [] for topic in TOPICS for partition in range(PARTITIONS)}
    for record in sorted(sent, key=lambda each: each.arrives_ms):
        partition = record.user_id % PARTITIONS
        records = log[record.topic, partition]
        records.append(Record(record.value, partition, len(records)))
    return log


@st.composite
def requests_shown(draw: st.DrawFn) -> list[Sent]:
    """An exposure, once or more; one in some tells another time or items under its request id."""
    request = draw(st.integers(0, REQUESTS - 1))
    at_ms = START + APART_MS * request + draw(st.sampled_from((0, 0, 0, 5, WINDOW_MS)))
    items = draw(st.sampled_from((SHOWN, SHOWN, SHOWN[:2])))
    message = exposure(
        user_of(request),
        at=at_ms,
        request=str(request),
        items=[(item, "t2diff") for item in items],
        served_only=draw(st.booleans()),
    )
    arrives_ms = at_ms + draw(st.sampled_from((0, 0, 2500)))
    value = draw(spelled(message))
    return [Sent(arrives_ms + delay, "exposures", message.user_id, value) for delay in draw(DELAYS_MS)]


@st.composite
def feedback_given(draw: st.DrawFn) -> list[Sent]:
    """Feedback, once or more: in time, early, late, of a stranger, on no request, on another item; few event ids."""
    request = draw(st.integers(0, REQUESTS))  # one more than are shown
    at_ms = START + APART_MS * request + draw(AFTER_MS)
    item = draw(st.sampled_from((1, 1, 1, 2, FILM, 4, 99)))
    message = feedback(
        draw(st.sampled_from((user_of(request),) * 6 + (1, 2))),
        at_ms,
        str(request),
        item,
        draw(st.integers(0, 20)),
        draw(st.booleans()),
        draw(st.booleans()),
        event_id=f"f{draw(st.integers(0, 9))}",
    )
    value = draw(spelled(message))
    return [Sent(at_ms + delay, "feedback", message.user_id, value) for delay in draw(DELAYS_MS)]


@st.composite
def impressions_made(draw: st.DrawFn) -> list[Sent]:
    """Pages of what was shown, likewise; of the same event ids, some with items that the request does not have."""
    request = draw(st.integers(0, REQUESTS))
    at_ms = START + APART_MS * request + draw(AFTER_MS)
    message = impression(
        draw(st.lists(st.sampled_from((1, 1, 2, 3, 4, 99)), min_size=1, max_size=4)),
        draw(st.sampled_from((user_of(request),) * 6 + (1, 2))),
        at_ms,
        str(request),
        event_id=f"f{draw(st.integers(0, 9))}",
    )
    return [Sent(at_ms + delay, "feedback", message.user_id, message.SerializeToString()) for delay in draw(DELAYS_MS)]


@st.composite
def broken(draw: st.DrawFn, good: st.SearchStrategy[list[Sent]]) -> list[Sent]:
    """A record that cannot be read, or says what cannot be."""
    record = draw(good)[0]
    value = record.value or b""
    future = feedback(at=RECEIVED_MS + DAY_MS) if record.topic == "feedback" else exposure(at=RECEIVED_MS + DAY_MS)
    wrong = feedback(play_ms=-1) if record.topic == "feedback" else exposure(items=())
    mixed = [impression(item_id=1).SerializeToString()] if record.topic == "feedback" else []
    values = (None, b"junk", value[: len(value) // 2], future.SerializeToString(), wrong.SerializeToString(), *mixed)
    return [record._replace(value=draw(st.sampled_from(values)))]


@st.composite
def misplaced(draw: st.DrawFn, good: st.SearchStrategy[list[Sent]]) -> list[Sent]:
    """Records that lie where another user's do."""
    return [record._replace(user_id=record.user_id + 1) for record in draw(good)]


EVENTS = st.one_of(requests_shown(), feedback_given(), feedback_given(), impressions_made())
LOGS = st.lists(st.one_of(EVENTS, EVENTS, EVENTS, broken(EVENTS), misplaced(EVENTS)), min_size=10, max_size=60).map(
    lambda groups: log_of([record for group in groups for record in group])
)
ORDERS = st.randoms(use_true_random=False)


def interleaved(log: Log, chance: random.Random) -> Iterator[tuple[str, int, Record]]:
    """The records of all logs: each log in its order, the logs at any speed."""
    left = {name: list(reversed(records)) for name, records in log.items() if records}
    while left:
        name = chance.choice(sorted(left))
        for _ in range(min(chance.choice((1, 1, 5, 50)), len(left[name]))):
            yield *name, left[name].pop()
        if not left[name]:
            del left[name]


# Through both, and by a look at the whole log


def streamed(log: Log, chance: random.Random) -> tuple[dict[int, Totals], list[Output]]:
    """What the stream's steps have learned of each user, and all that they put out."""
    states = [MemoryState() for _ in range(PARTITIONS)]
    outputs: list[Output] = []
    for topic, partition, record in interleaved(log, chance):
        state, origin = states[partition], Origin(topic, partition, record.offset, None, record.value, RECEIVED_MS, 0)
        try:
            if topic == "exposures":
                outputs += on_exposure(state, exposure_of(record, LIMITS, PARTITIONS), origin, LIMITS)
            else:
                outputs += on_feedback(state, feedback_of(record, LIMITS, PARTITIONS), origin, LIMITS, CATALOGUE)
        except BadEvent as error:
            outputs.append(Rejected(origin, error))
        if chance.random() < 0.5:
            outputs += on_time(state, watermark(state, LIMITS), LIMITS)
    histories = {user_id: user.history for state in states for user_id, user in state.users.items()}
    totals = {
        user_id: Totals(len(h.item_ids), sum(h.effective_views), sum(h.follows), sum(h.play_times_ms))
        for user_id, h in histories.items()
    }
    return totals, outputs


def collected(log: Log, chance: random.Random) -> CollectorState:
    """What the collector makes of it, with requests folded on the way as its worker does."""
    saved, meters = Saved(CollectorState(RULES)), Meters(CollectorRegistry())
    for topic, partition, record in interleaved(log, chance):
        step(saved, TopicPartition(topic, partition), [record], topic == "exposures", LIMITS, PARTITIONS, meters)
        if chance.random() < 0.5:
            close_settled(saved, [f"{name}:{number}" for name, number in log])
    return saved.state


def of_stream(log: Log, chance: random.Random) -> Known:
    """What the stream has learned; how many items requests have shown, only their pages say."""
    totals, outputs = streamed(log, chance)
    made = [output.example for output in outputs if isinstance(output, Learned) and output.example is not None]
    pages = {(example.request_id, example.event_id): set(example.page.item_ids) for example in made}
    return Known(totals, by_hand(log).views, pages)


def of_collector(state: CollectorState, log: Log) -> Known:
    """What a collector has counted; it makes no pages."""
    sums = {
        user_id: reduce(EventSums.plus, user.days.values())
        for user_id, user in folded(state).users.items()
        if user.days
    }
    totals = {
        user_id: Totals(each.told, each.effective_views, each.follows, each.play_ms)
        for user_id, each in sums.items()
        if each.told  # the stream knows no others
    }
    return Known(totals, {user_id: each.views for user_id, each in sums.items()}, by_hand(log).pages)


def by_hand(log: Log) -> Known:
    """The rule once more, by a look at whole logs: nothing expires, and nothing is taken in event by event."""
    exposed: dict[str, Any] = {}
    for event in in_time(log, "exposures"):
        exposed.setdefault(event.request_id, event)
    counted: dict[tuple[str, str], Any] = {}
    for event in in_time(log, "feedback"):
        its = exposed.get(event.request_id)
        if (
            its is not None
            and its.user_id == event.user_id
            and told_by(event) & items_of(its)
            and its.time_ms <= event.time_ms <= its.time_ms + WINDOW_MS
        ):
            counted.setdefault((event.request_id, event.event_id), event)
    told: dict[str, set[int]] = defaultdict(set)
    outcomes: dict[int, dict[tuple[str, int], list[Any]]] = defaultdict(lambda: defaultdict(list))
    pages: dict[tuple[str, str], set[int]] = {}
    for (request_id, event_id), event in counted.items():
        its = exposed[request_id]
        told[request_id] |= told_by(event) & items_of(its)
        if not event.shown_item_ids:
            of_item = outcomes[event.user_id][request_id, event.item_id]
            if event.effective_view and not any(each.effective_view for each in of_item):
                pages[request_id, event_id] = set(told[request_id]) if its.served_only else items_of(its)
            of_item.append(event)
    by_user: dict[int, list[str]] = defaultdict(list)
    for request_id, its in exposed.items():
        by_user[its.user_id].append(request_id)
    shown = {
        user_id: sum(len(told[each] if exposed[each].served_only else items_of(exposed[each])) for each in requests)
        for user_id, requests in by_user.items()
    }
    totals = {
        user_id: Totals(
            sum(len(told[each]) for each in requests),
            sum(any(event.effective_view for event in events) for events in outcomes[user_id].values()),
            sum(any(event.follow for event in events) for events in outcomes[user_id].values()),
            sum(max(event.play_time_ms for event in events) for events in outcomes[user_id].values()),
        )
        for user_id, requests in by_user.items()
        if any(told[each] for each in requests)
    }
    return Known(totals, {user_id: views for user_id, views in shown.items() if views}, pages)


def told_by(event: Any) -> set[int]:
    return set(event.shown_item_ids) or {event.item_id}


def items_of(exposed: Any) -> set[int]:
    return {item.item_id for item in exposed.items}


def in_time(log: Log, topic: str) -> Iterator[Any]:
    """The events of a topic that can be read, lie on their user's partition and are not late in it."""
    decode = decode_exposure if topic == "exposures" else decode_feedback
    for partition in range(PARTITIONS):
        newest_ms = 0
        for record in log[topic, partition]:
            try:
                event = decode(record.value, **DECODING)
            except BadEvent:
                continue
            if event.user_id % PARTITIONS != partition:
                continue
            if event.time_ms >= newest_ms - LATENESS_MS:
                yield event
            newest_ms = max(newest_ms, event.time_ms)


# The property


@given(LOGS, ORDERS, ORDERS)
@settings(max_examples=300, deadline=None)
def test_the_stream_and_the_collector_agree_on_every_users_views(
    log: Log, one: random.Random, other: random.Random
) -> None:
    expected = by_hand(log)
    assert of_stream(log, one) == expected
    assert of_collector(collected(log, other), log) == expected


@given(LOGS, ORDERS)
@settings(max_examples=100, deadline=None)
def test_collectors_of_a_partition_each_merge_to_the_same(log: Log, chance: random.Random) -> None:
    parts = []
    for partition in range(PARTITIONS):
        mine = {name: records for name, records in log.items() if name[1] == partition}
        parts.append(collected(mine, chance))
    assert of_collector(reduce(merge, parts), log) == by_hand(log)


def test_the_logs_hold_all_that_can_become_of_feedback() -> None:
    """Else the properties would prove less than they say."""
    collector: Counter[str] = Counter()
    stream: Counter[str] = Counter()

    @given(LOGS, ORDERS)
    @settings(max_examples=800, deadline=None, database=None, derandomize=True)
    def count(log: Log, chance: random.Random) -> None:
        collector.update(folded(collected(log, chance)).counts)
        outputs = streamed(log, chance)[1]
        known = by_hand(log)
        stream["page of one item"] += sum(len(page) < 2 for page in known.pages.values())
        stream.update(str(o.error.reason) if isinstance(o, Rejected) else type(o).__name__ for o in outputs)

    count()
    absent: set[str] = {
        Unused.OTHER_EXPERIMENT,
        Unused.OUTSIDE_EXPERIMENT,
        Unused.OUTSIDE_PERIOD,
        Unused.OTHER_DEFINITION,
    }  # of periods and definitions, not of joining
    told = {NOT_SERVED, NOTHING_SHOWN, IMPRESSIONS}
    few = {name: collector[name] for name in {*Unused, *told} - absent if collector[name] < 3}
    assert not few
    reasons = (
        "too_late",
        "no_exposure",
        "before_exposure",
        "unknown_item",
        "undecodable",
        "out_of_range",
        "wrong_partition",
        "mixed",
    )
    outputs = ("Duplicate", "Learned", "Impressed", "Closed", "page of one item")
    few = {name: stream[name] for name in (*reasons, *outputs) if stream[name] < 3}
    assert not few


# The two cases that came out wrong


def written(*events: Any) -> Log:
    return log_of(
        [
            Sent(i, "exposures" if hasattr(event, "arm") else "feedback", event.user_id, event.SerializeToString())
            for i, event in enumerate(events)
        ]
    )


def test_progress_updates_of_one_item_are_one_view_with_its_longest_play() -> None:
    log = written(
        exposure(),
        feedback(at=START + 10, play_ms=9_000, event_id="after 9 s"),
        feedback(at=START + 10, play_ms=18_000, event_id="after 18 s"),
    )
    once = {1: Totals(told=1, effective_views=1, follows=0, play_ms=18_000)}
    assert streamed(log, random.Random(1))[0] == once
    state = collected(log, random.Random(1))
    assert of_collector(state, log).totals == once
    assert live(state)["treatment"].play_ms == 18_000
    assert folded(state).counts[Unused.FOLDED] == 1


def test_feedback_dated_before_its_exposure_is_neither_learned_nor_counted() -> None:
    log = written(exposure(), feedback(at=START - 1), feedback(at=START, item=2, play_ms=500))
    one = {1: Totals(told=1, effective_views=1, follows=0, play_ms=500)}
    learned, outputs = streamed(log, random.Random(1))
    assert learned == one
    assert [str(o.error.reason) for o in outputs if isinstance(o, Rejected)] == ["before_exposure"]
    state = collected(log, random.Random(1))
    assert of_collector(state, log).totals == one
    assert folded(state).counts[Unused.BEFORE_EXPOSURE] == 1
