"""A user is forgotten: by the steps, in the state's files, and by a worker on real brokers and Feast."""

from pathlib import Path

import pytest

from contracts.config.settings import KafkaSettings, Settings
from contracts.kafka import bus
from contracts.runtime.clock import ManualClock
from contracts.wire.events_pb2 import DeadLetter, Example, Feedback, Forget
from contracts.wire.stream_state_pb2 import Outbox
from feature_repo import forget as stores
from feature_repo.store import UserSequences, apply
from stream.outputs import Closed, Expired, Forgotten, Learned
from stream.ownership import set_expiry
from stream.partition import PartitionStore
from stream.state import JoinState
from stream.step import on_time
from tests.stream.step_cases import (
    SETTINGS,
    examples,
    exposure,
    feedback,
    kinds,
    look_at_the_time,
    run,
    step,
)
from tests.stream.stream_cases import SENT_MS, Running, Sender, read_all, settings_for

USER = 6_149_554_607_595_376_846  # that of "anna": eight bytes that come by no accident
OTHER = 2**40 + 3


def forget(user: int = 7, time_ms: int = 3000, *, exposures_end: int = 0, event: str = "forget") -> Feedback:
    request = Forget(exposures_end=exposures_end, salt=b"0123456789abcdef")
    return Feedback(schema_version=1, event_id=event, user_id=user, time_ms=time_ms, forget=request)


def test_a_forgotten_user_leaves_nothing_in_the_state(state: JoinState) -> None:
    run(state, exposure("r", 1000), feedback(1, 1001), exposure("s", 1000, user=8), feedback(1, 1001, "s", user=8))
    outputs = step(state, forget(), 4)
    assert [type(output) for output in outputs] == [Forgotten]
    assert state.user(7) is None
    assert state.request("r") is None
    assert state.user(8) is not None
    assert state.request("s") is not None


def test_feedback_that_waits_is_dropped_with_its_user_alone(state: JoinState) -> None:
    run(state, feedback(1, 1001, "r"), feedback(1, 1001, "r", user=8, event="theirs"))
    outputs = step(state, forget(), 4)
    assert kinds(outputs) == ["dropped", "forgotten"]
    request = state.request("r")
    assert request is not None
    assert [held.user_id for held, _ in request.held] == [8]
    assert request.event_ids == {"theirs"}


def test_a_user_who_comes_back_is_a_new_one(state: JoinState) -> None:
    run(state, exposure("r", 1000), feedback(1, 1001), feedback(2, 1002))
    step(state, forget(exposures_end=1), 3)
    (learned,) = examples([*step(state, exposure("n", 1100), 1), *step(state, feedback(2, 1101, "n"), 4)])
    assert learned.example is not None
    assert not learned.example.history.item_ids
    assert learned.example.session == 0


def test_an_exposure_from_before_that_is_read_later_has_no_effect(state: JoinState) -> None:
    step(state, forget(exposures_end=5), 0)
    assert kinds(step(state, exposure("old", 1000), 4)) == ["dropped"]
    assert kinds(step(state, exposure("new", 1000), 5)) == ["remembered"]
    assert kinds(step(state, exposure("theirs", 1000, user=8), 4)) == ["remembered"]


def test_feedback_on_what_was_shown_before_becomes_no_dead_letter(state: JoinState) -> None:
    run(state, exposure("r", 1000))
    step(state, forget(exposures_end=1), 0)
    step(state, feedback(1, 1500, "r"), 1)
    step(state, feedback(1, 1500, "r", user=8, event="theirs"), 2)
    run(state, exposure("later", 2600, user=9), feedback(1, 2600, "later", user=9))
    assert kinds(look_at_the_time(state)) == ["dropped", "no_exposure"]


def test_marks_last_as_long_as_something_may_come(state: JoinState) -> None:
    run(state, exposure("r", 1000))
    step(state, forget(exposures_end=1), 0)
    assert state.marks.get(7) is not None
    run(state, exposure("x", 2900, user=9), feedback(1, 2900, "x", user=9))  # watermark 2400, and 2500 is the end
    look_at_the_time(state)
    assert state.marks.get(7) is not None
    run(state, exposure("y", 3100, user=9), feedback(1, 3100, "y", user=9))
    look_at_the_time(state)
    assert state.marks.get(7) is None


def test_a_mark_lasts_until_all_that_was_shown_before_has_been_read(state: JoinState) -> None:
    step(state, forget(exposures_end=5), 0)
    run(state, exposure("x", 9000, user=9), feedback(1, 9000, "x", user=9))
    assert not list(on_time(state, 8500, SETTINGS, None, 4))
    assert state.marks.get(7) is not None
    assert kinds(step(state, exposure("old", 8900), 4)) == ["dropped"]
    list(on_time(state, 8500, SETTINGS, None, 5))
    assert state.marks.get(7) is not None, "feedback on it may still come"
    list(on_time(state, 8900 + SETTINGS.attribution_window_ms + SETTINGS.allowed_lateness_ms + 1, SETTINGS, None, 5))
    assert state.marks.get(7) is None


def test_to_forget_twice_is_to_forget_once(state: JoinState) -> None:
    run(state, exposure("r", 1000), feedback(1, 1001))
    step(state, forget(exposures_end=1), 2)
    assert kinds(step(state, forget(exposures_end=1, event="again"), 3)) == ["forgotten"]
    assert state.user(7) is None


def test_who_stays_away_is_let_go(state: JoinState) -> None:
    limits, keep_ms = SETTINGS, 2000
    run(state, exposure("r", 1000), feedback(1, 1001))
    if isinstance(state, PartitionStore):
        state.commit(Outbox())
    assert list(on_time(state, 1200, limits, keep_ms)) == [Closed(7)]
    if isinstance(state, PartitionStore):
        state.commit(Outbox())
    assert not list(on_time(state, 3001, limits, keep_ms))
    if isinstance(state, PartitionStore):
        state.commit(Outbox())
    assert list(on_time(state, 3002, limits, keep_ms)) == [Expired(7)]
    assert state.user(7) is None


def contents(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file())


def sortable(user: int) -> bytes:
    return (user + (1 << 63)).to_bytes(8, "big")


def test_an_erased_state_has_no_byte_of_the_user(tmp_path: Path) -> None:
    store = PartitionStore(tmp_path, "feedback", 0, SETTINGS)
    for place, user in enumerate((USER, OTHER)):
        name = f"r{place}"
        step(store, exposure(name, 1000, user=user), place)
        for output in step(store, feedback(1, 1001, name, user=user), place):
            assert isinstance(output, Learned)
        store.commit(Outbox(user_ids=[user]))
    assert sortable(USER) in contents(tmp_path)
    step(store, forget(USER), 2)
    store.commit(Outbox(forgotten_ids=[USER]))
    store.commit(Outbox())
    store.erase()
    found = contents(tmp_path)
    for encoded in (sortable(USER), USER.to_bytes(8, "little"), USER.to_bytes(8, "big"), str(USER).encode()):
        assert encoded not in found
    assert store.user(USER) is None
    assert store.user(OTHER) is not None
    assert list(store.user_ids()) == [OTHER]
    store.close()


def test_users_from_before_the_setting_get_timers(tmp_path: Path) -> None:
    store = PartitionStore(tmp_path, "feedback", 0, SETTINGS)
    run(store, exposure("r", 1000), feedback(1, 1001))
    store.commit(Outbox())
    assert list(on_time(store, 1200, SETTINGS)) == [Closed(7)]
    store.commit(Outbox())
    set_expiry(store, 2000)
    assert list(on_time(store, 3002, SETTINGS, 2000)) == [Expired(7)]
    store.close()


@pytest.fixture
def settings(kafka: KafkaSettings, tmp_path: Path) -> Settings:
    apply(tmp_path / "features")
    return settings_for(kafka, tmp_path)


def test_a_worker_forgets_a_user_everywhere(settings: Settings) -> None:
    kafka, sender = settings.kafka, Sender(settings.kafka)
    sender.items(1, 2)
    for user in (USER, OTHER):
        name = f"r{user % 97}"
        sender.events(exposure(name, 1000, user=user), feedback(1, 2000, name, user=user))
    with Running(settings, clock=ManualClock(SENT_MS)) as running:
        running.take(4)
        features = UserSequences(settings.feature_repo)
        assert all(features.read([USER, OTHER]))
        sender.events(forget(USER, 3000, exposures_end=1))
        running.take(1)
        assert running.value("stream_outcomes_total", topic="feedback", outcome="forget") == 1
        assert running.value("stream_erasures_total") == 1
        assert [row is not None for row in features.read([USER, OTHER])] == [False, True]
        assert not stores.has_row(settings.feature_repo, USER)
        last = [Example.FromString(value) for value in read_all(kafka, bus.EXAMPLES)]
        assert [example.HasField("forget") for example in last if example.user_id == USER] == [False, True]
        found = contents(settings.state) + contents(settings.feature_repo)
        assert USER.to_bytes(8, "little") not in found
        assert sortable(USER) not in found
        assert OTHER.to_bytes(8, "little") in found

        sender.events(exposure("back", 4000, user=USER), feedback(2, 4001, "back", user=USER))
        running.take(2)
        row, _ = features.read([USER, OTHER])
        assert row is not None
        assert list(row.item_ids) == [2]
        features.close()
    sender.close()
    assert not [DeadLetter.FromString(value) for value in read_all(kafka, bus.DEAD_LETTERS)]
