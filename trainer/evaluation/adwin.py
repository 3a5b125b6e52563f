"""ADWIN (Bifet and Gavaldà, "Learning from Time-Changing Data with Adaptive Windowing", SDM 2007) with a plain state.

River's detector is the reference, and this one gives the same numbers bit for bit (`tests/trainer/evaluation/
test_adwin.py`). River itself writes its window down only as a pickle or in a layout of its own, which differs between
its versions and which it does not check; a checkpoint must hold neither.
"""

import math
from collections.abc import Mapping
from typing import Any

CLOCK = 32  # values between two looks for a change
BUCKETS = 5  # of each size; where there is one more, the two oldest become one of twice the size
LEAST = 5  # values in either part of the window
GRACE = 10  # values before the first look
LARGEST = 60  # powers of 2 that a bucket may have: more values than any stream has


class Adwin:
    """A window over a stream of numbers that drops its oldest part when the two parts' means differ for certain.

    Row i has buckets of 2^i values each, the oldest first, as (total, variance), the latter times the values.

    >>> window = Adwin(0.002)
    >>> any(window.update(0.0) for _ in range(1000)), any(window.update(1.0) for _ in range(100))
    (False, True)
    """

    def __init__(self, delta: float) -> None:
        self._delta = delta  # chance of a false alarm
        self._clear()

    def _clear(self) -> None:
        self._rows: list[list[tuple[float, float]]] = [[]]
        self._width = self._tick = 0
        self._total = self._variance = 0.0
        self._changed = False

    @property
    def mean(self) -> float:
        """Of the values in the window; 0 where there are none."""
        return self._total / self._width if self._width else 0.0

    def update(self, value: float) -> bool:
        """Take a value; whether a change became certain with it. The value after that begins a new window."""
        if self._changed:
            self._clear()
        self._insert(value)
        self._tick += 1
        self._changed = False
        if self._tick % CLOCK == 0 and self._width > GRACE:
            while self._has_cut():
                self._changed = True
                self._drop_oldest()
        return self._changed

    def state(self) -> dict[str, Any]:
        """The window in numbers."""
        return {
            "rows": [[list(bucket) for bucket in row] for row in self._rows],
            "total": self._total,
            "variance": self._variance,
            "tick": self._tick,
            "changed": self._changed,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a state.

        Raises:
            ValueError: it is none; nothing has changed then.

        """
        try:
            rows = [[(float(total), float(variance)) for total, variance in row] for row in state["rows"]]
            total, variance = float(state["total"]), float(state["variance"])
            tick, changed = state["tick"], state["changed"]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"the state of a drift detector lacks a number: {error}") from error
        numbers = [total, variance, *(number for row in rows for bucket in row for number in bucket)]
        if (
            not 0 < len(rows) <= LARGEST
            or any(len(row) > BUCKETS for row in rows)
            or (len(rows) > 1 and not rows[-1])
            or not all(map(math.isfinite, numbers))
            or type(tick) is not int
            or tick < 0
            or type(changed) is not bool
        ):
            raise ValueError("the state of a drift detector is none that it could have come to")
        self._rows, self._total, self._variance = rows, total, variance
        self._tick, self._changed = tick, changed
        self._width = sum(len(row) << power for power, row in enumerate(rows))

    def _insert(self, value: float) -> None:
        self._rows[0].append((value, 0.0))
        self._width += 1
        if self._width > 1:  # Babcock et al., "Maintaining Variance and k-Medians over Data Stream Windows", PODS 2003
            away = value - self._total / (self._width - 1)
            self._variance += (self._width - 1) * away * away / self._width
        self._total += value
        self._merge()

    def _merge(self) -> None:
        """Make one bucket of the two oldest of a size of which there are too many, and so on upwards."""
        for power, row in enumerate(self._rows):
            if len(row) <= BUCKETS:
                return
            size = float(1 << power)
            (total, variance), (other_total, other_variance) = row[:2]
            apart = total / size - other_total / size
            if power + 1 == len(self._rows):
                self._rows.append([])
            self._rows[power + 1].append((total + other_total, variance + other_variance + size * 0.5 * apart * apart))
            del row[:2]

    def _drop_oldest(self) -> None:
        size = 1 << (len(self._rows) - 1)
        total, variance = self._rows[-1].pop(0)
        self._width -= size
        self._total -= total
        apart = total / size - self._total / self._width
        self._variance -= variance + size * self._width * apart * apart / (size + self._width)
        if not self._rows[-1] and len(self._rows) > 1:
            self._rows.pop()

    def _has_cut(self) -> bool:
        """Whether the window can be cut where the means of its two parts differ for certain (Theorem 3.1, ε_cut)."""
        older, newer = 0, self._width
        older_total, newer_total = 0.0, self._total
        for power in range(len(self._rows) - 1, -1, -1):
            size = 1 << power
            for total, _ in self._rows[power]:
                older, newer = older + size, newer - size
                older_total, newer_total = older_total + total, newer_total - total
                if newer < LEAST:
                    return False
                if older >= LEAST and abs(older_total / older - newer_total / newer) > self._epsilon(older, newer):
                    return True
        return False

    def _epsilon(self, older: int, newer: int) -> float:
        certainty = math.log(2.0 * math.log(self._width) / self._delta)
        harmonic = 1.0 / (older - LEAST + 1.0) + 1.0 / (newer - LEAST + 1.0)
        spread = 2.0 * harmonic * (self._variance / self._width) * certainty
        if spread < 0:  # rounding may leave the variance of equal values a little below 0: River then finds no cut
            return math.inf
        return math.sqrt(spread) + 2.0 / 3.0 * certainty * harmonic
