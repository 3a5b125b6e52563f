"""What few steps of the sampler cost in quality: recall@20 by 4 network evaluations beside all 50, on the same weights.

    python -m benchmarks.serving.recall [--data MOVIELENS_1M] [--train-seconds 120] [--seeds 1]

Models are really trained: on MovieLens-1M where its folder is given, else on a log of the synthetic world, in both
cases to find the last behaviour of each user (`evaluation`'s leave-one-out protocol and its `sampling` study). `t2diff`
samples without noise, by 4 evaluations as it serves and by 50. `t2diff-paper` samples by 50 steps with fresh noise, as
in the paper, and by 4 deterministic ones.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from benchmarks.options import folder
from benchmarks.serving.options import Say, command
from benchmarks.serving.world import DIM, WINDOW
from contracts.config.settings import ModelSettings
from evaluation import movielens, studies
from evaluation.data import ItemTable, Query
from evaluation.data import Sequence as Behaviours
from evaluation.draws import drawing
from evaluation.fit import Fitted, Plan, fit
from evaluation.movielens import LeaveOneOut
from trainer.models.t2diff import EVALUATIONS
from world.synthetic import synthetic

MODELS = ("t2diff", "t2diff-paper")
FULL = 50
SHORTEST = 3  # behaviours of a user: one to learn from, one to validate and one to test


def simulated(seed: int, users: int, items: int, days: int) -> LeaveOneOut:
    """The effective views of a synthetic world's log, by the same protocol."""
    world = synthetic(seed, days=1, warmup_days=days, users=users, items=items)
    log = world.log[world.log["long_view"] == 1].drop_duplicates(["user_id", "video_id", "time_ms"])
    log = log[log["video_id"].between(0, items - 1) & log["time_ms"].between(world.start_ms, world.experiment_start_ms)]
    whole = [
        (int(user), Behaviours(rows["video_id"].to_numpy(np.int64), rows["time_ms"].to_numpy(np.int64)))
        for user, rows in log.sort_values("time_ms").groupby("user_id")
        if len(rows) >= SHORTEST
    ]
    return LeaveOneOut(
        ItemTable(world.catalogue.item_ids, world.catalogue.categories),
        [sequence.until(len(sequence) - 2) for _, sequence in whole],
        [query(user, sequence, len(sequence) - 2) for user, sequence in whole],
        [query(user, sequence, len(sequence) - 1) for user, sequence in whole],
    )


def query(user_id: int, sequence: Behaviours, end: int) -> Query:
    """What a user asks after so many behaviours; what was watched does not compete."""
    history = sequence.until(end)
    return Query(user_id + 1, history, int(sequence.times_ms[end]), int(sequence.rows[end]), history.rows)


def trained(model: str, split: LeaveOneOut, seed: int, seconds: float, say: Say) -> Fitted:
    """A model of the served shape, trained for so long."""

    def told(entry: dict[str, float]) -> None:
        gain = f", NDCG@10 {entry['ndcg@10']:.4f}" if "ndcg@10" in entry else ""
        say(f"{model}: epoch {entry['epoch']:.0f}, loss {entry['loss']:.3f}{gain}, {entry['seconds']:.0f} s")

    settings = ModelSettings(dim=DIM, window=WINDOW)
    draw = drawing(model, settings, split.sequences)
    plan = Plan(epochs=1000, seconds=seconds, validate_every=5, precision=torch.float32)
    validation = split.validation[:: max(len(split.validation) // 500, 1)]
    return fit(
        model, settings, split.catalogue, draw, validation, plan, seed=seed, device=torch.device("cpu"), report=told
    )


def compare(study: dict[str, list[float]]) -> dict[str, float]:
    """Few steps and all, from what `studies.sampling` found; its first entry is the model's own way.

    >>> compare({"evaluations": [50, 4, 50], "recall@20": [0.2, 0.202, 0.2], "ms": [9, 1, 9]})["few_vs_50_percent"]
    1.0
    """
    own, *others = zip(study["evaluations"], study["recall@20"], study["ms"], strict=True)
    by = {int(evaluations): (recall, ms) for evaluations, recall, ms in others}
    few, few_ms = by[EVALUATIONS]
    # The paper's own way of 50 steps is the one with fresh noise.
    full, full_ms = own[1:] if own[0] == FULL else by[FULL]
    return {
        "recall_few": round(few, 5),
        "recall_50": round(full, 5),
        "few_vs_50_percent": round(100 * (few - full) / full, 3) if full else float("nan"),
        "ms_few": few_ms,
        "ms_50": full_ms,
    }


def run(options: argparse.Namespace, say: Say) -> dict[str, Any]:
    """Both models, each seed."""
    torch.set_num_threads(options.threads)
    by_model: dict[str, Any] = {}
    for model in MODELS:
        by_seed = []
        for seed in range(options.seeds):
            split = (
                movielens.leave_one_out(options.data, "time")
                if options.data
                else simulated(seed, options.log_users, options.log_items, options.log_days)
            )
            fitted = trained(model, split, seed, options.train_seconds, say)
            test = split.test[:: max(len(split.test) // options.tests, 1)]
            say(f"{model}: asks {len(test)} users by all ways")
            study = studies.sampling(fitted, test)
            by_seed.append(compare(study) | {"tests": len(test), "study": study, "trained_s": round(fitted.seconds, 1)})
        differences = [each["few_vs_50_percent"] for each in by_seed]
        by_model[model] = {"few_vs_50_percent": round(statistics.mean(differences), 3), "seeds": by_seed}
    return {
        "recall_few_vs_50": {model: of_model["few_vs_50_percent"] for model, of_model in by_model.items()},
        "log": "MovieLens-1M" if options.data else "simulated",
        "models": by_model,
    }


def options(parser: argparse.ArgumentParser) -> None:
    """What can be said about this part."""
    parser.add_argument("--data", type=folder, help="the MovieLens-1M folder; without it a simulated log")
    parser.add_argument("--train-seconds", type=float, default=120.0, help="of CPU time, of each model")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--tests", type=int, default=3000, help="users that are asked about at most")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--log-users", type=int, default=3000)
    parser.add_argument("--log-items", type=int, default=3000)
    parser.add_argument("--log-days", type=int, default=5)


def main(arguments: Sequence[str] | None = None) -> None:
    sys.stdout.write(json.dumps(command(__doc__, options, run, arguments), indent=1) + "\n")


if __name__ == "__main__":
    main()
