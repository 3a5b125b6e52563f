"""What is to be simulated: worlds, policies by their names, and one run of either."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time
from typing import Literal, get_args

import torch
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from contracts.config.experiment import EXPLORE
from contracts.config.settings import (
    Arm,
    Experiment,
    GateSettings,
    ModelName,
    ModelSettings,
    ObjectiveSettings,
    RegimesSettings,
    Source,
    StreamSettings,
    TrainerSettings,
)
from contracts.config.trainer import ReplaySettings
from evaluation.lab.policy import LabError, Learned, Logging, Omniscient, Policy, Popularity, settings_of
from evaluation.lab.results import Outcome
from evaluation.lab.week import Retell, Tally, Tap, run_week
from world.base import LATENESS_MS, World
from world.open import open_world

Kind = Literal["frozen", "online", "online-no-gate", "plain", "popularity", "logging", "omniscient"]
KINDS: tuple[Kind, ...] = get_args(Kind)
LEARNED = ("frozen", "online", "online-no-gate", "plain")
MODELS: tuple[ModelName, ...] = get_args(ModelName)

STREAM = StreamSettings(allowed_lateness_ms=LATENESS_MS)  # as in the demo

# The learner that others are measured against, whatever becomes of the defaults: one pass over positives alone.
PLAIN = TrainerSettings(
    model=ModelSettings(
        dim=64, id_dim=None, category_dim=16, window=32, depth=2, session_length=10, learning_rate=3e-3, dropout=0.0,
        batch_size=128, diffusion_steps=50, learn_at="last", learn_at_last=None, page_loss=0.0,
    ),
    replay=ReplaySettings(batches=0), average=0.0, regimes=RegimesSettings(), learn_from="own", softmax="full",
    objective=ObjectiveSettings(effective_view=1.0, play=0.0, follow=0.0), publish_every_ms=6 * 3_600_000,
    gate=GateSettings(enabled=False),
)  # fmt: skip


@dataclass(frozen=True)
class WorldPlan:
    """A world, up to its seed; None where the world decides."""

    data: Path | None = None  # a KuaiRand-Pure folder; None: a synthetic world
    days: int = 7
    warmup_days: int | None = None
    slate: int = 4
    users: int | None = None
    items: int | None = None
    births: float = 0.0

    def open(self, seed: int) -> World:
        """A world that nobody has used.

        Raises:
            WorldError: one sentence says what is missing or does not fit.

        """
        return copy.deepcopy(_opened(self, seed))  # a response model takes longer to fit than to copy


@dataclass(frozen=True)
class PolicyPlan:
    """A policy, up to its seed and its users."""

    name: str
    kind: Kind
    model: ModelName = "two_tower"  # of the learned kinds
    trainer: TrainerSettings = field(default_factory=TrainerSettings)
    stream: StreamSettings = STREAM
    explore: float = 0.0  # share of the places that are filled at random, of the learned kinds

    @property
    def learns(self) -> bool:
        """Whether it has a model."""
        return self.kind in LEARNED


@dataclass(frozen=True)
class Run:
    """One week: a policy that everybody gets, or two that share the users."""

    world: WorldPlan
    seed: int
    policies: tuple[PolicyPlan, ...]

    def __str__(self) -> str:
        return f"seed {self.seed}: {' against '.join(policy.name for policy in self.policies)}"


def policy_plan(
    name: str, model: ModelName, trainer: TrainerSettings, stream: StreamSettings | None = None
) -> PolicyPlan:
    """A policy by its name: KIND, KIND:MODEL or KIND:MODEL@FILE.

    >>> plan = policy_plan("online-no-gate:sasrec", "two_tower", TrainerSettings())
    >>> plan.kind, plan.model, plan.trainer.gate.enabled
    ('online-no-gate', 'sasrec', False)

    Args:
        name: of the kind, with a model of its own where that is not to be `model`; what follows @ is part of the name.
        model: of the learned kinds.
        trainer: settings of the learned kinds, but for `plain`, which has its own.
        stream: how events are joined; as in the demo by default.

    Raises:
        LabError: there is no such kind or model.

    """
    kind, _, own = name.partition("@")[0].partition(":")
    if kind not in KINDS:
        raise LabError(f"There is no policy '{kind}'; there are {', '.join(KINDS)}.")
    if kind not in LEARNED and name != kind:
        raise LabError(f"The policy {kind} has neither a model nor settings: '{name}'.")
    if own and own not in MODELS:
        raise LabError(f"There is no model '{own}'; there are {', '.join(MODELS)}.")
    chosen: ModelName = next((each for each in MODELS if each == own), model)
    if kind == "plain":
        trainer = PLAIN
    elif kind == "online-no-gate":
        trainer = trainer.model_copy(update={"gate": trainer.gate.model_copy(update={"enabled": False})})
    plan = PolicyPlan(name, next(each for each in KINDS if each == kind), chosen, trainer)
    return plan if stream is None else replace(plan, stream=stream)


def execute(
    run: Run,
    progress: Callable[[float], None] = lambda _share: None,
    tap: Tap = lambda _event: None,
    retell: Retell = lambda example: (example,),
) -> list[Outcome]:
    """Simulate one week; an outcome a policy.

    Raises:
        WorldError: the world cannot be made, or a policy cannot answer in it.

    """
    torch.set_num_threads(1)
    torch.manual_seed(run.seed)
    began_s = process_time()
    # Answers are small products, by the thousand: threads would only wait for each other.
    with threadpool_limits(limits=1), TemporaryDirectory(prefix="driftline-lab-") as empty:
        world = run.world.open(run.seed)
        opened_s = process_time() - began_s
        policies = {
            plan.name: _policy(plan, world, experiment_of(run.policies, plan, world, run.seed), run.seed, Path(empty))
            for plan in run.policies
        }
        experiment = experiment_of(run.policies, run.policies[0], world, run.seed)
        tallies = run_week(
            world, policies, experiment, run.policies[0].stream, progress=progress, tap=tap, retell=retell
        )
    spent_s = process_time() - began_s
    return [_outcome(run, name, policies[name], tally, world, spent_s, opened_s) for name, tally in tallies.items()]


def experiment_of(policies: Sequence[PolicyPlan], own: PolicyPlan, world: World, seed: int) -> Experiment:
    """The experiment as the policy `own` sees it: its arms by the names of the policies.

    An engine tells by models whose example is whose. Where both arms have one model, the other arm is shown to each
    under another model's name, so that what an arm has learned stays its own. A policy that everybody gets is an A/A
    test: both arms are its own.
    """
    other = next(model for model in MODELS if model != own.model)
    if len(policies) == 1:
        arms = {side: _arm(own.model, own) for side in ("a", "b")}
    else:
        arms = {
            each.name: _arm(
                own.model if each is own else each.model if each.learns and each.model != own.model else other, each
            )
            for each in policies
        }
    return Experiment(
        name="lab",
        salt=f"lab-{seed}",
        start_ms=world.experiment_start_ms,
        end_ms=world.end_ms,
        arms=arms,
        control=next(iter(arms)),
        day_offset_ms=world.day_offset_ms,
    )


def _arm(model: ModelName, plan: PolicyPlan) -> Arm:
    share = plan.explore
    sources = (Source(source=model, share=1 - share), Source(source=EXPLORE, share=share)) if share else ()
    return Arm(weight=1, model=model, sources=sources)


def _policy(plan: PolicyPlan, world: World, experiment: Experiment, seed: int, empty: Path) -> Policy:
    match plan.kind:
        case "popularity":
            return Popularity(experiment)
        case "logging":
            return Logging(experiment, world)
        case "omniscient":
            return Omniscient(experiment, world)
        case _:
            settings = settings_of(plan.trainer, plan.model, experiment, seed, empty)
            return Learned(settings, frozen=plan.kind == "frozen")


def _outcome(
    run: Run, name: str, policy: Policy, tally: Tally, world: World, spent_s: float, opened_s: float
) -> Outcome:
    start_ms, born_ms = world.experiment_start_ms, world.catalogue.born_ms
    pairs = () if born_ms is None else zip(world.catalogue.item_ids.tolist(), born_ms.tolist(), strict=True)
    return Outcome(
        policy=name,
        seed=run.seed,
        everybody=len(run.policies) == 1,
        user_ids=tally.user_ids,
        views=tally.views,
        effective=tally.effective,
        shown=tally.shown,
        publications=tuple(each for each in policy.published if each.time_ms >= start_ms),
        learned=policy.learned if isinstance(policy, Learned) else 0,
        born_ms={item: at_ms for item, at_ms in pairs if at_ms >= start_ms},
        viewed_ms={item: tuple(times) for item, times in tally.viewed_ms.items()},
        start_ms=start_ms,
        end_ms=world.end_ms,
        cpu_s=spent_s,
        world_cpu_s=opened_s,
    )


@lru_cache(maxsize=1)
def _opened(plan: WorldPlan, seed: int) -> World:
    return open_world(
        plan.data,
        days=plan.days,
        warmup_days=plan.warmup_days,
        seed=seed,
        slate=plan.slate,
        users=plan.users,
        items=plan.items,
        births=plan.births,
    )
