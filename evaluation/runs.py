"""Doing a task: read the data, train or count, answer the test queries, take the time."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from contracts.config.settings import TrainerSettings
from contracts.features import Floats, Ints
from evaluation import costs, kuairand, movielens, packed
from evaluation.baselines.base import Fitted as FittedBaseline
from evaluation.data import DataError, ItemTable, Query, Sequence
from evaluation.draws import Draw, drawing, shuffled
from evaluation.fit import fit, ranks, trainer_catalogue, training_clock
from evaluation.metrics import coverage
from evaluation.movielens import Order
from evaluation.named import baseline
from evaluation.progressive import batches, learn_online
from evaluation.results import COVERED, Result
from evaluation.studies import study
from evaluation.tasks import Task, TaskError, check
from trainer.data.batches import Batch
from trainer.learn.model import Model

TESTED_DAYS = 7  # the last ones of a stream
_END_MS = 2**62


@dataclass(frozen=True)
class Folders:
    """Where the data sets are, as far as they are needed."""

    movielens: Path | None = None
    official: Path | None = None
    kuairand: Path | None = None


@dataclass(frozen=True)
class Step:
    """How far a run is: the share that is done, and what it says of itself."""

    share: float
    text: str


Report = Callable[[Step], None]


@dataclass(frozen=True)
class Split:
    """A protocol of epochs, as a task needs it."""

    catalogue: ItemTable
    known: list[Sequence]  # what a baseline counts
    draw: Callable[[Task], Draw]  # what a network learns from
    validation: list[Query]
    test: list[Query]


def run(task: Task, folders: Folders, *, device: torch.device, report: Report = lambda _: None) -> Result:
    """Do a task.

    Raises:
        TaskError: it cannot be done, or lacks a folder.
        DataError: a folder is not what it should be.
        DivergedError: the loss was no number.

    """
    check(task)
    report(Step(0, "reads the data"))
    if task.streams:
        folder = _needed(folders.kuairand, f"the {task.protocol} protocol needs the KuaiRand-Pure folder")
        source = _stream(folder)
        _see_enough(folder, kuairand.queries(source, _first_tested(source.midnights_ms()), _END_MS))
        return _online(task, source, device, report) if task.trains else _daily(task, source, report)
    split = _split(task, folders)
    return _fitted(task, split, device, report) if task.trains else _counted(task, split, report)


def _split(task: Task, folders: Folders) -> Split:
    ratings = _needed(folders.movielens, f"the {task.protocol} protocol needs the MovieLens-1M folder")
    if task.protocol == "official":
        instances = _needed(folders.official, "the official protocol needs the folder of the authors' test instances")
        drawn = _official(ratings, instances, task.order)
        _see_enough(ratings, drawn.windows, drawn.validation, drawn.test)
        watched = drawn.sequences + drawn.held_out
        return Split(
            drawn.catalogue,
            watched,
            lambda t: shuffled(drawn.windows, t.settings.window),
            drawn.validation,
            drawn.test,
        )
    one_out = _leave_one_out(ratings, task.order)
    _see_enough(ratings, [s for s in one_out.sequences if len(s) > 1], one_out.validation, one_out.test)
    return Split(
        one_out.catalogue,
        [q.history for q in one_out.test],
        lambda t: drawing(t.model, t.settings, one_out.sequences),
        one_out.validation,
        one_out.test,
    )


def _fitted(task: Task, split: Split, device: torch.device, report: Report) -> Result:
    def report_entry(entry: dict[str, float]) -> None:
        share = max(entry["epoch"] / task.plan.epochs, entry["seconds"] / task.plan.seconds)
        validated = f", validation NDCG@10 {entry['ndcg@10']:.4f}" if "ndcg@10" in entry else ""
        report(Step(min(share, 1), f"epoch {entry['epoch']:.0f}, loss {entry['loss']:.4f}{validated}"))

    settings = task.settings
    fitted = fit(
        task.model, settings, split.catalogue, split.draw(task), split.validation, task.plan,
        seed=task.seed, device=device, report=report_entry,
    )  # fmt: skip
    target_ranks, covered = _answers(fitted.scores, split.test, split.catalogue)
    return Result(
        task=task,
        ranks=target_ranks,
        user_ids=_users(split.test),
        items=split.catalogue.item_ids.size,
        coverage=covered,
        parameter_bytes=costs.parameter_bytes(fitted.model),
        training_s=round(fitted.seconds, 2),
        best_epoch=fitted.best_epoch,
        epochs=len(fitted.history),
        inference_ms=costs.inference_ms(fitted.model, settings, split.test, device),
        device=costs.device_name(device),
        threads=torch.get_num_threads(),
        versions=costs.versions(),
        history=fitted.history,
        study=study(task.study, fitted, split.test) if task.study else {},
    )


def _counted(task: Task, split: Split, report: Report) -> Result:
    report(Step(0, "counts"))
    begun = time.perf_counter()
    fitted = baseline(task.model, task.protocol).fit(split.known, split.catalogue.item_ids.size)
    spent = time.perf_counter() - begun
    target_ranks, covered = _answers(lambda part: fitted.scores([q.history for q in part]), split.test, split.catalogue)
    return _of_baseline(task, split.catalogue, split.test, target_ranks, covered, fitted, spent)


def _online(task: Task, source: kuairand.Stream, device: torch.device, report: Report) -> Result:
    """Every effective view of the log is foreseen and then learned from; those of the last days count."""
    midnights = source.midnights_ms()
    queries = kuairand.queries(source, int(midnights[0]), int(midnights[-1]))
    before, count = _before(task, source)
    steps = count + len(queries)
    clock = training_clock(device)
    begun = clock()
    foreseen = learn_online(
        task.model, TrainerSettings(model=task.settings), source.catalogue, queries, before=before, seed=task.seed,
        device=device, report=lambda done: report(Step(done / steps, f"{done:,} of {steps:,} views")),
    )  # fmt: skip
    spent = clock() - begun
    tested = np.array([q.time_ms >= _first_tested(midnights) for q in queries])
    test = [q for q, counts in zip(queries, tested.tolist(), strict=True) if counts]
    model = Model(task.model, task.settings, task.seed)  # weighs as much and is as fast as the one that has learned
    model.items.follow(trainer_catalogue(source.catalogue))
    model.to(device)
    return Result(
        task=task,
        ranks=foreseen.ranks[tested],
        user_ids=_users(test),
        items=source.catalogue.item_ids.size,
        coverage=None,
        parameter_bytes=costs.parameter_bytes(model),
        training_s=round(spent, 2),
        best_epoch=0,
        epochs=1,
        inference_ms=costs.inference_ms(model, task.settings, test, device),
        device=costs.device_name(device),
        threads=torch.get_num_threads(),
        versions=costs.versions(),
        study={"backfill_s": [round(foreseen.backfill_s, 4)]} if count else {},
    )


def _before(task: Task, source: kuairand.Stream) -> tuple[Iterable[Batch], int]:
    """What a stream's model learns from first, and of how many views it is."""
    if task.protocol == "backfilled":
        queries = kuairand.earlier(source)
        return batches(queries, task.settings), len(queries)
    if task.protocol == "packed":
        histories = {user_id: before.positives for user_id, before in source.before.items()}
        windows = packed.packed(histories, task.settings.window, task.seed)
        return packed.batches(windows, task.settings.window), sum(len(did) for did in histories.values())
    return (), 0


def _daily(task: Task, source: kuairand.Stream, report: Report) -> Result:
    """A baseline counts anew at each midnight all that came before, and answers the day's views."""
    midnights = source.midnights_ms()[-TESTED_DAYS - 1 :].tolist()
    items, spent = source.catalogue.item_ids.size, 0.0
    test: list[Query] = []
    target_ranks: list[Ints] = []
    lists: list[Ints] = []
    for day, (start_ms, end_ms) in enumerate(pairwise(midnights)):
        report(Step(day / TESTED_DAYS, f"day {day + 1} of {TESTED_DAYS}"))
        begun = time.perf_counter()
        fitted = baseline(task.model, task.protocol).fit(kuairand.sequences(source, start_ms), items)
        spent += time.perf_counter() - begun
        queries = kuairand.queries(source, start_ms, end_ms)
        for part in _parts(queries):
            scores = fitted.scores([q.history for q in part])
            target_ranks.append(ranks(scores, part))
            lists.append(_best(scores))
        test += queries
    covered = coverage(np.concatenate(lists), items)
    return _of_baseline(task, source.catalogue, test, np.concatenate(target_ranks), covered, fitted, spent)


def _of_baseline(
    task: Task,
    catalogue: ItemTable,
    test: list[Query],
    target_ranks: Ints,
    covered: float,
    fitted: FittedBaseline,
    spent: float,
) -> Result:
    return Result(
        task=task,
        ranks=target_ranks,
        user_ids=_users(test),
        items=catalogue.item_ids.size,
        coverage=covered,
        parameter_bytes=costs.counted_bytes(fitted),
        training_s=round(spent, 2),
        best_epoch=0,
        epochs=0,
        inference_ms=costs.counted_ms(fitted, test),
        device=costs.device_name(torch.device("cpu")),  # baselines know no other
        threads=torch.get_num_threads(),
        versions=costs.versions(),
    )


def _answers(scores: Callable[[list[Query]], Floats], test: list[Query], catalogue: ItemTable) -> tuple[Ints, float]:
    """Ranks of the targets, and the share of the catalogue on the lists."""
    target_ranks, lists = [], []
    for part in _parts(test):
        scored = scores(part)
        target_ranks.append(ranks(scored, part))  # and what is masked is now out of the race
        lists.append(_best(scored))
    return np.concatenate(target_ranks), coverage(np.concatenate(lists), catalogue.item_ids.size)


def _best(scores: Floats) -> Ints:
    """(Q, K) rows of each query's list, in no order."""
    k = min(COVERED, scores.shape[1])
    return np.argpartition(-scores, k - 1, axis=1)[:, :k]


def _parts(queries: list[Query], size: int = 1024) -> Iterable[list[Query]]:
    return (queries[at : at + size] for at in range(0, len(queries), size))


def _users(queries: list[Query]) -> Ints:
    return np.array([q.user_id for q in queries], np.int64)


def _first_tested(midnights: Ints) -> int:
    return int(midnights[-min(TESTED_DAYS + 1, midnights.size)])


def _see_enough(folder: Path, *parts: list[Query] | list[Sequence]) -> None:
    if not all(parts):
        raise DataError(f"{folder} has too few users or behaviours to learn from, validate and test.")


def _needed(folder: Path | None, why: str) -> Path:
    if folder is None:
        raise TaskError(f"{why[0].upper()}{why[1:]}.")
    return folder


@lru_cache(maxsize=1)
def _official(folder: Path, instances: Path, order: Order) -> movielens.OfficialSplit:
    return movielens.official(folder, instances, order)


@lru_cache(maxsize=1)
def _leave_one_out(folder: Path, order: Order) -> movielens.LeaveOneOut:
    return movielens.leave_one_out(folder, order)


@lru_cache(maxsize=1)
def _stream(folder: Path) -> kuairand.Stream:
    return kuairand.stream(folder, histories=True)
