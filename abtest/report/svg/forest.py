"""The scorecard's forest plot: one interval a metric, all of a table on one scale."""

from typing import Literal

from abtest.format import signed
from abtest.report.svg.scales import Point, drawing, exact, line, text

WIDTH, HEIGHT = 220, 46
EDGE, BAR, PLAIN, AXIS = 8, 12, 23, 32  # left and right margin; heights of the marks


def forest(
    planned: Point | None,
    plain: Point | None,
    scale: float,
    title: str,
    *,
    good: Literal["increase", "decrease"] = "increase",
    least: float | None = None,
) -> str:
    """An interval about zero. The good side is tinted.

    Args:
        planned: what the plan goes by: a thick bar.
        plain: a second interval beside it: a thin bar; None leaves it out.
        scale: the ends of the axis are minus and plus this fraction; what reaches beyond ends in an arrowhead.
        title: what it shows, in words.
        good: the direction that is good.
        least: the difference, with its sign, that the plan measures the metric by: a dashed line.

    """
    if planned is None and plain is None:
        return ""
    zero = _x(0, scale)
    begin, end = (zero, WIDTH - EDGE) if good == "increase" else (EDGE, zero)
    digits = exact(scale)
    marks = [
        f'<rect class="good" x="{begin:.1f}" y="2" width="{end - begin:.1f}" height="{AXIS - 2}"/>',
        line("axis", EDGE, AXIS, WIDTH - EDGE, AXIS),
        line("zero", zero, 2, zero, AXIS + 3),
    ]
    if least and abs(least) <= scale:
        marks.append(line("least", _x(least, scale), 2, _x(least, scale), AXIS))
    if plain is not None:
        marks += _interval("plain", plain, PLAIN, 3, scale)
    if planned is not None:
        marks += _interval("bar", planned, BAR, 5, scale)
        if abs(planned.relative) <= scale:
            x = _x(planned.relative, scale)
            marks.append(f'<rect class="dot" x="{x - 4.5:.1f}" y="{BAR - 4.5}" width="9" height="9"/>')
    marks += [
        text("tick", 2, HEIGHT - 2, signed(-scale, digits)),
        text("tick mid", zero, HEIGHT - 2, "0"),
        text("tick end", WIDTH - 2, HEIGHT - 2, signed(scale, digits)),
    ]
    return drawing(WIDTH, HEIGHT, title, *marks)


def _x(fraction: float, scale: float) -> float:
    inside = min(max(fraction / scale, -1.0), 1.0)
    return WIDTH / 2 + inside * (WIDTH / 2 - EDGE)


def _interval(kind: str, point: Point, y: float, half: float, scale: float) -> list[str]:
    low, high = _x(point.low, scale), _x(point.high, scale)
    marks = [line(kind, low, y, high, y)]
    for at, cut, away in ((low, point.low < -scale, half), (high, point.high > scale, -half)):
        marks.append(
            f'<path class="{kind} open" d="M{at + away:.1f} {y - half} L{at:.1f} {y} L{at + away:.1f} {y + half}"/>'
            if cut
            else line(kind, at, y - half, at, y + half)
        )
    return marks
