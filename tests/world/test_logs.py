import numpy as np
import pandas as pd
import pytest

from contracts.runtime.clock import DAY_MS, HOUR_MS
from world import logs
from world.base import WorldError

DAY = 1_704_067_200_000  # 2024-01-01, 00:00 UTC
MINUTE = 60_000


def log_of(*rows: dict[str, object]) -> pd.DataFrame:
    usual = {"user_id": 0, "video_id": 1, "date": 20240101, "time_ms": DAY, "is_follow": 0, "long_view": 1}
    usual |= {"play_time_ms": 500, "duration_ms": 9000, "tab": 1}
    return logs.place(pd.DataFrame([usual | row for row in rows], dtype=object), 0)


def pages_of(*rows: dict[str, object]):
    return list(logs.pages(log_of(*rows), DAY, DAY + DAY_MS))


def test_ids_are_the_logs_plus_one():
    (page,) = pages_of({})
    assert (page.user_id, page.rows[0].item_id) == (1, 2)


def test_a_page_ends_with_a_long_pause():
    pages = pages_of({}, {"video_id": 2, "time_ms": DAY + 30 * MINUTE}, {"video_id": 3, "time_ms": DAY + 61 * MINUTE})
    assert [len(page.rows) for page in pages] == [2, 1]
    assert pages[1].time_ms == DAY + 61 * MINUTE


def test_an_item_that_comes_again_at_another_time_starts_a_page():
    pages = pages_of({}, {"video_id": 2, "time_ms": DAY + 1}, {"time_ms": DAY + 2})
    assert [[row.item_id for row in page.rows] for page in pages] == [[2, 3], [2]]


def test_duplicate_rows_stay_on_one_page_as_equal_events():
    (page,) = pages_of({}, {"video_id": 2}, {})
    events = [(row.item_id, row.time_ms) for row in page.rows]
    assert sorted(events) == [(2, DAY), (2, DAY), (3, DAY)]


def test_pages_of_all_users_come_in_time_order_under_names_of_their_own():
    pages = pages_of(*({"user_id": user, "time_ms": DAY + (7 * user) % 5} for user in range(5)))
    assert [page.time_ms for page in pages] == [DAY + at for at in range(5)]
    assert len({page.request_id for page in pages}) == 5


@pytest.mark.parametrize(
    ("defect", "field", "value"),
    [
        ({"play_time_ms": -5}, "play_time_ms", -5),
        ({"play_time_ms": None}, "play_time_ms", None),
        ({"play_time_ms": "oops"}, "play_time_ms", None),
        ({"play_time_ms": 1.5}, "play_time_ms", None),
        ({"time_ms": None}, "time_ms", None),
        ({"time_ms": DAY + 400 * DAY_MS}, "time_ms", DAY + 400 * DAY_MS),
        ({"time_ms": DAY + 3 * DAY_MS}, "time_ms", DAY + 3 * DAY_MS),
        ({"video_id": 99_999}, "item_id", 100_000),
        ({"video_id": np.nan}, "item_id", None),
        ({"long_view": None}, "effective_view", None),
        ({"long_view": 7}, "effective_view", None),
        ({"is_follow": "?"}, "follow", None),
    ],
)
def test_a_bad_row_passes_through_as_it_stands(defect, field, value):
    pages = pages_of(
        {}, {"video_id": 2, "time_ms": DAY + MINUTE, **defect}, {"video_id": 3, "time_ms": DAY + 2 * MINUTE}
    )
    rows = [row for page in pages for row in page.rows]
    assert len(rows) == 3
    bad = [row for row in rows if row.item_id not in {2, 4}]
    assert [getattr(row, field) for row in bad] == [value]
    assert DAY <= bad[0].received_ms <= DAY + MINUTE


def test_a_row_without_a_user_is_a_page_of_nobody():
    pages = pages_of({}, {"user_id": None, "video_id": 2}, {"user_id": None, "video_id": 3})
    assert sorted(page.user_id for page in pages) == [0, 0, 1]


def test_bad_rows_make_no_visits_and_no_observations():
    log = log_of(
        {},
        {"user_id": None},
        {"user_id": 5, "time_ms": None},
        {"user_id": 6, "time_ms": DAY + 400 * DAY_MS},
        {"user_id": 7, "play_time_ms": -1},
        {"user_id": 8, "video_id": 50},
        {},
    )
    come, _ = logs.visits(log, DAY, DAY + DAY_MS, 4)
    assert [visit.user_id for visit in come] == [1, 8, 9]
    seen = logs.observations(log, DAY, DAY + DAY_MS, np.arange(1, 20), np.array([2, 3]))
    assert seen.users.tolist() == [0]


def test_a_visit_asks_for_what_the_user_was_shown_within_limits():
    rows = [{"user_id": 0, "video_id": i, "time_ms": DAY + i} for i in range(30)]
    rows += [{"user_id": 1, "video_id": i, "time_ms": DAY + i, "tab": 4} for i in range(6)] + [
        {"user_id": 2, "time_ms": DAY + 9}
    ]
    come, tabs = logs.visits(log_of(*rows), DAY, DAY + DAY_MS, 4)
    assert [(visit.index, visit.user_id, visit.k) for visit in come] == [(0, 1, 20), (1, 2, 6), (2, 3, 4)]
    assert tabs.tolist() == [1, 4, 1]


def test_days_are_cut_in_the_logs_own_time():
    log = log_of({"time_ms": DAY + 15 * HOUR_MS}, {"time_ms": DAY + 17 * HOUR_MS, "date": 20240102})
    used = logs.period(log, 1, 1, 8 * HOUR_MS)
    assert used.experiment_start_ms == DAY + 16 * HOUR_MS
    assert (used.end_ms - used.start_ms) == 2 * DAY_MS
    with pytest.raises(WorldError, match="covers 1 days, but 1 of warm-up and 1"):
        logs.period(log, 1, 1, 0)


def test_a_log_without_any_time_is_refused():
    with pytest.raises(WorldError, match="no row with a time"):
        log_of({"time_ms": None})
