"""The report's figure over the days: each day, all days so far, bands, a sequential plan's looks, new snapshots.

After Figure 5 of the T2Diff paper (Wang et al., WWW '25, doi 10.1145/3696410.3714829).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from abtest.format import signed
from abtest.report.svg.scales import Point, decimals, drawing, line, nice, span, text

WIDTH, HEIGHT = 420, 250
LEFT, RIGHT, TOP, BOTTOM = 62, 10, 10, 40
MARK_APART = 5.0  # marks of snapshots nearer than this to each other are drawn as one

Band = tuple[float, float] | None


@dataclass(frozen=True)
class Lines:
    """A metric over T days; every sequence but `looks` and `marks` has one entry a day, None where it has none.

    `daily_band` and `cumulative_band` hold for all days at once. `looks`: those of a sequential plan, by day.
    `marks`: when snapshots went live, in days from the start of the first.
    """

    dates: Sequence[str]
    daily: Sequence[Point | None]
    cumulative: Sequence[Point | None]
    daily_band: Sequence[Band] = ()
    cumulative_band: Sequence[Band] = ()
    looks: Sequence[tuple[int, Point, bool]] = ()  # day, interval, whether it has crossed its boundary
    marks: Sequence[float] = ()


def course(lines: Lines, title: str) -> str:
    """Relative difference day by day: each day with its error bar, all days so far as a line with a band."""
    wide = [Point(band[0], *band) for band in (*lines.daily_band, *lines.cumulative_band) if band is not None]
    looks = [point for _, point, _ in lines.looks]
    low, high = span([*(point for point in (*lines.daily, *lines.cumulative) if point is not None), *wide, *looks])
    step = nice((high - low) / 5)
    low, high = math.floor(low / step) * step, math.ceil(high / step) * step
    slot = (WIDTH - LEFT - RIGHT) / max(len(lines.dates), 1)

    def x(day: float) -> float:
        return LEFT + (day + 0.5) * slot

    def y(fraction: float) -> float:
        inside = min(max(fraction, low), high)
        return TOP + (high - inside) / (high - low) * (HEIGHT - TOP - BOTTOM)

    marks = _axes(lines.dates, low, high, step, x, y)
    marks += _bands(lines, x, y)
    for day, point, crossed in lines.looks:
        marks += _look(x(day) + 9, y, point, crossed=crossed)
    for day, band in enumerate(lines.daily_band):
        if band is not None:
            marks.append(line("joint", x(day) - 5, y(band[1]), x(day) - 5, y(band[0])))
    for day, alone in enumerate(lines.daily):
        if alone is not None:
            marks += _error_bar(x(day) - 5, y, alone, low, high)
    floor = HEIGHT - BOTTOM
    marks += [
        f'<path class="mark" d="M{at:.1f} {floor + 1} l-3.5 6 h7 z"/>'
        for at in _apart([LEFT + day * slot for day in lines.marks if 0 <= day <= len(lines.dates)])
    ]
    return drawing(WIDTH, HEIGHT, title, *marks)


def _axes(
    dates: Sequence[str],
    low: float,
    high: float,
    step: float,
    x: Callable[[float], float],
    y: Callable[[float], float],
) -> list[str]:
    marks = []
    for i in range(round((high - low) / step) + 1):
        at = low + i * step
        kind = "zero" if abs(at) < step / 2 else "grid"
        marks.append(line(kind, LEFT, y(at), WIDTH - RIGHT, y(at)))
        marks.append(text("tick end", LEFT - 7, y(at) + 4, "0" if kind == "zero" else signed(at, decimals(step))))
    every = math.ceil(len(dates) / 7)
    return marks + [
        text("tick mid", x(day), HEIGHT - 12, date[5:].replace("-", "/") if date[4:5] == "-" else date)
        for day, date in enumerate(dates)
        if day % every == 0
    ]


def _bands(lines: Lines, x: Callable[[float], float], y: Callable[[float], float]) -> list[str]:
    """All days so far: the joint band outside, the pointwise one inside, the line on top."""
    joint = [(x(day) + 4, band) for day, band in enumerate(lines.cumulative_band) if band is not None]
    points = [(x(day) + 4, point) for day, point in enumerate(lines.cumulative) if point is not None]
    marks = []
    for kind, edges in (("band outer", joint), ("band", [(at, (point.low, point.high)) for at, point in points])):
        if edges:
            around = [f"{at:.1f},{y(high):.1f}" for at, (_, high) in edges]
            around += [f"{at:.1f},{y(low):.1f}" for at, (low, _) in reversed(edges)]
            marks.append(f'<polygon class="{kind}" points="{" ".join(around)}"/>')
    if points:
        path = " ".join(f"{at:.1f},{y(point.relative):.1f}" for at, point in points)
        marks.append(f'<polyline class="line" points="{path}"/>')
        marks += [
            f'<rect class="dot" x="{at - 3:.1f}" y="{y(point.relative) - 3:.1f}" width="6" height="6"/>'
            for at, point in points
        ]
    return marks


def _look(x: float, y: Callable[[float], float], point: Point, *, crossed: bool) -> list[str]:
    """The interval of one look, between two wedges; a filled diamond where it has crossed its boundary."""
    kind = "look crossed" if crossed else "look"
    middle = y(point.relative)
    return [
        line(kind, x, y(point.high), x, y(point.low)),
        *(line(kind, x - 5, y(end), x + 5, y(end)) for end in (point.high, point.low)),
        f'<path class="{kind}" d="M{x:.1f} {middle - 5:.1f} l5 5 l-5 5 l-5 -5 z"/>',
    ]


def _error_bar(x: float, y: Callable[[float], float], point: Point, low: float, high: float) -> list[str]:
    top, bottom = y(point.high), y(point.low)
    marks = [line("day", x, top, x, bottom)]
    for end, cut, away in ((top, point.high > high, 6), (bottom, point.low < low, -6)):
        marks.append(
            f'<path class="day" d="M{x - 4:.1f} {end + away:.1f} L{x:.1f} {end:.1f} L{x + 4:.1f} {end + away:.1f}"/>'
            if cut
            else line("day", x - 3, end, x + 3, end)
        )
    if low <= point.relative <= high:
        marks.append(f'<circle class="daydot" cx="{x:.1f}" cy="{y(point.relative):.1f}" r="3.6"/>')
    return marks


def _apart(places: Sequence[float]) -> list[float]:
    spaced: list[float] = []
    for place in sorted(places):
        if not spaced or place - spaced[-1] >= MARK_APART:
            spaced.append(place)
    return spaced
