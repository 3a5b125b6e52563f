"""What the report's drawings share: scales, ticks, and SVG text that takes its colours from the page.

Drawn by hand instead of by a plotting library: the marks are few, text stays text (it can be read aloud, searched and
enlarged), the drawings follow light and dark, and the same numbers give the same bytes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

CLIP = 3.0  # an interval may reach this many times the typical one; further, it is cut and marked with an arrowhead


@dataclass(frozen=True)
class Point:
    """A relative difference and its interval, as fractions."""

    relative: float
    low: float
    high: float


def reach(points: Sequence[Point], *others: float) -> float:
    """How far from zero a scale must go for `points` and `others`; single wild intervals do not set it.

    >>> reach([Point(0.01, -0.01, 0.03), Point(0.0, -0.02, 0.02), Point(0, -9, 9)], 0.01)
    0.1
    """
    reaches = sorted(max(abs(point.low), abs(point.high)) for point in points)
    limit = CLIP * reaches[(len(reaches) - 1) // 2] if reaches else 0.0
    widest = min(reaches[-1], limit) if reaches else 0.0
    return _next(1.05 * max(widest, *(abs(other) for other in others), 1e-6), (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10))


def span(points: Sequence[Point]) -> tuple[float, float]:
    """Lowest and highest value to show, zero included; single wild intervals do not set the scale."""
    if not points:
        return -0.01, 0.01
    reaches = sorted(max(abs(point.low), abs(point.high)) for point in points)
    limit = CLIP * reaches[len(reaches) // 2]
    low = max(min(0.0, *(point.low for point in points)), -limit)
    high = min(max(0.0, *(point.high for point in points)), limit)
    return (low, high) if high - low > 1e-9 else (-0.01, 0.01)


def nice(step: float) -> float:
    """The next 1, 2 or 5 times a power of ten.

    >>> nice(0.013), nice(0.4)
    (0.02, 0.5)
    """
    return _next(step, (1, 2, 5, 10))


def _next(step: float, multiples: Sequence[float]) -> float:
    power = 10.0 ** math.floor(math.log10(step))
    return next(round(m * power, 12) for m in multiples if m * power >= step * (1 - 1e-9))


def decimals(step: float) -> int:
    """Decimals of a percentage that tell steps of this size (a fraction) apart.

    >>> decimals(0.02), decimals(0.005)
    (0, 1)
    """
    return max(0, -math.floor(math.log10(step * 100) + 1e-9))


def exact(fraction: float) -> int:
    """Decimals of a percentage that show this fraction as it is.

    >>> exact(0.2), exact(0.015)
    (0, 1)
    """
    percent = 100 * fraction
    return next(places for places in range(12) if math.isclose(round(percent, places), percent, rel_tol=1e-9))


def line(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    """A straight line of the page's class `kind`."""
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def text(kind: str, x: float, y: float, words: str) -> str:
    """Text of the page's class `kind`."""
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(words)}</text>'


def drawing(width: int, height: int, title: str, *marks: str) -> str:
    """The whole, described by `title` to who cannot see it."""
    label = escape(title, quote=True)
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{label}">{"".join(marks)}</svg>'
