"""Histories packed in a backfill: each example a target once, after what its own features say."""

import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.config.settings import Settings
from contracts.runtime.clock import MINUTE_MS, ManualClock
from contracts.snapshots.snapshot import live, read_manifest
from contracts.wire.events_pb2 import Example, History
from feature_repo.offline import EXAMPLES as ENTITIES
from feature_repo.offline import OfflineFiles, Piece, directory, examples_directory
from feature_repo.store import apply
from stream.archive import entities, rows
from tests.trainer.conftest import MakeRig
from tests.trainer.test_resume import assert_equal
from tests.trainer.trainer_cases import START_MS, make_catalogue, small_settings
from tests.trainer.trainer_rig import EXAMPLES, MemoryLog, Outbox
from trainer import packed_engine
from trainer.backfill import NEVER_MS, backfill
from trainer.data.batches import encode
from trainer.packed_engine import Window, pack, unpackable

ITEMS, WINDOW = 12, 6
CATALOGUE = make_catalogue(ITEMS)
Past = list[tuple[int, int]]  # item id and time of each effective view


def example(user_id: int, item_id: int, time_ms: int, past: Past, arm: str = "") -> Example:
    did = [*zip(*past, strict=True)] or [(), ()]
    same = len(past)
    history = History(
        item_ids=did[0], times_ms=did[1], play_times_ms=[0] * same, effective_views=[True] * same,
        follows=[False] * same, sessions=[0] * same,
    )  # fmt: skip
    return Example(schema_version=1, user_id=user_id, item_id=item_id, time_ms=time_ms, history=history, arm=arm)


def walks(views: Sequence[tuple[int, int]], before: int = 0, limit: int = 200) -> list[Example]:
    """Of each (user, item) an example, a minute apart, after what the user did before, which began with `before`."""
    did: dict[int, Past] = {}
    made = []
    for n, (user_id, item_id) in enumerate(views):
        past = did.setdefault(user_id, [(1 + i % ITEMS, i) for i in range(before)])
        time_ms = START_MS + n * MINUTE_MS
        made.append(example(user_id, item_id, time_ms, past[-limit:]))
        past.append((item_id, time_ms))
    return made


class Store:
    """Features of examples, as an offline store has them; how often it was asked, and for how many."""

    def __init__(self, examples: Sequence[Example]) -> None:
        self._by_place = {(e.user_id, e.time_ms): History.FromString(e.history.SerializeToString()) for e in examples}
        self.asked: list[int] = []

    def __call__(self, examples: Sequence[Example]) -> list[History | None]:
        self.asked.append(len(examples))
        return [self._by_place[(e.user_id, e.time_ms)] for e in examples]


def packed(
    examples: Sequence[Example], window: int = WINDOW, store: Store | None = None, limit: int = 200
) -> list[Window]:
    store = store or Store(examples)
    bare = [Example.FromString(e.SerializeToString()) for e in examples]
    for each in bare:
        each.ClearField("history")
    return pack(bare, CATALOGUE, window, limit, store)


def taught(windows: Sequence[Window], window: int = WINDOW) -> list[tuple[int, int, list[int]]]:
    """User, target and behaviours before it, as rows, of each new place."""
    out = []
    for one in windows:
        batch = encode([one.examples[-1]], CATALOGUE, min(one.width, window))
        batch = replace(batch, last=np.array([one.count], np.int64))
        whole = [*batch.rows[0].tolist(), int(batch.targets[0])]
        new = range(len(whole) - one.count, len(whole))
        out += [(one.examples[-1].user_id, whole[at], [row for row in whole[:at] if row >= 0]) for at in new]
        assert batch.taught.tolist() == [whole[at] for at in new]
    return out


views = st.lists(st.tuples(st.integers(1, 3), st.integers(1, ITEMS)), min_size=1, max_size=40)


@given(views=views, before=st.integers(0, 9), window=st.integers(1, 9), limit=st.integers(1, 12))
def test_every_example_is_a_target_once_after_the_newest_of_its_own_features(
    views: list[tuple[int, int]], before: int, window: int, limit: int
) -> None:
    """Whatever repeats, however short a history is, and wherever the store's limit or the window cuts it."""
    examples = walks(views, before, limit)
    store = Store(examples)
    windows = packed(examples, window, store, limit)
    found = sorted(taught(windows, window))
    own = sorted((e.user_id, e.item_id - 1, (np.array(e.history.item_ids, np.int64) - 1).tolist()) for e in examples)
    assert [(user, row) for user, row, _ in found] == [(user, row) for user, row, _ in own]
    by_target: dict[tuple[int, int], list[list[int]]] = {}
    for user, row, past in own:
        by_target.setdefault((user, row), []).append(past)
    for user, row, past in found:
        assert any(
            past == theirs[len(theirs) - len(past) :] and len(past) >= min(window // 2, len(theirs))
            for theirs in by_target[user, row]
            if len(past) <= len(theirs)
        )
    assert len(store.asked) <= 2
    ends = [one.examples[-1].time_ms for one in windows]
    assert ends == sorted(ends)


def test_a_history_that_is_whole_is_asked_for_once_in_half_a_window() -> None:
    store = Store(examples := walks([(1, 1 + n % ITEMS) for n in range(12)]))
    windows = packed(examples, store=store)
    assert [one.count for one in windows] == [3, 3, 3, 3]
    assert store.asked == [4]


def test_items_that_repeat_are_targets_as_often_as_they_were_watched() -> None:
    windows = packed(walks([(1, 5)] * 7))
    assert [(row, past) for _, row, past in taught(windows)] == [(4, [4] * n) for n in range(7)]


def test_an_example_that_came_late_makes_a_window_of_its_own() -> None:
    """What the user did in between was not known when the one before was made, so the past has another order."""
    examples = walks([(1, 1), (1, 2), (1, 3)])
    late = example(1, 9, START_MS + 1, [(1, START_MS)])  # received last
    assert sorted(one.count for one in packed([*examples, late])) == [1, 3]
    past = [(1, START_MS), (9, START_MS + 1), (2, START_MS + MINUTE_MS)]
    known = [*examples[:2], example(1, 3, START_MS + 2 * MINUTE_MS, past)]
    windows = packed(known)
    assert [[e.item_id for e in one.examples] for one in windows] == [[1], [2, 3]]
    assert taught(windows)[-2:] == [(1, 1, [0, 8]), (1, 2, [0, 8, 1])]


def test_arms_do_not_share_a_window() -> None:
    examples = walks([(1, 1), (1, 2), (1, 3), (1, 4)])
    for each, arm in zip(examples, ("", "", "control", "control"), strict=True):
        each.arm = arm
    assert [[e.arm for e in one.examples] for one in packed(examples)] == [["", ""], ["control", "control"]]


def test_behaviours_with_items_that_are_gone_are_left_out_of_windows() -> None:
    past = [(3, 1), (99, 2)]
    first = example(1, 1, START_MS, past)
    second = example(1, 2, START_MS + 1, [*past, (1, START_MS), (99, START_MS)])
    assert taught(packed([first, second])) == [(1, 0, [2]), (1, 1, [2, 0])]


@pytest.mark.parametrize(
    ("trainer", "why"),
    [
        ({"models": ["t2diff-paper", "two_tower"]}, "t2diff-paper makes one vector of a window"),
        ({"learn_from": "weighted"}, "examples have weights of their own"),
        ({"objective": {"play": 1}}, "examples have weights of their own"),
        ({"replay": {"batches": 1}}, "replay draws examples with their own features"),
        ({"regimes": {"variants": {"replayed": {"replay": {"batches": 1}}}}}, "replay draws examples"),
    ],
)
def test_settings_that_need_each_example_by_itself_are_told(tmp_path: Path, trainer: dict[str, Any], why: str) -> None:
    hindrance = unpackable(small_settings(tmp_path).trainer.model_validate(trainer))
    assert hindrance
    assert hindrance.startswith(why)


COUNT, EACH = 160, 40  # examples; of a file


def archived() -> dict[int, list[Example]]:
    rng = np.random.default_rng(1)
    found: dict[int, list[Example]] = {0: [], 1: []}
    for each in walks([(int(rng.integers(1, 9)), int(rng.integers(1, ITEMS + 1))) for _ in range(COUNT)]):
        found[each.user_id % 2].append(each)
    return found


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("features")
    apply(target)
    for partition, examples in archived().items():
        for start in range(0, len(examples), EACH):
            received = [(e, e.time_ms) for e in examples[start : start + EACH]]
            end = start + len(received)
            name = Piece(partition, start, end).name
            OfflineFiles(examples_directory(target), schema=ENTITIES).write(
                name, [entities(received, range(start, end))]
            )
            OfflineFiles(directory(target)).write(name, [rows(received, 200)])
    return target


@pytest.fixture(autouse=True)
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed_engine, "GROUP", 60)


def settings_for(root: Path, repo: Path) -> Settings:
    quiet = {"publish_every_ms": NEVER_MS, "checkpoint_every_examples": 40, "gate": {"judge": "recall"}}
    return small_settings(root, **quiet).model_copy(update={"feature_repo": repo})


def fill(log: MemoryLog) -> None:
    for item_id in range(1, ITEMS + 1):
        log.append_item(item_id)
    for partition, examples in archived().items():
        for each in examples:
            log.append(EXAMPLES[partition], each.SerializeToString(), each.time_ms)


def run(settings: Settings, stop: threading.Event | None = None, **times: Any) -> int:
    clock = ManualClock(START_MS)
    log = MemoryLog(50, clock)
    fill(log)
    log.pause(*EXAMPLES)  # as a consumer that reads items alone
    parts: Any = (settings, log, Outbox(), clock, stop or threading.Event())
    return backfill(*parts, **{"start_ms": None, "end_ms": None} | times)


class StopsWhenAsked(threading.Event):
    """Is set when it has been asked so often."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self._left = times

    def is_set(self) -> bool:
        self._left -= 1
        return self._left < 0


def learned(make_rig: MakeRig, settings: Settings) -> list[dict[str, Any]]:
    rig = make_rig(settings)
    assert rig.worker.resume()
    return [line.learner.state() for line in rig.engine.lines]


@pytest.mark.usefixtures("trace_once")
class TestBackfill:
    def test_all_that_is_archived_is_learned_and_the_stream_goes_on_from_there(
        self, tmp_path: Path, repo: Path, make_rig: MakeRig
    ) -> None:
        settings = settings_for(tmp_path, repo)
        assert run(settings) == COUNT
        assert live(settings.snapshots, "t2diff") == "v000001"
        manifest = read_manifest(settings.snapshots, "t2diff", "v000001")
        assert manifest.examples == COUNT
        assert 0 < manifest.metrics["examples"] < COUNT / 2  # tested are those that end a window
        sizes = {f"driftline.examples:{number}": len(each) for number, each in archived().items()}
        assert manifest.offsets.items() >= sizes.items()
        assert run(settings) == 0
        rig = make_rig(settings)
        fill(rig.log)
        assert rig.worker.resume()
        rig.steps(20)
        assert rig.engine.tested == COUNT

    def test_the_same_archive_gives_the_same_weights(self, tmp_path: Path, repo: Path, make_rig: MakeRig) -> None:
        first, second = settings_for(tmp_path / "first", repo), settings_for(tmp_path / "second", repo)
        run(first)
        run(second)
        for one, other in zip(learned(make_rig, first), learned(make_rig, second), strict=True):
            assert_equal(one, other, at_least=20)

    @pytest.mark.parametrize("times", [1, 4, 9, 14, 20])
    def test_one_that_was_stopped_goes_on_with_the_group_that_it_had_begun(
        self, tmp_path: Path, repo: Path, make_rig: MakeRig, times: int
    ) -> None:
        whole, stopped = settings_for(tmp_path / "whole", repo), settings_for(tmp_path / "stopped", repo)
        assert run(whole) == COUNT
        early = run(stopped, StopsWhenAsked(times))
        assert early in (0, 60, 120)
        assert early + run(stopped) == COUNT
        for one, other in zip(learned(make_rig, whole), learned(make_rig, stopped), strict=True):
            assert_equal(one | {"sampling_seed": None}, other | {"sampling_seed": None}, at_least=20)

    def test_from_and_to_cut_at_event_times(self, tmp_path: Path, repo: Path) -> None:
        settings = settings_for(tmp_path, repo)
        assert run(settings, start_ms=START_MS + 20 * MINUTE_MS, end_ms=START_MS + 100 * MINUTE_MS) == 80
        assert run(settings) == 60
