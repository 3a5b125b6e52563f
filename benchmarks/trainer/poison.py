"""What the gate does to a stream that goes wrong: `python -m benchmarks.trainer.poison --data KUAIRAND_PURE --json`.

A model learns the views of KuaiRand-Pure online and asks the gate every so many examples whether it may publish. After
a warm-up the stream is left as it is, or is changed:

- shuffled: for a while, labels are dealt out at random among the examples;
- bot: for a while, three of ten examples are of one user who likes one item;
- farm: the same, but each of these examples is of another user, with the history of a real one;
- drift: from then on, half of the catalogue has changed places, for good: who liked one item now likes another.

What was live with the gate, and what would have been live without it, are both asked for every clean example:
where labels were changed, with its true one; after a drift, as it has become.
"""

import argparse
import copy
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from benchmarks.options import folder
from contracts.config.settings import GateSettings, ModelSettings, TrainerSettings
from contracts.features import Ints
from contracts.messages.events import SCHEMA_VERSION
from contracts.snapshots.snapshot import Snapshot
from contracts.wire.events_pb2 import Example, History
from evaluation import kuairand
from evaluation.data import Query
from evaluation.fit import trainer_catalogue
from trainer.data.batches import encode
from trainer.data.catalogue import Catalogue
from trainer.evaluation.drift import DriftDetector
from trainer.gate.gate import Gatekeeper
from trainer.gate.served_model import Served
from trainer.learn.learner import Learner
from trainer.publish.onnx_export import TowerTemplate
from trainer.publish.snapshots import manifest_of, sampling_seed, snapshot_of

SCENARIOS = ("clean", "shuffled", "bot", "farm", "drift")
CPU = torch.device("cpu")
BOT_SHARE = 0.3
BOT = 10**9  # user ids from here on are bots
AFTERMATH = 2  # publications after the last poisoned example in which it may still show


@dataclass(frozen=True)
class Plan:
    """How a run goes, in examples of the clean stream."""

    warm_up: int = 20_000
    examples: int = 10_000  # after it
    every: int = 1000
    start: int = 2000  # of the poison, after the warm-up
    poison: int = 1500
    seed: int = 0


@dataclass(frozen=True)
class Told:
    """One example as the learner is told of it, and as it really was, None where it never was."""

    told: Example
    clean: Example | None
    poisoned: bool = False


@dataclass
class Line:
    """What is live, with the gate or without, and how well it does on clean examples."""

    live: Served
    ranks: list[Ints]

    def recall(self, k: int, part: slice) -> float:
        return round(float((np.concatenate(self.ranks)[part] <= k).mean()), 4)


class Course:
    """A learner, its gate and what they are asked; forked after the warm-up."""

    def __init__(self, model: str, catalogue: Catalogue, gate: GateSettings, seed: int) -> None:
        self.settings = ModelSettings()
        self.catalogue = catalogue
        self.seed = seed
        self.gate_settings = gate
        self.model = model
        self.learner = self.new_learner()
        self.template = TowerTemplate(self.learner.model.encoder, self.settings.dim, self.settings.window)
        self.learner.follow(catalogue)
        self.gate = self.new_gate()
        self.drift = DriftDetector()
        self.version = 0

    def new_learner(self) -> Learner:
        return Learner(self.model, TrainerSettings(model=self.settings), self.seed, CPU)

    def new_gate(self) -> Gatekeeper:
        return Gatekeeper(self.gate_settings, self.settings.window, self.seed, CPU)

    def fork(self) -> "Course":
        twin = copy.copy(self)
        twin.learner = self.new_learner()
        twin.learner.restore(self.learner.state())
        twin.learner.follow(self.catalogue)
        twin.gate = self.new_gate()
        twin.gate.restore(self.gate.state())
        twin.drift = DriftDetector()
        twin.drift.restore(self.drift.state())
        return twin

    def learn(self, examples: Sequence[Example]) -> int:
        """Test, then learn; how many drifts to the worse were seen."""
        batch = encode(examples, self.catalogue, self.settings.window)
        foresight = self.learner.evaluate(batch)
        self.gate.watch(examples, batch, foresight, self.catalogue)
        self.learner.learn(batch)
        return self.drift.add(foresight.ranks <= 100).worse

    def snapshot(self) -> Snapshot:
        self.version += 1
        self.learner.sampling_seed = sampling_seed(self.seed, self.version)
        return snapshot_of(self.learner, self.catalogue, self.template, manifest_of(self.learner, self.version))


def examples_of(queries: Sequence[Query], item_ids: Ints) -> list[Example]:
    """Queries as the stream emits them; what was seen and not liked comes before what was liked."""
    out = []
    for query in queries:
        only_seen = np.setdiff1d(query.masked, query.history.rows)
        rows = np.concatenate([only_seen, query.history.rows])
        liked = np.arange(rows.size) >= only_seen.size
        times = np.concatenate([np.zeros(only_seen.size, np.int64), query.history.times_ms])
        nothing = [0] * rows.size
        history = History(
            item_ids=item_ids[rows], times_ms=times, effective_views=liked, play_times_ms=nothing,
            follows=[False] * rows.size, sessions=nothing,
        )  # fmt: skip
        example = Example(schema_version=SCHEMA_VERSION, user_id=query.user_id, item_id=int(item_ids[query.target]))
        example.time_ms = example.sent_at_ms = query.time_ms
        example.history.CopyFrom(history)
        out.append(example)
    return out


def retold(scenario: str, clean: Sequence[Example], plan: Plan, item_ids: Ints) -> list[Told]:
    """The stream after the warm-up, as the scenario tells it."""
    rng = np.random.default_rng(plan.seed)
    end = plan.start + plan.poison
    if scenario == "shuffled":
        dealt = iter(rng.permutation(np.arange(plan.start, end)).tolist())
        return [
            Told(_liking(e, clean[next(dealt)].item_id), e, poisoned=True) if plan.start <= i < end else Told(e, e)
            for i, e in enumerate(clean)
        ]
    if scenario in {"bot", "farm"}:
        return [*_with_bots(scenario, clean, plan, int(rng.choice(item_ids)), rng)]
    if scenario == "drift":
        moved = rng.permutation(item_ids)[: item_ids.size // 2]
        becomes = dict(zip(moved.tolist(), rng.permutation(moved).tolist(), strict=True))
        from_ms = clean[plan.start].time_ms
        changed = [_renamed(e, becomes, from_ms) if i >= plan.start else e for i, e in enumerate(clean)]
        return [Told(e, e) for e in changed]
    return [Told(e, e) for e in clean]


def _with_bots(
    scenario: str, clean: Sequence[Example], plan: Plan, item: int, rng: np.random.Generator
) -> Iterator[Told]:
    bots = 0
    for i, example in enumerate(clean):
        yield Told(example, example)
        while plan.start <= i < plan.start + plan.poison * (1 - BOT_SHARE) and rng.random() < BOT_SHARE:
            bots += 1
            if scenario == "bot":
                history = History(
                    item_ids=[item] * bots, times_ms=[example.time_ms] * bots, effective_views=[True] * bots
                )
                robot = Example(user_id=BOT, history=history)
            else:
                like = clean[int(rng.integers(i + 1))]
                robot = Example(user_id=BOT + bots, history=like.history)
            robot.time_ms, robot.item_id = example.time_ms, item
            yield Told(robot, None, poisoned=True)


def _liking(example: Example, item_id: int) -> Example:
    twin = Example()
    twin.CopyFrom(example)
    twin.item_id = item_id
    return twin


def _renamed(example: Example, becomes: dict[int, int], from_ms: int) -> Example:
    twin = _liking(example, becomes.get(example.item_id, example.item_id))
    behaviours = zip(example.history.item_ids, example.history.times_ms, strict=True)
    twin.history.item_ids[:] = [becomes.get(i, i) if at_ms >= from_ms else i for i, at_ms in behaviours]
    return twin


def warm(model: str, examples: Sequence[Example], catalogue: Catalogue, gate: GateSettings, plan: Plan) -> Course:
    """Learn the warm-up; the gate publishes in it as it does later."""
    course = Course(model, catalogue, gate, plan.seed)
    for start, end in pairwise(range(0, len(examples) + 1, plan.every)):
        for part in _parts(examples[start:end], course.settings.batch_size):
            course.learn(part)
        course.gate.judge(course.snapshot(), course.learner, catalogue)
    return course


def ask(lines: Sequence[Line], examples: Sequence[Example], course: Course) -> None:
    """Ask what is live in each line; what is live in several is asked once."""
    batch = encode(examples, course.catalogue, course.settings.window)
    ranks = {live: live.ranks(batch, course.catalogue) for live in {line.live for line in lines}}
    for line in lines:
        line.ranks.append(ranks[line.live])


def run(scenario: str, course: Course, clean: Sequence[Example], plan: Plan, item_ids: Ints) -> dict[str, Any]:
    """One scenario, from the warm-up on."""
    begun = time.perf_counter()
    stream = retold(scenario, clean, plan, item_ids)
    first = Served.of(course.snapshot(), CPU)
    gated, ungated = Line(first, []), Line(first, [])
    publications: list[dict[str, Any]] = []
    drifts: list[int] = []
    for start in range(0, len(stream), plan.every):
        part = stream[start : start + plan.every]
        for few in _parts(part, course.settings.batch_size):
            true = [each.clean for each in few if each.clean is not None]
            if true:
                ask((gated, ungated), true, course)
            drifts += [start] * course.learn([each.told for each in few])
        snapshot = course.snapshot()
        verdict = course.gate.judge(snapshot, course.learner, course.catalogue)
        candidate = Served.of(snapshot, CPU)
        ungated.live = candidate
        gated.live = candidate if verdict.passed else gated.live
        publications.append(
            {"at": start + len(part), "poisoned": sum(each.poisoned for each in part), "passed": verdict.passed}
            | {"reason": verdict.reason, "live": gated.live.version}
        )
    return {
        "publications": publications,
        "held_at": [p["at"] for p in publications if not p["passed"]],
        "drifts_to_the_worse_in_the_publication_from": drifts,
        "recall": recalls(scenario, stream, gated, ungated, plan),
        "seconds": round(time.perf_counter() - begun, 1),
    }


def recalls(scenario: str, stream: Sequence[Told], gated: Line, ungated: Line, plan: Plan) -> dict[str, Any]:
    """Of what is live on clean examples: over all, and from the poison's first example until its traces fade."""
    spoilt = [i for i, each in enumerate(t for t in stream if t.clean is not None) if i >= plan.start]
    end = plan.start + plan.poison + AFTERMATH * plan.every
    parts = {"all": slice(None), "during_and_after": slice(spoilt[0], len(stream) if scenario == "drift" else end)}
    lines = {"gated": gated, "ungated": ungated}
    return {
        f"@{k}": {name: {way: line.recall(k, part) for way, line in lines.items()} for name, part in parts.items()}
        for k in (20, 100)
    }


def _parts(sequence: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (sequence[at : at + size] for at in range(0, len(sequence), size))


def main(arguments: list[str] | None = None) -> int:
    """Run the scenarios and print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.trainer.poison", description=__doc__.split("\n", maxsplit=1)[0]
    )
    parser.add_argument("--data", type=folder, required=True, help="the KuaiRand-Pure folder")
    parser.add_argument("--model", default="two_tower")
    parser.add_argument("--scenario", action="append", choices=SCENARIOS)
    parser.add_argument(
        "--json", action="store_true", help="everything, with reasons; otherwise a line a scenario on standard error"
    )
    plan = Plan()
    for name, value in vars(plan).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value)
    for name in ("margin", "confidence"):
        parser.add_argument(f"--{name}", type=float, default=getattr(GateSettings(), name))
    parser.add_argument("--anchor", type=int, default=GateSettings().anchor)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    plan = replace(plan, **{name: getattr(options, name) for name in vars(plan)})
    gate = GateSettings(judge="recall", margin=options.margin, confidence=options.confidence, anchor=options.anchor)
    source = kuairand.stream(options.data, histories=True)
    midnights = source.midnights_ms()
    queries = kuairand.queries(source, int(midnights[0]), int(midnights[-1]))[: plan.warm_up + plan.examples]
    item_ids = source.catalogue.item_ids
    examples = examples_of(queries, item_ids)
    warmed = warm(options.model, examples[: plan.warm_up], trainer_catalogue(source.catalogue), gate, plan)
    figures: dict[str, Any] = {"model": options.model, "plan": vars(plan), "gate": gate.model_dump(), "scenarios": {}}
    for scenario in options.scenario or SCENARIOS:
        figures["scenarios"][scenario] = run(scenario, warmed.fork(), examples[plan.warm_up :], plan, item_ids)
        shown = figures["scenarios"][scenario]
        summary = f"{scenario}: held at {shown['held_at']}, recall {json.dumps(shown['recall'])}"
        print(summary, file=sys.stderr, flush=True)  # noqa: T201
    if options.json:
        print(json.dumps(figures, indent=1))  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
