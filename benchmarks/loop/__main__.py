"""What the closed loop earns, as one JSON object.

    python -m benchmarks.loop --json FILE [--seeds 5] [--data KUAIRAND_PURE] [--jobs 2] [--quick]

synthetic.online_over_frozen   EVR of the default learner with its gate, relative to the model frozen at the start
synthetic.online_over_today    the same relative to the plain learner; only where the default learner is another one
synthetic.share_of_omniscient  EVR of the default learner over that of the policy that knows what users want
kuairand.online_over_frozen    as in the synthetic world, in that of KuaiRand-Pure's response model; needs --data
clean_published                share of the default learner's publications after the start that went live; as nothing is
                               wrong with the data, each one that is held is a false alarm

Means over seeds with their standard errors. Responses are simulated.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from contracts.config.settings import TrainerSettings
from evaluation.lab.plan import PLAIN, Run, WorldPlan, policy_plan
from evaluation.lab.report import by_policy, relative_over_seeds, shares_of_omniscient
from evaluation.lab.results import Outcome, OverSeeds, differences, over_seeds
from evaluation.lab.runs import plan_runs, simulate

QUICK = {"days": 2, "warmup_days": 1, "users": 100, "items": 200}
GATE = "gate"


def learns_plainly() -> bool:
    """Whether the default learner is the plain one, gates aside."""
    default, plain = (settings.model_dump(exclude={GATE}) for settings in (TrainerSettings(), PLAIN))
    return default == plain


def figures(world: str, outcomes: Sequence[Outcome], *, plain: bool) -> dict[str, OverSeeds]:
    """The figures of one world, by name."""
    relative = relative_over_seeds(differences(outcomes))
    found = {f"{world}.online_over_frozen": relative["online", "frozen"]}
    if plain:
        found[f"{world}.online_over_today"] = relative["online", "plain"]
    shares = shares_of_omniscient(by_policy(outcomes))
    if shares:
        found[f"{world}.share_of_omniscient"] = shares["online"]
    return found


def clean_published(outcomes: Sequence[Outcome]) -> OverSeeds:
    """Of each week of `online`, the share of the publications after the start that went live; mean over the weeks."""
    weeks = [week for week in outcomes if week.policy == "online" and week.live + week.held]
    return over_seeds([week.live / (week.live + week.held) for week in weeks])


def measure(world: str, plan: WorldPlan, names: Sequence[str], seeds: int, jobs: int) -> list[Outcome]:
    """Outcomes of policies in the worlds of seeds 0, 1, …"""
    policies = [policy_plan(name, "two_tower", TrainerSettings()) for name in names]
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
    parser.add_argument("--data", type=Path, help="the KuaiRand-Pure folder; without it its figures are left out")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="the least of everything: does it run?")
    options = parser.parse_args()
    if min(options.seeds, options.kuairand_seeds, options.jobs) < 1:
        parser.error("--seeds, --kuairand-seeds and --jobs are 1 at least")
    plain = not learns_plainly()
    names = ["frozen", "online", *(["plain"] if plain else [])]
    synthetic = WorldPlan(**QUICK) if options.quick else WorldPlan()
    outcomes = measure("synthetic", synthetic, [*names, "omniscient"], options.seeds, options.jobs)
    found = figures("synthetic", outcomes, plain=plain)
    if options.data is not None:
        logged = WorldPlan(data=options.data, users=2000, days=2) if options.quick else WorldPlan(data=options.data)
        real = measure("kuairand", logged, names, options.kuairand_seeds, options.jobs)
        found |= figures("kuairand", real, plain=plain)
        outcomes += real
    found["clean_published"] = clean_published(outcomes)
    content: dict[str, Any] = {name: round(each.mean, 5) for name, each in found.items()}
    content["std_errors"] = {name: each.std_error for name, each in found.items()}
    content["seeds"] = {name: each.seeds for name, each in found.items()}
    text = json.dumps(content, indent=1)
    if options.json is not None:
        options.json.write_text(text + "\n")
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main()
