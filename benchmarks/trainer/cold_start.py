"""How an item that nobody has watched should begin: `python -m benchmarks.trainer.cold_start --kuairand FOLDER`.

Prints one JSON object: progressive recall on KuaiRand-Pure, of all targets and of those with few positives so far, by
how the embedding of an id begins and after how many positives it counts. Items are announced when the log first shows
them, or, with --known, all before its first impression, as `driftline evaluate --protocol progressive` has it.
"""

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from contracts.config.settings import TrainerSettings, VocabularySettings
from contracts.features import Ints
from evaluation import kuairand
from evaluation.progressive import batch_of
from trainer.data.catalogue import Catalogue
from trainer.learn.item_tower import ItemTower
from trainer.learn.learner import Learner

CUTOFFS = (20, 100)
FEW = 5  # positives
ADMISSIONS = (0, 1, 2, 5)
BEGINNINGS = ("random", "zero", "peers")


def begin(how: str, tower: ItemTower, catalogue: Catalogue, new: Ints) -> None:
    """Give the ids of new rows another first embedding than the tower's small random one."""
    if how == "random" or not new.size:
        return
    table = tower.ids.data
    if how == "zero":
        table[torch.from_numpy(new)] = 0
        return
    # The mean of the ids that share its categories and have been positives, of each category first.
    bags = catalogue.bags(np.arange(len(catalogue)))
    has = torch.zeros(len(catalogue), len(catalogue.categories))
    has[np.repeat(np.arange(len(catalogue)), bags.lengths), bags.flat] = 1
    of_watched = has * (tower.positives > 0).unsqueeze(1)
    means = (of_watched.T @ table) / of_watched.sum(0).clamp(min=1).unsqueeze(1)
    mine = has[new] * (of_watched.sum(0) > 0)
    categorised = mine.sum(1) > 0
    table[torch.from_numpy(new)[categorised]] = (mine @ means)[categorised] / mine[categorised].sum(1, keepdim=True)


def run(
    source: kuairand.Stream, model: str, how: str, admit_after: int, seed: int, *, all_known: bool
) -> dict[str, Any]:
    """Test, then learn from, all effective views."""
    midnights = source.midnights_ms()
    queries = kuairand.queries(source, int(midnights[0]), int(midnights[-1]))
    items = source.catalogue
    announced_ms = np.full(items.item_ids.size, 2**62)
    np.minimum.at(announced_ms, source.rows, source.times_ms)
    if all_known:
        announced_ms[:] = 0
    order = np.argsort(announced_ms, kind="stable")
    row_of = np.empty_like(order)
    row_of[order] = np.arange(order.size)

    settings = TrainerSettings(vocabulary=VocabularySettings(admit_after=admit_after))
    learner = Learner(model, settings, seed, torch.device("cpu"))
    tower, catalogue = learner.model.items, Catalogue()
    ranks, positives = [], []
    begun, size = time.process_time(), settings.model.batch_size
    for part in (queries[at : at + size] for at in range(0, len(queries), size)):
        announced = len(catalogue)
        for at in order[announced : np.searchsorted(announced_ms[order], part[-1].time_ms, side="right")].tolist():
            catalogue.put(int(items.item_ids[at]), items.categories[at])
        learner.follow(catalogue)
        begin(how, tower, catalogue, np.arange(announced, len(catalogue)))
        batch = batch_of(part, settings.model.window)
        batch = replace(
            batch,
            rows=np.where(batch.rows >= 0, row_of[batch.rows], -1),
            targets=row_of[batch.targets],
            seen=tuple(row_of[seen] for seen in batch.seen),
        )
        positives.append(tower.positives.numpy()[batch.targets])
        ranks.append(learner.evaluate(batch).ranks)
        learner.learn(batch)
    target_ranks, few = np.concatenate(ranks), np.concatenate(positives) < FEW
    out: dict[str, Any] = {"begins": how, "admit_after": admit_after, "seed": seed, "examples": target_ranks.size}
    out |= {"examples_few": int(few.sum()), "cpu_s": round(time.process_time() - begun, 1)}
    for k in CUTOFFS:
        out[f"recall@{k}"] = round(float((target_ranks <= k).mean()), 5)
        out[f"recall@{k}/few"] = round(float((target_ranks[few] <= k).mean()), 5)
    return out


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.trainer.cold_start", description=__doc__)
    parser.add_argument("--kuairand", type=Path, required=True)
    parser.add_argument("--model", default="two_tower")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--known", action="store_true", help="announce all items before the log begins")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    # What was watched before the log is left out: its items would all be known.
    source = kuairand.stream(options.kuairand, histories=options.known)
    ways = [(how, 0) for how in BEGINNINGS] + [("random", count) for count in ADMISSIONS[1:]]
    runs = [
        run(source, options.model, how, admit_after, seed, all_known=options.known)
        for how, admit_after in ways
        for seed in options.seeds
    ]
    print(json.dumps({"model": options.model, "all_known": options.known, "few": FEW, "runs": runs}, indent=1))  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
