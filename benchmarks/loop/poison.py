"""What trials do to a closed loop that goes wrong: `python -m benchmarks.loop.poison [--seeds 3] [--settings FILE]`.

A week of the laboratory's synthetic world by the default settings, or by those of a file. From the beginning of the
experiment's fourth day, for `--hours`, what the trainer is told is changed; what users do is not, and what the replicas
show follows from what the trainer makes of it:

- clean: nothing is;
- shuffled: each example is of an item that is drawn at random;
- bot: three of ten examples are of one user who likes one item;
- farm: the same, but each of these examples is of another user, with the history of a real one;
- drift: from then on, for good, half of the items have changed places: who would have viewed one views the other.

Told of each: publications after the change began, until a day after it ended (all later ones for drift), and how many
of them were held or rolled back; hours from the change to the first and the last of these; EVR on the days from the
change on, with the gate and without, beside the clean week with the gate.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from contracts.config.settings import TrainerSettings
from contracts.features import Ints
from contracts.runtime.clock import DAY_MS, HOUR_MS
from contracts.wire.events_pb2 import Example
from evaluation.lab.plan import Run, WorldPlan, execute, policy_plan
from evaluation.lab.results import Outcome, over_seeds
from evaluation.lab.settings import read_settings
from world.base import Response, Visit, World

SCENARIOS = ("clean", "shuffled", "bot", "farm", "drift")
BOT_SHARE = 0.3
BOT = 10**9  # user ids from here on are bots
DAY = 3  # of the experiment, from 0, on which the change begins


class Drifting:
    """A world in which half of the items change places at a moment; all else is the world's own."""

    def __init__(self, world: World, from_ms: int, seed: int) -> None:
        self._world = world
        self._from_ms = from_ms
        ids = world.catalogue.item_ids
        random = np.random.default_rng(seed)
        moved = random.permutation(ids.size)[: ids.size // 2]
        self._becomes = np.arange(ids.size)
        self._becomes[moved] = random.permutation(moved)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._world, name)

    def respond(self, visits: Sequence[Visit], shown: Sequence[Ints]) -> list[Response]:
        """As the world, to the items that stand behind those shown."""
        ids = self._world.catalogue.item_ids
        behind = [
            ids[self._becomes[np.searchsorted(ids, items)]] if visit.time_ms >= self._from_ms else items
            for visit, items in zip(visits, shown, strict=True)
        ]
        return self._world.respond(visits, behind)


@dataclass(frozen=True)
class DriftPlan(WorldPlan):
    """A world that drifts on `DAY`."""

    def open(self, seed: int) -> World:
        world = super().open(seed)
        drifting: Any = Drifting(world, world.experiment_start_ms + DAY * DAY_MS, seed)
        return drifting  # type: ignore[no-any-return]


class Retelling:
    """What the trainer is told in the place of an example."""

    def __init__(self, scenario: str, item_ids: Ints, start_ms: int, end_ms: int, seed: int) -> None:
        self._scenario = scenario
        self._ids = item_ids
        self._window = start_ms, end_ms
        self._random = np.random.default_rng(seed)
        self._item = int(self._random.choice(item_ids))
        self._bots = 0
        self._told: list[Example] = []  # the newest, whose histories a farm borrows

    def __call__(self, example: Example) -> Iterable[Example]:
        if not self._window[0] <= example.time_ms < self._window[1] or self._scenario in {"clean", "drift"}:
            return [example]
        if self._scenario == "shuffled":
            return [_liking(example, int(self._random.choice(self._ids)))]
        self._told = [*self._told[-99:], example]
        told = [example]
        while self._random.random() < BOT_SHARE:
            told.append(self._bot(example.time_ms))
        return told

    def _bot(self, time_ms: int) -> Example:
        self._bots += 1
        like = self._told[int(self._random.integers(len(self._told)))]
        bot = _liking(like, self._item)
        bot.request_id, bot.time_ms = f"bot-{self._bots}", time_ms
        bot.user_id = BOT if self._scenario == "bot" else BOT + self._bots
        bot.ClearField("page")
        return bot


def _liking(example: Example, item_id: int) -> Example:
    twin = Example()
    twin.CopyFrom(example)
    if example.HasField("page"):
        pages = zip(example.page.item_ids, example.page.effective_views, strict=True)
        others = dict(pages) | {item_id: True}
        others.pop(example.item_id, None) if item_id != example.item_id else None
        twin.page.Clear()
        for other in sorted(others):
            twin.page.item_ids.append(other)
            twin.page.effective_views.append(others[other])
    twin.item_id = item_id
    return twin


def run(scenario: str, policy: str, seed: int, world: WorldPlan, trainer: TrainerSettings, hours: float) -> Outcome:
    """One week of one policy."""
    plan = DriftPlan(**vars(world)) if scenario == "drift" else world
    opened = plan.open(seed)
    start_ms = opened.experiment_start_ms + DAY * DAY_MS
    retell = Retelling(scenario, opened.catalogue.item_ids, start_ms, start_ms + int(hours * HOUR_MS), seed)
    (outcome,) = execute(Run(plan, seed, (policy_plan(policy, "two_tower", trainer),)), retell=retell)
    return outcome


def figures(scenario: str, gated: Outcome, free: Outcome, clean: Outcome, hours: float) -> dict[str, Any]:
    """What one week came to."""
    start_ms = gated.start_ms + DAY * DAY_MS
    end_ms = gated.end_ms if scenario in {"clean", "drift"} else start_ms + int(hours * HOUR_MS) + DAY_MS
    within = [each for each in gated.publications if start_ms < each.time_ms <= end_ms]
    held = [each for each in within if not each.passed]
    since = [(each.time_ms - start_ms) / HOUR_MS for each in held]

    def evr(week: Outcome) -> float:
        return float(week.effective[:, DAY:].sum() / week.views[:, DAY:].sum())

    return {
        "scenario": scenario,
        "seed": gated.seed,
        "published": len(within),
        "held": len(held),
        "first_held_h": round(since[0], 1) if since else None,
        "last_held_h": round(since[-1], 1) if since else None,
        "reasons": sorted({each.reason.partition(":")[0] for each in held}),
        "evr": round(evr(gated), 4),
        "evr_without_gate": round(evr(free), 4),
        "evr_clean": round(evr(clean), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here, too")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--settings", type=Path, help="of the learner: a settings file, or its section trainer")
    parser.add_argument("--hours", type=float, default=12, help="for how long the stream is wrong")
    parser.add_argument("--scenarios", nargs="+", choices=SCENARIOS, default=SCENARIOS)
    parser.add_argument("--quick", action="store_true", help="the least of everything: does it run?")
    options = parser.parse_args()
    world = WorldPlan(days=5, warmup_days=1, users=100, items=200) if options.quick else WorldPlan()
    trainer = read_settings(options.settings).trainer if options.settings else TrainerSettings()
    rows = []
    for seed in range(options.seeds):
        clean = run("clean", "online", seed, world, trainer, options.hours)
        for scenario in options.scenarios:
            gated = clean if scenario == "clean" else run(scenario, "online", seed, world, trainer, options.hours)
            free = run(scenario, "online-no-gate", seed, world, trainer, options.hours)
            rows.append(figures(scenario, gated, free, clean, options.hours))
            sys.stderr.write(json.dumps(rows[-1]) + "\n")
    means = {
        scenario: {
            name: over_seeds([row[name] for row in rows if row["scenario"] == scenario]).mean
            for name in ("published", "held", "evr", "evr_without_gate", "evr_clean")
        }
        for scenario in options.scenarios
    }
    text = json.dumps({"means": means, "weeks": rows}, indent=1)
    if options.json is not None:
        options.json.write_text(text + "\n")
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main()
