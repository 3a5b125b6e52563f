"""How an experiment will be analysed, fixed before it starts."""

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, model_validator

from contracts.config.section import Section

LEAST_ALPHA = 1e-15  # below it 1 - alpha is 1 in a double, and a bound lies past what any data can show


class AnalysisPlan(Section):
    """How the experiment will be analysed, fixed before it starts.

    `looks` are the days after which a group-sequential analysis looks, counted from 1; () is every day.
    """

    kind: Literal["fixed", "group-sequential", "confidence-sequence"] = "fixed"
    alpha: Annotated[float, Field(ge=LEAST_ALPHA, lt=0.5)] = 0.05
    power: Annotated[float, Field(gt=0, lt=1)] = 0.8
    looks: tuple[Annotated[int, Field(ge=1)], ...] = ()
    cuped: bool = True
    correction: Literal["holm", "bh", "none"] = "holm"
    tuned_at: Annotated[int, Field(gt=0)] = 100_000  # recalls, at which a confidence sequence is narrowest
    pooled_training: bool = False  # each arm's model learns from the other's data, and the reader is told so
    unlike_freshness: bool = False  # the arms are meant to differ by how fresh their models are

    @model_validator(mode="after")
    def _consistent(self) -> "AnalysisPlan":
        if self.looks and self.kind != "group-sequential":
            raise ValueError(f"looks go with kind group-sequential, not with {self.kind}")
        if any(after <= before for before, after in pairwise(self.looks)):
            raise ValueError(f"looks {list(self.looks)} must rise")
        if self.power <= self.alpha:
            raise ValueError("power must be above alpha")
        return self
