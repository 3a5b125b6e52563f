"""What the closed loop earns, as one JSON object.

    python -m benchmarks.loop --json FILE [--seeds 5] [--settings FILE] [--data KUAIRAND_PURE] [--latency FILE]

synthetic.online_over_frozen   EVR of the learner with its gate, relative to the same learner frozen at the start
synthetic.online_over_today    the same relative to the plain learner; only where the learner is another one
synthetic.share_of_omniscient  EVR of the learner over that of the policy that knows what users want
synthetic.gate_over_none       EVR with the gate over EVR without it
births.online_over_frozen      where 5 % of the items are born each day
kuairand.…                     as in the synthetic world, in the world of KuaiRand-Pure's response model; needs --data
clean_published                share of the learner's publications after the start that went live, of those that did or
                               were held: the ones whose place on trial the next took count for neither. As nothing is
                               wrong with the data, each one that is held is a false alarm
longest_stale_h                the longest time of any week in which nothing went live, in hours
served_vectors_p99_s, served_tower_p99_s
                               from --latency, what `python -m benchmarks.trainer.latency --out FILE` has measured

The learner is that of --settings, else the default one. Means over seeds with their standard errors. Responses are
simulated.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.options import folder
from contracts.config.settings import TrainerSettings
from contracts.runtime.clock import HOUR_MS
from evaluation.lab.plan import PLAIN, Run, WorldPlan, policy_plan
from evaluation.lab.report import by_policy, relative_over_seeds, shares_of_omniscient
from evaluation.lab.results import Outcome, OverSeeds, differences, over_seeds
from evaluation.lab.runs import plan_runs, simulate
from evaluation.lab.settings import read_settings

QUICK = {"days": 2, "warmup_days": 1, "users": 100, "items": 200}
GATE = "gate"
UNGATED = "online-no-gate"
LATENCIES = ("served_vectors_p99_s", "served_tower_p99_s")


BIRTHS = 0.05  # of the items of the start, a day


def learns_plainly(trainer: TrainerSettings) -> bool:
    """Whether a learner is the plain one, gates aside."""
    ours, plain = (settings.model_dump(exclude={GATE}) for settings in (trainer, PLAIN))
    return ours == plain


def figures(world: str, outcomes: Sequence[Outcome]) -> dict[str, OverSeeds]:
    """The figures of one world, by name."""
    relative = relative_over_seeds(differences(outcomes))
    found = {f"{world}.online_over_frozen": relative["online", "frozen"]}
    if ("online", UNGATED) in relative:
        beside = relative["online", UNGATED]
        found[f"{world}.gate_over_none"] = beside._replace(mean=1 + beside.mean)
    if ("online", "plain") in relative:
        found[f"{world}.online_over_today"] = relative["online", "plain"]
    shares = shares_of_omniscient(by_policy(outcomes))
    if shares:
        found[f"{world}.share_of_omniscient"] = shares["online"]
    return found


def clean_published(outcomes: Sequence[Outcome]) -> OverSeeds:
    """Of each week of `online`, the share of the publications after the start that went live; mean over the weeks."""
    weeks = [week for week in outcomes if week.policy == "online" and week.live + week.held]
    return over_seeds([week.live / (week.live + week.held) for week in weeks])


def longest_stale_h(outcomes: Sequence[Outcome]) -> float:
    """The longest time in which nothing went live, of all weeks of `online`; hours of event time."""
    longest_ms = 0
    for week in outcomes:
        if week.policy == "online":
            live_ms = [each.time_ms for each in week.publications if each.passed and not each.replaced]
            moments = [week.start_ms, *live_ms, week.end_ms]
            longest_ms = max(longest_ms, *(later - earlier for earlier, later in pairwise(moments)))
    return longest_ms / HOUR_MS


def measure(
    world: str, plan: WorldPlan, names: Sequence[str], trainer: TrainerSettings, seeds: int, jobs: int
) -> list[Outcome]:
    """Outcomes of policies in the worlds of seeds 0, 1, …"""
    policies = [policy_plan(name, "two_tower", trainer) for name in names]
    runs = plan_runs(plan, range(seeds), policies, shared=False)

    def tell(run: Run, share: float) -> None:
        if share >= 1:
            sys.stderr.write(f"{world}, {run}\n")

    return simulate(runs, jobs, tell)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here, too")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--kuairand-seeds", type=int, default=1, help="its users are the same, its responses are not")
    parser.add_argument("--data", type=folder, help="the KuaiRand-Pure folder; without it its figures are left out")
    parser.add_argument("--settings", type=Path, help="of the learner: a settings file, or its section trainer")
    parser.add_argument("--latency", type=Path, help="the JSON object that benchmarks.trainer.latency wrote")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="the least of everything: does it run?")
    options = parser.parse_args()
    if min(options.seeds, options.kuairand_seeds, options.jobs) < 1:
        parser.error("--seeds, --kuairand-seeds and --jobs are 1 at least")
    trainer = read_settings(options.settings).trainer if options.settings else TrainerSettings()
    plain = not learns_plainly(trainer)
    today = ["plain"] if plain else []
    names = {
        "synthetic": ["frozen", *today, UNGATED, "online", "omniscient"],
        "births": ["frozen", "online"],
        "kuairand": ["frozen", *today, "online"],
    }
    synthetic = WorldPlan(**QUICK) if options.quick else WorldPlan()
    worlds = {"synthetic": synthetic, "births": replace(synthetic, births=BIRTHS)}
    if options.data is not None:
        quick = {"users": 2000, "days": 2} if options.quick else {}
        worlds["kuairand"] = WorldPlan(data=options.data, **quick)
    outcomes: list[Outcome] = []
    found: dict[str, OverSeeds] = {}
    for world, plan in worlds.items():
        seeds = options.seeds if plan.data is None else options.kuairand_seeds
        weeks = measure(world, plan, names[world], trainer, seeds, options.jobs)
        found |= figures(world, weeks)
        outcomes += weeks
    found["clean_published"] = clean_published(outcomes)
    content: dict[str, Any] = {name: round(each.mean, 5) for name, each in found.items()}
    content["longest_stale_h"] = round(longest_stale_h(outcomes), 1)
    if options.latency is not None:
        latency = json.loads(options.latency.read_text())
        content |= {name: latency[name] for name in LATENCIES}
    content["std_errors"] = {name: each.std_error for name, each in found.items()}
    content["seeds"] = {name: each.seeds for name, each in found.items()}
    text = json.dumps(content, indent=1)
    if options.json is not None:
        options.json.write_text(text + "\n")
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main()
