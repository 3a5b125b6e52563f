"""Forest and course: what is drawn where."""

import re

from abtest.report.svg.forest import forest
from abtest.report.svg.over_days import Lines, course
from abtest.report.svg.scales import Point, reach


def numbers(svg: str, kind: str, name: str) -> list[float]:
    return [float(found) for found in re.findall(rf'class="{kind}"[^>]*? {name}="([\d.]+)"', svg)]


def test_no_interval_no_drawing():
    assert forest(None, None, 0.1, "x") == ""


def test_zero_is_in_the_middle_and_the_interval_on_its_side():
    svg = forest(Point(0.02, 0.01, 0.03), None, 0.04, "x")
    (zero,) = numbers(svg, "zero", "x1")
    low, *_ = numbers(svg, "bar", "x1")
    assert zero == 110
    assert low == zero + 0.25 * 102  # a quarter of the way to the end


def test_the_good_side_is_tinted_and_the_least_effect_is_drawn_on_its_side():
    more = forest(Point(0.0, -0.01, 0.01), None, 0.04, "x", good="increase", least=0.02)
    less = forest(Point(0.0, -0.01, 0.01), None, 0.04, "x", good="decrease", least=-0.02)
    assert 'class="good" x="110.0"' in more
    assert 'class="good" x="8.0"' in less
    assert numbers(more, "least", "x1") > [110]
    assert numbers(less, "least", "x1") < [110]


def test_what_goes_beyond_the_scale_ends_in_an_arrowhead_and_not_at_a_wrong_place():
    svg = forest(Point(0.5, 0.01, 9.0), None, 0.04, "x")
    assert svg.count("bar open") == 1
    assert 'class="dot"' not in svg  # the estimate is off the scale, too


def test_one_wild_interval_does_not_flatten_the_others():
    points = [Point(0.01, -0.01, 0.03), Point(0.0, -0.02, 0.02), Point(0.0, -9.0, 9.0)]
    assert reach(points) < 0.2


def test_titles_are_escaped():
    assert "<b>" not in forest(Point(0, -1, 1), None, 1, "<b>\"'")
    assert "<b>" not in course(Lines(["2026-01-01"], [None], [None]), "<b>")


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
