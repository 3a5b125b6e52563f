"""What an A/B test of two learning policies finds, by whose data each arm's model learns from, and what is so.

    python -m benchmarks.loop.whose_data --seeds 20 [--jobs 2] [--json FILE] [--pairs pages,models] [--quick]

Pairs, two-tower with settings of before first (no gate, so that only data differ):

    pages    against the same model with the page settings of docs/lab.md: a large effect
    models   against T2Diff

The truth is the relative difference in effective view rate between two weeks of the same users: in each everybody has
one policy, which learns from everything. The estimate and its 95 % interval are the report's own (`shared_effect`), of
the week in which the two share these users. Its error has two parts. One is that of the split: which users came into
which arm. It is measured without any interference, by the same users in the same arms, each arm taken from the week in
which everybody had its policy: the row `no interference`. The other is the bias of the data. As the first part is
common to all modes of a seed and its mean is zero, `bias, paired` is the mean of the estimate less that of `no
interference`: the same bias, with a smaller standard error.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np

from contracts.config.settings import (
    GateSettings,
    LearnFrom,
    ModelName,
    ModelSettings,
    TrainerSettings,
)
from contracts.config.trainer import ReplaySettings
from evaluation.lab.plan import PolicyPlan, Run, WorldPlan
from evaluation.lab.results import Outcome, OverSeeds, over_seeds, shared_effect
from evaluation.lab.runs import simulate
from evaluation.markdown import table

MODES: tuple[LearnFrom, ...] = get_args(LearnFrom)
APART = "no interference"
WORLD = WorldPlan(users=320, items=500, days=4, warmup_days=1)
QUICK = WorldPlan(users=60, items=100, days=1, warmup_days=1)

BEFORE = TrainerSettings(gate=GateSettings(enabled=False))
PAGES = BEFORE.model_copy(
    update={
        "model": ModelSettings(page_loss=1.0, id_dim=16, category_dim=48),
        "replay": ReplaySettings(batches=3),
        "average": 0.99,
    }
)
PAIRS: dict[str, tuple[tuple[ModelName, TrainerSettings], tuple[ModelName, TrainerSettings]]] = {
    "pages": (("two_tower", BEFORE), ("two_tower", PAGES)),
    "models": (("two_tower", BEFORE), ("t2diff", BEFORE)),
}


class Found(NamedTuple):
    """What one week's A/B test says, and what is so; all relative to the control."""

    pair: str
    mode: str
    seed: int
    truth: float
    estimate: float
    low: float  # of the 95 % interval
    high: float
    control: float  # EVR
    treatment: float


class Summary(NamedTuple):
    """One mode over seeds; all but `covered` relative to the control's EVR."""

    bias: OverSeeds
    paired: OverSeeds  # the same against the test without interference
    sd: float | None  # of the error over seeds
    rmse: float
    covered: float  # share of seeds whose interval holds the truth
    width: float


def policies(pair: str, mode: LearnFrom) -> tuple[PolicyPlan, PolicyPlan]:
    """Both policies of a pair, learning by a mode; their names are the arms', so the split is one for all modes."""
    control, treatment = (
        PolicyPlan(name, "online-no-gate", model, trainer.model_copy(update={"learn_from": mode}))
        for name, (model, trainer) in zip(("control", "treatment"), PAIRS[pair], strict=True)
    )
    return control, treatment


def of_seed(pair: str, world: WorldPlan, seed: int, jobs: int) -> list[Found]:
    """Both policies given to everybody, then sharing the users under each mode."""
    alone = [Run(world, seed, (policy,)) for policy in policies(pair, "own")]
    shared = [Run(world, seed, policies(pair, mode)) for mode in MODES]
    outcomes = iter(simulate([*alone, *shared], jobs))
    everybody = next(outcomes), next(outcomes)
    truth = everybody[1].evr / everybody[0].evr - 1
    tests = {mode: (next(outcomes), next(outcomes)) for mode in MODES}
    crossed = only(everybody[0], tests["own"][0]), only(everybody[1], tests["own"][1])
    return [found(pair, mode, truth, *arms) for mode, arms in ({APART: crossed} | tests).items()]


def only(outcome: Outcome, arm: Outcome) -> Outcome:
    """A week's outcome of the users that an arm served in another."""
    served = arm.views.sum(1, keepdims=True) > 0
    return replace(outcome, views=outcome.views * served, effective=outcome.effective * served)


def found(pair: str, mode: str, truth: float, control: Outcome, treatment: Outcome) -> Found:
    """The report's effect beside the truth.

    Raises:
        ValueError: an arm has nobody, so there is no effect.

    """
    effect = shared_effect(control, treatment)
    if effect.relative is None or effect.ci_low is None or effect.ci_high is None:
        raise ValueError(f"{pair}, {mode}, seed {control.seed}: no effect, {effect.reason}")
    ends = effect.relative, effect.ci_low, effect.ci_high
    return Found(pair, mode, control.seed, truth, *ends, control.evr, treatment.evr)


def summaries(rows: Sequence[Found]) -> dict[str, Summary]:
    """By mode, of the rows of one pair.

    >>> rows = [Found("p", mode, seed, .1, .1 + error, .0, .3, .2, .2)
    ...         for seed, errors in enumerate(((.01, .03), (-.01, .01)))
    ...         for mode, error in zip((APART, "pooled"), errors)]
    >>> found = summaries(rows)["pooled"]
    >>> round(found.bias.mean, 3), round(found.bias.std_error, 3), round(found.paired.std_error, 3), found.covered
    (0.02, 0.01, 0.0, 1.0)
    """
    apart = {row.seed: row.estimate for row in rows if row.mode == APART}
    by_mode: dict[str, list[Found]] = {}
    for row in rows:
        by_mode.setdefault(row.mode, []).append(row)
    return {mode: _summary(each, apart) for mode, each in by_mode.items()}


def _summary(rows: Sequence[Found], apart: Mapping[int, float]) -> Summary:
    errors = np.array([row.estimate - row.truth for row in rows])
    return Summary(
        bias=over_seeds(errors.tolist()),
        paired=over_seeds([row.estimate - apart[row.seed] for row in rows]),
        sd=float(np.std(errors, ddof=1)) if len(rows) > 1 else None,
        rmse=float(np.sqrt(np.mean(errors**2))),
        covered=float(np.mean([row.low <= row.truth <= row.high for row in rows])),
        width=float(np.mean([row.high - row.low for row in rows])),
    )


def shown(pair: str, rows: Sequence[Found]) -> str:
    """A pair's table, in Markdown."""
    header = ("mode", "bias", "bias, paired", "sd", "rmse", "covered", "width", "EVR of the arms")
    lines = []
    for mode, each in summaries(rows).items():
        arms = [np.mean([getattr(row, arm) for row in rows if row.mode == mode]) for arm in ("control", "treatment")]
        spread = "" if each.sd is None else f"{each.sd:.1%}"
        of_all = f"{each.rmse:.1%}", f"{each.covered:.0%}", f"{each.width:.1%}", f"{arms[0]:.4f}, {arms[1]:.4f}"
        lines.append((mode, _with_error(each.bias), _with_error(each.paired), spread, *of_all))
    truth = over_seeds([row.truth for row in rows if row.mode == APART])
    return f"{pair}: true effect {_with_error(truth)}, {truth.seeds} seeds\n\n{table(header, lines)}\n"


def _with_error(value: OverSeeds) -> str:
    return f"{value.mean:+.1%}" + ("" if value.std_error is None else f" ± {value.std_error:.1%}")


def as_json(world: WorldPlan, rows: Sequence[Found]) -> dict[str, Any]:
    """All rows, and the summaries by pair and mode."""
    pairs = dict.fromkeys(row.pair for row in rows)
    by_pair = {pair: summaries([row for row in rows if row.pair == pair]) for pair in pairs}
    plain = {
        pair: {
            mode: each._asdict() | {"bias": each.bias._asdict(), "paired": each.paired._asdict()}
            for mode, each in modes.items()
        }
        for pair, modes in by_pair.items()
    }
    size = {"users": world.users, "items": world.items, "days": world.days, "warmup_days": world.warmup_days}
    return {"world": size, "pairs": plain, "rows": [row._asdict() for row in rows]}


def measure(pairs: Sequence[str], world: WorldPlan, seeds: Sequence[int], jobs: int) -> Iterator[list[Found]]:
    """The rows of each pair and seed, seed by seed."""
    for seed in seeds:
        for pair in pairs:
            yield of_seed(pair, world, seed, jobs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all rows here, anew after each seed")
    parser.add_argument("--seed", type=int, default=0, help="of the first world")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--pairs", default=",".join(PAIRS), help=f"of {', '.join(PAIRS)}")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="the least of everything: does it run?")
    options = parser.parse_args()
    if options.seeds < 1 or options.jobs < 1 or options.seed < 0:
        parser.error("--seeds and --jobs are 1 at least, and --seed is not negative")
    pairs = options.pairs.split(",")
    unknown = sorted(set(pairs) - set(PAIRS))
    if unknown:
        parser.error(f"there is no pair '{unknown[0]}'; there are {', '.join(PAIRS)}")
    world = QUICK if options.quick else WORLD
    rows: list[Found] = []
    for new in measure(pairs, world, range(options.seed, options.seed + options.seeds), options.jobs):
        rows += new
        sys.stderr.write(f"{new[0].pair}, seed {new[0].seed}: true effect {new[0].truth:+.1%}\n")
        if options.json is not None:
            options.json.write_text(json.dumps(as_json(world, rows), indent=1) + "\n")
    for pair in pairs:
        sys.stdout.write(shown(pair, [row for row in rows if row.pair == pair]) + "\n")


if __name__ == "__main__":
    main()
