"""Progressive validation: recall of predictions that were made before the model learned from their outcome."""

from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from contracts.features import Ints

CUTOFFS = (20, 100)
RECENT = 5000  # examples in the recent window
ALL, RECENTLY, OUTSIDE = "all", "recent", "outside"


class Recall(NamedTuple):
    """Recall@k of one scope: "all", "recent", "outside" (traffic outside any experiment) or "arm:<name>"."""

    scope: str
    k: int
    value: float
    examples: int


class Progress:
    """Counts of hits by scope.

    >>> import numpy as np
    >>> progress = Progress()
    >>> progress.add(np.array([3, 50]), ["", "treatment"])
    >>> [(r.scope, r.k, r.value) for r in progress.recalls() if r.scope != "recent"]  # doctest: +NORMALIZE_WHITESPACE
    [('all', 20, 0.5), ('all', 100, 1.0), ('arm:treatment', 20, 0.0), ('arm:treatment', 100, 1.0),
     ('outside', 20, 1.0), ('outside', 100, 1.0)]
    """

    def __init__(self) -> None:
        self._examples: defaultdict[str, int] = defaultdict(int)
        self._hits: defaultdict[tuple[str, int], int] = defaultdict(int)
        self._recent: deque[int] = deque(maxlen=RECENT)

    def add(self, ranks: Ints, arms: Sequence[str]) -> None:
        """Count tested examples: the rank of each target, from 1, and the arm that showed it."""
        for rank, arm in zip(ranks.tolist(), arms, strict=True):
            self._recent.append(rank)
            for scope in (ALL, f"arm:{arm}" if arm else OUTSIDE):
                self._examples[scope] += 1
                for k in CUTOFFS:
                    self._hits[scope, k] += rank <= k

    def recalls(self) -> Iterator[Recall]:
        """Every scope that has examples, at every cutoff."""
        for scope, examples in sorted(self._examples.items()):
            for k in CUTOFFS:
                yield Recall(scope, k, self._hits[scope, k] / examples, examples)
        if self._recent:
            for k in CUTOFFS:
                hits = sum(rank <= k for rank in self._recent)
                yield Recall(RECENTLY, k, hits / len(self._recent), len(self._recent))

    def state(self) -> dict[str, Any]:
        """All counts."""
        return {
            "examples": dict(self._examples),
            "hits": [(scope, k, count) for (scope, k), count in self._hits.items()],
            "recent": list(self._recent),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self._examples = defaultdict(int, state["examples"])
        self._hits = defaultdict(int, {(scope, k): count for scope, k, count in state["hits"]})
        self._recent = deque(state["recent"], maxlen=RECENT)

    def metrics(self) -> dict[str, float]:
        """As a manifest carries them: "recall@20", "recall@20/arm:control", "examples/arm:control" and so on."""
        metrics: dict[str, float] = {}
        for scope, k, value, examples in self.recalls():
            suffix = "" if scope == ALL else f"/{scope}"
            metrics[f"recall@{k}{suffix}"] = value
            metrics[f"examples{suffix}"] = float(examples)
        return metrics
