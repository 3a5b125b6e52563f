"""Whether a model's hits have changed for good: an alarm for people, which decides nothing by itself."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import structlog

from trainer.evaluation.adwin import Adwin

log = structlog.get_logger()
CONFIDENCE = 0.002  # δ of ADWIN; its authors' and River's default


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
        self._window = Adwin(CONFIDENCE)

    @property
    def mean(self) -> float:
        """Share of hits since the last change."""
        return self._window.mean

    def add(self, hits: npt.NDArray[np.bool_]) -> Drifts:
        """Take hits (B,) in order; the changes that became certain with them."""
        better = worse = 0
        for hit in hits.tolist():
            before = self._window.mean
            if self._window.update(float(hit)):
                better += self._window.mean > before
                worse += self._window.mean <= before
        return Drifts(better, worse)

    def state(self) -> dict[str, Any]:
        """The window, in numbers."""
        return {"window": self._window.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state. That of a checkpoint of format 6 was pickled: it is not read, and a new window begins.

        Raises:
            ValueError: it is no state of a detector.

        """
        if "window" in state:
            self._window.restore(state["window"])
        elif "adwin" in state:
            log.warning("the drift detector's window was saved in a form that is read no more; it begins anew")
        else:
            raise ValueError("the state of a drift detector lacks its window")
