"""Progressive validation: how good predictions were that were made before the model learned from their outcome.

Recall@k and the loss say how good; calibration says whether the model knows how good it is. A model that ranks by a
softmax gives its own list of 20 a chance, the softmax mass of these 20 items, so it expects a recall@20: the mean of
the chances. It is well calibrated where it finds what it expects. The expected calibration error, ECE (Naeini et al.,
AAAI 2015; Guo et al., ICML 2017), compares the two within bins of equal chance and averages the distances by the
examples in the bins; a model that is right on average but wrong about whom cannot hide there.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from contracts.features import Floats
from trainer.evaluation.ranking import LIST, Foresight

CUTOFFS = (LIST, 100)
HALF_LIFE = 2500  # examples after which one counts half in a recent scope
NEW_BELOW = 20  # an item is new until it has been learned from so often
BINS = 10  # of chance, for the ECE
MAX_ARMS = 32  # that have a scope of their own: arms come off the log, and memory is bounded
ALL, RECENT, OUTSIDE, NEW, OLD, OTHER_ARMS = "all", "recent", "outside", "items:new", "items:old", "arms:other"

_SUMS = 3 + len(CUTOFFS)  # of: examples, loss, chance, hits at each cutoff; then three for each bin
_Matrix = npt.NDArray[np.float64]


class Scope(NamedTuple):
    """What was foreseen of some of the examples.

    Its name says of which: "all", "outside" (any experiment), "arm:<name>", "items:new", "items:old". The same with
    "recent" or "recent/" before it counts an example half as much with every `HALF_LIFE` that came into it since.
    """

    name: str
    examples: float  # the sum of their weights
    recall: dict[int, float]  # by cutoff
    loss: float  # nats
    expected: float  # recall@LIST that the model gave itself
    calibration_error: float  # ECE of that, from 0 to 1


class Progress:
    """Sums by scope; memory is bounded.

    >>> progress = Progress()
    >>> foresight = Foresight(np.array([3, 50]), np.array([1, 3], np.float32), np.array([0.75, 0.25], np.float32))
    >>> progress.add(foresight, ["", "treatment"], np.array([0, 90], np.float32))
    >>> for s in progress.scopes():
    ...     if not s.name.startswith("recent"):
    ...         print(s.name, s.examples, s.recall, s.loss, s.expected, s.calibration_error)
    all 2.0 {20: 0.5, 100: 1.0} 2.0 0.5 0.25
    arm:treatment 1.0 {20: 0.0, 100: 1.0} 3.0 0.25 0.25
    items:new 1.0 {20: 1.0, 100: 1.0} 1.0 0.75 0.25
    items:old 1.0 {20: 0.0, 100: 1.0} 3.0 0.25 0.25
    outside 1.0 {20: 1.0, 100: 1.0} 1.0 0.75 0.25
    """

    def __init__(self) -> None:
        self._sums: dict[str, _Matrix] = {}

    def add(self, foresight: Foresight, arms: Sequence[str], learned: Floats) -> None:
        """Count tested examples.

        Args:
            foresight: of B examples, in the order in which they came.
            arms: B, the arm that showed each; "" outside any experiment.
            learned: (B,) positives that had been learned from of each target.

        """
        rows = _rows(foresight)
        shown_by = np.array([self._arm(arm) for arm in arms])
        members = {ALL: np.ones(len(rows), bool), NEW: learned < NEW_BELOW, OLD: learned >= NEW_BELOW}
        members |= {scope: shown_by == scope for scope in dict.fromkeys(shown_by.tolist())}
        for scope, of_scope in members.items():
            part = rows[of_scope]
            if len(part):
                recent = _recent(scope)
                weights = 0.5 ** (np.arange(len(part), -1, -1) / HALF_LIFE)
                self._sums[scope] = self._sums.get(scope, 0.0) + part.sum(0)
                self._sums[recent] = self._sums.get(recent, 0.0) * weights[0] + (weights[1:, None] * part).sum(0)

    def scopes(self) -> Iterator[Scope]:
        """Every scope that has examples, by name."""
        for name, sums in sorted(self._sums.items()):
            examples, loss, chance, *hits = sums[:_SUMS].tolist()
            _, chances, observed = sums[_SUMS:].reshape(3, BINS)
            yield Scope(
                name,
                examples,
                {k: count / examples for k, count in zip(CUTOFFS, hits, strict=True)},
                loss / examples,
                chance / examples,
                float(np.abs(chances - observed).sum()) / examples,  # Σ_bin |bin|/n · |mean chance − mean hits|
            )

    def metrics(self) -> dict[str, float]:
        """As a manifest carries them: "recall@20", "recall@20/arm:control", "loss/recent/items:new" and so on."""
        metrics: dict[str, float] = {}
        for name, examples, recall, loss, expected, error in self.scopes():
            suffix = "" if name == ALL else f"/{name}"
            metrics |= {f"recall@{k}{suffix}": value for k, value in recall.items()}
            metrics[f"examples{suffix}"] = examples
            metrics[f"loss{suffix}"] = loss
            metrics[f"expected_recall@{LIST}{suffix}"] = expected
            metrics[f"calibration_error{suffix}"] = error
        return metrics

    def state(self) -> dict[str, Any]:
        """The sums."""
        return {"sums": {scope: sums.copy() for scope, sums in self._sums.items()}}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self._sums = {scope: sums.copy() for scope, sums in state["sums"].items()}

    def _arm(self, arm: str) -> str:
        scope = f"arm:{arm}" if arm else OUTSIDE
        counted = scope in self._sums or sum(name.startswith("arm:") for name in self._sums) < MAX_ARMS
        return scope if counted or not arm else OTHER_ARMS


def _recent(scope: str) -> str:
    return RECENT if scope == ALL else f"{RECENT}/{scope}"


def _rows(foresight: Foresight) -> _Matrix:
    """(B, _SUMS + 3 · BINS): what each example adds to its scopes."""
    ranks, losses, chances = foresight
    hits = [ranks <= k for k in CUTOFFS]
    in_bin = np.minimum((chances * BINS).astype(np.int64), BINS - 1)[:, None] == np.arange(BINS)
    sums = np.column_stack([np.ones(len(ranks)), losses, chances, *hits])
    return np.hstack([sums, in_bin, in_bin * chances[:, None], in_bin & hits[0][:, None]]).astype(np.float64)
