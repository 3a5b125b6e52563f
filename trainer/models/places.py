"""Where in a window a model learns, and what is known at each place of it.

Place i of a window is the moment at which behaviour i + 1 came, the last place that of the request: the user there has
done behaviours 0..i, and what follows is to be found.
"""

import torch
from torch import Tensor
from torch.nn import functional

from contracts.config.settings import ModelSettings


def learned_places(mask: Tensor, settings: ModelSettings) -> Tensor | None:
    """Places that `trainer.model.learn_at` names, (B, n) true where one learns; None: the last one alone.

    The last place is always among them, the others where there is a behaviour: a history shorter than k is learned from
    at as many places as it has, an empty one at its end, and one that ends at the window's left edge at the whole
    window. A repeated item is a behaviour like another.

    Args:
        mask: (B, n).
        settings: `last` (None), `last-k` with k = `learn_at_last`, or `every`.

    """
    if settings.learn_at == "last":
        return None
    learn = mask > 0
    if settings.learn_at_last is not None:
        learn = learn & last_places(torch.full_like(mask[:, 0], settings.learn_at_last), mask.shape[1])
    return functional.pad(learn[:, :-1], (0, 1), value=True)


def last_places(count: Tensor, window: int) -> Tensor:
    """The last `count` (B,) places of each window; (B, n), true there.

    >>> last_places(torch.tensor([0, 1, 3, 9]), 3).int().tolist()
    [[0, 0, 0], [0, 0, 1], [1, 1, 1], [1, 1, 1]]
    """
    return torch.arange(window, 0, -1, device=count.device) <= count.unsqueeze(1)


def next_places(learn: Tensor) -> tuple[Tensor, Tensor]:
    """Places to learn at, and what follows each.

    Args:
        learn: (B, n), true where one learns.

    Returns:
        (M,) places in the flattened (B, n), and (M,) places of what follows each in the flattened (B, n + 1) of
        behaviours and target; see `TrainingStep.places`.

    >>> [places.tolist() for places in next_places(torch.tensor([[False, True], [True, True]]))]
    [[1, 2, 3], [2, 4, 5]]

    """
    at = learn.flatten().nonzero().squeeze(1)
    return at, at + at // learn.shape[1] + 1


def at_the_end(mask: Tensor) -> Tensor:
    """The last place of each window alone, (B, n)."""
    return functional.pad(torch.zeros_like(mask[:, :-1], dtype=torch.bool), (0, 1), value=True)


def followers(sequence: Tensor, target: Tensor, places: Tensor) -> Tensor:
    """Vectors of what follows, (M, d); `sequence` (B, n, d), `target` (B, d), `places` (M,) as of `next_places`."""
    return torch.cat((sequence, target.unsqueeze(1)), 1).flatten(0, 1)[places]


def lags_by_then(lag: Tensor) -> Tensor:
    """Waits as each place knows them, (B, n) to (B, n, n): at [b, i, j] log1p of seconds from j to the moment of i."""
    age = torch.expm1(lag)
    moment = functional.pad(age[:, 1:], (0, 1))
    return torch.log1p((age.unsqueeze(1) - moment.unsqueeze(2)).clamp(min=0))


def there_by_then(mask: Tensor, last: int | None = None) -> Tensor:
    """Whether j is a behaviour that is there at place i, and among its last so many places; (B, n) to (B, n, n).

    >>> there_by_then(torch.ones(1, 3), 2).tolist()
    [[[1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [0.0, 1.0, 1.0]]]
    """
    there = mask.unsqueeze(1).expand(-1, mask.shape[1], -1).tril()
    return there if last is None else there.triu(1 - last)


def means_by_then(values: Tensor, weight: Tensor) -> Tensor:
    """At each place `masked_mean` of what it weighs: (B, n, d) by (B, n, n) gives (B, n, d), zeros where all are 0."""
    return weight / weight.sum(2, keepdim=True).clamp(min=1e-6) @ values
