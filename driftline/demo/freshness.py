"""What freshness was worth: each arm's model as it learns, beside itself frozen at the start, on the same users.

The experiment cannot tell: its arms share the users, and neither stands still. In the laboratory (`evaluation.lab`)
each is given to everybody in the same world, with the run's own settings, so that their difference is paired by user.
"""

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from contracts.config.settings import Settings
from evaluation.lab.plan import PolicyPlan, Run, WorldPlan, policy_plan
from evaluation.lab.results import Outcome, difference
from evaluation.lab.runs import plan_runs, simulate
from world.base import WorldError


def runs(world: WorldPlan, settings: Settings) -> list[Run]:
    """A week for each arm's model as it learns, and one for it frozen."""
    return plan_runs(world, [settings.seed], _policies(settings), shared=False)


def measure(world: WorldPlan, settings: Settings, console: Console) -> dict[str, Any] | None:
    """Carry the runs out on all cores, and print how far they are and what came out; None where they cannot be."""
    planned = runs(world, settings)
    console.print(
        f"What was freshness worth? Each model once more, learning and frozen: {len(planned)} weeks in the laboratory …"
    )
    done: set[str] = set()

    def tell(finished: Run, share: float) -> None:
        if share >= 1 and str(finished) not in done:
            done.add(str(finished))
            console.print(f"  {len(done)} of {len(planned)}: {finished.policies[0].name}", highlight=False)

    try:
        outcomes = simulate(planned, min(os.cpu_count() or 1, len(planned)), tell)
    except WorldError as error:
        console.print(f"It cannot be measured: {error}", highlight=False)
        return None
    found = worth(settings, outcomes)
    console.print(table(found))
    return found


def worth(settings: Settings, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """By arm, as in `summary.json`: effective view rates, their relative difference with a 95 % interval over users."""
    by_policy = {outcome.policy: outcome for outcome in outcomes}
    found = {}
    for name, arm in settings.experiment.arms.items():
        online, frozen = by_policy[f"online:{arm.model}"], by_policy[f"frozen:{arm.model}"]
        gained = difference(online, frozen)
        found[name] = {
            "model": arm.model,
            "online_evr": online.evr,
            "frozen_evr": frozen.evr,
            "relative": gained.relative,
            "ci_low": gained.relative_low,
            "ci_high": gained.relative_high,
            "live": online.live,
            "held": online.held,
            "online_evr_by_day": online.evr_by_day,
            "frozen_evr_by_day": frozen.evr_by_day,
        }
    return found


def command(world: WorldPlan, settings: Settings, settings_file: Path) -> str:
    """What measures the same by hand."""
    options: dict[str, Any] = {
        "world": world.data,
        "policies": ",".join(policy.name for policy in _policies(settings)),
        "settings": settings_file,
        "seed": settings.seed,
        "days": world.days,
        "warmup-days": world.warmup_days,
        "slate": world.slate,
        "users": world.users,
        "items": world.items,
        "births": world.births or None,
    }
    words = [str(word) for name, value in options.items() if value is not None for word in (f"--{name}", value)]
    return shlex.join(["driftline", "lab", *words])


def table(arms: Mapping[str, Mapping[str, Any]]) -> Table:
    """The same for a terminal."""
    grid = Table(
        title="What freshness was worth: EVR learning all week and frozen at the start, on the same users (simulated)",
        title_justify="left",
    )
    for heading in (
        "arm",
        "model",
        "learning",
        "frozen",
        "relative difference",
        "95 % interval",
        "days ahead",
    ):
        grid.add_column(heading)
    for name, arm in arms.items():
        days = list(zip(arm["online_evr_by_day"], arm["frozen_evr_by_day"], strict=True))
        ahead = sum(ours is not None and theirs is not None and ours > theirs for ours, theirs in days)
        grid.add_row(
            name,
            arm["model"],
            f"{arm['online_evr']:.4f}",
            f"{arm['frozen_evr']:.4f}",
            f"{arm['relative']:+.2%}",
            f"{arm['ci_low']:+.2%} … {arm['ci_high']:+.2%}",
            f"{ahead} of {len(days)}",
        )
    return grid


def _policies(settings: Settings) -> list[PolicyPlan]:
    models = dict.fromkeys(arm.model for arm in settings.experiment.arms.values())
    return [
        policy_plan(f"{kind}:{model}", model, settings.trainer, settings.stream)
        for model in models
        if model
        for kind in ("frozen", "online")
    ]
