"""What a report is given beside the data: everything that the state cannot know."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from abtest.analyse.checks import ModelFacts


@dataclass(frozen=True)
class SnapshotMark:
    """A snapshot of an arm's model and when it went live, as near as is known."""

    arm: str
    model: str
    version: str
    at_ms: int


@dataclass(frozen=True)
class FalseAlarms:
    """How often the verdict cried wolf on `users` who did not differ. Of `replicates` weeks: `ship`, the share in which
    any arm would ship; `hold`, in which any would be held; `broken`, in which a guardrail was called broken; each with
    its exact 99 % interval (Clopper-Pearson).
    """

    replicates: int
    ship: float
    ship_interval: tuple[float, float]
    hold: float
    hold_interval: tuple[float, float]
    broken: float
    broken_interval: tuple[float, float]
    users: int = 0


@dataclass(frozen=True)
class ReportContext:
    """What the state cannot know. Everything has a default; what is left out is not shown.

    `response_quality`: auc, log_loss, predicted_mean, observed_mean, expected_calibration_error, play_mae_s,
    play_mae_constant_s, play_median_abs_error_s, rows; any of them may be missing. `commit`: of the code that made the
    report. `command`: what makes it again. `marks`: when snapshots went live. `false_alarms`: of the verdict, on these
    users shuffled, where `driftline experiment aa` was run.
    """

    simulated: bool = False
    world: str = ""
    response_quality: Mapping[str, float | None] | None = None
    models: tuple[ModelFacts, ...] = ()
    configuration: Mapping[str, Any] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    seed: int | None = None
    commit: str | None = None
    command: str = ""
    marks: tuple[SnapshotMark, ...] = ()
    false_alarms: FalseAlarms | None = None
