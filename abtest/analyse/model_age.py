"""The age of the models that answered: whether the arms were served alike, and what the arms differ by at each age.

A model's age is how long before an exposure the newest example was that its snapshot had learned from.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from abtest.aggregate.aggregate import SEEN, Aggregate
from abtest.aggregate.user_parts import MET, SOURCE_COLUMNS
from abtest.analyse.day_checks import date_of, day_of
from abtest.analyse.results import Check
from abtest.collect.observed import Observed
from abtest.collect.records import AGES_MS
from abtest.format import number, share
from abtest.stats.columns import Column, on_days, parts_of
from abtest.stats.cumulative import FIRST
from abtest.stats.metrics import Mean, Ratio
from abtest.stats.moments import Moments
from contracts.config.experiment import Experiment

# Both, for the arms to be called unlike: minutes matter little among hours, and a factor little among seconds.
LAG_RATIO = 1.5
LAG_MS = 300_000
STALE = 0.01  # of recalls answered by a stale model (`contracts.snapshots.staleness`) that people are told of
# Of recalls that stale models answered in one arm and not in the other: from there on a verdict is as much on freshness
# as on models. With every snapshot on trial and none going live, half of the requests have fresh ones all the same, so
# this may be half of the time.
UNLIKE = 0.25
UNKNOWN = "-1"  # the class of exposures that do not tell their model's age
RATIO_COLUMNS = ("recalls", "views", "effective_views", "follows")  # with the same meaning in parts and days


@dataclass(frozen=True)
class Cut:
    """A part of the experiment: the moments of the arms to compare in it. See `abtest.analyse.results.Slice`."""

    kind: str
    name: str
    users: dict[str, int]
    moments: dict[str, Moments]
    note: str


def freshness_of(aggregate: Aggregate, control: str) -> Iterator[Check]:
    """Whether each arm was served by models as fresh as the control's, and by none of a day or older."""
    if not any(_ages(by_arm) for by_arm in aggregate.parts.get("age", {}).values()):
        return
    ages = {arm: _ages(moments) for arm, moments in aggregate.parts["age"].items()}
    mean = {arm: _mean_ms(classes) for arm, classes in ages.items()}
    for arm in aggregate.arms:
        if arm != control:
            yield lag(arm, mean[arm], control, mean[control])
    for arm, classes in ages.items():
        yield stale(arm, classes)


def lag(arm: str, age_ms: float | None, control: str, against_ms: float | None) -> Check:
    """Whether the models that answered two arms were of like age: an arm with staler models is not compared fairly.

    >>> lag("t", 60_000, "c", 90_000).level, lag("t", 300_000, "c", 900_000).level
    ('ok', 'warning')
    """
    name, title = f"model_age:{arm}", f"Age of the models of {arm}"
    numbers = {f"mean_ms:{arm}": age_ms, f"mean_ms:{control}": against_ms}
    if age_ms is None or against_ms is None:
        return Check(name, title, "unknown", f"Exposures of {arm if age_ms is None else control} do not tell.", numbers)
    younger, older = sorted((age_ms, against_ms))
    apart = older > LAG_RATIO * younger and older - younger > LAG_MS
    text = f"{_minutes(age_ms)} on average when they answered, {control}’s {_minutes(against_ms)}"
    if not apart:
        return Check(name, title, "ok", f"{text}.", numbers)
    staler = arm if age_ms > against_ms else control
    return Check(name, title, "warning", f"{text}: {staler} was served by staler models.", numbers)


def stale(arm: str, classes: Mapping[str, tuple[float, float]]) -> Check:
    """Whether an arm went on without a new snapshot for a day. `classes`: recalls and summed age by class of age."""
    name, title = f"stale:{arm}", f"Snapshots of {arm}"
    recalls_known = sum(recalls for recalls, _ in classes.values())
    old = classes.get(str(len(AGES_MS)), (0.0, 0.0))[0]
    if not recalls_known:
        return Check(name, title, "unknown", "Exposures do not tell the age of their model.")
    part = old / recalls_known
    text = (
        f"{number(old)} of {number(recalls_known)} recalls ({share(part)}) were answered by a model that had learned "
    )
    text += "nothing for a day or longer."
    return Check(name, title, "warning" if part > STALE else "ok", text, {"recalls": round(old), "share": part})


def unlike(arm: str, control: str, checks: Sequence[Check]) -> str:
    """What speaks against a verdict on an arm: the models of one side were stale so much more than the other's.

    >>> known = {"control": (100.0, 0.0)}, {"control": (20.0, 0.0), "5": (80.0, 0.0)}
    >>> unlike("t", "c", [stale("t", known[0]), stale("c", known[0])])
    ''
    >>> unlike("t", "c", [stale("t", known[0]), stale("c", known[1])])
    'c was stale: 80.0 % of its recalls were answered by a model that had learned nothing for a day, of t’s 0.0 %'

    Args:
        arm: the treatment arm.
        control: the control's name.
        checks: the trust panel.

    """
    shares = {check.name: check.numbers.get("share") for check in checks if check.name.startswith("stale:")}
    mine, theirs = (shares.get(f"stale:{name}") for name in (arm, control))
    if not isinstance(mine, float) or not isinstance(theirs, float) or abs(mine - theirs) <= UNLIKE:
        return ""
    (_, fresher), (more, staler) = sorted(((mine, arm), (theirs, control)))
    text = (
        f"{staler} was stale: {share(more)} of its recalls were answered by a model that had learned nothing for a day"
    )
    return f"{text}, of {fresher}’s {share(min(mine, theirs))}"


def by_age(aggregate: Aggregate, metrics: Sequence[Mean | Ratio], control: str) -> Iterator[Cut]:
    """Each class of age: what both arms' users did with what models of that age showed them.

    Ages are not dealt out by chance: models are oldest when traffic is low, or after a fault. Where both arms publish
    at like intervals, a class holds like hours of both, and that is as far as the comparison goes. Only ratios are
    compared: sums per user grow with how long a class lasted.
    """
    parts = aggregate.parts.get("age", {})
    if not _ratios(metrics) or not any(_ages(moments) for moments in parts.values()):
        return
    names = sorted({name for moments in parts.values() for name in parts_of(moments.columns)}, key=int)
    for name in names:
        moments = {
            arm: m.sums([(c, [Column(c, part=name)]) for c in (*SOURCE_COLUMNS, MET)]).within(MET)
            for arm, m in parts.items()
        }
        users = {arm: m.n for arm, m in moments.items()}
        if all(users.values()):
            note = f"Recalls by models of this age in both arms, against {control}’s; ages are not dealt out by chance."
            yield Cut("age", age_name(int(name)), users, moments, note)


def by_version(
    aggregate: Aggregate, metrics: Sequence[Mean | Ratio], experiment: Experiment, observed: Observed
) -> Iterator[Cut]:
    """Each full snapshot of each treatment arm against the control on the days on which it answered, oldest first.

    Versions are not dealt out by chance: each has its own hours and users, while the control's whole days stand beside
    it, so that a version of one evening is compared with mornings too. A difference between two versions is a hint to
    look at, not an effect. Only ratios are compared: sums per user grow with how long a version answered. Of the
    control all users seen by then count; who was away on those days adds nothing to a ratio.
    """
    control, ratios = experiment.control, _ratios(metrics)
    columns = tuple(dict.fromkeys(str(column) for metric in ratios for column in metric.columns))
    if not columns:
        return
    for (arm, version), (first_ms, last_ms) in sorted(observed.spans.items(), key=lambda each: (each[1], each[0])):
        mine = aggregate.versions.get(version, {}).get(arm)
        if arm == control or mine is None or not mine.n:
            continue
        days = range(day_of(experiment, first_ms), min(day_of(experiment, last_ms) + 1, aggregate.days))
        wanted = [(c, on_days(c, days)) for c in columns] + [(SEEN, on_days(FIRST, range(days.stop)))]
        same = [(c, [c]) for c in columns]
        mine, other = mine.sums(same), aggregate.moments[control].sums(wanted).within(SEEN).sums(same)
        if other.n:
            dates = " to ".join(dict.fromkeys(date_of(experiment, day) for day in (days[0], days[-1])))
            note = f"{dates}, against all of {control} on these days; versions are not dealt out by chance."
            yield Cut("version", f"{arm} {version}", {arm: mine.n, control: other.n}, {arm: mine, control: other}, note)


def comparable(metrics: Sequence[Mean | Ratio]) -> list[Mean | Ratio]:
    """Those that can be compared in a cut, without diagnostics."""
    return [metric for metric in _ratios(metrics) if metric.role != "diagnostic"]


def age_name(age_class: int) -> str:
    """A class of model age as text.

    >>> [age_name(age_class) for age_class in (-1, 0, 1, 3, 5)]
    ['unknown', 'under 5 min', '5 to 30 min', '2 to 12 h', '24 h and more']
    """
    if age_class < 0:
        return "unknown"
    low, high = (AGES_MS[i] if 0 <= i < len(AGES_MS) else None for i in (age_class - 1, age_class))
    unit, ms = ("min", 60_000) if (high or AGES_MS[-1]) < 3_600_000 else ("h", 3_600_000)
    if high is None:
        return f"{AGES_MS[-1] / ms:g} h and more"
    return f"under {high / ms:g} {unit}" if low is None else f"{low / ms:g} to {high / ms:g} {unit}"


def _ratios(metrics: Sequence[Mean | Ratio]) -> list[Ratio]:
    return [metric for metric in metrics if isinstance(metric, Ratio) and set(metric.columns) <= set(RATIO_COLUMNS)]


def _ages(moments: Moments) -> dict[str, tuple[float, float]]:
    """By class of known age, recalls and the sum of their models' ages."""
    sums = {
        name: (moments.total(Column("recalls", part=name)), moments.total(Column("age_ms", part=name)))
        for name in parts_of(moments.columns)
    }
    return {name: both for name, both in sums.items() if name != UNKNOWN and both[0]}


def _mean_ms(classes: Mapping[str, tuple[float, float]]) -> float | None:
    recalls = sum(n for n, _ in classes.values())
    return sum(age for _, age in classes.values()) / recalls if recalls else None


def _minutes(ms: float) -> str:
    return f"{ms / 60_000:,.1f} min" if ms < 7_200_000 else f"{ms / 3_600_000:,.1f} h"
