"""x̂ as a query into the history beyond the window, beside its exact ablations, on frozen states of `t2diff`.

    python -m benchmarks.trainer.retrieval --data KUAIRAND_PURE [--seeds 3] [--share 1] [--json FILE]

`t2diff` with a window of 10 learns what users did before the log from packed windows and is then frozen, its item
vectors too. A head goes over KuaiRand-Pure's stream: each effective view is ranked, then learned from; those of the
last seven days count. The head adds to the served vector what attention finds in the up to 200 behaviours before the
window. Its query is made from x̂, from the plain state, or not at all (their mean); weights to begin with, learning rate
and order are the same. Ranks are paired by user, intervals are bootstraps over users.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.options import folder
from contracts.config.settings import ModelSettings, TrainerSettings
from contracts.features import Ints
from evaluation import kuairand, packed
from evaluation.data import Query
from evaluation.fit import trainer_catalogue
from evaluation.metrics import lift, recall
from evaluation.progressive import batch_of
from trainer.evaluation.ranking import ranks_of
from trainer.learn.learner import Learner
from trainer.models.base import Inputs
from trainer.models.t2diff import T2Diff

BEYOND = 200  # behaviours before the window
WINDOW = 10
HEADS = ("nothing", "mean", "state", "guess")
ABLATIONS = (("guess", "state"), ("state", "mean"), ("mean", "nothing"))
TESTED_DAYS = 7
RATE = 1e-3


class Frozen(NamedTuple):
    """What a frozen model says of Q queries."""

    encoder: T2Diff
    items: Tensor  # (N, d)
    served: Tensor  # (Q, d) user vectors
    state: Tensor  # (Q, d)
    last: Tensor  # (Q, d) vector of the last behaviour
    beyond: Tensor  # (Q, BEYOND) rows before the window, -1 where there is none


class Part(NamedTuple):
    """Some of the queries of `Frozen`, see there."""

    served: Tensor
    state: Tensor
    last: Tensor
    beyond: Tensor


def beyond(queries: Sequence[Query], window: int) -> Tensor:
    """(Q, BEYOND) rows of the newest behaviours that the window does not show, -1 where there is none."""
    rows = np.full((len(queries), BEYOND), -1, np.int64)
    for at, query in enumerate(queries):
        past = query.history.rows[:-window][-BEYOND:]
        rows[at, : len(past)] = past
    return torch.from_numpy(rows)


def freeze(source: kuairand.Stream, queries: Sequence[Query], seed: int) -> Frozen:
    """A model that has learned what was before the log, and what it says of the queries."""
    settings = ModelSettings(window=WINDOW)
    learner = Learner("t2diff", TrainerSettings(model=settings), seed, torch.device("cpu"))
    learner.follow(trainer_catalogue(source.catalogue))
    histories = {user_id: before.positives for user_id, before in source.before.items()}
    for batch in packed.batches(packed.packed(histories, WINDOW, seed), WINDOW):
        learner.learn(batch)
    model = learner.model.eval()
    encoder = model.encoder
    assert isinstance(encoder, T2Diff)
    served, states, last = [], [], []
    with torch.no_grad():
        items = model.vectors()
        for at in range(0, len(queries), 512):
            batch = batch_of(queries[at : at + 512], WINDOW)
            rows, mask, lag = map(torch.from_numpy, (np.maximum(batch.rows, 0), batch.mask, batch.lag))
            inputs = Inputs(rows, mask, lag)
            encoder.left_out = False
            served.append(model.users(inputs, items, torch.empty(len(batch))))
            encoder.left_out = True
            states.append(model.users(inputs, items, torch.empty(len(batch))))
            last.append(items[rows[:, -1]] * mask[:, -1:])
    encoder.left_out = False
    return Frozen(encoder, items, torch.cat(served), torch.cat(states), torch.cat(last), beyond(queries, WINDOW))


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


def learn(kind: str, frozen: Frozen, queries: Sequence[Query], tested: npt.NDArray[np.bool_], seed: int) -> Ints:
    """Ranks of the queries that count, each foreseen before the head learns from its batch."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        head = Retrieval(frozen, kind)
    optimizer = torch.optim.Adam([head.ask.weight, head.ask.bias, *head.key.parameters(), head.value.weight], lr=RATE)
    size = ModelSettings().batch_size
    ranks = [np.empty(0, np.int64)]
    for at in range(0, len(queries), size):
        here = slice(at, at + size)
        part = Part(frozen.served[here], frozen.state[here], frozen.last[here], frozen.beyond[here])
        counts = tested[here]
        targets = torch.tensor([query.target for query in queries[here]])
        users = head(part)
        scores = users @ frozen.items.T
        if counts.any():
            seen = tuple(query.masked for query in queries[here])
            ranks.append(ranks_of(scores.detach().clone(), targets, seen)[counts])
        if kind == "nothing":
            continue
        optimizer.zero_grad()
        torch.autograd.backward(functional.cross_entropy(scores, targets))
        optimizer.step()
    return np.concatenate(ranks)


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.trainer.retrieval", description=__doc__)
    parser.add_argument("--data", type=folder, required=True, help="KuaiRand-Pure folder")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--share", type=int, default=1, metavar="N", help="one of every N users")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    source = kuairand.some(kuairand.stream(options.data, histories=True), options.share)
    midnights = source.midnights_ms()
    queries = kuairand.queries(source, int(midnights[0]), int(midnights[-1]))
    first_ms = int(midnights[-min(TESTED_DAYS + 1, midnights.size)])
    tested = np.array([query.time_ms >= first_ms for query in queries])
    users = np.array([query.user_id for query in queries], np.int64)[tested]
    begun = time.process_time()
    ranks: dict[str, list[Ints]] = {kind: [] for kind in HEADS}
    for seed in range(options.seeds):
        frozen = freeze(source, queries, seed)
        for kind in HEADS:
            ranks[kind].append(learn(kind, frozen, queries, tested, seed))
            line = f"{kind} seed {seed}: {recall(ranks[kind][-1], 20).mean():.4f}"
            print(line, file=sys.stderr, flush=True)  # noqa: T201
    hits = {kind: np.mean([recall(each, 20) for each in of], 0) for kind, of in ranks.items()}
    gains = {(one, other): lift(hits[one], hits[other], users) for one, other in ABLATIONS}
    found = {
        "seeds": options.seeds,
        "share": options.share,
        "queries": int(tested.sum()),
        "with behaviours beyond the window": round(float(np.mean(frozen.beyond.numpy()[tested, 0] >= 0)), 4),
        "recall@20": {kind: [round(float(recall(each, 20).mean()), 5) for each in of] for kind, of in ranks.items()},
        "beside": {
            f"{one}, {other}": [round(x, 5) for x in (gain.value, gain.low, gain.high)]
            for (one, other), gain in gains.items()
        },
        "cpu_s": round(time.process_time() - begun, 1),
    }
    text = json.dumps(found, indent=1)
    if options.json:
        options.json.write_text(text + "\n")
    print(text)  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
