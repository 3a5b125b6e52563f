"""Small weeks."""

from collections.abc import Callable
from typing import Any

from contracts.config.settings import TrainerSettings
from evaluation.lab.plan import PolicyPlan, Run, WorldPlan, execute, policy_plan
from evaluation.lab.results import Outcome

TINY = WorldPlan(days=2, warmup_days=1, users=60, items=150)
CHANGING = WorldPlan(days=4, warmup_days=2, users=250, items=250, births=0.1)


def plan(name: str, trainer: TrainerSettings | None = None) -> PolicyPlan:
    return policy_plan(name, "two_tower", trainer or TrainerSettings())


def week(name: str, world: WorldPlan, seed: int = 0, tap: Callable[[Any], None] = lambda _event: None) -> Outcome:
    (outcome,) = execute(Run(world, seed, (plan(name),)), tap=tap)
    return outcome
