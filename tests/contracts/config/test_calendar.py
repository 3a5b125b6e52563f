from datetime import UTC, datetime

import pytest

from contracts.config.calendar import Calendar, unit_hint, zone_name
from contracts.runtime.clock import DAY_MS, HOUR_MS


def ms(text):
    return round(datetime.fromisoformat(text).timestamp() * 1000)


@pytest.mark.parametrize(
    ("zone", "date", "hours"),
    [
        ("Europe/Berlin", "2026-10-25", 25),
        ("Europe/Berlin", "2026-03-29", 23),
        ("Europe/Berlin", "2026-03-30", 24),
        ("America/New_York", "2026-11-01", 25),
        ("Australia/Lord_Howe", "2026-04-05", 24.5),
        ("Asia/Beirut", "2026-03-29", 23),  # at midnight, which is skipped
        ("America/Havana", "2026-11-01", 25),  # at one, so that midnight comes twice
        ("Asia/Kolkata", "2026-03-29", 24),
    ],
)
def test_a_day_of_a_zone_has_all_its_hours_and_no_other_s(zone, date, hours):
    calendar, number = Calendar(zone=zone), datetime.fromisoformat(f"{date}T00:00+00:00").timestamp() // 86400
    begin, end = calendar.midnight_ms(int(number)), calendar.midnight_ms(int(number) + 1)
    assert end - begin == hours * HOUR_MS
    assert {calendar.date_number(at) for at in (begin, begin + HOUR_MS, end - 1)} == {number}
    assert (calendar.date_number(begin - 1), calendar.date_number(end)) == (number - 1, number + 1)


def test_an_offset_cuts_days_of_24_hours_also_before_1970():
    calendar = Calendar(8 * HOUR_MS)
    assert [calendar.midnight_ms(calendar.date_number(at)) for at in (0, -9 * HOUR_MS)] == [
        -8 * HOUR_MS,
        -8 * HOUR_MS - DAY_MS,
    ]
    assert Calendar(zone="UTC").date_number(-1) == -1


@pytest.mark.parametrize("name", ["Europe/Atlantis", "+02:00", "", None, 3, True, "../etc/passwd", "Europe", "Mars"])
def test_what_is_no_zone_is_refused(name):
    with pytest.raises(ValueError, match="is not the name of a time zone, such as Europe/Berlin"):
        zone_name(name)


def test_numbers_of_another_unit_are_recognised_and_those_of_milliseconds_are_not():
    now = 1_772_323_200
    assert unit_hint(now) == f"{now} is in 1970; are these seconds?"
    assert unit_hint(now * 10**6).endswith("are these microseconds?")
    assert unit_hint(now * 10**9).endswith("are these nanoseconds?")
    assert unit_hint(10**21) == f"{10**21} is past the year 2199"
    real = [round(datetime(year, 1, 1, tzinfo=UTC).timestamp() * 1000) for year in (1974, 1990, 2026, 2199)]
    assert [unit_hint(at) for at in (0, 10 * DAY_MS, *real)] == [""] * 6
