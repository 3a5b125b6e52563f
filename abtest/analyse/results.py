"""What a report says, as plain values ready for JSON. A number that cannot be had is None, with a reason beside it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from abtest.stats.effects import Effect
from abtest.stats.interleaving import Preference
from abtest.stats.jackknife import Jackknife
from abtest.stats.metrics import Direction, Role
from abtest.stats.novelty import PrePeriod, Trend
from abtest.stats.split import Split

SCHEMA_VERSION = 2

Level = Literal["ok", "unknown", "warning", "invalid"]
Decision = Literal["ship", "hold", "inconclusive", "invalid"]


@dataclass(frozen=True)
class Check:
    """One line of the trust panel. `invalid` makes every effect void; `warning` is for people to weigh.

    `name` is stable, for machines; `title` and `said` are for people. `numbers`: what it was decided on.
    """

    name: str
    title: str
    level: Level
    said: str
    numbers: Mapping[str, float | int | str | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """The decision on one treatment arm and the sentence that gives its grounds.

    `broken`: guardrails that are certain to have worsened more than the plan allows. `not_judged`: guardrails on which
    nothing can be said, which forbid "ship". `beside`: where several arms would ship, how this one stands to the best.
    """

    arm: str
    decision: Decision
    because: str
    broken: tuple[str, ...] = ()
    not_judged: tuple[str, ...] = ()
    beside: str = ""


@dataclass(frozen=True)
class ArmValue:
    """A metric in one arm; `value` in the metric's unit (rates as fractions)."""

    arm: str
    users: int
    value: float | None
    std_error: float | None
    reason: str | None


@dataclass(frozen=True)
class Now:
    """After a sequential plan has decided: the repeated confidence interval at its last look, as fractions. `day`
    counts from 0.
    """

    day: int
    relative: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Planned:
    """The comparison that the verdict rests on, by the plan: its interval holds at every look that the plan allows.

    `low`, `high`, `relative`: fractions of the control's value; `p_value` goes with the interval, and
    `adjusted_p_value` is corrected for the number of metrics. `by_cuped`: whether the estimate is CUPED's. `critical`:
    the standard errors that the interval spans to either side (1.96 for one look at 95 %). `stopped_on`: the day of
    the first look that crossed its boundary, counted from 0. `decided_on`: the day of the look that all these numbers
    are of; `now`: where there were looks after it, which are overrun and change no decision, the last one.
    """

    kind: Literal["fixed", "group-sequential", "confidence-sequence"]
    by_cuped: bool
    relative: float | None = None
    low: float | None = None
    high: float | None = None
    p_value: float | None = None
    adjusted_p_value: float | None = None
    critical: float | None = None
    stopped_on: int | None = None
    reason: str | None = None
    decided_on: int | None = None
    now: Now | None = None


@dataclass(frozen=True)
class Claim:
    """Whether the deciding interval lies wholly past a claim's bound, and `doubt`: why that may not be acted on."""

    holds: bool
    doubt: str | None = None


@dataclass(frozen=True)
class Deciding:
    """What the verdict rests on for a primary metric or a guardrail: docs/verdict.md has the rule.

    `estimate`, `low` to `high`: fractions of the control's value where `method` is the log ratio, else in the metric's
    unit; at the two-sided `level`, which is the plan's after correction, so `critical` standard errors to each side.
    `control`: the control's value. `events`: effective number of events by arm (None: unbounded); `largest_share`: that
    of the largest user in the arm's sum. `better`, `worse`: than nothing, or of a guardrail than the plan allows;
    `short`: of the least that is worth shipping. Neither `better` nor `short` is asked of a guardrail. `reason`: why
    nothing can be judged; None where it can. `look`: in a sequential plan the day, counted from 0, of the look that all
    of this is of; `last`: that of the last look where it is a later one, and `since` its estimate where that has left
    this interval.
    """

    method: Literal["log ratio", "difference"] | None = None
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    level: float = 0.05
    critical: float | None = None
    control: float | None = None
    events: Mapping[str, float | None] = field(default_factory=dict)
    largest_share: Mapping[str, float | None] = field(default_factory=dict)
    better: Claim = Claim(holds=False)
    worse: Claim = Claim(holds=False)
    short: Claim = Claim(holds=False)
    reason: str | None = None
    look: int | None = None
    last: int | None = None
    since: float | None = None


@dataclass(frozen=True)
class ArmEffect:
    """A treatment arm against the control. `cautions`: why to trust it less than its interval suggests.

    `adjusted`: the same by CUPED, with what is known of the users from before; None where nothing is.
    `variance_removed`: the share of the difference's variance that this takes away. `jackknife`: the same with errors
    by leaving out buckets of users. `planned`: by the plan; only over the whole experiment.
    `deciding`: what the verdict rests on, of a primary metric or a guardrail over the whole experiment.
    """

    arm: str
    effect: Effect
    cautions: tuple[str, ...] = ()
    adjusted: Effect | None = None
    variance_removed: float | None = None
    jackknife: Jackknife | None = None
    planned: Planned | None = None
    deciding: Deciding | None = None


@dataclass(frozen=True)
class MetricResult:
    """One metric over one stretch of time."""

    metric: str
    label: str
    unit: str
    about: str
    role: Role
    direction: Direction
    minimum_effect: float
    arms: tuple[ArmValue, ...]
    effects: tuple[ArmEffect, ...]  # one per arm that is not the control


@dataclass(frozen=True)
class Day:
    """One day of the experiment, alone and together with all before it. `new_users`: by arm, those first seen on it."""

    day: int
    date: str
    new_users: dict[str, int]
    daily: tuple[MetricResult, ...]
    cumulative: tuple[MetricResult, ...]


@dataclass(frozen=True)
class Look:
    """One look of a sequential plan at all days so far, as a relative difference; `day` counts from 0. `changed`: the
    estimate has left what the days before allow, so nothing is concluded from this look or a later one.
    """

    day: int
    relative: float | None
    low: float | None
    high: float | None
    critical: float | None
    crossed: bool
    changed: bool = False


@dataclass(frozen=True)
class Course:
    """A metric in one arm over the days: bands that hold for all days at once, looks by the plan, and its trend.

    `daily_band`, `cumulative_band`: one (low, high) a day as relative differences, None where a day has none. The last
    four are of the looks: whether they are CUPED's, the p-value that holds at any of them, the first day on which one
    crossed its bound, and why there is none.
    """

    metric: str
    arm: str
    daily_band: tuple[tuple[float, float] | None, ...]
    cumulative_band: tuple[tuple[float, float] | None, ...]
    trend: Trend
    looks: tuple[Look, ...] = ()
    by_cuped: bool = False
    p_value: float | None = None
    stopped_on: int | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Slice:
    """The primary metric and guardrails in a part of the experiment: a segment of users, a class of model age, a
    snapshot version. `kind` says which; `users` by arm.
    """

    kind: str
    name: str
    users: dict[str, int]
    metrics: tuple[MetricResult, ...]
    note: str = ""


@dataclass(frozen=True)
class SourceRow:
    """Engagement with the items that one candidate source contributed in one arm. Errors clustered on the user.

    `served`: items; `shown`: those of them that users were shown; `views` is the same, under the metrics' name for it.
    `against`: the reference source of the arm; `evr_effect` and `preference` compare with it over the same users.
    """

    arm: str
    source: str
    users: int
    shown: int
    views: int
    effective_views: int
    follows: int
    evr: float | None
    evr_std_error: float | None
    follow_rate: float | None
    play_s_per_view: float | None
    against: str = ""
    evr_effect: Effect | None = None
    preference: Preference | None = None
    served: int = 0


@dataclass(frozen=True)
class SnapshotRow:
    """How many recalls one snapshot answered in one arm, users in two arms included."""

    arm: str
    model: str
    snapshot: str
    recalls: int


@dataclass(frozen=True)
class Winsorized:
    """The cap on users' sums of one metric, one for all arms; of a ratio, on those of its numerator.

    `column`: what is capped, in `unit`. `of`: a value fixed in advance, or the `quantile` of users' sums pooled over
    all arms, or of what users did before the start; `among`: how many users that is of. `threshold`: None where no sum
    is capped, and `reason` says why. `users`: by arm; `capped`: those whose sum over all days is above the threshold.
    `p_value`: of the shares of users capped, that of the treatment arm least like the control, Fisher's exact test,
    times the number of treatment arms; None where there is nothing to test.
    """

    metric: str
    label: str
    column: str
    unit: str
    of: Literal["value", "pooled", "pre"]
    quantile: float | None
    threshold: float | None
    among: int
    users: dict[str, int]
    capped: dict[str, int]
    p_value: float | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Report:
    """Everything that the aggregate says about the experiment."""

    schema_version: int
    experiment: str
    hypothesis: str
    owner: str
    control: str
    arms: tuple[str, ...]
    models: dict[str, str]
    start_ms: int
    end_ms: int
    day_offset_ms: int
    days_planned: int
    plan: dict[str, Any]
    primary: str
    verdicts: tuple[Verdict, ...]
    checks: tuple[Check, ...]
    split: Split
    pre_period: tuple[PrePeriod, ...]  # each treatment arm against the control before the experiment
    users_in_two_arms: int
    metrics: tuple[MetricResult, ...]  # over the whole experiment
    days: tuple[Day, ...]
    courses: tuple[Course, ...]
    slices: tuple[Slice, ...]
    sources: tuple[SourceRow, ...]
    snapshots: tuple[SnapshotRow, ...]
    counts: dict[str, int]
    data_hash: str = ""  # of the aggregate's content: the same in two reports on the same data
    zone: str | None = None  # where days are cut at midnight, if that is given by a name
    winsorized: tuple[Winsorized, ...] = ()  # of each metric whose users' sums are capped

    @property
    def invalid(self) -> bool:
        """Whether no effect may be read."""
        return any(check.level == "invalid" for check in self.checks)

    def to_json(self) -> dict[str, Any]:
        """Plain dictionaries, lists, numbers, text and null."""
        return asdict(self)
