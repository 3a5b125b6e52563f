"""What regimes foresaw of the same pages: decayed moments of their losses, from which any two can be compared."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from contracts.features import Floats, Ints

WORST_LOSS = 20.0  # nats; a loss above it, or one that is no number, counts as this: one page must not decide

_Array = npt.NDArray[np.float64]


class Gain(NamedTuple):
    """By how much one regime's mean loss is below another's."""

    mean: float  # nats
    std_error: float  # infinite while there is too little to tell


class Evidence:
    """Weighted moments of the losses of R regimes. A page's weight halves with every `half_life` pages after it.

    A user counts once in a batch, however many of its pages are this user's. With weights w and the difference d of two
    losses, the mean is m = Σwd / Σw and its variance Σw²(d − m)² / (Σw)².

    >>> evidence = Evidence(2, half_life=1000)
    >>> evidence.add(np.array([[2.0, 1.0], [1.0, 1.0], [2.0, 2.0], [3.0, 2.0]], np.float32), np.arange(4))
    >>> gain = evidence.gain(of=1, over=0)
    >>> round(gain.mean, 2), round(gain.std_error, 2), evidence.losses.round(2).tolist()
    (0.5, 0.25, [2.0, 1.5])
    """

    def __init__(self, regimes: int, half_life: int) -> None:
        self._half_life = half_life
        self._weight = self._weight2 = 0.0  # Σw, Σw²
        self._first: _Array = np.zeros(regimes)  # Σw x
        self._first2: _Array = np.zeros(regimes)  # Σw² x
        self._second2: _Array = np.zeros((regimes, regimes))  # Σw² x xᵀ

    @property
    def losses(self) -> _Array:
        """(R,) mean losses, nats; zeros before the first page."""
        return self._first / max(self._weight, 1e-12)

    def add(self, losses: Floats, user_ids: Ints) -> None:
        """Take the losses (B, R) of pages in the order in which they came, and whose pages they were, (B,)."""
        x = np.nan_to_num(losses.astype(np.float64), nan=WORST_LOSS, posinf=WORST_LOSS).clip(max=WORST_LOSS)
        _, who, times = np.unique(user_ids, return_inverse=True, return_counts=True)
        ages = np.arange(len(x) - 1, -1, -1)
        weights = 0.5 ** (ages / self._half_life) / times[who]
        kept = 0.5 ** (len(x) / self._half_life)
        squared = weights**2
        self._weight = self._weight * kept + float(weights.sum())
        self._weight2 = self._weight2 * kept**2 + float(squared.sum())
        self._first = self._first * kept + weights @ x
        self._first2 = self._first2 * kept**2 + squared @ x
        self._second2 = self._second2 * kept**2 + (squared[:, None] * x).T @ x

    def gain(self, of: int, over: int) -> Gain:
        """By how much the regime `of` is better than the regime `over`."""
        if not self._weight:
            return Gain(0.0, float("inf"))
        mean = float(self._first[over] - self._first[of]) / self._weight
        first = float(self._first2[over] - self._first2[of])
        second = float(self._second2[over, over] + self._second2[of, of] - 2 * self._second2[over, of])
        spread = max(second - 2 * mean * first + mean**2 * self._weight2, 0.0)  # rounding may fall below zero
        return Gain(mean, spread**0.5 / self._weight)

    def state(self) -> dict[str, Any]:
        """The moments."""
        return {
            "weight": (self._weight, self._weight2),
            "first": (self._first.copy(), self._first2.copy()),
            "second": self._second2.copy(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self._weight, self._weight2 = state["weight"]
        self._first, self._first2 = (moment.copy() for moment in state["first"])
        self._second2 = state["second"].copy()
