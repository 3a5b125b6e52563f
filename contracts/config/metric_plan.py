"""Metrics as an experiment's file declares them: what each is of, what it is there for, and a cap on users' sums."""

from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from contracts.config.section import Name, Section

LARGEST_EFFECT = 1e6  # a relative difference beyond it, 100,000,000 %, is none that anybody looks for


class Winsorize(Section):
    """A cap on users' sums of a metric's column, one for all arms: a sum above it counts as the cap (winsorising).

    The cap is the `quantile` of users' sums, "pooled" over all arms (None is that too), or of what users did before the
    start ("pre"), or it is the value `at`, in the column's unit.
    """

    quantile: Annotated[float, Field(gt=0.5, lt=1)] | None = None
    of: Literal["pooled", "pre"] | None = None
    at: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> "Winsorize":
        if (self.quantile is None) == (self.at is None):
            raise ValueError("a cap has a quantile or a value (at), one of them")
        if self.at is not None and self.of is not None:
            raise ValueError(f"of says what a quantile is of, and at {self.at:g} is a value")
        return self

    @property
    def is_pooled(self) -> bool:
        """Whether it is a quantile of the experiment's own users, which is known when all have come."""
        return self.quantile is not None and self.of != "pre"

    @property
    def of_pre(self) -> bool:
        """Whether it is a quantile of what users did before the start."""
        return self.quantile is not None and self.of == "pre"


class MetricPlan(Section):
    """A metric and what it is there for.

    `columns` are a user's sums: one for a mean, numerator and denominator for a ratio, one for a quantile (with `q`).
    `minimum_effect` is relative to the control: of the primary metric the least that is worth shipping, of a guardrail
    the most that may be lost. `winsorize` caps users' sums of the first column, a ratio's numerator.
    """

    name: Name
    kind: Literal["mean", "ratio", "quantile"]
    columns: tuple[Annotated[str, Field(pattern="^[a-z][a-z0-9_]*$")], ...]
    role: Literal["primary", "guardrail", "diagnostic"] = "diagnostic"
    direction: Literal["increase", "decrease"] = "increase"  # the one that is good
    minimum_effect: Annotated[float, Field(ge=0, le=LARGEST_EFFECT, allow_inf_nan=False)] = 0.0
    q: Annotated[float, Field(gt=0, lt=1)] | None = None
    winsorize: Winsorize | None = None
    label: Name | None = None  # None: by the metric's name
    unit: str | None = None  # "%": the value is a share, and shown in percent; None: by the column's name
    about: Name | None = None  # what it is, in a few words; None: by the columns' names

    @model_serializer(mode="wrap")
    def _without_none(self, whole: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A metric without these is written as before there were any: a state's plan is compared with the file's."""
        data: dict[str, Any] = whole(self)
        for name in ("winsorize", "label", "unit", "about"):
            if getattr(self, name) is None:
                data.pop(name, None)
        return data

    @model_validator(mode="after")
    def _consistent(self) -> "MetricPlan":
        wanted = 2 if self.kind == "ratio" else 1
        if len(self.columns) != wanted:
            wanted_columns = "numerator and denominator" if wanted == 2 else "one column"
            raise ValueError(f"columns of '{self.name}' must be {wanted_columns}, not {list(self.columns)}")
        if (self.kind == "quantile") != (self.q is not None):
            raise ValueError(f"q of '{self.name}' goes with kind quantile, and with no other")
        if self.kind == "quantile" and self.winsorize is not None:
            raise ValueError(f"winsorize of '{self.name}' goes with kind mean or ratio, not with quantile")
        return self


METRICS = (
    MetricPlan(name="evr", kind="ratio", columns=("effective_views", "views"), role="primary"),
    MetricPlan(name="follow_rate", kind="ratio", columns=("follows", "views"), role="guardrail"),
    MetricPlan(name="play_duration", kind="mean", columns=("play_s",), role="guardrail"),
    MetricPlan(name="app_usage", kind="mean", columns=("usage_s",), role="guardrail"),
    MetricPlan(name="recalls", kind="mean", columns=("recalls",)),
    MetricPlan(name="latency", kind="ratio", columns=("answer_ms", "timed"), direction="decrease"),
    MetricPlan(name="play_p90", kind="quantile", columns=("play_s",), q=0.9),
)
