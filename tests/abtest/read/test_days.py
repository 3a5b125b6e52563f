from datetime import UTC, date, datetime, timedelta, timezone

import numpy as np
import pandas as pd
import pytest

from abtest.analyse.analysis import report
from abtest.incremental import read as incremental
from abtest.read.engines import DataError, opened
from abtest.read.rows import read
from contracts.config.experiment import Experiment, validated
from tests.abtest.abtest_cases import experiment
from tests.abtest.read.read_cases import METRICS, assert_same, parquet

MARCH = 1_772_323_200_000  # 2026-03-01 in UTC
DAY_MS = 86_400_000


def march(days=3, **changes):
    return experiment(days=days, start_ms=MARCH, end_ms=MARCH + days * DAY_MS, metrics=METRICS, **changes)


def rows(days, users=100):
    """Everyone on each of `days`."""
    parts = []
    for i, day in enumerate(days):
        ids = np.arange(users) + 1
        arm = np.where(ids % 2, "treatment", "control")
        played = (ids * (i + 2)) % 7 + 0.5
        parts.append(
            pd.DataFrame(
                {"user_id": ids, "arm": arm, "day": [day] * users, "views": 10, "effective_views": ids % 4}
            ).assign(play_s=played)
        )
    return pd.concat(parts)


DATES = [date(2026, 3, 1) + timedelta(days=i) for i in range(3)]


@pytest.mark.parametrize(
    "spelled",
    [
        lambda d: d,
        lambda d: datetime(d.year, d.month, d.day),  # noqa: DTZ001
        lambda d: datetime(d.year, d.month, d.day, tzinfo=UTC),
        lambda d: d.isoformat(),
        lambda d: f"{d} 00:00:00",
        lambda d: f"{d}T00:00:00+00:00",
        lambda d: f"{d}T00:00:00.000Z",
    ],
)
def test_dates_midnights_and_iso_text_are_days(tmp_path, spelled):
    by_number = read(opened(parquet(tmp_path, rows(range(3)), "numbers.parquet")), march())
    path = parquet(tmp_path, rows([spelled(each) for each in DATES]))
    counted = read(opened(path), march())
    assert counted.counts == by_number.counts == {"rows": 300}
    assert_same(counted.aggregate, by_number.aggregate)
    kept = incremental.read(tmp_path / "kept", opened(path), march())
    assert_same(kept.aggregate, by_number.aggregate)
    csv = tmp_path / "days.csv"
    rows([spelled(each) for each in DATES]).to_csv(csv, index=False)
    assert_same(read(opened(csv), march()).aggregate, by_number.aggregate)


def test_a_midnight_by_the_experiment_s_own_calendar_is_its_day(tmp_path):
    beijing = timezone(timedelta(hours=8))
    plan = march(day_offset_ms=8 * 3_600_000)
    at = [datetime(2026, 3, day, tzinfo=beijing) for day in (1, 2)]
    counted = read(opened(parquet(tmp_path, rows(at))), plan)
    assert [sum(counted.aggregate.on(day)[arm].n for arm in ("control", "treatment")) for day in (0, 1)] == [100, 100]


@pytest.mark.parametrize(
    ("day", "said"),
    [
        (20260301, "numbers that are not counted from .* first day, 0; .*first: user_id 1, day 20260301"),
        (20_513, "numbers that are not counted from .*day 20513"),
        (1_772_323_200, "numbers that are not counted from .*day 1772323200"),
        (MARCH, "numbers that are not counted from .*day 1772323200000"),
        (-20260301, "numbers that are not counted from .*day -20260301"),
        (
            datetime(2026, 3, 1, 9, 30, tzinfo=UTC),
            r"times that are no midnight.*first: user_id 1, day 2026-03-01T09:30",
        ),
        (datetime(2026, 3, 1, 0, 0, 0, 1), "times that are no midnight.*day 2026-03-01T00:00:00.000001"),  # noqa: DTZ001
        (datetime(2026, 2, 28, 23, tzinfo=UTC), "times that are no midnight"),  # midnight, but in no zone of this plan
        ("01.03.2026", "texts that are no date of ISO 8601.*day 01.03.2026"),
        ("20260301", "texts that are no date of ISO 8601.*day 20260301"),
        ("2026-02-30", "texts that are no date.*day 2026-02-30"),
        ("2026-03-01T05:00:00", "texts that are no date.*day 2026-03-01T05:00"),
        ("2026-W09-7", "texts that are no date"),
        ("", "texts that are no date"),
    ],
)
def test_what_is_no_day_is_refused_and_the_first_is_shown(tmp_path, day, said):
    path = parquet(tmp_path, rows([day]))
    with pytest.raises(DataError, match=f"column 'day' has 100 {said}"):
        read(opened(path), march())
    with pytest.raises(DataError, match=said.partition(".*")[0]):
        incremental.read(tmp_path / "kept", opened(path), march())


def test_one_day_written_in_two_ways_is_one_day(tmp_path):
    each = rows(["2026-03-01"])
    mixed = each.assign(day=["2026-03-01", "2026-03-01 00:00:00"] * 50)
    plain = read(opened(parquet(tmp_path, each)), march())
    assert_same(read(opened(parquet(tmp_path, mixed)), march()).aggregate, plain.aggregate)
    assert_same(
        incremental.read(tmp_path / "kept", opened(parquet(tmp_path, mixed)), march()).aggregate, plain.aggregate
    )


def berlin(**changes):
    given = march().model_dump() | {"start_ms": ms("2026-10-22T00:00+02:00"), "end_ms": ms("2026-10-29T00:00+01:00")}
    return validated(Experiment, given | changes, "e")


def ms(text):
    return round(datetime.fromisoformat(text).timestamp() * 1000)


WEEK = [date(2026, 10, 22) + timedelta(days=i) for i in range(7)]


def check(found, name):
    return next((each for each in found.checks if each.name == name), None)


def test_seven_local_days_over_the_end_of_summer_time_end_by_the_zone_s_name(tmp_path):
    path = parquet(tmp_path, rows(WEEK))
    counted = read(opened(path), berlin(zone="Europe/Berlin"))
    found = report(counted.aggregate, berlin(zone="Europe/Berlin"))
    assert (found.days_planned, [day.date for day in found.days]) == (7, [day.isoformat() for day in WEEK])
    assert found.zone == "Europe/Berlin"
    assert check(found, "end") is None


def test_what_an_experiment_waits_for_is_named_and_so_is_the_cure(tmp_path):
    path = parquet(tmp_path, rows(WEEK))
    cut = berlin(day_offset_ms=2 * 3_600_000)
    waits = check(report(read(opened(path), cut).aggregate, cut), "end")
    assert waits.level == "warning"
    assert waits.said.startswith(
        "7 of 8 days are over; what is waited for is 2026-10-29, up to 2026-10-29 01:00 UTC+02:00."
    )
    assert "has 1 hour:" in waits.said
    assert "zone: Europe/Berlin" in waits.said
    early = berlin(zone="Europe/Berlin")
    waits = check(report(read(opened(parquet(tmp_path, rows(WEEK[:4]))), early).aggregate, early), "end")
    assert (waits.level, waits.said) == (
        "ok",
        "4 of 7 days are over; what is waited for is 2026-10-26 to 2026-10-28, up to 2026-10-29 00:00 Europe/Berlin.",
    )


def test_a_local_midnight_of_a_named_zone_is_a_day_on_both_sides_of_the_change(tmp_path):
    plan = berlin(zone="Europe/Berlin")
    at = pd.to_datetime([day.isoformat() for day in WEEK]).tz_localize("Europe/Berlin")
    counted = read(opened(parquet(tmp_path, rows(list(at)))), plan)
    by_date = read(opened(parquet(tmp_path, rows(WEEK))), plan)
    assert_same(counted.aggregate, by_date.aggregate)
