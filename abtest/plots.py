"""The report's drawings: SVG text that takes its colours from the page, so it follows light and dark.

Drawn by hand instead of by a plotting library: the marks are few, text stays text (it can be read aloud, searched and
enlarged), and the same numbers give the same bytes.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from abtest.format import signed

WIDTH, HEIGHT = 420, 236
LEFT, RIGHT, TOP, BOTTOM = 62, 10, 10, 30
FOREST_WIDTH, FOREST_HEIGHT = 200, 40
CLIP = 3.0  # an error bar may reach this many times the typical one; further, it is cut and marked with an arrowhead


@dataclass(frozen=True)
class Point:
    """A relative difference and its interval, as fractions."""

    relative: float
    low: float
    high: float


def forest(point: Point | None, title: str) -> str:
    """One interval on a line with zero in the middle, and the scale's ends in figures."""
    if point is None:
        return ""
    reach = _nice(1.15 * max(abs(point.low), abs(point.high), 1e-6))
    decimals = _decimals(reach)

    def x(fraction: float) -> float:
        return FOREST_WIDTH / 2 + fraction / reach * (FOREST_WIDTH / 2 - 6)

    low, mid, high = x(point.low), x(point.relative), x(point.high)
    return _svg(
        FOREST_WIDTH,
        FOREST_HEIGHT,
        title,
        f'<line class="axis" x1="6" y1="26" x2="{FOREST_WIDTH - 6}" y2="26"/>',
        f'<line class="zero" x1="{x(0):.1f}" y1="2" x2="{x(0):.1f}" y2="30"/>',
        f'<line class="bar" x1="{low:.1f}" y1="13" x2="{high:.1f}" y2="13"/>',
        *(f'<line class="bar" x1="{end:.1f}" y1="8" x2="{end:.1f}" y2="18"/>' for end in (low, high)),
        f'<rect class="dot" x="{mid - 4.5:.1f}" y="8.5" width="9" height="9"/>',
        f'<text class="tick" x="4" y="39">{signed(-reach, decimals)}</text>',
        f'<text class="tick mid" x="{x(0):.1f}" y="39">0</text>',
        f'<text class="tick end" x="{FOREST_WIDTH - 4}" y="39">{signed(reach, decimals)}</text>',
    )


def course(dates: Sequence[str], daily: Sequence[Point | None], cumulative: Sequence[Point | None], title: str) -> str:
    """Relative difference day by day: each day with its error bar, all days so far as a line with a band.

    After Figure 5 of the T2Diff paper (Wang et al., WWW '25, doi 10.1145/3696410.3714829). Days without a point are
    left open.
    """
    low, high = _range([point for point in (*daily, *cumulative) if point is not None])
    step = _nice((high - low) / 5)
    low, high = math.floor(low / step) * step, math.ceil(high / step) * step
    slot = (WIDTH - LEFT - RIGHT) / max(len(dates), 1)

    def x(day: int) -> float:
        return LEFT + (day + 0.5) * slot

    def y(fraction: float) -> float:
        inside = min(max(fraction, low), high)
        return TOP + (high - inside) / (high - low) * (HEIGHT - TOP - BOTTOM)

    marks: list[str] = []
    for i in range(round((high - low) / step) + 1):
        at = low + i * step
        kind = "zero" if abs(at) < step / 2 else "grid"
        marks.append(f'<line class="{kind}" x1="{LEFT}" y1="{y(at):.1f}" x2="{WIDTH - RIGHT}" y2="{y(at):.1f}"/>')
        label = "0" if kind == "zero" else signed(at, _decimals(step))
        marks.append(f'<text class="tick end" x="{LEFT - 7}" y="{y(at) + 4:.1f}">{label}</text>')
    every = math.ceil(len(dates) / 7)
    marks.extend(
        f'<text class="tick mid" x="{x(day):.1f}" y="{HEIGHT - 9}">{escape(date[5:].replace("-", "/"))}</text>'
        for day, date in enumerate(dates)
        if day % every == 0
    )
    known = [(x(day) + 4, point) for day, point in enumerate(cumulative) if point is not None]
    if known:
        edge = [f"{at:.1f},{y(p.high):.1f}" for at, p in known] + [f"{at:.1f},{y(p.low):.1f}" for at, p in known[::-1]]
        line = " ".join(f"{at:.1f},{y(p.relative):.1f}" for at, p in known)
        marks.append(f'<polygon class="band" points="{" ".join(edge)}"/><polyline class="line" points="{line}"/>')
        marks.extend(
            f'<rect class="dot" x="{at - 3:.1f}" y="{y(p.relative) - 3:.1f}" width="6" height="6"/>' for at, p in known
        )
    for day, point in enumerate(daily):
        if point is not None:
            marks.extend(_error_bar(x(day) - 5, y, point, low, high))
    return _svg(WIDTH, HEIGHT, title, *marks)


def _error_bar(x: float, y: Callable[[float], float], point: Point, low: float, high: float) -> list[str]:
    top, bottom = y(point.high), y(point.low)
    marks = [f'<line class="day" x1="{x:.1f}" y1="{top:.1f}" x2="{x:.1f}" y2="{bottom:.1f}"/>']
    for end, cut, away in ((top, point.high > high, 6), (bottom, point.low < low, -6)):
        marks.append(
            f'<path class="day" d="M{x - 4:.1f} {end + away:.1f} L{x:.1f} {end:.1f} L{x + 4:.1f} {end + away:.1f}"/>'
            if cut
            else f'<line class="day" x1="{x - 3:.1f}" y1="{end:.1f}" x2="{x + 3:.1f}" y2="{end:.1f}"/>'
        )
    if low <= point.relative <= high:
        marks.append(f'<circle class="daydot" cx="{x:.1f}" cy="{y(point.relative):.1f}" r="3.6"/>')
    return marks


def _range(points: Sequence[Point]) -> tuple[float, float]:
    """Lowest and highest value to show, zero included; single wild intervals do not set the scale."""
    if not points:
        return -0.01, 0.01
    reaches = sorted(max(abs(point.low), abs(point.high)) for point in points)
    limit = CLIP * reaches[len(reaches) // 2]
    low = max(min(0.0, *(point.low for point in points)), -limit)
    high = min(max(0.0, *(point.high for point in points)), limit)
    return (low, high) if high - low > 1e-9 else (-0.01, 0.01)


def _nice(step: float) -> float:
    """The next 1, 2 or 5 times a power of ten.

    >>> _nice(0.013), _nice(0.4)
    (0.02, 0.5)
    """
    power = 10.0 ** math.floor(math.log10(step))
    return next(round(m * power, 12) for m in (1, 2, 5, 10) if m * power >= step * (1 - 1e-9))


def _decimals(step: float) -> int:
    return max(0, -math.floor(math.log10(step * 100) + 1e-9))


def _svg(width: int, height: int, title: str, *marks: str) -> str:
    label = escape(title, quote=True)
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{label}">{"".join(marks)}</svg>'
