"""Metrics whose users' sums are capped: at what, how many users of each arm, and whether the arms differ in that."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from abtest.aggregate.aggregate import Aggregate
from abtest.analyse.results import Check, Winsorized
from abtest.format import listed, number, p_value, share, value
from abtest.stats.metrics import of_plan, unit_of
from abtest.stats.winsorize import Cap, capped_column
from contracts.config.experiment import Experiment, SettingsError

UNLIKE = 0.001  # as for the traffic split: of a thousand experiments whose tails do not differ, one warns


def require_in_advance(caps: Mapping[str, Cap], experiment: Experiment) -> None:
    """A plan with looks has caps that are the same at all of them, whoever comes later.

    A pooled quantile is not, and the experiment's file refuses it; here one is found of what users did before, where
    that is known of the users with rows alone.

    Raises:
        SettingsError: a metric's is not.

    """
    for metric in experiment.metrics:
        cap = caps.get(capped_column(metric.columns[0], metric.winsorize)) if metric.winsorize else None
        if experiment.analysis.kind != "fixed" and cap is not None and cap.of == "pre" and not cap.in_advance:
            raise SettingsError(
                f"Metric '{metric.name}' is capped at a quantile of what the users with rows did before, which moves "
                f"from look to look of analysis kind {experiment.analysis.kind}; give all users' covariates in a table "
                "of their own (--pre), or cap it at a value (at)."
            )


def winsorized(aggregate: Aggregate, experiment: Experiment) -> tuple[Winsorized, ...]:
    """What is capped, by metric in the order of the experiment's file."""
    return tuple(_winsorized(aggregate, experiment))


def _winsorized(aggregate: Aggregate, experiment: Experiment) -> Iterator[Winsorized]:
    users = aggregate.users
    for metric in experiment.metrics:
        if metric.winsorize is None:
            continue
        cap = aggregate.caps[capped_column(metric.columns[0], metric.winsorize)]
        yield Winsorized(
            metric.name,
            of_plan(metric).label,
            cap.column,
            unit_of(cap.column) if metric.unit is None else metric.unit,
            cap.of,
            cap.quantile,
            cap.threshold,
            cap.among,
            users,
            cap.capped,
            None if cap.threshold is None else unlike(users, cap.capped, experiment.control),
            cap.reason,
        )


def unlike(users: Mapping[str, int], capped: Mapping[str, int], control: str) -> float | None:
    """How likely shares of users capped at least this unlike the control's are by chance; see `Winsorized.p_value`.

    Exact, as capped users are few: given how many are capped in two arms, chance deals them out as in an urn.

    >>> unlike({"a": 100, "b": 100}, {"a": 1, "b": 1}, "a")
    1.0
    >>> unlike({"a": 0, "b": 100}, {"a": 0, "b": 1}, "a") is None
    True
    """
    treatments = [arm for arm in users if arm != control and users[arm]]
    if not treatments or not users[control]:
        return None
    tables = [np.array([[capped[name], users[name] - capped[name]] for name in (arm, control)]) for arm in treatments]
    from scipy.stats import fisher_exact  # a third of a second to import

    p_values = [float(fisher_exact(table).pvalue) for table in tables]
    return min(1.0, min(p_values) * len(p_values))


def checks_of_caps(caps: Sequence[Winsorized], control: str) -> Iterator[Check]:
    """A line a capped metric: a warning where no sum is capped, or where the cap takes from one arm more than chance
    makes it take from another.
    """
    for cap in caps:
        name, title = f"winsorized:{cap.metric}", f"Cap of {cap.label.removesuffix(' (capped)')}"
        numbers = {
            "threshold": cap.threshold,
            "p_value": cap.p_value,
            **{f"capped:{a}": n for a, n in cap.capped.items()},
        }
        if cap.threshold is None:
            yield Check(name, title, "warning", f"{where(cap)}.", numbers)
            continue
        counts = [
            f"{number(n)} of {number(cap.users[arm])} users of {arm}"
            + (f" ({share(n / cap.users[arm], 2)})" if n else "")
            for arm, n in cap.capped.items()
        ]
        text = f"{where(cap)}; above it, and counted as that: {listed(counts)}"
        if cap.p_value is None or cap.p_value >= UNLIKE:
            tested = "" if cap.p_value is None else f", {p_value(cap.p_value)}"
            yield Check(name, title, "ok", f"{text}{tested}.", numbers)
            continue
        text += f". The arms differ in that (Fisher’s exact test against {control}, {p_value(cap.p_value)}): what the "
        yield Check(name, title, "warning", f"{text}users above it do more or less than that is in no figure.", numbers)


def by_plan(cap: Winsorized) -> str:
    """At what the plan has users' sums capped, whatever the data.

    >>> by_plan(Winsorized("p", "Play (capped)", "play_s", "s", "pre", 0.999, 1200.0, 5000, {}, {}))
    'users’ sums of play s, at the 99.9 % quantile of what users did before'
    """
    at = {
        "value": value(cap.threshold, cap.unit),
        "pooled": f"the {100 * (cap.quantile or 0.0):.6g} % quantile of all users",
        "pre": f"the {100 * (cap.quantile or 0.0):.6g} % quantile of what users did before",
    }
    return f"users’ sums of {cap.column.replace('_', ' ')}, at {at[cap.of]}"


def where(cap: Winsorized) -> str:
    """At what a user's sums are capped, and where that comes from.

    >>> where(Winsorized("p", "Play (capped)", "play_s", "s", "pooled", 0.999, 1200.0, 5000, {}, {}))
    'Users’ sums of play s are capped at 1,200 s, the 99.9 % quantile of all 5,000 users, all arms together'
    """
    sums = f"Users’ sums of {cap.column.replace('_', ' ')} are"
    quantile = f"{100 * (cap.quantile or 0.0):.6g} % quantile"
    users = f"{number(cap.among)} users"
    source = {
        "value": "a value fixed in advance",
        "pooled": f"the {quantile} of all {users}, all arms together",
        "pre": f"the {quantile} of what {users} did before",
    }[cap.of]
    if cap.threshold is None:
        return f"{sums} not capped, though the plan says at {source}: {cap.reason}"
    return f"{sums} capped at {value(cap.threshold, cap.unit)}, {source}"
