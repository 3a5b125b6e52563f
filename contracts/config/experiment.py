"""An experiment as a file of its own: its arms, who may be in it, what it is judged by, and how it is analysed.

Bad files raise `SettingsError` with one sentence that names the field. docs/experiments.md is the manual.
"""

import hashlib
import json
from collections.abc import Sequence
from datetime import date
from itertools import chain, pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from contracts.config import calendar
from contracts.config.analysis_plan import AnalysisPlan as AnalysisPlan  # noqa: PLC0414 importers have these from here
from contracts.config.arms import EXPLORE as EXPLORE  # noqa: PLC0414
from contracts.config.arms import Arm as Arm  # noqa: PLC0414
from contracts.config.arms import ModelName as ModelName  # noqa: PLC0414
from contracts.config.arms import Source as Source  # noqa: PLC0414
from contracts.config.arms import SourceName as SourceName  # noqa: PLC0414
from contracts.config.calendar import Calendar
from contracts.config.changes import Change
from contracts.config.instants import instant_ms as instant_ms  # noqa: PLC0414
from contracts.config.instants import spelled, with_calendar
from contracts.config.metric_plan import METRICS as METRICS  # noqa: PLC0414 importers have these from here
from contracts.config.metric_plan import MetricPlan as MetricPlan  # noqa: PLC0414
from contracts.config.metric_plan import Winsorize as Winsorize  # noqa: PLC0414
from contracts.config.section import Name, Section
from contracts.config.yaml_file import SettingsError as SettingsError  # noqa: PLC0414 importers have it from here
from contracts.config.yaml_file import read_yaml
from contracts.runtime.clock import DAY_MS

RESERVED = (
    "layer:",
    "ramp:",
    "holdout:",
)  # salts that abtest.assignment.assign makes begin so

HASH_DIGITS = 12  # two definitions of one experiment share them by chance once in 2⁴⁸
Share = Annotated[float, Field(ge=0, le=1)]
UserId = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Validated = TypeVar("Validated", bound=BaseModel)


class Holdout(Section):
    """Users that no experiment touches: those whose place under `salt` is below `share`."""

    salt: Name
    share: Annotated[float, Field(gt=0, lt=1)]


class RampStep(Section):
    """From `from_ms` on, `share` of the users of the experiment's slots are in it. `from` may be ISO 8601 instead."""

    from_ms: int
    share: Share

    @model_validator(mode="before")
    @classmethod
    def _times(cls, data: Any) -> Any:
        return spelled(data, **{"from": "from_ms"})


def _slots(value: Any) -> Any:
    if isinstance(value, dict):
        if set(value) != {"from", "to"}:
            raise ValueError(f"slots have from and to, not {sorted(map(str, value))}")
        return value["from"], value["to"]
    return value


Slots = Annotated[tuple[Share, Share], BeforeValidator(_slots)]


class Experiment(Section):
    """An experiment in the recall stage. `start_ms` <= time < `end_ms`; a file may say `start` and `end` in ISO 8601.

    `slots`: the stretch of the layer [0, 1) that is this experiment's, from the first up to the second. `ramp`: steps
    in time order; () lets everyone in from the start. `overrides`: testers, by the arm that serves them.
    """

    name: Name
    salt: Name
    start_ms: int
    end_ms: int
    arms: dict[Name, Arm]
    control: str
    day_offset_ms: Annotated[int, Field(gt=-DAY_MS, lt=DAY_MS)] = 0  # added to event time before cutting days
    zone: str | None = None  # or days are cut at midnight of this one, such as Europe/Berlin
    hypothesis: str = ""
    owner: str = ""
    assignment: Literal["driftline", "external"] = "driftline"  # external: see contracts.config.external
    layer: Name = "recall"
    slots: Slots = (0.0, 1.0)
    holdout: Holdout | None = None
    ramp: tuple[RampStep, ...] = ()
    overrides: dict[str, tuple[UserId, ...]] = Field(default_factory=dict)
    metrics: tuple[MetricPlan, ...] = METRICS
    analysis: AnalysisPlan = AnalysisPlan()
    # What operators did to it while it ran (`driftline experiment pause`). No file has it, and none is written with it.
    changes: tuple[Change, ...] = Field(default=(), exclude=True)

    @classmethod
    def none(cls, model: ModelName) -> "Experiment":
        """What there is where nobody runs an experiment: nobody is ever in it, and everybody is answered by one model.

        No file can say it: it has no name and no period.
        """
        return cls.model_construct(
            name="", salt="", start_ms=0, end_ms=0, arms={"": Arm(weight=1, model=model)}, control=""
        )

    @property
    def exists(self) -> bool:
        """Whether it is one, and not `none`."""
        return bool(self.name)

    @property
    def days(self) -> int:
        """Calendar days that the experiment touches, the first and the last perhaps in part."""
        return self.day_of(self.end_ms - 1) + 1

    @property
    def look_days(self) -> Sequence[int]:
        """Days, counted from 0, after which a sequential plan may decide; () where there is one look, at the end."""
        if self.analysis.kind == "fixed":
            return ()
        return [look - 1 for look in self.analysis.looks] or range(self.days)

    @property
    def calendar(self) -> Calendar:
        """What cuts its days."""
        return Calendar(self.day_offset_ms, self.zone)

    @property
    def first_date(self) -> int:
        """The date on which it starts by its own calendar, in days from 1970-01-01."""
        return self.calendar.date_number(self.start_ms)

    def day_of(self, time_ms: int) -> int:
        """Day of the experiment at a moment in Unix milliseconds, 0 being the one that it starts on."""
        return self.calendar.date_number(time_ms) - self.first_date

    @property
    def definition(self) -> dict[str, Any]:
        """What its arms, and who is in which, are decided by: what nobody may have otherwise while it runs.

        How it is analysed is no part of it, nor is its ramp: each exposure says whether it was in. The order of the
        arms is, as it decides who is in which. Testers are there as a hash: what is kept for good names no user.
        """
        left_out = {"hypothesis", "owner", "ramp", "metrics", "analysis", "overrides"}
        testers = json.dumps({arm: sorted(users) for arm, users in sorted(self.overrides.items()) if users})
        return self.model_dump(mode="json", exclude=left_out) | {
            "order": list(self.arms),
            "overrides": hashlib.sha256(testers.encode()).hexdigest()[:HASH_DIGITS],
        }

    def is_defined_by(self, told: Any) -> bool:
        """Whether a definition that was kept is this one's. Files from before have no order, and testers by number."""
        ours = self.definition
        if isinstance(told, dict) and "order" not in told:
            testers = {arm: list(users) for arm, users in self.overrides.items()}
            ours = {name: value for name, value in ours.items() if name != "order"} | {"overrides": testers}
        return bool(told == ours)

    @property
    def hash(self) -> str:
        """Of its definition: 12 hexadecimal digits of a SHA-256."""
        return hashlib.sha256(json.dumps(self.definition, sort_keys=True).encode()).hexdigest()[:HASH_DIGITS]

    @property
    def testers(self) -> frozenset[int]:
        """Users that an override has put into an arm: served and labelled, but none of the analysis's users."""
        return frozenset(chain.from_iterable(self.overrides.values()))

    @model_validator(mode="before")
    @classmethod
    def _times(cls, data: Any) -> Any:
        if isinstance(data, dict) and "changes" in data:
            raise ValueError("changes are made by `driftline experiment pause` and the like, and stand in no file")
        if isinstance(data, dict) and data.get("assignment") == "external" and "salt" not in data:
            raise ValueError(
                "assignment external is of an experiment that driftline does not serve, so it has no place here; "
                "`driftline experiment report --data` and `abtest.analyse` take its file"
            )
        return with_calendar(data)

    @model_serializer(mode="wrap")
    def _without_default(self, whole: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """One that driftline assigned is written as before there were others: its definition's hash stays."""
        data: dict[str, Any] = whole(self)
        if self.assignment == "driftline":
            data.pop("assignment", None)
        return data

    @model_validator(mode="after")
    def _consistent(self) -> "Experiment":
        if len(self.arms) < 2:
            raise ValueError("an experiment needs at least two arms")
        if self.control not in self.arms:
            raise ValueError(f"control arm '{self.control}' is not among the arms {sorted(self.arms)}")
        unserved = [arm for arm, spec in self.arms.items() if bool(spec.model) == (self.assignment == "external")]
        if unserved:
            needs = "needs none" if self.assignment == "external" else "needs one"
            raise ValueError(f"arms.{unserved[0]}.model: assignment {self.assignment} {needs}")
        self._check_times()
        for salt in (self.salt, self.holdout.salt if self.holdout else ""):
            if salt.startswith(RESERVED):
                raise ValueError(f"salt '{salt}' begins with one of {', '.join(RESERVED)}, which are taken")
        if self.slots[0] >= self.slots[1]:
            raise ValueError(f"slots must begin before they end, not {self.slots[0]:g} to {self.slots[1]:g}")
        self._check_ramp()
        self._check_overrides()
        self._check_plan()
        return self

    def _check_times(self) -> None:
        hint = calendar.unit_hint(self.start_ms)
        # What lasts a day in milliseconds would last three years as seconds: that is an early experiment in truth.
        if hint and not (self.start_ms + DAY_MS <= self.end_ms < calendar.SECONDS_END):
            raise ValueError(f"start_ms is in milliseconds, but {hint}")
        hint = calendar.unit_hint(self.end_ms)
        if hint and (self.end_ms <= self.start_ms or self.end_ms >= calendar.MAX_TIME_MS):
            raise ValueError(f"end_ms is in milliseconds, but {hint}")
        if self.end_ms <= self.start_ms:
            raise ValueError("end_ms must be after start_ms")
        if self.zone is not None:
            calendar.zone_name(self.zone)
            if self.day_offset_ms:
                raise ValueError("zone and day_offset_ms both say where days are cut; leave one out")

    def _check_ramp(self) -> None:
        for step in self.ramp:
            if not self.start_ms <= step.from_ms < self.end_ms:
                hint = calendar.unit_hint(step.from_ms)
                outside = f"ramp: the step to {step.share:g} begins outside the experiment's period"
                raise ValueError(f"{outside}: {hint}" if hint else outside)
        for before, after in pairwise(self.ramp):
            if after.from_ms <= before.from_ms:
                raise ValueError("ramp: each step must begin after the one before it")
            if after.share < before.share:
                raise ValueError(f"ramp: the share falls from {before.share:g} to {after.share:g}, which drops users")

    def _check_overrides(self) -> None:
        unknown = sorted(set(self.overrides) - set(self.arms))
        if unknown:
            raise ValueError(f"overrides: '{unknown[0]}' is not among the arms {sorted(self.arms)}")
        listed = sorted(chain.from_iterable(self.overrides.values()))
        for user_id, following in pairwise(listed):
            if user_id == following:
                raise ValueError(f"overrides: user {user_id} stands there twice")

    def _check_plan(self) -> None:
        names = [metric.name for metric in self.metrics]
        if len(set(names)) < len(names):
            raise ValueError(f"metrics: a name stands twice in {names}")
        primaries = [metric.name for metric in self.metrics if metric.role == "primary"]
        if len(primaries) != 1:
            raise ValueError(f"metrics: exactly one must be primary, not {primaries}")
        if self.analysis.kind != "fixed" and any(m.kind == "quantile" and m.role == "primary" for m in self.metrics):
            raise ValueError(f"metrics: '{primaries[0]}' is a quantile, which takes analysis kind fixed as primary")
        moving = [metric.name for metric in self.metrics if metric.winsorize and metric.winsorize.is_pooled]
        if self.analysis.kind != "fixed" and moving:
            raise ValueError(
                f"metrics: '{moving[0]}' is capped at a pooled quantile, which is not known at the looks of analysis "
                f"kind {self.analysis.kind}; cap it at a value (at) or at a quantile of: pre"
            )
        looks = self.analysis.looks
        if looks and looks[-1] > self.days:
            days = "1 day" if self.days == 1 else f"{self.days} days"
            raise ValueError(f"analysis: looks has day {looks[-1]}, but the experiment touches {days}")


def validated(model: type[Validated], data: Any, where: str) -> Validated:
    """Settings that were read from `where`.

    Raises:
        SettingsError: a setting is wrong; the first one is named.

    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        at_top = "" if first["type"] == "value_error" else "the file"  # such an error names its field itself
        name = ".".join(str(part) for part in first["loc"]) or at_top
        what = {"extra_forbidden": "there is no such setting", "model_type": "this is not a mapping of settings"}
        problem = what.get(first["type"], first["msg"].removeprefix("Value error, "))
        if first["type"] == "string_type" and first["input"] is not None and "security" not in first["loc"]:
            problem = f"this is read as {_shown(first['input'])}, not as text; put it in quotes"
        stop = "" if problem.endswith("?") else "."
        raise SettingsError(f"{where}: {name}{name and ': '}{problem}{stop}") from error


def _shown(value: Any) -> str:
    """What YAML makes of a word without quotes."""
    if isinstance(value, bool):
        return "true (so are on and yes)" if value else "false (so are off and no)"
    return value.isoformat() if isinstance(value, date) else str(value)


def load_experiment(path: Path) -> Experiment:
    """Read an experiment's file.

    Raises:
        SettingsError: the file is absent, is not YAML, or a field is wrong.

    """
    return validated(Experiment, read_yaml(path, "experiment"), str(path))
