"""Whether the experiment can be trusted: one line a check, each decided by a pure function on what was counted."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from abtest.aggregate.aggregate import Aggregate
from abtest.aggregate.user_days import UNKNOWN
from abtest.analyse.data_quality import quality_of
from abtest.analyse.day_checks import date_of
from abtest.analyse.model_age import freshness_of
from abtest.analyse.results import Check, Level, MetricResult
from abtest.collect.observed import Observed
from abtest.format import counted, listed, number, p_value, share, threshold
from abtest.stats.cuped import Adjustment
from abtest.stats.metrics import Declared, Quantile, of_experiment
from abtest.stats.novelty import BIAS_ALPHA, PrePeriod
from abtest.stats.split import SRM_ALPHA, Split, split_check
from abtest.stats.srm import SequentialSplit, Splits, sequential_split, splits
from contracts.config.experiment import Experiment
from contracts.snapshots.parts import Part

# What learning from everybody's data alike did to effects: docs/trainer.md, "Whose data", has the table.
SHARED_DATA = "Where each arm learned from all examples alike, the laboratory’s effects were 3 and 9 points off."
INTERFERENCE = 0.01  # above this share of another arm's data, a model's difference no longer is the model's alone
# Users in two arms are in no figure. They are the busy ones, who may do several times as much as others: a hundredth
# of the users can be a twentieth of the views. A thousandth is what a few shared devices leave behind.
CONTAMINATION = 0.01
CONTAMINATION_NOTICED = 0.001
# A covariate from before leaves to chance what users do now. To take .99 of the variance, two weeks of the same user
# would have to correlate by .995; CUPED's authors report half of it ([D13] in abtest.stats.cuped).
MEASURED_WITH = 0.99
STRONG = 1e-6  # no chance, with any number of days or replicas
HARDLY = 0.5  # a replica that answered less than half of the users of an arm that it should have

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class ModelFacts:
    """One arm's model. `learned_from`: examples by the arm that showed them ("" outside any experiment).

    `recall`: progressive recall by k. `learn_from`: the trainer's setting of whose examples it learns from.
    """

    arm: str
    model: str
    snapshots: int | None = None
    last_version: str | None = None
    learned_from: Mapping[str, int] = field(default_factory=dict)
    recall: Mapping[int, float | None] = field(default_factory=dict)
    learn_from: str = ""
    parts: tuple[Part, ...] = ()  # that it may be served without

    @property
    def interference(self) -> float | None:
        """Share of what the model learned from arms other than its own; None before it learned from any."""
        inside = {arm: count for arm, count in self.learned_from.items() if arm}
        total = sum(inside.values())
        return (total - inside.get(self.arm, 0)) / total if total else None

    @property
    def interferes(self) -> bool:
        """Whether that is more than is tolerated; examples that are weighted by the arm are not counted against it."""
        if self.learn_from == "weighted":
            return False
        return self.interference is not None and self.interference > INTERFERENCE


def checks_of(
    aggregate: Aggregate,
    experiment: Experiment,
    split: Split,
    alike: Sequence[PrePeriod],
    models: Sequence[ModelFacts],
    observed: Observed,
    metrics: Sequence[MetricResult],
) -> tuple[Check, ...]:
    """Every check, the gravest kind first in the order that a reader would ask."""
    weights = {arm: spec.weight for arm, spec in experiment.arms.items()}
    new_users = {day: aggregate.new_users(day) for day in range(aggregate.days)}
    by_day = {date_of(experiment, day): users for day, users in new_users.items() if any(users.values())}
    contamination = _contamination(aggregate, split, weights)
    causes = "cause" in contamination.numbers
    cuped = Adjustment.of(aggregate.through(aggregate.days - 1), aggregate.covariates)
    return (
        *([contamination] if causes else []),
        _split(split),
        split_so_far(sequential_split([*new_users.values()], weights), [date_of(experiment, day) for day in new_users]),
        split_by_day(splits(by_day, weights)),
        *([split_by_replica(splits(aggregate.replicas, weights))] if aggregate.replicas else []),
        *(_pre_period(was, experiment.control) for was in alike),
        *dropped_covariates(cuped),
        *covariates_from_during(cuped, of_experiment(experiment, aggregate.columns)),
        *_plan(observed.changed),
        *([] if causes else [contamination]),
        *(_interference(model, pooled=experiment.analysis.pooled_training) for model in models),
        *freshness_of(aggregate, experiment.control),
        *quality_of(aggregate, experiment, observed, metrics),
    )


def dropped_covariates(cuped: Adjustment) -> Iterator[Check]:
    """What CUPED was given and does not use; nothing where nobody is known from before at all."""
    if cuped.dropped and cuped.used:
        clauses = [f"{name} {reason}" for name, reason in cuped.dropped.items()]
        used = ", ".join(name for name, _, _ in cuped.used)
        text = f"CUPED goes by {used}. Left out: {'; '.join(clauses)}."
        yield Check("dropped_covariates", "Covariates", "ok", text, dict(cuped.dropped))


def covariates_from_during(cuped: Adjustment, metrics: Sequence[Declared]) -> Iterator[Check]:
    """Covariates that leave so little of a metric's variance that they must have been measured with it: CUPED by them
    takes the effect away as well.
    """
    clauses, numbers = [], {}
    for metric in metrics:
        removed = None if isinstance(metric, Quantile) else cuped.of_metric(metric).variance_removed
        if isinstance(metric, Quantile) or removed is None or removed <= MEASURED_WITH:
            continue
        names = [name for name, _, _ in cuped.used if name != UNKNOWN]
        alone = {name: Adjustment.of(cuped.moments, [name]).of_metric(metric).variance_removed for name in names}
        guilty = [name for name, of in alone.items() if of is not None and of > MEASURED_WITH] or names
        takes = "takes" if len(guilty) == 1 else "take"
        clauses.append(f"{listed(guilty)} {takes} {share(removed)} of the variance of {metric.label}")
        numbers[metric.name] = removed
    if clauses:
        text = (
            f"{'; '.join(clauses)}: that is the metric itself, or was measured during the experiment, and CUPED by it "
        )
        text += "takes the effect away too. A covariate has to be from before the start."
        yield Check("covariates_from_during", "Covariates from during the experiment", "warning", text, numbers)


def split_so_far(split: SequentialSplit, dates: Sequence[str]) -> Check:
    """The split by a test that may be looked at every day: once it has called a mismatch, later days do not mend it."""
    name, title, numbers = "split_so_far", "Traffic split, day by day", {"p_value": split.p_value}
    if not split.mismatch or split.since is None:
        text = f"As planned on every day so far, always-valid {p_value(split.p_value)}."
        return Check(name, title, "ok", text, numbers)
    text = f"Up to {dates[split.since]} users did not fall into the arms as planned (always-valid "
    return Check(name, title, "invalid", f"{text}{p_value(split.p_value)}).", {**numbers, "since": dates[split.since]})


def split_by_day(splits: Splits[str]) -> Check:
    """The users first seen on each day. What an arm does to people cannot move who comes for the first time."""
    name, title = "split_by_day", "Traffic split of each day’s new users"
    if not splits.mismatches:
        return _parts_agree(name, title, splits, "day")
    worst = _worst(splits)
    level: Level = "invalid" if _adjusted(splits, worst) < STRONG else "warning"
    text = f"New users of {', '.join(splits.mismatches)} did not fall into the arms as planned"
    return Check(name, title, level, f"{text} ({p_value(_adjusted(splits, worst))}, corrected).", _numbers(splits))


def split_by_replica(splits: Splits[str]) -> Check:
    """The users whom each replica answered.

    Balancing is by request, so an arm whose users come more often shows more of them to every replica: a mismatch at
    replicas alone is a warning. A replica that hardly answers an arm is a broken one; its users are lost to the arm.
    """
    name, title = "split_by_replica", "Traffic split at each replica"
    if not splits.mismatches:
        return _parts_agree(name, title, splits, "replica")
    worst = _worst(splits)
    broken = any(
        _adjusted(splits, key) < STRONG
        and any(n < HARDLY * splits.parts[key].expected[arm] for arm, n in splits.parts[key].users.items())
        for key in splits.mismatches
    )
    users = ", ".join(f"{number(n)} of {arm}" for arm, n in splits.parts[worst].users.items())
    text = f"{', '.join(splits.mismatches)} did not answer the arms’ users as planned; {worst}: {users} "
    text += f"({p_value(_adjusted(splits, worst))}, corrected)."
    return Check(name, title, "invalid" if broken else "warning", text, _numbers(splits))


def _parts_agree(name: str, title: str, splits: Splits[str], what: str) -> Check:
    if all(p is None for p in splits.adjusted.values()):
        return Check(name, title, "unknown", "No users to test.")
    least = p_value(_adjusted(splits, _worst(splits)))
    text = f"As planned at each of {counted(len(splits.parts), what)}; the least likely {least}, corrected."
    return Check(name, title, "ok", text, _numbers(splits))


def _worst(splits: Splits[Key]) -> Key:
    return min(splits.adjusted, key=lambda key: _adjusted(splits, key))


def _adjusted(splits: Splits[Key], key: Key) -> float:
    p = splits.adjusted[key]
    return 1.0 if p is None else p


def _numbers(splits: Splits[str]) -> dict[str, float | int | str | None]:
    return {"least_p_value": _adjusted(splits, _worst(splits)), "parts": len(splits.parts)}


def _split(split: Split) -> Check:
    if split.p_value is None:
        return Check("split", "Traffic split", "unknown", f"Not tested: {split.reason}.")
    if split.mismatch:
        text = f"Users did not fall into the arms as planned (χ² {p_value(split.p_value)})."
        return Check("split", "Traffic split", "invalid", text, {"p_value": split.p_value})
    text = f"As planned, χ² {p_value(split.p_value)}; a mismatch is called at {threshold(SRM_ALPHA)}."
    return Check("split", "Traffic split", "ok", text, {"p_value": split.p_value})


def _pre_period(was: PrePeriod, control: str) -> Check:
    name, title = f"pre_period:{was.arm}", f"{was.arm} before the start"
    if was.p_value is None:
        return Check(name, title, "unknown", f"It could not be compared with {control}: {was.reason}.")
    if was.biased:
        text = f"{was.arm} and {control} differed before the start (Wald’s test {p_value(was.p_value)})."
        return Check(name, title, "invalid", text, {"p_value": was.p_value})
    text = f"Like {control}, Wald’s test {p_value(was.p_value)}; a difference is called at {threshold(BIAS_ALPHA)}."
    return Check(name, title, "ok", text, {"p_value": was.p_value})


def _plan(changed: Sequence[str]) -> Iterator[Check]:
    """A plan is one only if it was there before the data."""
    if changed:
        text = f"{listed(changed).capitalize()} of the experiment’s file changed after the collector had begun."
        yield Check("plan", "The plan", "warning", text, {"changed": len(changed)})


def _contamination(aggregate: Aggregate, split: Split, weights: Mapping[str, float]) -> Check:
    """Users in two arms; named as the cause of a mismatch of the split where it may come of leaving them out."""
    users = sum(aggregate.users.values()) + aggregate.in_two_arms
    part = aggregate.in_two_arms / users if users else 0.0
    met = counted(aggregate.in_two_arms, "user was", "users were")
    text = f"{met} seen in two arms ({share(part, 2)}); no figure has them."
    level: Level = "invalid" if part > CONTAMINATION else "warning" if part > CONTAMINATION_NOTICED else "ok"
    numbers: dict[str, float | int | str | None] = {"users": aggregate.in_two_arms, "share": part}
    if level == "invalid" and split.mismatch and _as_planned_with(split.users, aggregate.in_two_arms, weights):
        text = f"{text[:-1]}, which may be why the others did not fall into the arms as planned."
        numbers["cause"] = "split"
    return Check("contamination", "Users in two arms", level, text, numbers)


def _as_planned_with(users: Mapping[str, int], more: int, weights: Mapping[str, float]) -> bool:
    """Whether so many more users, in the arms that lack them, make a split that is as planned.

    >>> _as_planned_with({"a": 1000, "b": 700}, 300, {"a": 1, "b": 1})
    True
    >>> _as_planned_with({"a": 1000, "b": 700}, 30, {"a": 1, "b": 1})
    False
    """
    total = sum(users.values()) + more
    short = {arm: max(total * weight / sum(weights.values()) - users[arm], 0.0) for arm, weight in weights.items()}
    whole = sum(short.values())
    filled = {arm: users[arm] + round(more * short[arm] / whole) if whole else users[arm] for arm in weights}
    return not split_check(filled, weights).mismatch


def _interference(model: ModelFacts, *, pooled: bool) -> Check:
    name, title = f"interference:{model.arm}", f"What {model.arm} learned from"
    part = model.interference
    if part is None:
        return Check(name, title, "unknown", f"{model.model} has learned from no arm yet.")
    text = f"{model.model} learned {share(part)} of what it learned in the experiment from other arms’ users"
    if model.learn_from == "weighted":
        text += ", each example weighted by how likely its own arm shows it"
    if not model.interferes:
        return Check(name, title, "ok", f"{text}.", {"share": part})
    if pooled:
        return Check(name, title, "ok", f"{text}, as the plan says.", {"share": part})
    text += f": its difference is not its own alone. {SHARED_DATA}"
    return Check(name, title, "warning", text, {"share": part})
