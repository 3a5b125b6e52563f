"""Whether a model's hits have changed for good: an alarm for people, which decides nothing by itself."""

import pickle
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from river.drift import ADWIN

CONFIDENCE = 0.002  # δ of ADWIN; its authors' and its library's default


class Drifts(NamedTuple):
    """Changes that became certain, by direction."""

    better: int
    worse: int


class DriftDetector:
    """ADWIN (Bifet and Gavaldà, SDM 2007) over progressive hits: a window that drops its past when its mean changes.

    Its guarantee holds for values from 0 to 1, which hits are and losses are not.

    >>> rng = np.random.default_rng(0)
    >>> detector = DriftDetector()
    >>> detector.add(rng.random(4000) < 0.3), detector.add(rng.random(4000) < 0.1)
    (Drifts(better=0, worse=0), Drifts(better=0, worse=1))
    >>> detector.add(rng.random(4000) < 0.3)
    Drifts(better=1, worse=0)
    """

    def __init__(self) -> None:
        self._adwin = ADWIN(delta=CONFIDENCE)

    @property
    def mean(self) -> float:
        """Share of hits since the last change."""
        return float(self._adwin.estimation)

    def add(self, hits: npt.NDArray[np.bool_]) -> Drifts:
        """Take hits (B,) in order; the changes that became certain with them."""
        better = worse = 0
        for hit in hits.tolist():
            before = self._adwin.estimation
            self._adwin.update(float(hit))
            if self._adwin.drift_detected:
                better += self._adwin.estimation > before
                worse += self._adwin.estimation <= before
        return Drifts(better, worse)

    def state(self) -> dict[str, Any]:
        """The window, as its library writes it down."""
        return {"adwin": pickle.dumps(self._adwin)}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self._adwin = pickle.loads(state["adwin"])  # noqa: S301  a checkpoint is the trainer's own, and checksummed
