"""An experiment that driftline did not assign: who is in which arm stands in a table, in the table's own words.

It has neither salt nor models; weights, arms and period are those of the rows unless they are given.
`External.experiment` makes it an experiment as any other. docs/experiments.md is the manual.
"""

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from contracts.config.analysis_plan import AnalysisPlan
from contracts.config.calendar import Calendar, zone_name
from contracts.config.experiment import Experiment, SettingsError, validated
from contracts.config.instants import with_calendar
from contracts.config.metric_plan import MetricPlan
from contracts.config.section import Name, Section
from contracts.config.settings import experiment_of
from contracts.config.table_metrics import Sum, TableMetric
from contracts.config.yaml_file import read_yaml
from contracts.runtime.clock import DAY_MS

Row = Literal["user", "user-day", "event"]
Weight = Annotated[float, Field(gt=0, allow_inf_nan=False)]
OF_SETTINGS = ("kafka", "experiment")  # what a deployment's settings have, and no experiment's file
ASSIGNED = ("salt", "layer", "slots", "holdout", "ramp", "overrides", "model")  # what only driftline's assignment has
# What the aggregate calls columns of its own, and what a confidence sequence takes for visits.
TAKEN = frozenset({"user_id", "arm", "day", "recalls", "exposed", "seen", "unknown"})


class Columns(Section):
    """What the table calls whom a row is of, their arm, and when it was.

    `user`: None is ``user_id``; where the table has no such column and a row is a user, each row is one.
    """

    user: Name | None = None
    arm: Name = "arm"
    day: Name | None = None


def _weights(value: Any) -> Any:
    """Arms as a list of names, or weights by name."""
    if isinstance(value, list | tuple):
        if len(set(map(str, value))) < len(value):
            raise ValueError(f"arms: a name stands twice in {list(value)}")
        return dict.fromkeys(value, 1.0)
    if isinstance(value, dict):
        return {name: each.get("weight", 1.0) if isinstance(each, dict) else each for name, each in value.items()}
    return value


class External(Section):
    """A file with ``assignment: external``.

    `row`: what one is of; by default a user's day where `columns` names a day, else a user. `arms`: weights by name;
    None: those that the rows have, alike. `start_ms`, `end_ms`: both, or neither: from the first day of the rows to the
    last. `covariates`: columns known from before the start. Of the metrics the first is primary where none is.
    """

    assignment: Literal["external"] = "external"
    name: Name = "experiment"
    hypothesis: str = ""
    owner: str = ""
    columns: Columns = Columns()
    row: Row | None = None
    arms: dict[Name, Weight] | None = None
    control: Name
    start_ms: int | None = None
    end_ms: int | None = None
    day_offset_ms: Annotated[int, Field(gt=-DAY_MS, lt=DAY_MS)] = 0
    zone: str | None = None
    covariates: tuple[Name, ...] = ()
    metrics: Annotated[tuple[TableMetric, ...], Field(min_length=1)]
    analysis: AnalysisPlan = AnalysisPlan()

    @model_validator(mode="before")
    @classmethod
    def _as_written(cls, data: Any) -> Any:
        if isinstance(data, dict):
            arms = data.get("arms")
            within = [each for each in arms.values() if isinstance(each, dict)] if isinstance(arms, dict) else []
            wrong = next((name for name in ASSIGNED if name in data or any(name in each for each in within)), None)
            if wrong is not None:
                raise ValueError(f"{wrong} is of an experiment that driftline assigns; assignment external has none")
            if arms is not None:
                data = {**data, "arms": _weights(arms)}
        return with_calendar(data)

    @model_validator(mode="after")
    def _consistent(self) -> "External":
        if (self.start_ms is None) != (self.end_ms is None):
            raise ValueError("start and end go together; with neither the period is that of the rows")
        if self.arms is not None and self.control not in self.arms:
            raise ValueError(f"control arm '{self.control}' is not among the arms {sorted(self.arms)}")
        if self.row_is != "user" and self.columns.day is None:
            raise ValueError(f"row: {self.row_is} needs a column that says when: columns: {{day: …}}")
        if self.zone is not None:
            zone_name(self.zone)
        described = {self.columns.user or "user_id": "user", self.columns.arm: "arm", self.columns.day or "": "day"}
        if len(described) < 3:
            raise ValueError(f"columns: user, arm and day must be three columns, not {self.columns.model_dump()}")
        for metric in self.metrics:
            for each in metric.sums(of_events=self.row_is == "event"):
                self._require_possible(metric.name, each, described)
        return self

    def _require_possible(self, metric: str, each: Sum, described: Mapping[str, str]) -> None:
        if each.column is not None and each.column in described:
            says = f"says the row's {described[each.column]}, and is no number to measure"
            raise ValueError(f"metrics: '{metric}' is of column '{each.column}', which {says}")
        if each.where and self.row_is != "event":
            raise ValueError(f"metrics: where of '{metric}' goes with row: event")
        if each.column is None and self.row_is != "event":
            raise ValueError(f"metrics: '{metric}' counts rows, which goes with row: event; name a column")

    @property
    def row_is(self) -> Row:
        """What one row is of."""
        return self.row or ("user" if self.columns.day is None else "user-day")

    @property
    def calendar(self) -> Calendar:
        """What cuts its days."""
        return Calendar(self.day_offset_ms, self.zone)

    @cached_property
    def sums(self) -> dict[str, Sum]:
        """What users' numbers are made of, by the name under which the analysis has each."""
        by_name: dict[str, Sum] = {}
        for metric in self.metrics:
            for each in metric.sums(of_events=self.row_is == "event"):
                _named(by_name, each, metric.name)
        return by_name

    @property
    def plans(self) -> tuple[MetricPlan, ...]:
        """Its metrics as any experiment has them."""
        by_sum = {each: name for name, each in self.sums.items()}
        some_primary = any(metric.role == "primary" for metric in self.metrics)
        return tuple(
            metric.plan(
                tuple(by_sum[each] for each in metric.sums(of_events=self.row_is == "event")),
                metric.role or ("diagnostic" if some_primary or place else "primary"),
            )
            for place, metric in enumerate(self.metrics)
        )

    @property
    def called(self) -> Mapping[str, str]:
        """What the table calls the columns of the analysis; a sum of rows is called by what it counts."""
        own = {"user_id": self.columns.user or "user_id", "arm": self.columns.arm}
        own |= {} if self.columns.day is None else {"day": self.columns.day}
        own |= {name: each.column for name, each in self.sums.items() if each.column is not None}
        return own | {f"pre.{name}": name for name in self.covariates}

    def experiment(self, arms: Sequence[str], start_ms: int, end_ms: int, where: str = "the plan") -> Experiment:
        """The experiment, of the arms and the period that the rows have where the file says none.

        Raises:
            SettingsError: they do not go together with the plan; `where` is where that is from.

        """
        weights = self.arms or dict.fromkeys(arms, 1.0)
        data = {
            "name": self.name,
            "salt": "external",  # nobody is assigned by it
            "assignment": "external",
            "hypothesis": self.hypothesis,
            "owner": self.owner,
            "start_ms": start_ms if self.start_ms is None else self.start_ms,
            "end_ms": end_ms if self.end_ms is None else self.end_ms,
            "day_offset_ms": self.day_offset_ms,
            "zone": self.zone,
            "arms": {arm: {"weight": weight, "model": ""} for arm, weight in weights.items()},
            "control": self.control,
            "metrics": self.plans,
            "analysis": self.analysis,
        }
        return validated(Experiment, data, where)


def _named(by_name: dict[str, Sum], each: Sum, metric: str) -> None:
    """Put a sum among the others, under a name that begins with a letter and has letters and digits alone."""
    if each in by_name.values():
        return
    base = re.sub(r"[^a-z0-9_]+", "_", (each.column if each.column and not each.where else metric).lower()).strip("_")
    base = base if re.match("[a-z]", base) else f"c_{base}".rstrip("_")
    name, number = base, 2
    while name in by_name or name in TAKEN:
        name, number = f"{base}_{number}", number + 1
    by_name[name] = each


def plan_of(data: Any, where: str) -> Experiment | External:
    """What a mapping says: an experiment of driftline's, or one that it did not assign.

    One without ``assignment`` is driftline's where it has a salt, its arms have models, or it is of a deployment.

    Raises:
        SettingsError: a setting is wrong; the first one is named.

    """
    if isinstance(data, dict) and _is_external(data):
        return validated(External, data, where)
    return validated(Experiment, data, where)


def load_plan(path: Path) -> Experiment | External:
    """Read an experiment's file, whoever assigned it, or the experiment of a deployment's settings.

    Raises:
        SettingsError: the file is absent, is not YAML, or a field is wrong.

    """
    data = read_yaml(path, "experiment")
    if isinstance(data, dict) and _is_external(data):
        return plan_of(data, str(path))
    return experiment_of(path)


def _is_external(data: dict[Any, Any]) -> bool:
    assignment = data.get("assignment")
    if assignment not in {None, "driftline", "external"}:
        raise SettingsError(f"assignment is '{assignment}'; it must be driftline or external.")
    if assignment is not None:
        return bool(assignment == "external")
    arms = data.get("arms")
    served = isinstance(arms, Mapping) and any(isinstance(arm, Mapping) and "model" in arm for arm in arms.values())
    return not served and not {"salt", *OF_SETTINGS} & data.keys()
