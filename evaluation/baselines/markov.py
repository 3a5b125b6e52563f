"""A Markov chain that also looks over its shoulder: transitions that skip, from more than the last behaviour.

After the skipping model of Shani, Heckerman and Brafman, "An MDP-Based Recommender System", JMLR 2005.
"""

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from contracts.features import Floats, Ints
from evaluation.baselines import base
from evaluation.data import Sequence


@dataclass(frozen=True)
class Markov:
    """score(i) = Σ_{j ≤ lags} j^−decay Σ_{l ≤ window} l^−decay P_l(i | x_{m+1−j}).

    P_l(b | a) is the share of `b` among the behaviours that came `l` places after `a` in the sequences counted. The
    decay is the one among 0.5, 0.75 and 1 with the best NDCG@10 on the validation queries of MovieLens-1M's
    leave-one-out in time order.

    >>> a = Sequence(np.array([0, 1, 2]), np.array([0, 0, 0]))
    >>> Markov().fit([a, a.until(2)], 3).scores([a.until(1), a.until(2)]).round(3).tolist()
    [[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """

    lags: int = 1  # last behaviours of a history that count
    window: int = 1  # places that a transition may span
    decay: float = 0.75

    def fit(self, sequences: list[Sequence], items: int) -> "FittedMarkov":
        base.checked(base.joined(s.rows for s in sequences), items)
        chains = [_chain(sequences, distance, items) / distance**self.decay for distance in range(1, self.window + 1)]
        total = chains[0]
        for chain in chains[1:]:
            total = total + chain
        weights = np.arange(1, self.lags + 1, dtype=np.float32) ** -self.decay
        return FittedMarkov(sparse.csr_array(total), weights, base.tie_breaks(sequences, items))


@dataclass(frozen=True)
class FittedMarkov:
    chain: sparse.csr_array  # (N, N)
    weights: Floats  # (lags,) the last behaviour's first
    ties: Floats  # (N,)

    def scores(self, histories: list[Sequence]) -> Floats:
        sums = base.weighted(histories, self.ties.size, self.weights) @ self.chain
        # The product of empty matrices is float64, whatever they are.
        out: Floats = sums.toarray().astype(np.float32, copy=False) + self.ties
        return out


def _chain(sequences: list[Sequence], distance: int, items: int) -> sparse.csr_array:
    """(N, N) share of each item among those `distance` places after another."""
    before = base.joined(s.rows[:-distance] for s in sequences)
    after = base.joined(s.rows[distance:] for s in sequences)
    left: Ints = np.bincount(before, minlength=items)
    shares = (1 / left[before]).astype(np.float32)
    return sparse.csr_array((shares, (before, after)), (items, items))
