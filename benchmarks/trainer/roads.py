"""Roads to a better model, each beside its exact ablation, on KuaiRand-Pure's stream after a packed backfill.

    python -m benchmarks.trainer.roads ROAD --data KUAIRAND_PURE [--seeds 3] [--share 4] [--json FILE]

    average   averaged weights (`trainer.average`) of the control and `t2diff`, tested beside the weights they average
    guidance  x̂ under classifier-free guidance by the user's context, by its strength w; w = 0 and a head without
              diffusion are the ablations
    sphere    diffusion on the sphere under guidance of several interests; the same network without noise and without a
              denoising loss is the ablation

With `guidance` and `sphere` averaged weights (of w = 0) are tested, too, as they are with the control.

Every row learns the same behaviours once, in the same order: those before the log from packed windows, then the stream,
in which each effective view is ranked, then learned from. Those of the last seven days count. Ranks are paired by user;
intervals are bootstraps over users of the means over seeds. What the lists of 20 show is measured beside recall.
"""

import argparse
import copy
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.trainer.roads_encoders import (
    Guided,
    GuidedBeside,
    GuidedBesideWithoutDiffusion,
    GuidedWithoutDiffusion,
    Sphere,
    SphereWithoutDiffusion,
)
from contracts.config.settings import ModelSettings, TrainerSettings
from contracts.features import Ints
from evaluation import kuairand, packed
from evaluation.data import ItemTable, Query
from evaluation.fit import asked, trainer_catalogue
from evaluation.metrics import Values, lift, over_seeds, recall
from evaluation.progressive import batch_of
from trainer.data.batches import Batch
from trainer.data.catalogue import Catalogue
from trainer.evaluation.ranking import ranks_of
from trainer.learn.learner import AVERAGED_EVERY, Learner, follow_weights
from trainer.learn.model import Model
from trainer.models import REGISTRY

TESTED_DAYS = 7
LIST = 20
OWN = {
    "guided": Guided,
    "guided-without-diffusion": GuidedWithoutDiffusion,
    "guided-beside": GuidedBeside,
    "guided-beside-without-diffusion": GuidedBesideWithoutDiffusion,
    "sphere": Sphere,
    "sphere-without-diffusion": SphereWithoutDiffusion,
}
STRENGTHS = (0.0, 0.1, 0.5, 1.0, 2.0)  # w
AVERAGES = (0.99, 0.999)  # memory of a step


@dataclass(frozen=True)
class Variant:
    """A training; it is tested in one way or in several."""

    encoder: str
    settings: TrainerSettings
    strengths: Sequence[float] = ()  # of guidance, of an encoder that has it
    averages: Sequence[float] = ()  # memories of the averaged weights that are tested beside the plain ones

    @property
    def name(self) -> str:
        """The encoder, and where it learns if that is not the last place."""
        k = self.settings.model.learn_at_last
        return self.encoder if k is None else f"{self.encoder} at last {k}"

    @property
    def rows(self) -> list[str]:
        """The ways of testing it; the first is what the others are compared with."""
        guided = [f"{self.name} w={w:g}" for w in self.strengths] or [self.name]
        return [*guided, *(f"{self.name} averaged {memory:g}" for memory in self.averages)]


class Learning:
    """A learner, and averages of its weights as `trainer.average` makes them."""

    def __init__(self, variant: Variant, catalogue: Catalogue, seed: int) -> None:
        self.variant = variant
        self.learner = Learner(variant.encoder, variant.settings, seed, torch.device("cpu"))
        self.learner.follow(catalogue)
        self.averaged = {memory: copy.deepcopy(self.learner.model) for memory in variant.averages}
        self._steps = 0

    def learn(self, batch: Batch) -> None:
        """One step."""
        self._steps += self.learner.learn(batch)
        if self._steps % AVERAGED_EVERY == 0:
            for memory, served in self.averaged.items():
                follow_weights(served, self.learner.model, memory, self._steps)

    def ways(self) -> Iterator[tuple[str, Model]]:
        """What is tested, by name; the encoder is set to its strength until the next is asked for."""
        model, rows = self.learner.model, iter(self.variant.rows)
        for strength in self.variant.strengths or (None,):
            if isinstance(model.encoder, Guided) and strength is not None:
                model.encoder.guidance = strength
            yield next(rows), model
        yield from zip(rows, self.averaged.values(), strict=True)


class Shown(NamedTuple):
    """What one way of testing a model gave of the Q queries that count."""

    ranks: Ints  # (Q,)
    lists: Ints  # (Q, LIST) rows


def variants(road: str) -> tuple[list[Variant], list[tuple[str, str]]]:
    """The trainings of a road, and which of their rows are compared."""
    if road == "average":
        learned = [ModelSettings(), ModelSettings(learn_at="last-k", learn_at_last=4)]
        by_place = [
            [Variant(n, TrainerSettings(model=m), (), AVERAGES) for n in ("two_tower", "t2diff")] for m in learned
        ]
        trained = [each for of in by_place for each in of]
        arms = [pair for one, other in by_place for pair in zip(other.rows, one.rows, strict=True)]
        return trained, [(row, each.rows[0]) for each in trained for row in each.rows[1:]] + arms
    control = Variant("two_tower", TrainerSettings(), (), AVERAGES[:1])
    names = ("guided", "guided-beside") if road == "guidance" else ("sphere",)
    strengths = STRENGTHS if road == "guidance" else ()
    trained, pairs = [control], []
    for name in names:
        both = [replace(control, encoder=each, strengths=strengths) for each in (name, f"{name}-without-diffusion")]
        trained += both
        pairs += [(row, each.rows[0]) for each in both for row in each.rows[1:]]
        pairs += zip(*(each.rows for each in both), strict=True)
        pairs += [pair for each in both for pair in zip((each.rows[0], each.rows[-1]), control.rows, strict=True)]
    return trained, pairs


@contextmanager
def registered() -> Iterator[None]:
    """The roads' encoders among the models, for as long as this lasts."""
    REGISTRY.update(OWN)
    try:
        yield
    finally:
        for name in OWN:
            del REGISTRY[name]


def run(
    variant: Variant, source: kuairand.Stream, queries: Sequence[Query], tested: npt.NDArray[np.bool_], seed: int
) -> dict[str, Shown]:
    """Learn what was before the log and then the stream, each batch of which is tested first, in each way."""
    model = variant.settings.model
    learning = Learning(variant, trainer_catalogue(source.catalogue), seed)
    histories = {user_id: before.positives for user_id, before in source.before.items()}
    for batch in packed.batches(packed.packed(histories, model.window, seed), model.window):
        learning.learn(batch)
    parts: dict[str, list[Shown]] = {}
    for at in range(0, len(queries), model.batch_size):
        here = queries[at : at + model.batch_size]
        counted = [query for query, counts in zip(here, tested[at : at + len(here)].tolist(), strict=True) if counts]
        if counted:
            for name, asking in learning.ways():
                parts.setdefault(name, []).append(shown(asking, model, counted))
        learning.learn(batch_of(here, model.window))
    return {name: Shown(*map(np.concatenate, zip(*of, strict=True))) for name, of in parts.items()}


def shown(model: Model, settings: ModelSettings, queries: list[Query]) -> Shown:
    """Ranks of the targets, and the lists that the users would be shown; `asked` gives the noise."""
    model.eval()
    with torch.no_grad():
        vectors = model.vectors()
        inputs, noise = asked(model, settings, queries, torch.device("cpu"))
        scores = model.users(inputs, vectors, noise) @ vectors.T
        targets = torch.tensor([query.target for query in queries])
        ranks = ranks_of(scores, targets, tuple(query.masked for query in queries))  # takes out what was seen
        return Shown(ranks, scores.topk(min(LIST, scores.shape[1])).indices.numpy())


def categories(lists: Ints, catalogue: ItemTable) -> Values:
    """How many different categories each list (Q, K) has; (Q,)."""
    widest = max((max(of, default=-1) for of in catalogue.categories), default=-1) + 1
    has = np.zeros((len(catalogue.categories), widest), np.bool_)
    for row, of in enumerate(catalogue.categories):
        has[row, list(of)] = True
    parts = [has[lists[at : at + 512]].any(1).sum(1) for at in range(0, len(lists), 512)]
    return np.concatenate(parts).astype(np.float64)


def effective(lists: Ints) -> float:
    """The exponential of the entropy of what is shown: as many items shown equally often would be as varied.

    >>> round(effective(np.array([[0, 1], [2, 3]])), 6)
    4.0
    """
    share = np.unique(lists, return_counts=True)[1] / lists.size
    return float(np.exp(-(share * np.log(share)).sum()))


def figures(
    rows: dict[str, list[Shown]], pairs: list[tuple[str, str]], users: Ints, catalogue: ItemTable
) -> dict[str, Any]:
    """Rows by seed, and pairs of rows with their paired 95 % intervals; relative differences."""
    measures: dict[str, Callable[[Shown], Values]] = {
        f"recall@{LIST}": lambda one: recall(one.ranks, LIST),
        "recall@100": lambda one: recall(one.ranks, 100),
        "categories of a list": lambda one: categories(one.lists, catalogue),
    }
    values = {
        name: {measure: np.array([f(one) for one in seeds]) for measure, f in measures.items()}
        for name, seeds in rows.items()
    }
    table = {
        name: {measure: np.round(v.mean(1), 5).tolist() for measure, v in values[name].items()}
        | {
            "different items": [int(np.unique(one.lists).size) for one in seeds],
            "effective items": [round(effective(one.lists), 1) for one in seeds],
        }
        for name, seeds in rows.items()
    }
    beside: dict[str, dict[str, list[float]]] = {}
    for one, other in pairs:
        beside[f"{one}, {other}"] = entry = {}
        for measure in measures:
            gain = lift(over_seeds(values[one][measure]), over_seeds(values[other][measure]), users)
            entry[measure] = [round(x, 5) for x in (gain.value, gain.low, gain.high)]
    return {"rows": table, "beside": beside}


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.trainer.roads",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("road", choices=("average", "guidance", "sphere"))
    parser.add_argument("--data", type=Path, required=True, help="KuaiRand-Pure folder")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--share", type=int, default=4, metavar="N", help="one of every N users")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    options = parser.parse_args(arguments)
    if options.seeds < 1 or options.share < 1:
        parser.error("--seeds and --share are at least 1")
    torch.set_num_threads(1)
    source = kuairand.some(kuairand.stream(options.data, histories=True), options.share)
    midnights = source.midnights_ms()
    queries = kuairand.queries(source, int(midnights[0]), int(midnights[-1]))
    first_ms = int(midnights[-min(TESTED_DAYS + 1, midnights.size)])
    tested = np.array([query.time_ms >= first_ms for query in queries])
    users = np.array([query.user_id for query in queries], np.int64)[tested]
    trained, pairs = variants(options.road)
    rows: dict[str, list[Shown]] = {}
    begun = time.process_time()
    with registered():
        for seed in range(options.seeds):
            for variant in trained:
                for name, one in run(variant, source, queries, tested, seed).items():
                    rows.setdefault(name, []).append(one)
                    line = (
                        f"{time.process_time() - begun:5.0f} s {name} seed {seed}: {recall(one.ranks, LIST).mean():.4f}"
                    )
                    print(line, file=sys.stderr, flush=True)  # noqa: T201
            found = {
                "road": options.road,
                "seeds": seed + 1,
                "share": options.share,
                "queries": int(tested.sum()),
                **figures(rows, pairs, users, source.catalogue),
                "cpu_s": round(time.process_time() - begun, 1),
            }
            text = json.dumps(found, indent=1)
            if options.json:  # after each seed, so that a run that is cut leaves the seeds that it has
                options.json.write_text(text + "\n")
    print(text)  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
