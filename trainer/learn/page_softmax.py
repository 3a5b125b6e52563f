"""Softmax within the page: the item that was watched against those that stood beside it and were not.

What a page showed, another policy chose, and it chose what it ranks high. The softmax over the catalogue cannot tell
these apart from what was never shown; within the page the choice is the user's alone.
"""

import torch
from torch import Tensor
from torch.nn import functional


def page_loss(user: Tensor, vectors: Tensor, wanted: Tensor, passed: Tensor, weight: Tensor | None = None) -> Tensor:
    """Sum of −log softmax(user · vectors)[wanted] over the wanted item and those passed, divided by B; ().

    An example whose page has nothing that was passed adds 0: there is no choice to learn from.

    Args:
        user: (B, d).
        vectors: (U, d).
        wanted: (B,) places in `vectors`.
        passed: (B, m) places in `vectors`, -1 where there is no more.
        weight: (B,) that each example's loss is multiplied by; None: 1.

    >>> user, vectors = torch.eye(2), torch.eye(2)
    >>> round(float(page_loss(user, vectors, torch.tensor([0, 1]), torch.tensor([[1], [-1]]))), 4)  # ln(1 + 1/e) / 2
    0.1566

    """
    losses = page_losses(user, vectors, wanted, passed)
    return (losses if weight is None else weight * losses).sum() / max(len(wanted), 1)


def page_losses(user: Tensor, vectors: Tensor, wanted: Tensor, passed: Tensor) -> Tensor:
    """−log softmax(user · vectors)[wanted] over the wanted item and those passed, (B,); arguments as above."""
    candidates = torch.cat((wanted.unsqueeze(1), passed), 1)
    beside = functional.embedding(candidates.clamp(min=0), vectors).float()
    scores = torch.einsum("bd,bmd->bm", user.float(), beside).masked_fill(candidates < 0, -torch.inf)
    return functional.cross_entropy(scores, torch.zeros_like(wanted), reduction="none")
