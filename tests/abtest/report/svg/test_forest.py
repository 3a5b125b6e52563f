"""The forest: what is drawn where."""

import re

from abtest.report.svg.forest import forest
from abtest.report.svg.scales import Point


def numbers(svg: str, kind: str, name: str) -> list[float]:
    return [float(number) for number in re.findall(rf'class="{kind}"[^>]*? {name}="([\d.]+)"', svg)]


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


def test_titles_are_escaped():
    assert "<b>" not in forest(Point(0, -1, 1), None, 1, "<b>\"'")
