"""What a part of a model is worth that it could be served without, measured on the stream before it is learned from.

Some of the tested batches are tested twice, with the part and without it, and the difference of recall@20 is kept with
its error. The pairs are examples; those of one user are not independent, so the interval is somewhat too narrow.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from contracts.features import Ints
from contracts.snapshots.parts import Part
from trainer.evaluation.ranking import LIST

EVERY = 4  # batches, of which one is tested both ways
HALF_LIFE = 10_000.0  # pairs after which one counts half
LEAST = 1_000  # pairs before which nothing is said
Z = 1.96  # of a 95 % interval


class PartWorth:
    """The evidence on one part, and whether it is served.

    A part is served as soon as its interval lies above 0, and no longer where it finds nothing more. At first it isn't.

    >>> part = PartWorth("guess")
    >>> part.add(np.array([1, 9] * 600), np.array([1, 30] * 600))
    >>> part.served, round(part.metrics()["worth:guess"], 3)
    (True, 1.0)
    """

    def __init__(self, name: str) -> None:
        """`name`: of the part; empty: there is none, and nothing is measured."""
        self.name = name
        self.served = False
        self._batches = 0
        # Weighted sums over pairs, newest with weight 1: of weights, squared weights, hits without, differences and
        # their squares.
        self._sums: npt.NDArray[np.float64] = np.zeros(5)

    def due(self) -> bool:
        """Count a batch that is tested; whether it is to be tested both ways."""
        self._batches += 1
        return bool(self.name) and self._batches % EVERY == 0

    def add(self, ranks_with: Ints, ranks_without: Ints) -> None:
        """Take the ranks (B,) of the same targets with the part and without it, and decide anew."""
        difference = (ranks_with <= LIST).astype(np.float64) - (ranks_without <= LIST)
        weights = 0.5 ** (np.arange(len(difference) - 1, -1, -1) / HALF_LIFE)
        fade = 0.5 ** (len(difference) / HALF_LIFE)
        columns = [np.ones(len(difference)), weights, ranks_without <= LIST, difference, difference**2]
        self._sums = self._sums * [fade, fade**2, fade, fade, fade] + np.stack(columns) @ weights
        part = self.part()
        if part.worth is not None and part.low is not None:
            self.served = part.low > 0 or (self.served and part.worth > 0)

    def part(self) -> Part:
        """What the part is worth; not known before there are enough pairs, or where nothing is found without it."""
        weight, squared, without, difference, square = self._sums.tolist()
        if not squared or weight**2 / squared < LEAST or not without:
            return Part(self.name, self.served)
        mean, base = difference / weight, without / weight
        error = float(np.sqrt(max(square / weight - mean**2, 0.0) * squared) / weight)
        return Part(self.name, self.served, mean / base, (mean - Z * error) / base, (mean + Z * error) / base)

    def metrics(self) -> dict[str, float]:
        """As a manifest carries them; none where the model has no such part."""
        return self.part().metrics() if self.name else {}

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"served": self.served, "batches": self._batches, "sums": self._sums.copy()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.served, self._batches, self._sums = state["served"], state["batches"], state["sums"].copy()
