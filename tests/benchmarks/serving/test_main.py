"""What the serving benchmarks decide, and one tiny rig with a real replica."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.serving.__main__ import QUICK, arguments_of
from benchmarks.serving.figures import Try, good, largest, next_rate, overlapping, percentiles, schedule
from benchmarks.serving.rig import rig
from benchmarks.serving.shots import Requests, Shot, figures, generator, replies_of, requests_of, text_of
from benchmarks.serving.soak import growth
from benchmarks.serving.swaps import seen
from benchmarks.serving.versions import MODEL, Checker, Line, Swap
from benchmarks.serving.world import NOW_MS, World, full
from contracts.messages.ids import id_of_text
from contracts.snapshots import canary, snapshot
from contracts.snapshots.canary import Canary
from contracts.snapshots.snapshot import version_name
from contracts.wire.recall_pb2 import RecallReply

CANCELLED = 1


def table(due: list[float], took: list[float], versions: list[int], **others: list[int]) -> Requests:
    zeros, ones = [0] * len(due), [1] * len(due)
    at, lasted = np.array(due, np.float64), np.array(took, np.float64)
    columns = {"code": zeros, "version": versions, "user": ones, "server": zeros, "counts": ones, "explained": zeros}
    return Requests(at, at.copy(), at + lasted, **{name: np.array(each) for name, each in (columns | others).items()})


def test_a_world_by_text_ids_is_the_world_by_numbers_but_for_the_names() -> None:
    numbers, texts = (World(200, 5, text_ids=text) for text in (False, True))
    assert [*map(id_of_text, texts.texts)] == texts.item_ids.tolist() == sorted(texts.item_ids.tolist())
    for user in range(1, 6):
        watched = texts.watched(user).item_ids
        np.testing.assert_array_equal(1 + np.searchsorted(texts.item_ids, watched), numbers.watched(user).item_ids)
        assert (numbers.row(user).user_id, texts.row(user).user_id) == (user, id_of_text(text_of(user)))


def test_requests_leave_at_the_asked_rate_in_bursts_and_the_same_for_a_seed() -> None:
    times = schedule(500.0, 4.0, 3)
    assert len(times) == 2000
    assert (np.diff(times) >= 0).all()
    assert times.max() < 4
    # Gaps of a Poisson process: as many as 1 − 1/e are shorter than the mean one.
    assert np.mean(np.diff(times) < 1 / 500) == pytest.approx(1 - np.exp(-1), abs=0.03)
    np.testing.assert_array_equal(times, schedule(500.0, 4.0, 3))
    assert not np.array_equal(times, schedule(500.0, 4.0, 4))


def test_a_percentile_is_a_latency_that_was_measured() -> None:
    assert percentiles(np.arange(1, 201) / 1000) == {"p50_ms": 101.0, "p99_ms": 199.0, "max_ms": 200.0}
    assert percentiles(np.empty(0))["p99_ms"] is None


@pytest.mark.parametrize("capacity", [3.0, 120.0, 777.0, 5000.0])
def test_the_search_encloses_the_largest_good_rate(capacity: float) -> None:
    tried: list[Try] = []
    while (rate := next_rate(tried, 200.0, 0.05)) is not None:
        tried.append(Try(rate, rate <= capacity))
        assert len(tried) < 20
    assert largest(tried) <= capacity <= 1.06 * largest(tried)


def test_a_rate_that_was_bad_once_is_bad_and_so_is_all_above_it() -> None:
    tried = [Try(100, True), Try(200, True), Try(220, False), Try(200, False)]
    assert largest(tried) == 100
    assert next_rate(tried, 100, 0.05) == pytest.approx(141.4)


def test_where_no_rate_is_good_the_search_ends() -> None:
    tried: list[Try] = []
    while (rate := next_rate(tried, 200.0, 0.05)) is not None:
        tried.append(Try(rate, good=False))
    assert largest(tried) == 0


@pytest.mark.parametrize(
    "wrong", [{"ok": 99}, {"achieved_rate": 90.0}, {"p99_ms": 25.1}, {"sent": 0, "ok": 0, "p99_ms": None}]
)
def test_a_rate_is_good_if_nothing_failed_was_left_behind_or_came_late(wrong: dict[str, float | None]) -> None:
    told = {"sent": 100, "ok": 100, "offered_rate": 100.0, "achieved_rate": 99.0, "p99_ms": 25.0}
    assert good(told)
    assert not good(told | wrong)


def test_latency_counts_from_when_a_request_was_due() -> None:
    found = table([0.0, 1.0], [0.5, 0.5], [0, 0])
    found.sent_s[:] = found.done_s - 0.001  # it left late
    told = figures(Shot(("a:1",), 1.0, 2.0, 1), found)
    assert (told["p50_ms"], told["late_p99_ms"]) == (500.0, 499.0)


def test_only_what_counts_is_told_and_failures_have_no_latency() -> None:
    found = table([0.0, 1.0, 2.0], [9.0, 0.1, 5.0], [0] * 3, code=[0, 0, CANCELLED], counts=[0, 1, 1])
    told = figures(Shot(("a:1",), 1.0, 2.0, 1), found)
    assert (told["sent"], told["ok"], told["codes"], told["max_ms"]) == (2, 1, {"1": 1}, 100.0)


def test_a_request_overlaps_a_window_by_its_beginning_its_end_or_its_middle() -> None:
    began, ended = np.array([0, 1.9, 2.2, 1.0, 3.0]), np.array([1.0, 2.0, 2.3, 9.0, 4.0])
    assert overlapping(began, ended, [(2.0, 2.5)]).tolist() == [False, True, True, True, False]
    assert not overlapping(began, ended, []).any()


def test_a_round_tells_requests_without_swaps_from_those_in_a_window() -> None:
    swaps = [Swap(1001, 10.0, 10.5), Swap(2000, 12.0, 12.5)]
    found = seen(
        table(
            [5.0, 9.9, 10.4, 11.0, 12.1, 12.2, 13.0],
            [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7],
            [1000, 1000, 1001, 1001, 2000, 2000, 2000],
            server=[0, 0, 0, 1, 0, 1, 0],
        ),
        swaps,
    )
    assert found.steady.tolist() == pytest.approx([0.1, 0.7])
    assert found.during.tolist() == pytest.approx([0.2, 0.3, 0.5, 0.6])
    # Of each swap, the first request from the new version on each of both replicas.
    assert found.first.tolist() == pytest.approx([0.3, 0.4, 0.5, 0.6])
    assert (found.sent, found.failed) == (7, 0)


def test_growth_compares_the_end_with_what_came_after_the_warm_up() -> None:
    samples = [(float(at), 50.0 if at < 10 else 200.0 if at < 90 else 206.0) for at in range(100)]
    assert growth(samples, 100.0) == pytest.approx(0.03)
    assert growth([], 100.0) is None


def test_parts_are_asked_at_a_share_of_the_largest_rate_and_quickly_where_that_is_wanted() -> None:
    import argparse

    asked = argparse.Namespace(items=10, users=5, k=3, out=Path("o"), data=None, soak=60.0, swaps=1000, quick=False)
    told = arguments_of("swaps", asked, "r:1", 1000.0)
    assert told[told.index("--rate") + 1] == 350.0
    assert told[told.index("--redis") + 1] == "r:1"
    asked.quick = True
    assert arguments_of("swaps", asked, None, None)[-len(QUICK["swaps"]) :] == QUICK["swaps"]
    assert "--items" not in arguments_of("recall", asked, None, None)


def test_a_replica_under_load_answers_from_the_versions_that_it_names(tmp_path: Path) -> None:
    world = World(items=400, users=30)
    with rig(world, tmp_path, [MODEL]) as made, generator() as load:
        snapshot.write(made.snapshots, full(world, MODEL, 2))
        with made.replicas((MODEL, MODEL)) as (replica,):
            shot = Shot(
                (replica.address,), 40.0, 1.0, world.users,
                k=20, time_ms=NOW_MS, deadline_s=20.0, explained=1.0, out=str(tmp_path / "shot"),
            )  # fmt: skip
            told = load.fire(shot)
        found, checker = requests_of(shot), Checker(made)
        assert (told["sent"], told["ok"], set(found.version.tolist())) == (40, 40, {1000})
        assert checker.count(shot, found) == (80, 0)  # those that warm up, too

        place, content = next(iter(replies_of(shot)))
        reply, user = RecallReply.FromString(content), int(found.user[place])
        assert not set(world.watched(user).item_ids.tolist()) & {item.item_id for item in reply.items}
        renamed = RecallReply.FromString(content)
        renamed.snapshot_version = version_name(2)
        assert checker.mixed(renamed, user)  # another version's index
        other = next(each for each in range(1, world.users + 1) if each != user)
        assert checker.mixed(reply, other)  # another tower would show in the vector, as another user does


def test_with_a_share_versions_are_tried_before_they_go_live_and_every_other_trial_ends_badly(tmp_path: Path) -> None:
    with rig(World(items=400, users=30), tmp_path) as made:
        line = Line(made, 0.1, share=0.5)
        states = []
        with made.replicas((MODEL, MODEL)) as replicas:
            for _ in range(3):
                line.swap(replicas)
                states.append((snapshot.live(made.snapshots, MODEL), canary.on_trial(made.snapshots, MODEL)))
    assert states == [("v000001", None), ("v000001", Canary("v000002", 0.5, "v000002")), ("v000002+001", None)]
