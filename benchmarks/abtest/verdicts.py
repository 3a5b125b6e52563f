"""How often the verdict itself cries wolf: weeks in which no arm differs, judged by the whole rule.

    python -m benchmarks.abtest.verdicts [--replicates 2000] [--seed 1] [--shapes clean …] [--data FOLDER] [--json]

Prints one JSON object. `verdict_false_ship`: by shape, the share of weeks in which any arm would ship (with `se`, its
standard error at the bound); `verdict_false_hold`: in which any guardrail is called broken. The metric that a shape is
about stands in both places, once as the primary metric alone and once as a guardrail that may lose nothing; with
guardrails of its own, a shape has those. `power_kept`: weeks of the shape `clean` with a planted lift of 2 % that ship,
over those that one plain interval of the log ratio ships. `cap_power`: weeks of payers, 20,000 users an arm, who spend
30 % more in the treatment, that ship without a cap and with one at the 99.9 % quantile.

    clean            effective view rate of 2,000 users an arm
    conversions      a mean of 0 and 1, .1 % of 20,000 users an arm
    payers_1000      2 % pay a lognormal sum with σ = 2, 1,000 users an arm; payers_5000: 5,000
    payers_capped    the same, 5,000 users an arm, a user's sum capped at the 99.9 % quantile of both arms together
    hillstrom_500    real spend, drawn with replacement, 500 users an arm; _1000, _2000; needs --data (DRIFTLINE_DATA)
    heavy_user       effective view rate, one user a week with Pareto(1.1) times as many views and a taste of their own
    ninety_ten       effective view rate and a follow rate, 9,000 users against 1,000
    five_arms        five treatment arms and three guardrails, 1,000 users an arm
    group_sequential seven looks at users who come back, 300 an arm, by the whole report; confidence_sequence the same
    returning        effective view rate of users who come every day, with a mood and a taste that last
"""

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from abtest.aggregate.aggregate import aggregate
from abtest.aggregate.user_days import arranged
from abtest.analyse.analysis import report
from abtest.analyse.one_look import users_of, verdicts_on
from abtest.collect.observed import Observed
from abtest.stats.effects import compare
from abtest.stats.metrics import Mean, Ratio
from abtest.stats.moments import Floats
from abtest.stats.winsorize import quantile_cap
from benchmarks.abtest.published import HILLSTROM
from benchmarks.options import folder
from contracts.config.experiment import AnalysisPlan, Arm, Experiment, MetricPlan
from contracts.runtime.clock import DAY_MS

PLAN = AnalysisPlan(cuped=False)
LIFT = 0.02
CAP = 0.999
POWER_USERS = 8_000  # an arm
SHIP_BOUND, HOLD_BOUND = 0.025, 0.05
EVR = Ratio("evr", "evr", "%", "", "effective_views", "views", "primary")
Random = np.random.Generator
Looks = Literal["group-sequential", "confidence-sequence"]
SEQUENTIAL: dict[str, Looks] = {
    "group_sequential": "group-sequential",
    "confidence_sequence": "confidence-sequence",
}
TUNED_AT = 2_500  # visits of such a week
Arms = dict[str, Floats]


@dataclass(frozen=True)
class Shape:
    """A week without effects: `draw` gives the arms' users (users, k) of `columns`, "control" first."""

    columns: tuple[str, ...]
    draw: Callable[[Random], Arms]
    primary: Mean | Ratio
    guardrails: tuple[Mean | Ratio, ...] = ()


def views(users: int, random: Random) -> Floats:
    """Views and effective views (users, 2): gamma activity, beta taste."""
    seen = 1 + random.poisson(30 * random.gamma(0.8, 1 / 0.8, users))
    return np.stack([seen, random.binomial(seen, random.beta(2, 4, users))], axis=1).astype(np.float64)


def conversions(users: int, random: Random) -> Floats:
    return (random.random((users, 1)) < 0.001).astype(np.float64)


def payers(users: int, random: Random) -> Floats:
    spent = np.zeros((users, 1))
    paying = random.random(users) < 0.02
    spent[paying, 0] = random.lognormal(0, 2, int(paying.sum()))
    return spent


def capped(draw: Callable[[Random], Arms], random: Random) -> Arms:
    """A draw's users with their sums capped at `CAP`, a quantile of all arms together."""
    arms = draw(random)
    cap = quantile_cap("spend", np.concatenate([*arms.values()])[:, 0], CAP, "pooled", in_advance=False)
    return {arm: np.minimum(sums, cap.threshold or np.inf) for arm, sums in arms.items()}


def returning(users: int, random: Random) -> Floats:
    taste = random.beta(2, 4, users)[:, None]
    seen = 1 + random.poisson(5 * random.gamma(0.8, 1 / 0.8, (users, 1)) * random.gamma(4, 1 / 4, (users, 7)))
    liked = random.binomial(seen, np.clip(taste + random.normal(0, 0.05, (users, 7)), 0, 1))
    return np.stack([seen.sum(axis=1), liked.sum(axis=1)], axis=1).astype(np.float64)


def with_rare(users: int, random: Random) -> Floats:
    """Views, effective views, follows, seconds played, errors."""
    seen = views(users, random)
    follows = random.binomial(seen[:, 0].astype(int), 0.005)
    return np.column_stack([seen, follows, seen[:, 0] * random.lognormal(2, 1, users), random.poisson(0.05, users)])


def heavy(random: Random) -> Arms:
    """Either arm may have the heavy user."""
    arms = {name: views(1000, random) for name in ("control", "treatment")}
    seen = np.ceil(30 * (1 + random.pareto(1.1)) * 10)
    arms[random.choice(list(arms))][0] = seen, np.floor(seen * random.random())
    return arms


def two(draw: Callable[[int, Random], Floats], control: int, treatment: int) -> Callable[[Random], Arms]:
    return lambda random: {"control": draw(control, random), "treatment": draw(treatment, random)}


def shapes(data: Path | None) -> dict[str, Shape]:
    """By name; without Hillstrom's where there is no data."""
    seen, spend = ("views", "effective_views"), Mean("spend", "spend", "", "", "spend", "primary")
    wide = (*seen, "follows", "play_s", "errors")
    guardrails = (
        Ratio("follow_rate", "follow rate", "%", "", "follows", "views", "guardrail"),
        Mean("play", "play", "s", "", "play_s", "guardrail"),
        Mean("errors", "errors", "", "", "errors", "guardrail", "decrease"),
    )
    five = ("control", *(f"t{i}" for i in range(5)))
    everything = {
        "clean": Shape(seen, two(views, 2000, 2000), EVR),
        "conversions": Shape(("spend",), two(conversions, 20_000, 20_000), spend),
        "payers_1000": Shape(("spend",), two(payers, 1000, 1000), spend),
        "payers_5000": Shape(("spend",), two(payers, 5000, 5000), spend),
        "payers_capped": Shape(("spend",), partial(capped, two(payers, 5000, 5000)), spend),
        "heavy_user": Shape(seen, heavy, EVR),
        "ninety_ten": Shape(wide, two(with_rare, 9000, 1000), EVR, guardrails[:2]),
        "five_arms": Shape(wide, lambda random: {arm: with_rare(1000, random) for arm in five}, EVR, guardrails),
        "returning": Shape(seen, two(returning, 1000, 1000), EVR),
    }
    if data is not None:
        spent = pd.read_parquet(data / HILLSTROM)["spend"].to_numpy(np.float64)[:, None]
        for users in (500, 1000, 2000):
            draw = partial(_drawn, spent)
            everything[f"hillstrom_{users}"] = Shape(("spend",), two(draw, users, users), spend)
    return everything


def _drawn(values: Floats, users: int, random: Random) -> Floats:
    return values[random.integers(0, len(values), users)]


def alarms(shape: Shape, random: Random) -> tuple[bool, bool]:
    """Of one week: whether any arm ships by the primary metric alone, and whether any guardrail is broken."""
    users = users_of(shape.columns, shape.draw(random))
    ships = verdicts_on([shape.primary], users, "control", PLAN)
    itself = replace(shape.primary, name="as_guardrail", role="guardrail")
    guarded = verdicts_on([shape.primary, *(shape.guardrails or (itself,))], users, "control", PLAN)
    return any(each.decision == "ship" for each in ships), any(each.broken for each in guarded)


def looked_at_daily(kind: Looks, random: Random) -> tuple[bool, bool]:
    """One week of seven looks, by the report: has it shipped, has it broken a guardrail."""
    users, days = 600, 7
    taste, came = random.beta(2, 4, users), random.random((users, days)) < 0.6
    came[:, 0] |= ~came.any(axis=1)
    user, day = np.nonzero(came)
    seen = 1 + random.poisson(8, len(user))
    values = np.stack([seen, random.binomial(seen, taste[user])], axis=1).astype(np.float64)
    arms = ("control", "treatment")
    arm = random.permutation(np.arange(users) % 2)
    plans = [
        MetricPlan(name=name, kind="ratio", columns=("effective_views", "views"), role=role)
        for name, role in (("evr", "primary"), ("as_guardrail", "guardrail"))
    ]
    found = []
    for metrics in (plans[:1], plans):
        experiment = Experiment(
            name="week",
            salt="week",
            start_ms=0,
            end_ms=days * DAY_MS,
            arms={name: Arm(weight=1, model="two_tower") for name in arms},
            control="control",
            metrics=tuple(metrics),
            analysis=AnalysisPlan(kind=kind, cuped=False, tuned_at=TUNED_AT),
        )
        table = arranged(
            arms, ("views", "effective_views"), (), np.arange(users) + 1, arm, np.zeros((users, 0)), day, user, values
        )
        found.append(
            report(
                aggregate(table, days=days, looks=experiment.look_days),
                experiment,
                Observed(newest_ms=(days + 1) * DAY_MS),
            ).verdicts[0]
        )
    return found[0].decision == "ship", bool(found[1].broken)


def power(replicates: int, random: Random) -> dict[str, float]:
    """Clean weeks with a planted lift: how often they ship by the rule, and by one plain interval."""
    ships = plainly = 0
    for _ in range(replicates):
        arms = {name: views(POWER_USERS, random) for name in ("control", "treatment")}
        treated = arms["treatment"]
        treated[:, 1] += random.binomial((treated[:, 0] - treated[:, 1]).astype(int), LIFT / 2)  # taste ⅓: + 2 %
        users = users_of(("views", "effective_views"), arms)
        ships += verdicts_on([EVR], users, "control", PLAN)[0].decision == "ship"
        t, c = (EVR.estimate(users.moments[arm]) for arm in ("treatment", "control"))
        effect = compare(t, c)
        plainly += effect.ci_low is not None and effect.ci_low > 0
    return {"ships": ships / replicates, "ships_today": plainly / replicates, "power_kept": ships / max(plainly, 1)}


def cap_power(replicates: int, random: Random) -> dict[str, float]:
    """Weeks of payers with a planted lift that ship, without a cap and with one."""
    spend, ships = Mean("spend", "spend", "", "", "spend", "primary"), [0, 0]
    for _ in range(replicates):
        arms = {"control": payers(20_000, random), "treatment": payers(20_000, random) * 1.3}
        for place, shown in enumerate((arms, capped(lambda _, arms=arms: arms, random))):
            verdicts = verdicts_on([spend], users_of(("spend",), shown), "control", PLAN)
            ships[place] += verdicts[0].decision == "ship"
    return {"without": ships[0] / replicates, "with": ships[1] / replicates}


def rates(weeks: Sequence[tuple[bool, bool]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """False ships and false holds: rate, weeks, standard error at the bound, and whether it keeps bound + 2 SE."""
    both = []
    for place, bound in enumerate((SHIP_BOUND, HOLD_BOUND)):
        rate, error = sum(week[place] for week in weeks) / len(weeks), math.sqrt(bound * (1 - bound) / len(weeks))
        both.append({"rate": rate, "weeks": len(weeks), "se": error, "keeps": rate <= bound + 2 * error})
    return both[0], both[1]


def measure(names: Sequence[str], replicates: int, seed: int, data: Path | None) -> dict[str, Any]:
    """All of `names`; see the module. A shape whose data is not there is left out."""
    known = shapes(data)
    ship: dict[str, Any] = {}
    hold: dict[str, Any] = {}
    for name in names:
        if name not in known and name not in SEQUENTIAL:
            continue
        began = time.perf_counter()
        random = np.random.default_rng((seed, *name.encode()))
        week = partial(looked_at_daily, SEQUENTIAL[name]) if name in SEQUENTIAL else partial(alarms, known[name])
        ship[name], hold[name] = rates([week(random) for _ in range(replicates)])
        sys.stderr.write(
            f"{name}: {ship[name]['rate']:.4f} {hold[name]['rate']:.4f}, {time.perf_counter() - began:.0f} s\n"
        )
    return {"verdict_false_ship": ship, "verdict_false_hold": hold}


def names_of(data: Path | None) -> list[str]:
    return [*shapes(data), *SEQUENTIAL]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicates", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--data", type=folder, default=os.environ.get("DRIFTLINE_DATA"), help="public data sets")
    parser.add_argument("--shapes", nargs="+", help="these alone")
    parser.add_argument("--json", action="store_true", help="for the sake of the other parts: it prints JSON anyway")
    given = parser.parse_args(arguments)
    known = names_of(given.data)
    unknown = sorted(set(given.shapes or ()) - set(known))
    if given.replicates < 1 or unknown:
        parser.error(f"there is no shape {', '.join(unknown)}" if unknown else "--replicates must be 1 or more")
    result: Mapping[str, Any] = measure(given.shapes or known, given.replicates, given.seed, given.data)
    lifted: dict[str, Any] = {}
    if not given.shapes:
        lifted = power(given.replicates, np.random.default_rng((given.seed, 7)))
        lifted["cap_power"] = cap_power(given.replicates, np.random.default_rng((given.seed, 8)))
    sys.stdout.write(
        json.dumps({"replicates": given.replicates, "seed": given.seed, **result, **lifted}, indent=2) + "\n"
    )


if __name__ == "__main__":
    main()
