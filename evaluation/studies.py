"""Looking into the diffusion of a trained model: where its drifts point on the way, and how few steps do."""

import time
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from evaluation.data import Query
from evaluation.fit import ASKED_AT_ONCE, Fitted, asked, ranks
from evaluation.tasks import Study
from trainer.models.base import UserEncoder
from trainer.models.t2diff import T2Diff
from trainer.models.t2diff_paper import T2DiffPaper

EVALUATIONS = (1, 2, 3, 4, 8, 16, 50)

# Behaviours (B, n, d), mask, lag and noise to user vectors (B, d).
Encode = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def study(name: Study, fitted: Fitted, test: list[Query]) -> dict[str, list[float]]:
    """Look at a trained model with the test queries."""
    if name == "cosine":
        return cosine(fitted, test)
    return sampling(fitted, test)


def cosine(fitted: Fitted, test: list[Query]) -> dict[str, list[float]]:
    """Cosine similarity of ẑ_0 and z_0 at each step of the reverse process, T first (Figure 4 of the paper).

    Returns:
        `step`; `all`, the mean over all behaviours of all queries; `last`, over the last behaviour of each alone, whose
        drift leads to the target and is the only one that the condition does not hold.

    """
    encoder = fitted.model.encoder
    if not isinstance(encoder, T2DiffPaper):
        raise TypeError(f"{type(encoder).__name__} has no reverse process over all behaviours")
    sums = np.zeros((2, encoder.schedule.steps))
    counts = np.zeros(2)
    fitted.model.eval()
    with torch.inference_mode():
        vectors = fitted.model.vectors()
        for start in range(0, len(test), ASKED_AT_ONCE):
            part = test[start : start + ASKED_AT_ONCE]
            inputs, noise = asked(fitted.model, fitted.settings, part, fitted.device)
            x = functional.embedding(inputs.rows, vectors) * inputs.mask.unsqueeze(-1)
            wanted = torch.tensor([q.target for q in part], device=x.device)
            z_0 = torch.cat((x[:, 1:], functional.embedding(wanted, vectors).unsqueeze(1)), 1) - x
            for i, restored in enumerate(encoder.trace(x, inputs.mask, noise)):
                alike = functional.cosine_similarity(restored, z_0, dim=2) * inputs.mask
                sums[0, i] += float(alike.sum())
                sums[1, i] += float(alike[:, -1].sum())
            counts += [float(inputs.mask.sum()), float(inputs.mask[:, -1].sum())]
    means = (sums / counts[:, None]).round(5).tolist()
    return {"step": [*range(encoder.schedule.steps, 0, -1)], "all": means[0], "last": means[1]}


def sampling(fitted: Fitted, test: list[Query]) -> dict[str, list[float]]:
    """Recall@20 and time by the number of network evaluations of a sampling, on the same weights.

    Returns:
        `evaluations`, `recall@20` and `ms` (per user, in large batches). The first entry is the model's own way; those
        after it are deterministic and leave out all steps but so many (`Schedule.ladder`).

    """
    out: dict[str, list[float]] = {"evaluations": [], "recall@20": [], "ms": []}
    fitted.model.eval()
    with torch.inference_mode():
        vectors = fitted.model.vectors()
        for evaluations, encode in _ways(fitted.model.encoder):
            target_ranks, spent = [], 0.0
            for start in range(0, len(test), ASKED_AT_ONCE):
                part = test[start : start + ASKED_AT_ONCE]
                inputs, noise = asked(fitted.model, fitted.settings, part, fitted.device)
                begun = time.perf_counter()
                x = functional.embedding(inputs.rows, vectors) * inputs.mask.unsqueeze(-1)
                scores = (encode(x, inputs.mask, inputs.lag, noise) @ vectors.T).float().cpu().numpy()
                spent += time.perf_counter() - begun
                target_ranks.append(ranks(scores, part))
            out["evaluations"].append(evaluations)
            out["recall@20"].append(float((np.concatenate(target_ranks) <= 20).mean()))
            out["ms"].append(round(1000 * spent / len(test), 4))
    return out


def _ways(encoder: UserEncoder) -> Iterator[tuple[int, Encode]]:
    """Ways to sample with a trained encoder, each with its number of network evaluations."""
    if not isinstance(encoder, T2Diff | T2DiffPaper):
        raise TypeError(f"{type(encoder).__name__} does not sample")
    steps = [n for n in EVALUATIONS if n <= encoder.schedule.steps]
    if isinstance(encoder, T2DiffPaper):
        yield encoder.schedule.steps, encoder
        yield from ((n, partial(_straight, encoder, n)) for n in steps)
    else:
        own = encoder.evaluations
        yield own, encoder
        try:
            for encoder.evaluations in steps:
                yield encoder.evaluations, encoder
        finally:
            encoder.evaluations = own


def _straight(encoder: T2DiffPaper, evaluations: int, x: Tensor, mask: Tensor, lag: Tensor, noise: Tensor) -> Tensor:
    """The paper's model with a deterministic reverse process of few steps."""
    z = noise[:, 0]
    for r, after in encoder.schedule.ladder(evaluations):
        z_0 = encoder.unet(z * mask.unsqueeze(-1), x, mask, torch.tensor([r], device=z.device))
        z = encoder.schedule.straight_step(z, z_0, r, after)
    guess = (z + x)[:, -1] if encoder.drifts else z[:, -1]
    return encoder.attention(x, mask, lag, guess * mask[:, -1:])  # type: ignore[no-any-return]
