"""Sampled softmax: the items that a step's targets compete with, drawn so that the catalogue's size costs nothing.

Mixed negative sampling (Yang et al., Mixed Negative Sampling for Learning Two-tower Neural Networks in
Recommendations, WWW 2020 companion, doi 10.1145/3366424.3386195): the targets of the batch, which are popular items,
and items drawn uniformly, which are not. A drawn item stands for all that were not drawn: its weight is how often it
was drawn over how often it is on average (logQ; Yi et al., Sampling-Bias-Corrected Neural Modeling for Large Corpus
Item Recommendations, RecSys 2019, doi 10.1145/3298689.3346996).
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from trainer.learn.frequency import Frequency


class Negatives(NamedTuple):
    """What a step's targets compete with."""

    rows: Tensor  # (C,) of the catalogue, sorted, each once
    times: Tensor  # (C,) that each was drawn
    expected: Tensor  # (C,) times that each is drawn on average

    @property
    def log_weight(self) -> Tensor:
        """(C,) what is added to an item's scores, so that it stands for those that were not drawn."""
        return (self.times.log() - self.expected.log()).float()


def draw(targets: Tensor, frequency: Frequency, size: int, count: int, generator: torch.Generator) -> Negatives:
    """The batch's targets and `count` rows of `size`, uniformly and with replacement; all on the CPU.

    An item that is not an example's own target is expected (B − 1) · its share of all targets + count / size times.

    Args:
        targets: (B,) rows.
        frequency: of the targets before this batch.
        size: of the catalogue, N.
        count: of uniform draws.
        generator: the source of randomness.

    """
    uniform = torch.randint(size, (count,), generator=generator)
    rows, times = torch.unique(torch.cat((targets, uniform)), return_counts=True)
    expected = (len(targets) - 1) * frequency.shares(rows) + count / size
    return Negatives(rows, times.double(), expected)


def sampled_loss(
    user: Tensor,
    vectors: Tensor,
    wanted: Tensor,
    candidates: Tensor,
    log_weight: Tensor,
    weight: Tensor | None = None,
) -> Tensor:
    """Mean of −log of the wanted item's share in a sum over all items that is estimated from the candidates; ().

    Σ_j exp(s_j) ≈ exp(s_wanted) + Σ_{candidates but the wanted one} weight · exp(s), whose mean over draws is exact.

    Args:
        user: (M, d).
        vectors: (U, d) of the items that the step needs.
        wanted: (M,) places in `vectors` of the items that should have been found.
        candidates: (C,) places in `vectors`.
        log_weight: (C,).
        weight: (M,) that each place's loss is multiplied by; None: 1.

    """
    wanted_score = (user * functional.embedding(wanted, vectors)).sum(1, keepdim=True)
    others = user @ functional.embedding(candidates, vectors).T + log_weight
    others = others.masked_fill(candidates == wanted.unsqueeze(1), -torch.inf)  # accidental hits
    scores = torch.cat((wanted_score, others), 1).float()
    if weight is None:
        return functional.cross_entropy(scores, torch.zeros_like(wanted))
    return (weight * functional.cross_entropy(scores, torch.zeros_like(wanted), reduction="none")).mean()
