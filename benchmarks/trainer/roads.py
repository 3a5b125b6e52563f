"""Roads of diffusion, each beside its exact ablation, on frozen states of `t2diff` over KuaiRand-Pure as a stream.

    python -m benchmarks.trainer.roads --data KUAIRAND_PURE [--seeds 3] [--share 1] [--json FILE]

`t2diff` learns what users did before the log from packed windows and is then frozen, its item vectors too. A small head
goes over the stream: each effective view is ranked, then learned from; those of the last seven days count. Heads of a
road have the same states, weights to begin with, learning rate and order, and differ in what is named. Ranks are paired
by user, intervals are bootstraps over users.

retrieval: with a window of 10, attention of one query over the up to 200 behaviours before the window; the query is
made from x̂, from the plain state, or not at all (their mean).
guidance: with a window of 50, the denoiser is told the hour, the weekday and the wait since the last behaviour, and
x̂ is guided by it (Ho and Salimans, arXiv 2207.12598): ẑ = (1 + w) ẑ(context) − w ẑ(none); beside w = 0, the guess
without context, and the same network that reads state and context without diffusion.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from contracts.config.settings import ModelSettings, TrainerSettings
from contracts.features import Ints
from contracts.runtime.clock import DAY_MS, HOUR_MS
from evaluation import kuairand, packed
from evaluation.data import Query
from evaluation.fit import trainer_catalogue
from evaluation.metrics import lift, recall
from evaluation.progressive import batch_of
from trainer.evaluation.ranking import ranks_of
from trainer.learn.learner import Learner
from trainer.models.base import Inputs
from trainer.models.diffusion import diffuse
from trainer.models.t2diff import KL_WEIGHT, T2Diff
from world.kuairand import BEIJING_MS

BEYOND = 200  # behaviours before the window
WINDOWS = {"retrieval": 10, "guidance": 50}
HEADS = {
    "retrieval": ("nothing", "mean", "state", "guess"),
    "guidance": ("nothing", "guess", "network", "context", "guided-1"),
}
ABLATIONS = {
    "retrieval": (("guess", "state"), ("state", "mean"), ("mean", "nothing")),
    "guidance": (
        ("guided-1", "context"),
        ("context", "network"),
        ("context", "guess"),
        ("network", "nothing"),
    ),
}
TESTED_DAYS = 7
KEPT_OUT = 0.2  # of the examples: their context is not told to the denoiser
RATE = 1e-3
CONTEXT = 5  # numbers of it


class Frozen(NamedTuple):
    """What a frozen model says of Q queries."""

    encoder: T2Diff
    items: Tensor  # (N, d)
    served: Tensor  # (Q, d) user vectors
    state: Tensor  # (Q, d)
    last: Tensor  # (Q, d) vector of the last behaviour
    beyond: Tensor  # (Q, BEYOND) rows before the window, -1 where there is none
    context: Tensor  # (Q, CONTEXT)


class Part(NamedTuple):
    """Some of the queries of `Frozen`, see there."""

    served: Tensor
    state: Tensor
    last: Tensor
    beyond: Tensor
    context: Tensor


def context_of(queries: Sequence[Query]) -> Tensor:
    """Hour of the day and day of the week in Beijing as points on circles, and log1p of hours since the last behaviour.

    (Q, CONTEXT).
    """
    times_ms = np.array([query.time_ms for query in queries], np.int64) + BEIJING_MS
    last_ms = np.array([query.history.times_ms[-1] if len(query.history) else 0 for query in queries], np.int64)
    day, week = (2 * np.pi * (times_ms % span) / span for span in (DAY_MS, 7 * DAY_MS))
    wait = np.log1p(np.maximum(times_ms - BEIJING_MS - last_ms, 0) / HOUR_MS) / 5
    return torch.from_numpy(np.stack([np.sin(day), np.cos(day), np.sin(week), np.cos(week), wait], 1)).float()


def beyond(queries: Sequence[Query], window: int) -> Tensor:
    """(Q, BEYOND) rows of the newest behaviours that the window does not show, -1 where there is none."""
    rows = np.full((len(queries), BEYOND), -1, np.int64)
    for at, query in enumerate(queries):
        past = query.history.rows[:-window][-BEYOND:]
        rows[at, : len(past)] = past
    return torch.from_numpy(rows)


def freeze(source: kuairand.Stream, queries: Sequence[Query], window: int, seed: int) -> Frozen:
    """A model that has learned what was before the log, and what it says of the queries."""
    settings = ModelSettings(window=window)
    learner = Learner("t2diff", TrainerSettings(model=settings), seed, torch.device("cpu"))
    learner.follow(trainer_catalogue(source.catalogue))
    histories = {user_id: before.positives for user_id, before in source.before.items()}
    for batch in packed.batches(packed.packed(histories, window, seed), window):
        learner.learn(batch)
    model = learner.model.eval()
    encoder = model.encoder
    assert isinstance(encoder, T2Diff)
    served, states, last = [], [], []
    with torch.no_grad():
        items = model.vectors()
        for at in range(0, len(queries), 512):
            batch = batch_of(queries[at : at + 512], window)
            rows, mask, lag = map(torch.from_numpy, (np.maximum(batch.rows, 0), batch.mask, batch.lag))
            inputs = Inputs(rows, mask, lag)
            encoder.left_out = False
            served.append(model.users(inputs, items, torch.empty(len(batch))))
            encoder.left_out = True
            states.append(model.users(inputs, items, torch.empty(len(batch))))
            last.append(items[rows[:, -1]] * mask[:, -1:])
    encoder.left_out = False
    return Frozen(
        encoder, items, torch.cat(served), torch.cat(states), torch.cat(last), beyond(queries, window),
        context_of(queries),
    )  # fmt: skip


class Retrieval(nn.Module):
    """The served vector and what one query finds in the history beyond the window."""

    def __init__(self, frozen: Frozen, kind: str) -> None:
        super().__init__()
        d = frozen.items.shape[1]
        self.kind, self.frozen = kind, frozen
        self.ask, self.key, self.value = nn.Linear(d, d // 2), nn.Linear(d, d // 2), nn.Linear(d, d, bias=False)
        nn.init.zeros_(self.value.weight)

    def forward(self, part: Part) -> Tensor:
        """User vectors (B, d)."""
        if self.kind == "nothing":
            return part.served
        there = part.beyond >= 0
        found = functional.embedding(part.beyond.clamp(min=0), self.frozen.items)
        weights = there.float()
        if self.kind != "mean":
            with torch.no_grad():
                guess = self.frozen.encoder.guess(part.state, part.last, part.last)
            query = self.ask(guess if self.kind == "guess" else part.state)
            fit = (self.key(found) @ query.unsqueeze(2)).squeeze(2) / query.shape[1] ** 0.5
            weights = torch.where(there, fit, fit.new_full((), -1e9)).softmax(1) * there.any(1, keepdim=True)
        else:
            weights = weights / weights.sum(1, keepdim=True).clamp(min=1)
        served: Tensor = part.served + self.value((weights.unsqueeze(1) @ found).squeeze(1))
        return served

    def loss(self, part: Part, follows: Tensor, generator: torch.Generator) -> Tensor:  # noqa: ARG002
        """None beside the softmax's, ()."""
        return part.served.new_zeros(())


class Guidance(nn.Module):
    """The state and a guess that is told the context, read through a linear map that starts at zero."""

    def __init__(self, frozen: Frozen, kind: str) -> None:
        super().__init__()
        d = frozen.items.shape[1]
        self.kind, self.frozen = kind, frozen
        self.told, self.read = nn.Linear(CONTEXT, d, bias=False), nn.Linear(d, d, bias=False)
        nn.init.zeros_(self.told.weight)
        nn.init.zeros_(self.read.weight)
        self.denoiser = type(frozen.encoder.denoiser)(d, frozen.encoder.schedule.steps)
        self.denoiser.load_state_dict(frozen.encoder.denoiser.state_dict())
        self.strength = float(kind.removeprefix("guided-")) if kind.startswith("guided-") else 0.0

    def forward(self, part: Part) -> Tensor:
        """User vectors (B, d)."""
        if self.kind == "nothing":
            return part.served
        plain = part.state
        told = plain if self.kind == "guess" else plain + self.told(part.context)
        steps, scale = self.frozen.encoder.schedule, self.frozen.encoder.scale
        z = torch.zeros_like(plain)
        if self.kind == "network":
            z = self.denoiser(z, told, torch.tensor([steps.steps]))
        else:
            for r, after in steps.ladder(self.frozen.encoder.evaluations):
                at = torch.tensor([r])
                z_0 = self.denoiser(z, told, at)
                if self.strength:
                    z_0 = (1 + self.strength) * z_0 - self.strength * self.denoiser(z, plain, at)
                z = steps.straight_step(z, z_0, r, after)
        served: Tensor = part.served + self.read(part.last / scale + z)
        return served

    def loss(self, part: Part, follows: Tensor, generator: torch.Generator) -> Tensor:
        """λ·L_KL of the drift to what followed, (), with the context kept from some; 0 without diffusion."""
        if self.kind in ("nothing", "network"):
            return part.served.new_zeros(())
        encoder = self.frozen.encoder
        z_0 = (follows - part.last) / encoder.scale
        r = torch.randint(1, encoder.schedule.steps + 1, (len(z_0),), generator=generator)
        bar = encoder.schedule.alpha_bar(r).float().unsqueeze(1)
        z_r = diffuse(z_0, torch.randn(z_0.shape, generator=generator), bar)
        told = (torch.rand(len(z_0), 1, generator=generator) >= KEPT_OUT).float()
        state = part.state if self.kind == "guess" else part.state + told * self.told(part.context)
        return KL_WEIGHT * (self.denoiser(z_r, state, r) - z_0).square().mean()


def learn(
    road: str, kind: str, frozen: Frozen, queries: Sequence[Query], tested: npt.NDArray[np.bool_], seed: int
) -> Ints:
    """Ranks of the queries that count, each foreseen before the head learns from its batch."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        head: Retrieval | Guidance = (Retrieval if road == "retrieval" else Guidance)(frozen, kind)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam([w for w in head.parameters() if w.requires_grad], lr=RATE)
    size = ModelSettings().batch_size
    ranks = [np.empty(0, np.int64)]
    for at in range(0, len(queries), size):
        here = slice(at, at + size)
        part = Part(
            frozen.served[here], frozen.state[here], frozen.last[here], frozen.beyond[here], frozen.context[here]
        )
        counts = tested[here]
        targets = torch.tensor([query.target for query in queries[here]])
        users = head(part)
        scores = users @ frozen.items.T
        if counts.any():
            seen = tuple(query.masked for query in queries[here])
            ranks.append(ranks_of(scores.detach().clone(), targets, seen)[counts])
        if kind == "nothing":
            continue
        loss = functional.cross_entropy(scores, targets) + head.loss(part, frozen.items[targets], generator)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    return np.concatenate(ranks)


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.trainer.roads", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="KuaiRand-Pure folder")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--share", type=int, default=1, metavar="N", help="one of every N users")
    parser.add_argument("--roads", default=",".join(HEADS))
    parser.add_argument("--json", type=Path, help="where to write the figures")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    source = kuairand.some(kuairand.stream(options.data, histories=True), options.share)
    midnights = source.midnights_ms()
    queries = kuairand.queries(source, int(midnights[0]), int(midnights[-1]))
    first_ms = int(midnights[-min(TESTED_DAYS + 1, midnights.size)])
    tested = np.array([query.time_ms >= first_ms for query in queries])
    users = np.array([query.user_id for query in queries], np.int64)[tested]
    found: dict[str, Any] = {}
    for road in options.roads.split(","):
        begun = time.process_time()
        ranks: dict[str, list[Ints]] = {kind: [] for kind in HEADS[road]}
        for seed in range(options.seeds):
            frozen = freeze(source, queries, WINDOWS[road], seed)
            for kind in HEADS[road]:
                ranks[kind].append(learn(road, kind, frozen, queries, tested, seed))
                log = f"{road} {kind} seed {seed}: {recall(ranks[kind][-1], 20).mean():.4f}"
                print(log, file=sys.stderr, flush=True)  # noqa: T201
        hits = {kind: np.mean([recall(each, 20) for each in of], 0) for kind, of in ranks.items()}
        found[road] = {
            "recall@20": {
                kind: [round(float(recall(each, 20).mean()), 5) for each in of] for kind, of in ranks.items()
            },
            "against": {
                f"{one} beside {other}": [round(x, 5) for x in (d.value, d.low, d.high)]
                for one, other in ABLATIONS[road]
                for d in [lift(hits[one], hits[other], users)]
            },
            "beyond the window": round(float((frozen.beyond[torch.from_numpy(tested), 0] >= 0).float().mean()), 4),
            "cpu_s": round(time.process_time() - begun, 1),
        }
    text = json.dumps(
        {"seeds": options.seeds, "share": options.share, "queries": int(tested.sum()), "roads": found}, indent=1
    )
    if options.json:
        options.json.write_text(text + "\n")
    print(text)  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
