"""Embarrassingly Shallow Autoencoders (Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019)."""

from dataclasses import dataclass

import numpy as np
from scipy import linalg, sparse

from contracts.features import Floats, Ints
from evaluation.baselines import base
from evaluation.data import Sequence


@dataclass(frozen=True)
class Ease:
    """Linear regression of each item on all others; the order of a history does not count.

    With X (U, N) in {0, 1}: P = (XᵀX + λI)⁻¹ (Eq. 5), B = I − P · diagMat(1 ⊘ diag(P)) (Eq. 8), score = x B.

    >>> both, one = Sequence(np.array([0, 1]), np.array([0, 0])), Sequence(np.array([0]), np.array([0]))
    >>> print(Ease(2.0).fit([both, one], 3).scores([one]).round(3))  # Σ x₀x₁ / (Σ x₀² + λ) = 1 / 4
    [[0.   0.25 0.  ]]
    """

    l2: float = 300.0  # λ; of 100, 300, 500, 1000 and 2000 the best NDCG@10 on the validation queries of leave-one-out

    def fit(self, sequences: list[Sequence], items: int) -> "FittedEase":
        x = _binary(sequences, items)
        # An item that nobody has viewed has no weight to or from any other: only the rest is inverted.
        active = np.flatnonzero(np.asarray(x.sum(0)).ravel())
        x = x[:, active]
        gram = (x.T @ x).toarray().astype(np.float64)
        gram[np.diag_indices(active.size)] += self.l2
        p = linalg.inv(gram, overwrite_a=True, assume_a="pos") if active.size else gram
        weights = (p / -np.diag(p)).astype(np.float32)
        np.fill_diagonal(weights, 0)
        return FittedEase(weights, active, base.tie_breaks(sequences, items))


@dataclass(frozen=True)
class FittedEase:
    weights: Floats  # (A, A) of the items that somebody has viewed
    active: Ints  # (A,) their rows
    ties: Floats  # (N,)

    def scores(self, histories: list[Sequence]) -> Floats:
        out = np.tile(self.ties, (len(histories), 1))
        out[:, self.active] += _binary(histories, self.ties.size)[:, self.active] @ self.weights
        return out


def _binary(sequences: list[Sequence], items: int) -> sparse.csr_array:
    """(U, N) 1 where a user has viewed an item."""
    length = max((len(s) for s in sequences), default=0)
    x = base.weighted(sequences, items, np.ones(length, np.float32))
    x.sum_duplicates()
    x.data[:] = 1
    return x
