from abtest.report.svg.over_days import Lines, course
from abtest.report.svg.scales import Point


def test_a_day_without_a_value_stays_open():
    full = Lines(["2026-01-01", "2026-01-02"], [Point(0, -0.1, 0.1)] * 2, [Point(0, -0.1, 0.1)] * 2)
    gap = Lines(full.dates, [Point(0, -0.1, 0.1), None], full.cumulative)
    assert course(full, "x").count("daydot") == 2
    assert course(gap, "x").count("daydot") == 1


def test_looks_bands_and_marks_are_drawn_where_they_are():
    day = Point(0.01, -0.01, 0.03)
    lines = Lines(
        ["2026-01-01", "2026-01-02"],
        [day, day],
        [day, day],
        daily_band=[(-0.02, 0.04), None],
        cumulative_band=[(-0.02, 0.04), (-0.02, 0.04)],
        looks=[(0, day, False), (1, day, True)],
        marks=[0.0, 0.001, 1.0, 99.0],
    )
    svg = course(lines, "x")
    assert svg.count('class="joint"') == 1
    assert svg.count('class="band outer"') == 1
    assert svg.count('<path class="look crossed"') == 1
    assert svg.count('class="mark"') == 2  # two are nearly at one place, one is after the last day


def test_titles_are_escaped():
    assert "<b>" not in course(Lines(["2026-01-01"], [None], [None]), "<b>")
