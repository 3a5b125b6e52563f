"""What a model foresaw of examples whose outcome is known: ranks, losses and chances, all from the same scores."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from contracts.features import Floats, Ints

LIST = 20  # items on the list that a model gives itself a chance with
WORST_LOSS = 100.0  # nats; scores that are no numbers cost this much


class Foresight(NamedTuple):
    """B examples, one entry each."""

    ranks: Ints  # of the target among the items that compete, from 1
    losses: Floats  # −log softmax of the target over the items that compete, in nats
    chances: Floats  # softmax mass of the LIST best items: what the model itself takes its recall@LIST for


def foresee(scores: Tensor, targets: Tensor, seen: tuple[Ints, ...]) -> Foresight:
    """Judge scores (B, N) by the columns (B,) that were wanted.

    Items that a user has seen do not compete, unless one is the target. Ties and scores that are no numbers count
    against the model, in each of the three.

    Args:
        scores: (B, N); overwritten.
        targets: (B,) columns.
        seen: B arrays of columns.

    """
    wanted = _without_seen(scores, targets, seen)
    total = scores.logsumexp(1, keepdim=True)
    losses = (total - wanted).squeeze(1).nan_to_num(nan=WORST_LOSS).clamp(max=WORST_LOSS)
    best = scores.topk(min(LIST, scores.shape[1])).values
    chances = (best - total).exp().sum(1).nan_to_num(nan=1.0).clamp(max=1)
    return Foresight(_ranks(scores, wanted), losses.cpu().numpy(), chances.cpu().numpy())


def ranks_of(scores: Tensor, targets: Tensor, seen: tuple[Ints, ...]) -> Ints:
    """The ranks (B,) that `foresee` gives, at half its cost; the arguments are the same."""
    return _ranks(scores, _without_seen(scores, targets, seen))


def _without_seen(scores: Tensor, targets: Tensor, seen: tuple[Ints, ...]) -> Tensor:
    """Take what was seen out of the competition, in place; scores of the targets, (B, 1)."""
    at = targets.unsqueeze(1)
    wanted = scores.gather(1, at)
    users = np.repeat(np.arange(len(seen)), [len(columns) for columns in seen])
    places = (torch.from_numpy(part).to(scores.device) for part in (users, np.concatenate(seen)))
    scores[tuple(places)] = -torch.inf
    scores.scatter_(1, at, wanted)
    return wanted


def _ranks(scores: Tensor, wanted: Tensor) -> Ints:
    ranks: Ints = (~(scores < wanted)).sum(1).cpu().numpy()
    return ranks
