"""A partition's state on disk: what a commit wrote is there, all of it and nothing else, and one owner has it."""

import copy
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from contracts.config.settings import KafkaSettings, StreamSettings
from contracts.messages.attribution import ExposureSummary, fold, outcome_of
from contracts.runtime.clock import ManualClock
from contracts.runtime.durable import StateError
from contracts.wire.stream_state_pb2 import Outbox, RequestState
from feature_repo.store import apply
from stream import partition
from stream.join import OpenRequest, Origin
from stream.partition import PartitionBusy, PartitionStore
from stream.sessions import Behaviour, UserSessions, insert
from stream.state import JoinState, MemoryState
from tests.stream.step_cases import exposure, feedback, step
from tests.stream.stream_cases import SENT_MS, Running, Sender, settings_for

FEW = StreamSettings(cached_users=2, cached_requests=2)
TOPIC = "feedback"
USERS = st.integers(1, 6)
REQUESTS = st.sampled_from(["", "a", "b", "c", "ä", "日"])
TIMES = st.integers(0, 50) | st.just(2**62)  # event times are positive; a watermark may be below


def opened(directory: Path) -> PartitionStore:
    return PartitionStore(directory, TOPIC, 0, FEW)


def outbox(number: int) -> Outbox:
    return Outbox(user_ids=[number])


def plain(user: UserSessions | None) -> tuple[Any, ...] | None:
    """A user as something that compares by value."""
    return user and (user.history.SerializeToString(), user.dropped, user.next_offset, user.row_us, user.open)


def behave(state: JoinState, user_id: int, time_ms: int) -> None:
    """Change a user as the steps do: the object that the state gave, in place."""
    user = state.user(user_id) or UserSessions()
    insert(user, Behaviour(time_ms, user_id, 3, time_ms % 2 == 0, False), gap_ms=10, limit=4)
    state.put_user(user_id, user)


def hold(state: JoinState, request_id: str, number: int) -> None:
    """Let feedback wait."""
    request = state.request(request_id) or OpenRequest()
    event = feedback(1 + number % 3, 1000 + number, request_id)
    key = (None, b"", b"7")[number % 3]
    request.held.append((event, Origin(TOPIC, 0, number, key, event.SerializeToString(), number, 42)))
    request.event_ids.add(event.event_id)
    state.put_request(request_id, request)


def meet(state: JoinState, request_id: str, number: int) -> None:
    """Let the exposure come, and give what waited for it an effect."""
    request = state.request(request_id) or OpenRequest()
    request.shown = ExposureSummary(7, number, "a", frozenset({1, 2, 3}), served_only=number % 2 == 1)
    for event, _ in request.held:
        known = request.outcomes.get(event.item_id)
        request.outcomes[event.item_id] = fold(known, outcome_of(event)) if known else outcome_of(event)
    request.impressions[number % 3 + 1] = number
    request.held = []
    state.put_request(request_id, request)


class LikeMemory(RuleBasedStateMachine):
    """On disk as in memory, with what is on disk as of the last commit whenever it is opened again."""

    def __init__(self) -> None:
        super().__init__()
        self._directory = Path(tempfile.mkdtemp())
        self._disk = opened(self._directory)
        self._memory, self._committed = MemoryState(), MemoryState()
        self._number = self._committed_number = 0
        # Timers: (time, name). What a batch sets fires once the batch has been committed, so it is not in `_visible`.
        self._timers: dict[str, set[tuple[int, Any]]] = {"user": set(), "request": set()}
        self._visible = copy.deepcopy(self._timers)
        self._lasting = copy.deepcopy(self._timers)
        self._looked_ms = -(2**62)

    def teardown(self) -> None:
        self._disk.close()
        shutil.rmtree(self._directory)

    @rule(user_id=USERS, time_ms=st.integers(1, 100))
    def behave(self, user_id: int, time_ms: int) -> None:
        for state in (self._disk, self._memory):
            behave(state, user_id, time_ms)
            state.newest_feedback_ms = max(state.newest_feedback_ms, time_ms)

    @rule(request_id=REQUESTS, number=st.integers(1, 100))
    def hold(self, request_id: str, number: int) -> None:
        for state in (self._disk, self._memory):
            hold(state, request_id, number)

    @rule(request_id=REQUESTS, number=st.integers(1, 100))
    def meet(self, request_id: str, number: int) -> None:
        for state in (self._disk, self._memory):
            meet(state, request_id, number)
            state.newest_exposure_ms = max(state.newest_exposure_ms, number)

    @rule(request_id=REQUESTS)
    def drop(self, request_id: str) -> None:
        self._disk.drop_request(request_id)
        self._memory.drop_request(request_id)

    @rule(user_id=USERS | st.sampled_from([-1, 2**62]), at_ms=TIMES)
    def wake_user(self, user_id: int, at_ms: int) -> None:
        self._disk.wake_user(user_id, at_ms)
        self._timers["user"].add((at_ms, user_id))

    @rule(request_id=REQUESTS, at_ms=TIMES)
    def wake_request(self, request_id: str, at_ms: int) -> None:
        self._disk.wake_request(request_id, at_ms)
        self._timers["request"].add((at_ms, request_id))

    @rule(before_ms=TIMES | st.integers(-50, 0))
    def fire(self, before_ms: int) -> None:
        """Within one batch the time does not go back."""
        before_ms = self._looked_ms = max(before_ms, self._looked_ms)
        for kind, due in (("user", self._disk.users_due), ("request", self._disk.requests_due)):
            expected = sorted(timer for timer in self._visible[kind] if timer[0] < before_ms)
            assert list(due(before_ms)) == [name for _, name in expected]
            self._visible[kind] -= set(expected)
            self._timers[kind] -= set(expected)

    @rule()
    def commit(self) -> None:
        self._number += 1
        self._disk.position.exposures = self._number
        self._disk.commit(outbox(self._number))
        self._committed, self._committed_number = copy.deepcopy(self._memory), self._number
        self._visible, self._lasting = copy.deepcopy(self._timers), copy.deepcopy(self._timers)
        self._looked_ms = -(2**62)

    @rule()
    def reopen(self) -> None:
        self._disk.close()
        self._disk = opened(self._directory)
        self._memory = copy.deepcopy(self._committed)
        self._timers, self._visible = copy.deepcopy(self._lasting), copy.deepcopy(self._lasting)
        self._looked_ms = -(2**62)

    @precondition(lambda self: self._committed_number)
    @invariant()
    def what_was_committed_last_is_there(self) -> None:
        assert not self._disk.is_new
        assert self._disk.position.exposures == self._committed_number
        assert self._disk.outbox == outbox(self._committed_number)

    @invariant()
    def values_are_equal(self) -> None:
        assert self._disk.newest_exposure_ms == self._memory.newest_exposure_ms
        assert self._disk.newest_feedback_ms == self._memory.newest_feedback_ms
        for user_id in range(1, 7):
            assert plain(self._disk.user(user_id)) == plain(self._memory.user(user_id))
        for request_id in ("", "a", "b", "c", "ä", "日"):
            assert self._disk.request(request_id) == self._memory.request(request_id)


TestLikeMemory = LikeMemory.TestCase
TestLikeMemory.settings = settings(
    max_examples=60, stateful_step_count=40, suppress_health_check=[HealthCheck.too_slow]
)


def test_what_was_not_committed_is_gone(tmp_path: Path) -> None:
    store = opened(tmp_path)
    assert store.is_new
    behave(store, 1, 10)
    store.close()
    store = opened(tmp_path)
    assert store.is_new
    assert store.user(1) is None
    store.close()


def test_a_request_of_before_there_was_served_only_is_read_as_one_that_was_shown(tmp_path: Path) -> None:
    """Its bytes lack the fields that were added since, and so does what is written of a request that has none."""
    store = opened(tmp_path)
    step(store, exposure(items=(1, 2)))
    step(store, feedback(1))
    store.commit(Outbox())
    (written,) = [value for key, value in store._db.items() if key == b"rr"]
    assert {number.number for number, _ in RequestState.FromString(written).ListFields()} <= set(range(1, 12))
    store.close()
    store = opened(tmp_path)
    request = store.request("r")
    assert request is not None
    assert request.shown is not None
    assert (request.shown.served_only, request.impressions, sorted(request.outcomes)) == (False, {}, [1])
    store.close()


def test_a_write_that_tears_leaves_one_commit_or_the_other(tmp_path: Path) -> None:
    """A crash in the middle of a commit leaves the front of what it wrote."""
    whole = tmp_path / "whole"
    store = opened(whole)
    expected: list[tuple[Any, ...]] = []

    def seen(state: PartitionStore) -> tuple[Any, ...]:
        users = [plain(state.user(user_id)) for user_id in (1, 2)]
        return (*users, state.request("a"), state.position.exposures, state.outbox.SerializeToString(), state.is_new)

    expected.append(copy.deepcopy(seen(store)))
    for number in range(1, 4):
        behave(store, 1, 10 * number)
        behave(store, 2, 10 * number)
        hold(store, "a", number)
        store.position.exposures = number
        store.commit(outbox(number))
        expected.append(copy.deepcopy(seen(store)))
    torn = tmp_path / "torn"
    (written,) = (path for path in whole.glob("*.log") if path.stat().st_size)
    size = written.stat().st_size
    found = []
    for length in [*range(0, size, 17), size]:
        shutil.copytree(whole, torn, ignore=shutil.ignore_patterns("LOCK"))
        with (torn / written.name).open("rb+") as file:
            file.truncate(length)
        again = opened(torn)
        found.append(expected.index(seen(again)))
        again.close()
        shutil.rmtree(torn)
    store.close()
    assert sorted(found) == found
    assert set(found) == {0, 1, 2, 3}


@pytest.mark.parametrize("kind", [5, 6, 7, 8, 11])
@pytest.mark.parametrize("log", ["MANIFEST-*", "*.log"])
def test_a_record_that_rocksdb_would_read_for_ever_is_refused(tmp_path: Path, log: str, kind: int) -> None:
    store = opened(tmp_path)
    behave(store, 1, 10)
    store.commit(outbox(1))
    (path,) = (path for path in tmp_path.glob(log) if path.stat().st_size)
    sound = path.read_bytes()
    store.close()
    path.write_bytes(sound + bytes([0, 0, 0, 0, 0, 3, kind, 0, 0, 0, 0, 0]))  # of 768 bytes, which are not there
    with pytest.raises(StateError, match=rf"{path.name} is damaged at byte {len(sound)}\. Move it away"):
        opened(tmp_path)


def test_users_and_requests_beyond_the_caches_are_read_from_disk(tmp_path: Path) -> None:
    store = opened(tmp_path)
    for number in range(1, 11):
        behave(store, number, number)
        hold(store, str(number), number)
    held = {number: store.user(number) for number in range(1, 11)}
    store.commit(Outbox())
    assert len(store._users._known) == len(store._requests._known) == 2
    for number, user in held.items():
        again = store.user(number)
        assert plain(again) == plain(user)
        assert (again is user) == (number > 8)
        (waiting,) = store.request(str(number)).held  # type: ignore[union-attr]
        assert waiting[1].offset == number
    store.close()


def test_more_timers_than_fire_at_once_fire_with_the_next_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partition, "TIMERS_AT_ONCE", 2)
    store = opened(tmp_path)
    for user_id in range(1, 6):
        store.wake_user(user_id, 7)
    store.commit(Outbox())
    fired = []
    for _ in range(4):
        fired.append(list(store.users_due(8)))
        store.commit(Outbox())
    assert fired == [[1, 2], [3, 4], [5], []]
    store.close()


def test_a_session_of_several_behaviours_is_closed_by_the_clock_alone(apache: KafkaSettings, tmp_path: Path) -> None:
    """Its first timer only sets another, which must be committed although the batch puts nothing out."""
    apply(tmp_path / "features")
    run = settings_for(apache, tmp_path)
    sender = Sender(apache)
    sender.items(1, 2)
    sender.events(
        exposure("r", 1000, (1, 2), user=2), feedback(1, 2000, "r", user=2), feedback(2, 900_000, "r", user=2)
    )
    sender.close()
    clock = ManualClock(SENT_MS)
    limits = run.stream
    with Running(run, clock=clock) as running:
        running.take(3)
        # To where only the first has been idle for longer than the gap, and then to where both have.
        clock.advance(limits.session_gap_ms + limits.allowed_lateness_ms + 10_000)
        while running.worker._ownership.owned[0].timers_s != clock.elapsed_s():
            running.worker.step()
        assert running.value("stream_sessions_closed_total") == 0
        clock.advance(900_000)
        while running.value("stream_sessions_closed_total") != 1:
            running.worker.step()


OWNER = """
import sys
from pathlib import Path
from contracts.config.settings import StreamSettings
from stream.partition import PartitionStore
store = PartitionStore(Path(sys.argv[1]), "feedback", 0, StreamSettings())
print("open", flush=True)
sys.stdin.read()
"""


def test_one_owner_at_a_time_until_it_closes_or_dies(tmp_path: Path) -> None:
    store = opened(tmp_path)
    with pytest.raises(PartitionBusy):
        opened(tmp_path)
    store.close()
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with owner:
        assert owner.stdout
        assert owner.stdout.readline() == "open\n"
        with pytest.raises(PartitionBusy):
            opened(tmp_path)
        owner.kill()
        owner.wait()
    opened(tmp_path).close()
