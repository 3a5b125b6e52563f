"""Whether the experiment can be trusted: one line a check, each decided by a pure function on what was counted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from abtest.aggregate import Aggregate
from abtest.format import number, p_value, share, threshold
from abtest.novelty import BIAS_ALPHA, PrePeriod
from abtest.results import Check, Level
from abtest.stats import SRM_ALPHA, Split
from contracts.experiment import Experiment

INTERFERENCE = 0.01  # above this share of another arm's data, a model's difference no longer is the model's alone
CONTAMINATION = 0.01  # above this share of users in two arms, the arms are no longer what was assigned


@dataclass(frozen=True)
class ModelFacts:
    """One arm's model. `learned_from`: examples by the arm that showed them ("" outside any experiment).

    `recall`: progressive recall by k.
    """

    arm: str
    model: str
    snapshots: int | None = None
    last_version: str | None = None
    learned_from: Mapping[str, int] = field(default_factory=dict)
    recall: Mapping[int, float | None] = field(default_factory=dict)

    @property
    def interference(self) -> float | None:
        """Share of what the model learned from arms other than its own; None before it learned from any."""
        inside = {arm: count for arm, count in self.learned_from.items() if arm}
        total = sum(inside.values())
        return (total - inside.get(self.arm, 0)) / total if total else None

    @property
    def interferes(self) -> bool:
        """Whether that is more than is tolerated."""
        return self.interference is not None and self.interference > INTERFERENCE


def checks_of(
    of: Aggregate,
    experiment: Experiment,
    split: Split,
    alike: Sequence[PrePeriod],
    models: Sequence[ModelFacts],
) -> tuple[Check, ...]:
    """Every check, the gravest kind first in the order that a reader would ask."""
    return (
        _split(split),
        *(_pre_period(was, experiment.control) for was in alike),
        _contamination(of),
        *(_interference(model, pooled=experiment.analysis.pooled_training) for model in models),
    )


def _split(split: Split) -> Check:
    if split.p_value is None:
        return Check("split", "Traffic split", "unknown", f"Not tested: {split.reason}.")
    if split.mismatch:
        said = f"Users did not fall into the arms as planned (χ² {p_value(split.p_value)})."
        return Check("split", "Traffic split", "invalid", said, {"p_value": split.p_value})
    said = f"As planned, χ² {p_value(split.p_value)}; a mismatch is called at {threshold(SRM_ALPHA)}."
    return Check("split", "Traffic split", "ok", said, {"p_value": split.p_value})


def _pre_period(was: PrePeriod, control: str) -> Check:
    name, title = f"pre_period:{was.arm}", f"{was.arm} before the start"
    if was.p_value is None:
        return Check(name, title, "unknown", f"It could not be compared with {control}: {was.reason}.")
    if was.biased:
        said = f"{was.arm} and {control} differed before the start (Wald’s test {p_value(was.p_value)})."
        return Check(name, title, "invalid", said, {"p_value": was.p_value})
    said = f"Like {control}, Wald’s test {p_value(was.p_value)}; a difference is called at {threshold(BIAS_ALPHA)}."
    return Check(name, title, "ok", said, {"p_value": was.p_value})


def _contamination(of: Aggregate) -> Check:
    users = sum(of.users.values()) + of.in_two_arms
    part = of.in_two_arms / users if users else 0.0
    said = f"{number(of.in_two_arms)} users were seen in two arms ({share(part, 2)}); no figure has them."
    level: Level = "ok" if part <= CONTAMINATION else "invalid"
    return Check("contamination", "Users in two arms", level, said, {"users": of.in_two_arms, "share": part})


def _interference(model: ModelFacts, *, pooled: bool) -> Check:
    name, title = f"interference:{model.arm}", f"What {model.arm} learned from"
    part = model.interference
    if part is None:
        return Check(name, title, "unknown", f"{model.model} has learned from no arm yet.")
    said = f"{model.model} learned {share(part)} of what it learned in the experiment from other arms’ users"
    if not model.interferes:
        return Check(name, title, "ok", f"{said}.", {"share": part})
    if pooled:
        return Check(name, title, "ok", f"{said}, as the plan says.", {"share": part})
    return Check(name, title, "warning", f"{said}: its difference is not its own alone.", {"share": part})
