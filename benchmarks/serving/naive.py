"""T2Diff as a snapshot serves it beside the plain implementation, which samples by all 50 steps.

    python -m benchmarks.serving.naive [--items 100000] [--requests 40] [--rounds 5]

Plain: the torch module, eager, one request at a time, 50 network evaluations, then all scores by a matrix product and
`topk`. Ours: the exported tower with its 4 evaluations, by ONNX Runtime, then the snapshot's index. Both have one
thread, the same weights and the same users, and start from the same features in memory. Three ratios:

    step     the model alone: gathered features to user vector
    answer   features in hand to the k best items that the user has not seen: the whole T2Diff answer
    request  what a replica does for a Recall, from reading the features to handing over the reply
             (`serving_recall_seconds`, at a low rate), beside the plain answer with the same read before it

`speedup_over_naive_50_steps` is that of the answer, one request at a time; batches of ours are told beside. In turns,
by wall time; the medians of the rounds.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
from torch import Tensor

from benchmarks.serving.figures import ratio
from benchmarks.serving.options import Say, command, common, machine, world
from benchmarks.serving.rig import rig
from benchmarks.serving.shots import Shot, generator
from benchmarks.serving.world import DIM, NOW_MS, WINDOW, SnapshotTower, World, encoder, full, prepared
from contracts.features import Floats, Ints, Positives, sampling_noise
from contracts.snapshots.index import Index
from contracts.snapshots.snapshot import Snapshot
from driftline.inspect.metrics import read_metrics
from feature_repo.store import UserSequences
from trainer.models.base import UserEncoder
from trainer.models.t2diff import EVALUATIONS, T2Diff
from trainer.models.t2diff_paper import T2DiffPaper
from trainer.publish.onnx_export import TowerTemplate

MODELS = ("t2diff", "t2diff-paper")
STEPS = 50
BATCH = 32
SEEN = WINDOW  # items that a user has seen, which are filtered after the search

Way = Callable[[Sequence[int]], object]
Watched = Mapping[int, Positives]  # by user: the features in hand


class FewSteps(UserEncoder):
    """The paper's model with a deterministic reverse process of few steps; the same weights."""

    def __init__(self, whole: T2DiffPaper, evaluations: int) -> None:
        super().__init__()
        self.whole, self.evaluations = whole, evaluations
        self.noise_shape = (1, *whole.noise_shape[1:])  # z_T alone: there is no fresh noise on the way

    def forward(self, sequence: Tensor, mask: Tensor, lag: Tensor, noise: Tensor) -> Tensor:
        """See `UserEncoder.forward`."""
        whole, present = self.whole, mask.unsqueeze(-1)
        z = noise[:, 0] * present
        for r, after in whole.schedule.ladder(self.evaluations):
            z_0 = whole.unet(z, sequence, mask, torch.tensor([r])) * present
            z = whole.schedule.straight_step(z, z_0, r, after) * present
        user: Tensor = whole.attention(sequence, mask, lag, ((z + sequence) * present)[:, -1])
        return user


class Plain:
    """The plain implementation."""

    def __init__(self, snapshot: Snapshot, watched: Watched, k: int) -> None:
        self._encoder = encoder(snapshot.manifest.model, 1)
        if isinstance(self._encoder, T2Diff):
            self._encoder.evaluations = STEPS
        self._watched, self._snapshot, self._k = watched, snapshot, k
        self._vectors = torch.from_numpy(snapshot.item_vectors)

    def step(self, users: Sequence[int]) -> Tensor:
        """User vectors (B, d), one at a time."""
        vectors = []
        with torch.inference_mode():
            for user in users:
                shape = self._encoder.noise_shape
                inputs, sequence = prepared(self._snapshot, [self._watched[user]])
                noise = sampling_noise(user, self._snapshot.manifest.sampling_seed, shape)[np.newaxis]
                arrays = (sequence, inputs.mask, inputs.lag, noise)
                vectors.append(self._encoder(*(torch.from_numpy(each) for each in arrays)))
        return torch.cat(vectors)

    def answer(self, users: Sequence[int]) -> list[list[int]]:
        """The items of each."""
        item_lists = []
        for user in users:
            vector = self.step([user])[0]
            rows = torch.topk(self._vectors @ vector, self._k + SEEN).indices.numpy()
            item_lists.append(unseen(self._snapshot.item_ids[rows], self._watched[user], self._k))
        return item_lists


class Served:
    """A snapshot's own tower and index."""

    def __init__(self, snapshot: Snapshot, watched: Watched, k: int) -> None:
        self._watched, self._k, self._tower = watched, k, SnapshotTower(snapshot)
        self._index = Index.load(snapshot.index, snapshot.item_ids, snapshot.item_vectors)

    def step(self, users: Sequence[int]) -> Floats:
        """User vectors (B, d), all at once."""
        return self._tower(users, [self._watched[user] for user in users])

    def answer(self, users: Sequence[int]) -> list[list[int]]:
        """The items of each."""
        _, ids = self._index.search(self.step(users), self._k + SEEN)
        return [unseen(of_user, self._watched[user], self._k) for user, of_user in zip(users, ids, strict=True)]


def unseen(ids: Ints, seen: Positives, k: int) -> list[int]:
    """The first k of them that were not watched."""
    fresh: list[int] = ids[~np.isin(ids, seen.item_ids)][:k].tolist()
    return fresh


def snapshot_of(population: World, model: str) -> Snapshot:
    """A snapshot whose tower takes few steps; of the paper's model one is made for this."""
    snapshot = full(population, model, 1)
    whole = encoder(model, 1)
    if isinstance(whole, T2DiffPaper) and not hasattr(whole, "evaluations"):
        few = FewSteps(whole, EVALUATIONS).eval()
        tower = TowerTemplate(few, DIM, WINDOW).fill(few)
        snapshot = replace(snapshot, tower=tower, manifest=replace(snapshot.manifest, noise_shape=few.noise_shape))
    return snapshot


def timed_ms(way: Way, users: Sequence[int], batch: int = 1) -> float:
    """Milliseconds a user."""
    began = time.perf_counter()
    for at in range(0, len(users), batch):
        way(users[at : at + batch])
    return 1000 * (time.perf_counter() - began) / len(users)


def in_process(population: World, model: str, options: argparse.Namespace, say: Say) -> dict[str, Any]:
    """Step and answer, in turns."""
    say(f"{model}: exports, {population.items} items")
    snapshot = snapshot_of(population, model)
    watched = {user: population.watched(user) for user in range(1, (options.rounds + 1) * options.requests + 1)}
    plain, served = Plain(snapshot, watched, options.k), Served(snapshot, watched, options.k)
    ways: dict[str, tuple[Way, int]] = {
        "naive_step": (plain.step, 1),
        "served_step": (served.step, 1),
        "naive_answer": (plain.answer, 1),
        "served_answer": (served.answer, 1),
        f"served_answer_of_{BATCH}": (served.answer, BATCH),
    }
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(options.rounds + 1):
        users = range(1 + number * options.requests, 1 + (number + 1) * options.requests)
        for name, (way, batch) in ways.items():
            took = timed_ms(way, users, batch)
            if number:  # the first round warms up
                taken[name].append(took)
        say(f"{model}: round {number}")
    ms = {name: round(statistics.median(each), 4) for name, each in taken.items()}
    return {
        "ms": ms,
        "step": ratio(ms["naive_step"], ms["served_step"]),
        "answer": ratio(ms["naive_answer"], ms["served_answer"]),
        f"answer_of_{BATCH}": ratio(ms["naive_answer"], ms[f"served_answer_of_{BATCH}"]),
    }


def whole_request(options: argparse.Namespace, say: Say) -> dict[str, Any]:
    """A replica's time for a Recall, beside reading the features and answering plainly."""
    with (
        tempfile.TemporaryDirectory() as folder,
        rig(world(options), Path(folder), [], options.redis) as bench,
        generator() as load,
    ):
        users = range(1, options.requests + 1)
        watched = {user: bench.world.watched(user) for user in users}
        plain, store = Plain(bench.publish("t2diff"), watched, options.k), UserSequences(bench.features)
        with bench.replicas(("t2diff", "t2diff")) as (replica,):
            shot = Shot((replica.address,), options.low_rate, 5.0, bench.world.users, k=options.k, time_ms=NOW_MS)
            load.fire(shot)
            before = read_metrics([replica.metrics_port])
            figures = load.fire(Shot(**vars(shot) | {"seed": 1, "warm_s": 0.0}))
            after = read_metrics([replica.metrics_port])
        say("whole requests")
        sums = [after.total(f"serving_recall_seconds_{part}") - before.total(f"serving_recall_seconds_{part}")
                for part in ("sum", "count")]  # fmt: skip
        naive = timed_ms(lambda some: (store.read(some), plain.answer(some)), users)
    served = 1000 * sums[0] / sums[1] if sums[1] else None
    return {
        "naive_ms": round(naive, 3),
        "served_ms": round(served, 3) if served else None,
        "request": ratio(naive, served),
        "load": figures,
    }


def run(options: argparse.Namespace, say: Say) -> dict[str, Any]:
    """Both models in process; a replica of ours."""
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    by_model = {model: in_process(world(options), model, options, say) for model in MODELS}
    by_model["t2diff"] |= {"whole_request": whole_request(options, say)}
    return {
        "speedup_over_naive_50_steps": by_model["t2diff"]["answer"],
        "speedup_of_the_step": by_model["t2diff"]["step"],
        "speedup_of_the_request": by_model["t2diff"]["whole_request"]["request"],
        "paper_speedup_over_naive_50_steps": by_model["t2diff-paper"]["answer"],
        "models": by_model,
    } | machine(options)


def options(parser: argparse.ArgumentParser) -> None:
    """What can be said about this part."""
    common(parser)
    parser.add_argument("--requests", type=int, default=40, help="of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--low-rate", type=float, default=20.0, help="requests a second that a replica is asked")


def main(arguments: Sequence[str] | None = None) -> None:
    sys.stdout.write(json.dumps(command(__doc__, options, run, arguments), indent=1) + "\n")


if __name__ == "__main__":
    main()
