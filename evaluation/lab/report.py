"""What the laboratory has found, as tables and JSON."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

from evaluation.lab.results import (
    AUDIENCE,
    RATES,
    Audience,
    Difference,
    Outcome,
    OverSeeds,
    audience,
    differences,
    over_seeds,
    shared_effect,
)

OMNISCIENT = "omniscient"


class Table(NamedTuple):
    """Rows of text; all columns but the first are numbers."""

    title: str
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def by_policy(outcomes: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    """The weeks of policies that everybody got, in the order of the seeds."""
    found: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        if outcome.everybody:
            found.setdefault(outcome.policy, []).append(outcome)
    return found


def shares_of_omniscient(weeks: Mapping[str, Sequence[Outcome]]) -> dict[str, OverSeeds]:
    """Of each policy, its EVR over that of the omniscient one in the same world; {} without one."""
    best = {week.seed: week.evr for week in weeks.get(OMNISCIENT, ())}
    if not best:
        return {}
    return {name: over_seeds([week.evr / best[week.seed] for week in found]) for name, found in weeks.items()}


def relative_over_seeds(found: Sequence[Difference]) -> dict[tuple[str, str], OverSeeds]:
    """(policy, policy beside it) -> the mean over seeds of the relative difference of their rates, all of one kind."""
    values: dict[tuple[str, str], list[float]] = {}
    for each in found:
        values.setdefault((each.of, each.beside), []).append(each.relative)
    return {pair: over_seeds(relatives) for pair, relatives in values.items()}


def tables(outcomes: Sequence[Outcome]) -> list[Table]:
    """For people: policies; days; what was shown; differences to the first policy; new items; policies that share."""
    weeks, found = by_policy(outcomes), differences(outcomes)
    out = [_policies(weeks), _days(weeks), _shown(weeks)]
    if len(weeks) > 1:
        out.append(_differences(found, differences(outcomes, "play_s"), next(iter(weeks))))
    if any(week.born_ms for each in weeks.values() for week in each):
        out.append(_new_items(weeks))
    shared = _shared(outcomes)
    if shared:
        out.append(_ab(shared, found))
    return out


def as_json(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """All of it: means over seeds, and every week."""
    weeks, found = by_policy(outcomes), differences(outcomes)
    shares, relative = shares_of_omniscient(weeks), relative_over_seeds(found)
    others = {rate: differences(outcomes, rate) for rate in RATES if rate != "evr"}
    return {
        "policies": {
            name: {
                **{rate: over_seeds([week.rate(rate) for week in each])._asdict() for rate in RATES},
                "share_of_omniscient": shares[name]._asdict() if name in shares else None,
                "weeks": [_week(week) for week in each],
            }
            for name, each in weeks.items()
        },
        "differences": [each._asdict() for each in found],
        "differences_of": {rate: [_finite(each._asdict()) for each in pairs] for rate, pairs in others.items()},
        "relative_over_seeds": [
            {"of": of, "beside": beside, **relative[of, beside]._asdict()} for of, beside in relative
        ],
        "shared": [
            {
                "seed": control.seed,
                "control": control.policy,
                "treatment": treatment.policy,
                "effect": asdict(shared_effect(control, treatment)),
                "weeks": [_week(control), _week(treatment)],
            }
            for control, treatment in _shared(outcomes)
        ],
    }


def _week(week: Outcome) -> dict[str, Any]:
    return {
        "policy": week.policy,
        "seed": week.seed,
        "evr": week.evr,
        "evr_by_day": week.evr_by_day,
        "play_s": week.rate("play_s"),
        "follow_rate": week.rate("follow_rate"),
        "shown": _finite(
            {
                "duration_s": week.shown.duration_s,
                "items": week.shown.items,
                "top_share": week.shown.top_share,
                "overlap": week.shown.mean_overlap,
            }
        ),
        "users": int((week.views.sum(1) > 0).sum()),
        "views": int(week.views.sum()),
        "effective_views": int(week.effective.sum()),
        "published": week.live,
        "held": week.held,
        "publications": [each._asdict() for each in week.publications],
        "examples_learned": week.learned,
        "new_items": audience(week)._asdict() if week.born_ms else None,
        "cpu_s": round(week.cpu_s, 2),
        "world_cpu_s": round(week.world_cpu_s, 2),
    }


def _policies(weeks: Mapping[str, Sequence[Outcome]]) -> Table:
    shares = shares_of_omniscient(weeks)
    rows = [
        (
            name,
            _plain(over_seeds([week.evr for week in each])),
            _percent(shares[name]) if name in shares else "",
            _mean([week.live for week in each]),
            _mean([week.held for week in each]),
            _mean([week.learned for week in each]),
            f"{sum(week.cpu_s for week in each) / len(each):.1f}",
        )
        for name, each in weeks.items()
    ]
    header = ("policy", "EVR", "of omniscient", "published", "held", "examples learned", "CPU s")
    return Table("Effective view rate of the whole experiment", header, rows)


def _days(weeks: Mapping[str, Sequence[Outcome]]) -> Table:
    days = max(week.views.shape[1] for each in weeks.values() for week in each)
    rows = []
    for name, each in weeks.items():
        cells = []
        for day in range(days):
            known = [rate for week in each if (rate := week.evr_by_day[day]) is not None]
            cells.append(_plain(over_seeds(known)) if known else "")
        rows.append((name, *cells))
    return Table("Effective view rate by day", ("policy", *(f"day {day + 1}" for day in range(days))), rows)


def _shown(weeks: Mapping[str, Sequence[Outcome]]) -> Table:
    rows = []
    for name, each in weeks.items():
        shown = [week.shown for week in each]
        follows = sum(1000 * week.rate("follow_rate") for week in each) / len(each)
        rows.append(
            (
                name,
                _seconds(over_seeds([week.rate("play_s") for week in each])),
                f"{follows:.2f}",
                f"{sum(one.duration_s for one in shown) / len(shown):.1f}",
                _mean([one.items for one in shown]),
                f"{sum(one.top_share for one in shown) / len(shown):.1%}",
                f"{sum(one.mean_overlap for one in shown) / len(shown):.3f}",
            )
        )
    header = (
        "policy", "play, s", "follows per 1,000", "duration, s", "different items", "share of the top 1 %",
        "category overlap",
    )  # fmt: skip
    return Table("By item shown: what came of it, how long it is, how alike pages are", header, rows)


def _differences(found: Sequence[Difference], plays: Sequence[Difference], beside: str) -> Table:
    relative, of_plays = relative_over_seeds(found), relative_over_seeds(plays)
    rows = []
    for (of, other), over in relative.items():
        if other != beside:
            continue
        pairs = [each for each in found if (each.of, each.beside) == (of, other)]
        absolute = over_seeds([each.difference for each in pairs])
        play = of_plays[of, other]
        spreads = [
            _spread([each for each in of_rate if (each.of, each.beside) == (of, other)], beyond)
            for of_rate, beyond in ((found, over), (plays, play))
        ]
        rows.append((of, f"{absolute.mean:+.4f}", f"{over.mean:+.1%}", spreads[0], f"{play.mean:+.1%}", spreads[1]))
    spread = "95 % interval, or standard error"
    header = ("policy", "EVR", "relative", spread, "play time an item, relative", "interval or error of that")
    return Table(f"Beside {beside}, on the same users", header, rows)


def _spread(pairs: Sequence[Difference], over: OverSeeds) -> str:
    if over.std_error is None:
        return f"{pairs[0].relative_low:+.1%} to {pairs[0].relative_high:+.1%}, over users"
    return f"± {over.std_error:.1%}, over {over.seeds} seeds"


def _new_items(weeks: Mapping[str, Sequence[Outcome]]) -> Table:
    rows = []
    for name, each in weeks.items():
        found = [audience(week) for week in each]
        rows.append(
            (
                name,
                _mean([one.born for one in found]),
                f"{sum(one.found for one in found) / max(sum(one.born for one in found), 1):.0%}",
                _hours(found),
            )
        )
    header = ("policy", "born", f"with {AUDIENCE} effective views", "median hours until then")
    return Table("Items born in the experiment", header, rows)


def _hours(found: Sequence[Audience]) -> str:
    """The mean over seeds of the medians, where every seed has one."""
    medians = [each.median_h for each in found if each.median_h is not None]
    return f"{sum(medians) / len(medians):.0f}" if len(medians) == len(found) else "not by the end"


def _ab(shared: Sequence[tuple[Outcome, Outcome]], found: Sequence[Difference]) -> Table:
    truths = {(each.of, each.beside, each.seed): each.relative for each in found}
    rows = []
    for control, treatment in shared:
        effect = shared_effect(control, treatment)
        truth = truths.get((treatment.policy, control.policy, control.seed))
        told = "" if effect.relative is None else f"{effect.relative:+.1%}"
        known = effect.ci_low is not None and effect.ci_high is not None
        rows.append(
            (
                f"seed {control.seed}: {treatment.policy} against {control.policy}",
                told,
                f"{effect.ci_low:+.1%} to {effect.ci_high:+.1%}" if known else effect.reason or "",
                "" if truth is None else f"{truth:+.1%}",
            )
        )
    header = ("A/B test, users shared", "effect on EVR", "95 % interval", "each given to everybody")
    return Table("What an A/B test says, and what is so", header, rows)


def _shared(outcomes: Sequence[Outcome]) -> list[tuple[Outcome, Outcome]]:
    """(control, treatment) of each run in which two policies shared the users."""
    parts = [each for each in outcomes if not each.everybody]
    return list(zip(parts[::2], parts[1::2], strict=True))


def _mean(counts: Sequence[int]) -> str:
    return f"{sum(counts) / len(counts):,.0f}"


def _plain(over: OverSeeds) -> str:
    """Four digits of a mean, with its standard error over seeds where there is one.

    >>> _plain(OverSeeds(0.25, None, 1)), _plain(OverSeeds(0.25, 0.002, 3))
    ('.2500', '.2500 ± .0020')
    """
    mean = f"{over.mean:.4f}".removeprefix("0")
    return mean if over.std_error is None else f"{mean} ± {f'{over.std_error:.4f}'.removeprefix('0')}"


def _seconds(over: OverSeeds) -> str:
    return f"{over.mean:.2f}" if over.std_error is None else f"{over.mean:.2f} ± {over.std_error:.2f}"


def _finite(values: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no numbers that are not finite; they are null.

    >>> _finite({"a": float("nan"), "b": 1.0, "c": "x"})
    {'a': None, 'b': 1.0, 'c': 'x'}
    """
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in values.items()
    }


def _percent(over: OverSeeds) -> str:
    mean = f"{over.mean:.1%}"
    return mean if over.std_error is None else f"{mean} ± {over.std_error:.1%}"
