"""One run of one model by one protocol: what it is, what it is called, and doing it."""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from pydantic import ValidationError

from contracts.config.settings import ModelSettings
from contracts.config.trainer import ONE_VECTOR
from evaluation.fit import Plan
from evaluation.movielens import Order
from trainer.models import REGISTRY

Protocol = Literal["official", "leave-one-out", "progressive", "backfilled", "packed"]
Study = Literal["cosine", "sampling"]

# "backfilled": first learned from what was before the stream, an example a view; "packed": the same in packed windows.
STREAMS: tuple[Protocol, ...] = ("progressive", "backfilled", "packed")
BASELINES = ("popularity", "markov", "markov-window", "ease", "markov+ease")
STUDIES: dict[Study, tuple[str, ...]] = {"cosine": ("t2diff-paper",), "sampling": ("t2diff-paper", "t2diff")}

_SHAPE = ModelSettings()


class TaskError(Exception):
    """A task that cannot be; one sentence says why."""


@dataclass(frozen=True)
class Task:
    """What decides a result, the data and the machine apart.

    Attributes:
        protocol: how the data is split, see `evaluation.movielens` and `evaluation.kuairand`.
        model: a name of `trainer.models.REGISTRY` or of `BASELINES`.
        order: of each user's behaviours; a stream knows only that of time.
        seed: of weights, examples and dropout. Baselines have none.
        settings: the model's shape and learning rate.
        plan: how long it trains; a stream is learned once, so there it does not count.
        study: what is looked at besides the ranks, see `evaluation.studies`.

    """

    protocol: Protocol
    model: str
    order: Order = "time"
    seed: int = 0
    settings: ModelSettings = field(default_factory=ModelSettings)
    plan: Plan = field(default_factory=Plan)
    study: Study | None = None

    @property
    def trains(self) -> bool:
        """Whether the model is a network; a baseline counts."""
        return self.model not in BASELINES

    @property
    def streams(self) -> bool:
        """Whether the protocol follows a stream instead of epochs."""
        return self.protocol in STREAMS

    @property
    def label(self) -> str:
        """The model and what was left out of it.

        >>> Task("official", "t2diff", settings=ModelSettings(ablate=("guess",))).label
        't2diff-without-guess'
        """
        return "-without-".join([self.model, *self.settings.ablate])

    @property
    def places(self) -> str:
        """Where the model learns.

        >>> Task("official", "t2diff", settings=ModelSettings(learn_at="last-k", learn_at_last=4)).places
        'last-4'
        """
        return self.settings.learn_at.replace("-k", f"-{self.settings.learn_at_last}")

    @property
    def row(self) -> str:
        """What a table's row stands for: the task but for its seed and its budget.

        Of the settings, the width and what is not usual are in it; learning rate and the like are not.

        >>> Task("leave-one-out", "t2diff", settings=ModelSettings(diffusion_steps=10, learn_at="every")).row
        'leave-one-out-time/t2diff-d64-T10-every'
        >>> Task("backfilled", "two_tower", settings=ModelSettings(learn_at="last-k", learn_at_last=4)).row
        'backfilled-time/two_tower-d64-last-4'
        """
        folder = f"{self.protocol}-{self.order}"
        if not self.trains:
            return f"{folder}/{self.model}"
        parts = [f"{folder}/{self.label}", f"d{self.settings.dim}"]
        if self.settings.diffusion_schedule != _SHAPE.diffusion_schedule:
            parts.append(self.settings.diffusion_schedule)
        if self.settings.diffusion_steps != _SHAPE.diffusion_steps:
            parts.append(f"T{self.settings.diffusion_steps}")
        if self.settings.learn_at != _SHAPE.learn_at:
            parts.append(self.places)
        return "-".join([*parts, *([self.study] if self.study else [])])

    @property
    def name(self) -> str:
        """Where its result goes, without the ending.

        >>> Task("leave-one-out", "t2diff", seed=3).name, Task("progressive", "ease").name
        ('leave-one-out-time/t2diff-d64-s3', 'progressive-time/ease')
        """
        return f"{self.row}-s{self.seed}" if self.trains else self.row


def check(task: Task) -> None:
    """See that a task can be done.

    Raises:
        TaskError: it cannot.

    """
    names = (*BASELINES, *sorted(REGISTRY))
    if task.model not in names:
        raise TaskError(f"There is no model '{task.model}'; there are {', '.join(names)}.")
    if task.streams and task.order != "time":
        raise TaskError(f"The {task.protocol} protocol follows a stream in time; it has no file order.")
    if task.protocol in ("backfilled", "packed") and not task.trains:
        raise TaskError(f"Baselines count what was before the stream anyway: for them, {task.protocol} is progressive.")
    if task.protocol == "packed" and task.model in ONE_VECTOR:
        raise TaskError(f"{task.model} makes one vector of a window, so histories cannot be packed for it.")
    if task.settings.ablate and task.model != "t2diff":
        raise TaskError(f"Parts can be left out of t2diff alone, not of {task.model}.")
    if task.model in ONE_VECTOR and task.settings.learn_at != "last":
        raise TaskError(
            f"{task.model} makes one vector of a window, so --learn-at {task.settings.learn_at} does not go with it."
        )
    if task.study and "guess" in task.settings.ablate:
        raise TaskError(f"The {task.study} study is of the guess; without it there is none.")
    if task.study and (task.streams or task.model not in STUDIES[task.study]):
        models = " and ".join(STUDIES[task.study])
        raise TaskError(f"The {task.study} study is of {models}, by the protocols official and leave-one-out.")


def to_json(task: Task) -> dict[str, Any]:
    """The task as JSON can hold it; `from_json` gives it back."""
    plan = dataclasses.asdict(task.plan)
    plan["seconds"] = None if math.isinf(task.plan.seconds) else task.plan.seconds
    plan["precision"] = str(task.plan.precision).removeprefix("torch.")
    values = {f.name: getattr(task, f.name) for f in dataclasses.fields(task)}
    return values | {"settings": task.settings.model_dump(mode="json"), "plan": plan}


def from_json(content: dict[str, Any]) -> Task:
    """The task that `to_json` wrote.

    Raises:
        TaskError: it is none.

    """
    try:
        plan = dict(content["plan"])
        plan["seconds"] = math.inf if plan["seconds"] is None else plan["seconds"]
        plan["precision"] = getattr(torch, plan["precision"])
        shape = ModelSettings.model_validate(content["settings"])
        task = Task(**{**content, "settings": shape, "plan": Plan(**plan)})
    except (KeyError, TypeError, ValueError, AttributeError, ValidationError) as error:
        raise TaskError(f"It does not hold a task: {' '.join(str(error).split())}.") from error
    if task.protocol not in get_args(Protocol) or task.order not in get_args(Order):
        raise TaskError(f"It holds a task of protocol '{task.protocol}' in order '{task.order}'.")
    return task
