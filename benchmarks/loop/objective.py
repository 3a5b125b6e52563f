"""The frontier of effective views against play time, by what the learner is told to want (`trainer.objective`).

    python -m benchmarks.loop.objective [--wanted 1:0,1:1,1:3,0:1] [--models two_tower] [--seeds 2]
        [--data KUAIRAND_PURE --kuairand-days 3] [--settings FILE] [--jobs 2] [--json FILE] [--quick]

A policy is a model and a pair EFFECTIVE_VIEW:PLAY of weights, given to everybody in the laboratory, without a gate so
that only what is wanted differs. Each is compared with the first one, the first model by the first pair, on the same
users: over users with one seed, over seeds with several.

Two tables a world: what each policy earned and what its pages were like, and where its play time comes from. There the
difference in play time by item shown is split by the length of the items (Kitagawa, Components of a Difference Between
Two Rates, JASA 1955): `mix` is owed to showing items of other lengths, each length playing as long as it does in the
mean of both policies; `within` to items that play longer or shorter than others of their length. Responses are
simulated.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np

from benchmarks.options import folder
from contracts.config.experiment import validated
from contracts.config.settings import ModelName, ObjectiveSettings, SettingsError, TrainerSettings
from evaluation.lab.plan import PolicyPlan, Run, WorldPlan, policy_plan
from evaluation.lab.report import by_policy
from evaluation.lab.results import RATES, Difference, Outcome, Rate, difference, over_seeds
from evaluation.lab.runs import plan_runs, simulate
from evaluation.lab.settings import read_settings
from evaluation.markdown import table
from world.base import Doubles

MODELS: tuple[ModelName, ...] = get_args(ModelName)
LENGTHS_S = (7, 12, 18, 30, 60, 120, 240)  # ends of the classes of duration, near those of KuaiRand's response model
CLASSES = (*(f"to {end} s" for end in LENGTHS_S), f"above {LENGTHS_S[-1]} s")
QUICK = WorldPlan(days=1, warmup_days=1, users=60, items=150)
QUICK_KUAIRAND = {"days": 1, "users": 1500}


class Length(NamedTuple):
    """By class of duration, each (L,); items whose duration is not known are left out."""

    share: Doubles  # of the places
    evr: Doubles  # not a number where nothing was shown
    play_s: Doubles  # by item shown; likewise


class Split(NamedTuple):
    """A relative difference in play time by item shown, in two parts that sum to it."""

    mix: float
    within: float


def by_length(week: Outcome) -> Length:
    """What was shown of each length, and what came of it."""
    shown = week.shown
    known = shown.durations_ms > 0
    ends_ms = 1000 * np.array(LENGTHS_S)
    of = np.digitize(shown.durations_ms[known], ends_ms, right=True)
    views, effective, play_ms = (
        np.bincount(of, each[known], len(CLASSES)) for each in (shown.views, shown.effective, shown.item_play_ms)
    )
    with np.errstate(invalid="ignore"):
        return Length(views / views.sum(), effective / views, play_ms / views / 1000)


def split(of: Outcome, beside: Outcome) -> Split:
    """How much of the difference in play time is owed to the lengths of what is shown."""
    ours, theirs = by_length(of), by_length(beside)
    # Where one of them shows nothing of a length, the other says how long that plays.
    plays = np.where(np.isnan(ours.play_s), theirs.play_s, ours.play_s)
    other_plays = np.where(np.isnan(theirs.play_s), ours.play_s, theirs.play_s)
    mix = np.nansum((ours.share - theirs.share) * (plays + other_plays) / 2)
    within = np.nansum((plays - other_plays) * (ours.share + theirs.share) / 2)
    whole = np.nansum(theirs.share * theirs.play_s)
    return Split(float(mix / whole), float(within / whole))


def policies(
    models: Sequence[ModelName], wanted: Sequence[tuple[float, float]], trainer: TrainerSettings
) -> list[PolicyPlan]:
    """A policy of each model by each pair of weights; its name is the model and the pair.

    Raises:
        SettingsError: a pair cannot be wanted.

    """
    plans = []
    for model in models:
        for effective_view, play in wanted:
            changed = trainer.objective.model_dump() | {"effective_view": effective_view, "play": play}
            objective = validated(ObjectiveSettings, changed, f"{effective_view:g}:{play:g}")
            plan = policy_plan("online-no-gate", model, trainer.model_copy(update={"objective": objective}))
            plans.append(replace(plan, name=f"{model} {effective_view:g}:{play:g}"))
    return plans


def pairs(weeks: Mapping[str, Sequence[Outcome]], rate: Rate) -> dict[str, list[Difference]]:
    """Of each policy but the first, its difference to the first by one rate, seed by seed."""
    first, *others = weeks
    return {
        name: [difference(of, beside, rate) for of, beside in zip(weeks[name], weeks[first], strict=True)]
        for name in others
    }


def frontier(weeks: Mapping[str, Sequence[Outcome]]) -> str:
    """What each policy earned and what its pages were like, in Markdown."""
    apart = {rate: pairs(weeks, rate) for rate in RATES}
    rows = []
    for name, each in weeks.items():
        shown = [week.shown for week in each]
        rows.append(
            (
                name,
                f"{_mean([week.evr for week in each]):.4f}".removeprefix("0"),
                _relative(apart["evr"].get(name)),
                f"{_mean([week.rate('play_s') for week in each]):.2f}",
                _relative(apart["play_s"].get(name)),
                f"{1000 * _mean([week.rate('follow_rate') for week in each]):.2f}",
                f"{_mean([one.duration_s for one in shown]):.1f}",
                f"{_mean([one.items for one in shown]):,.0f}",
                f"{_mean([one.top_share for one in shown]):.1%}",
                f"{_mean([one.mean_overlap for one in shown]):.3f}",
            )
        )
    header = (
        "wanted", "EVR", "beside the first", "play, s", "beside the first", "follows per 1,000", "duration, s",
        "different items", "top 1 %", "overlap",
    )  # fmt: skip
    return table(header, rows)


def lengths(weeks: Mapping[str, Sequence[Outcome]]) -> str:
    """Where play time comes from, of the first seed, in Markdown: of each class of duration share, EVR, play time."""
    first = next(iter(weeks))
    rows = []
    for name, (week, *_) in weeks.items():
        found = by_length(week)
        cells = [
            f"{share:.0%}, {'' if np.isnan(evr) else f'{evr:.2f}'.removeprefix('0')}, {play:.0f} s" if share else "0"
            for share, evr, play in zip(*found, strict=True)
        ]
        parts = ("", "") if name == first else tuple(f"{part:+.1%}" for part in split(week, weeks[first][0]))
        rows.append((name, *cells, *parts))
    return table(("share, EVR, play", *CLASSES, "mix", "within"), rows)


def shown(world: str, weeks: Mapping[str, Sequence[Outcome]]) -> str:
    """A world's tables."""
    return f"{world}:\n\n{frontier(weeks)}\n\n{lengths(weeks)}\n"


def as_json(plan: WorldPlan, weeks: Mapping[str, Sequence[Outcome]]) -> dict[str, Any]:
    """Every week of a world, and its differences to the first policy's."""
    size = {"days": plan.days, "warmup_days": plan.warmup_days, "users": plan.users, "items": plan.items}
    first = next(iter(weeks))
    return {
        "world": size,
        "weeks": [
            {
                "policy": name,
                "seed": week.seed,
                **{rate: week.rate(rate) for rate in RATES},
                "duration_s": week.shown.duration_s,
                "items": week.shown.items,
                "top_share": week.shown.top_share,
                "overlap": week.shown.mean_overlap,
                "by_length": {
                    kind: [None if np.isnan(value) else round(value, 5) for value in values.tolist()]
                    for kind, values in by_length(week)._asdict().items()
                },
                "play_time_split": None if name == first else split(week, beside)._asdict(),
                "cpu_s": round(week.cpu_s, 1),
            }
            for name, each in weeks.items()
            for week, beside in zip(each, weeks[first], strict=True)
        ],
        "beside_the_first": {
            rate: [one._asdict() for each in pairs(weeks, rate).values() for one in each]
            for rate in RATES
            if rate != "follow_rate"  # so rare that a short week may have none
        },
    }


def _mean(values: Sequence[float]) -> float:
    return over_seeds(values).mean


def _relative(found: Sequence[Difference] | None) -> str:
    if not found:
        return ""
    if len(found) == 1:
        return f"{found[0].relative:+.1%} [{found[0].relative_low:+.1%}, {found[0].relative_high:+.1%}]"
    over = over_seeds([each.relative for each in found])
    return f"{over.mean:+.1%} ± {over.std_error:.1%}"


def _pair(text: str) -> tuple[float, float]:
    effective_view, _, play = text.partition(":")
    try:
        return float(effective_view), float(play)
    except ValueError as error:
        raise SettingsError(f"'{text}' is no pair EFFECTIVE_VIEW:PLAY.") from error


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures here, anew after each seed")
    parser.add_argument("--wanted", default="1:0,1:1,1:3,0:1", help="pairs EFFECTIVE_VIEW:PLAY")
    parser.add_argument("--models", default="two_tower", help=f"of {', '.join(MODELS)}")
    parser.add_argument("--seed", type=int, default=0, help="of the first world")
    parser.add_argument("--seeds", type=int, default=2, help="of the synthetic world; 0 leaves it out")
    parser.add_argument("--kuairand-seeds", type=int, default=1, help="its users are the same, its responses are not")
    parser.add_argument("--data", type=folder, help="the KuaiRand-Pure folder; without it that world is left out")
    parser.add_argument("--kuairand-days", type=int, default=3, help="of its experiment")
    parser.add_argument("--settings", type=Path, help="of the learner: a settings file, or its section trainer")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="the least of everything: does it run?")
    options = parser.parse_args()
    if min(options.kuairand_seeds, options.jobs, options.kuairand_days) < 1 or min(options.seeds, options.seed) < 0:
        parser.error("--kuairand-seeds, --kuairand-days and --jobs are 1 at least, --seed and --seeds not negative")
    models = [model for name in options.models.split(",") for model in MODELS if model == name]
    if len(models) != len(options.models.split(",")):
        parser.error(f"--models are of {', '.join(MODELS)}")
    try:
        wanted = [_pair(text) for text in options.wanted.split(",")]
        trainer = read_settings(options.settings).trainer if options.settings else TrainerSettings()
        planned = policies(models, wanted, trainer)
    except SettingsError as error:
        parser.error(str(error))
    worlds = {"synthetic": (QUICK if options.quick else WorldPlan(), options.seeds)} if options.seeds else {}
    if options.data is not None:
        size = QUICK_KUAIRAND if options.quick else {"days": options.kuairand_days}
        worlds["KuaiRand-Pure"] = (WorldPlan(data=options.data, **size), options.kuairand_seeds)

    def tell(run: Run, share: float) -> None:
        if share >= 1:
            sys.stderr.write(f"{run}\n")

    content = {}
    for world, (plan, seeds) in worlds.items():
        outcomes: list[Outcome] = []
        for seed in range(options.seed, options.seed + seeds):
            outcomes += simulate(plan_runs(plan, [seed], planned, shared=False), options.jobs, tell)
            content[world] = as_json(plan, by_policy(outcomes))
            if options.json is not None:
                options.json.write_text(json.dumps(content, indent=1) + "\n")
        sys.stdout.write(shown(world, by_policy(outcomes)) + "\n")


if __name__ == "__main__":
    main()
