"""`driftline experiment plan` and `aa`, on a state as the collector saves it."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

from abtest.analyse.one_look import users_of, verdicts_on
from abtest.collect.parts import Share
from abtest.collect.rules import Rules
from abtest.collect.state import CollectorState
from abtest.collect.store import Saved, save
from abtest.plan import power
from abtest.stats.metrics import Mean
from contracts.config.experiment import AnalysisPlan
from contracts.config.settings import load
from contracts.runtime.clock import DAY_MS
from driftline.cli.app import app
from driftline.errors import UsageError
from tests.abtest.abtest_cases import START, experiment, observe, week
from tests.contracts.config.test_settings import sound


def run(*arguments: object):
    return CliRunner().invoke(app, ["experiment", *map(str, arguments)])


def settings_with(folder: Path, events, **changes) -> Path:
    """Settings of an experiment whose collector has taken `events` in."""
    spec = experiment(**changes).model_dump(mode="json")
    path = folder / "s.yaml"
    path.write_text(yaml.safe_dump({**sound(), "state": str(folder / "state"), "experiment": spec}))
    loaded = load(path)
    save(Saved(observe(CollectorState(Rules.of(loaded)), *events)), Share().path(loaded))
    return path


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    return settings_with(tmp_path, week(users=120))


def test_the_experiments_own_users_are_shuffled_and_keep_the_level(settings: Path) -> None:
    shown = run("aa", "-s", settings, "--replicates", 200)
    assert shown.exit_code == 0, shown.output
    assert "120 users, shuffled into two halves 200 times" in shown.stdout
    assert "not testable" in shown.stdout  # no recall was timed
    found = json.loads(run("aa", "-s", settings, "--replicates", 200, "--json").stdout)
    levels = {(level["metric"], level["by_cuped"]): level for level in found["levels"]}
    assert levels["evr", False]["trusted"]
    assert levels["evr", False]["low"] < 0.05 < levels["evr", False]["high"]
    assert found["trusted"]
    assert found["alpha"] == 0.05
    assert found["verdicts"]["replicates"] == 200
    assert found["verdicts"]["ship"] <= 0.06
    assert (
        "The verdict on 200 weeks of 120 shuffled users of this experiment, in which no arm differs, in one look: ship"
        in shown.stdout
    )
    out = settings.parent / "out"
    run("report", "-s", settings, "--out", out)
    for name in ("report.md", "report.html"):  # beside the verdict, since `aa` was run
        assert "The verdict on 200 weeks of 120 shuffled users" in (out / name).read_text()


def rows_of(users: int) -> pd.DataFrame:
    user, day = np.divmod(np.arange(users * 3), 3)
    arm = np.where(user % 2 == 0, "control", "treatment")
    views = {"views": 10, "effective_views": (user * 7 + day) % 10}
    return pd.DataFrame({"user_id": user, "arm": arm, "day": day, **views})


def test_what_aa_found_stands_in_reports_on_rows_and_aggregates_of_the_same_shape(tmp_path: Path) -> None:
    """Those that are made with the settings of the collector on whose users it was measured."""
    evr = [{"name": "evr", "kind": "ratio", "columns": ["effective_views", "views"], "role": "primary"}]
    settings = settings_with(tmp_path, week(users=120), days=3, metrics=evr)
    alone = tmp_path / "alone.yaml"
    alone.write_text(yaml.safe_dump(yaml.safe_load(settings.read_text())["experiment"]))
    for users in (200, 300):
        rows_of(users).to_parquet(tmp_path / f"{users}.parquet")
    out, aggregate = tmp_path / "out", tmp_path / "saved.npz"

    def said(file: Path, *arguments: object) -> bool:
        assert run("report", "-s", file, *arguments, "--out", out).exit_code == 0
        found = [(out / name).read_text() for name in ("report.md", "report.html")]
        there = {"The verdict on 200 weeks of 120 shuffled users" in each for each in found}
        return there == {True}

    rows = ("--data", tmp_path / "200.parquet")
    assert not said(settings, *rows)
    assert run("aa", "-s", settings, "--replicates", 200).exit_code == 0
    assert said(settings)
    assert said(settings, *rows, "--save-state", aggregate)
    assert said(settings, "--state", aggregate)
    assert said(settings, *rows, "--keep", tmp_path / "kept")
    assert not said(settings, "--data", tmp_path / "300.parquet")  # more than twice as many users
    assert not said(alone, *rows)  # an experiment's file has no state


def test_a_rate_that_is_off_ends_with_2(tmp_path: Path) -> None:
    """One user holds nearly all follows, so whichever half has it is ahead, and never significantly so."""
    events = week(users=40)
    for event in events:
        if hasattr(event, "follow"):
            event.follow = event.user_id == 7 or event.event_id == events[1].event_id
    shown = run("aa", "-s", settings_with(tmp_path, events), "--replicates", 400)
    assert shown.exit_code == 2, shown.output
    assert "follow_rate is significant too rarely" in shown.stdout


def test_a_handful_of_replicates_makes_nothing_trusted(settings: Path) -> None:
    shown = run("aa", "-s", settings, "--replicates", 5)
    assert shown.exit_code == 0, shown.output
    assert "5 replicates are too few to tell, at least 104 are needed" in shown.stdout
    assert "No metric can be called trusted. At alpha 5 %, at least 104 replicates tell." in shown.stdout
    assert "yes" not in [cell for row in shown.stdout.splitlines() for cell in row.split()[-1:]]
    found = json.loads(run("aa", "-s", settings, "--replicates", 5, "--json").stdout)
    assert found["trusted"] is None
    assert all(level["trusted"] is None for level in found["levels"])


def test_nobody_to_shuffle_is_one_sentence(tmp_path: Path) -> None:
    shown = run("aa", "-s", settings_with(tmp_path, []))
    assert shown.exit_code != 0
    assert "0 users in an arm" in str(shown.exception)


def planned(*arguments: object):
    shown = run("plan", *arguments, "--json")
    assert shown.exit_code == 0, shown.output
    return {line["metric"]: line for line in json.loads(shown.stdout)["metrics"]}


def test_a_plan_from_numbers_is_the_textbook_one(settings: Path) -> None:
    (line,) = planned(settings, "--rate", 0.2, "--effect", 0.1, "--users-per-day", 1000, "--days", 14).values()
    assert line["metric"] == "evr"
    each = (1.959964 + 0.841621) ** 2 * (0.8 / 0.2 + 0.78 / 0.22) / math.log(1.1) ** 2  # of each arm its own variance
    assert line["users_per_arm"] == {"control": math.ceil(each), "treatment": math.ceil(each)}
    assert line["days_needed"] == math.ceil(2 * each / 1000)
    least = math.log1p(line["minimum_detectable"])
    spread = 0.8 / 0.2 + (1 - 0.2 * math.exp(least)) / (0.2 * math.exp(least))
    assert least == pytest.approx((1.959964 + 0.841621) * math.sqrt(spread / 7000), rel=1e-6)


def test_a_share_that_falls_needs_more_users_than_the_control_s_variance_says(settings: Path) -> None:
    """5 % to 4.5 %: 26,869 users an arm by the variance of 5 % in both, 28,440 by each arm's own."""
    metrics = [
        {"name": "conv", "kind": "mean", "columns": ["conv"], "role": "primary", "direction": "decrease"},
        {"name": "p90", "kind": "quantile", "columns": ["conv"], "q": 0.9},
    ]
    spec = yaml.safe_load(settings.read_text())
    spec["experiment"]["metrics"] = metrics
    settings.write_text(yaml.safe_dump(spec))
    (line,) = planned(settings, "--rate", 0.05, "--effect", 0.1, "--users-per-day", 5000, "--days", 14).values()
    each = (1.959964 + 0.841621) ** 2 * (0.95 / 0.05 + 0.955 / 0.045) / math.log(0.9) ** 2
    assert line["users_per_arm"]["control"] == math.ceil(each) == 28_440
    for arguments, said in (
        (["--effect", 5], "--effect is 5, which is 500 %: conv cannot fall by 100 % or more; 0.01 is 1 %."),
        (["--effect", 1], "conv cannot fall by 100 % or more"),
        (["--effect", 0], "--effect is 0; it must be above 0"),
        (["--effect", "-0.1"], "--effect is -0.1; it must be above 0"),
        (["--effect", "nan"], "--effect is nan; it must be above 0"),
        (["--effect", "inf"], "--effect is inf; it must be above 0"),
        (["--effect", 0.1, "--metric", "p90"], "Metric 'p90' is a quantile; means and ratios can be planned for."),
    ):
        shown = run("plan", settings, "--rate", 0.05, "--users-per-day", 5000, *arguments)
        assert isinstance(shown.exception, UsageError), arguments
        assert said in str(shown.exception)


def test_a_share_of_users_cannot_rise_above_all_of_them(settings: Path) -> None:
    for effect in (1, 5):
        shown = run("plan", settings, "--rate", 0.5, "--users-per-day", 5000, "--effect", effect)
        assert isinstance(shown.exception, UsageError)
        assert "a share of 50 % of users cannot rise by that" in str(shown.exception)


def test_a_plan_from_an_experiment_that_runs_goes_by_its_users_and_days(settings: Path) -> None:
    found = planned(settings, "--effect", 0.05)
    evr = found["evr"]
    assert evr["users"] == 120
    assert len(evr["minimum_detectable_by_day"]) == 7  # planned; three are known
    assert evr["minimum_detectable_by_day"] == sorted(evr["minimum_detectable_by_day"], reverse=True)
    assert evr["users_by_day"][2] == 120
    more = planned(settings, "--effect", 0.05, "--users-per-day", 4000)["evr"]
    assert more["users_by_day"][2] == 12_000
    assert more["minimum_detectable"] < evr["minimum_detectable"]
    assert found["latency"]["reason"] == "no timed"
    assert found["follow_rate"]["events"] > 0
    assert found["follow_rate"]["minimum_detectable"] > evr["minimum_detectable"]


def test_what_cannot_be_found_is_said(settings: Path) -> None:
    shown = run("plan", settings, "--effect", 0.001)
    assert shown.exit_code == 0, shown.output
    assert "evr needs" in shown.stdout
    assert "nothing is likely to be found in 7 days. It rests on" in shown.stdout
    assert "latency cannot be planned for: no timed." in shown.stdout


def test_a_plan_from_before_the_start(tmp_path: Path) -> None:
    """The same little week, seen as the days before an experiment that takes a quarter of the users."""
    begins = START + 3 * DAY_MS
    settings = settings_with(tmp_path, week(users=120), start_ms=begins, end_ms=begins + 7 * DAY_MS, slots=(0.0, 0.25))
    found = planned(settings, "--effect", 0.05)
    assert found["evr"]["users"] == 120
    assert found["evr"]["users_by_day"][-1] == 30
    assert found["app_usage"]["reason"] == "nothing is known of usage_s before the start"
    more = planned(settings, "--effect", 0.05, "--users-per-day", 700)["evr"]
    assert more["users_by_day"][-1] == 4900


CAPPED = {"name": "play", "kind": "mean", "columns": ["play_s"], "role": "primary", "winsorize": {"quantile": 0.8}}


def test_a_capped_metric_is_planned_for_and_replayed_by_its_capped_sums(tmp_path: Path) -> None:
    plain = {**CAPPED, "name": "whole", "role": "diagnostic", "winsorize": None}
    fixed = {**CAPPED, "name": "fixed", "role": "diagnostic", "winsorize": {"at": 24}}
    settings = settings_with(tmp_path, week(users=120), metrics=[CAPPED, plain, fixed])
    found = planned(settings, "--effect", 0.05)
    assert found["play"]["value"] < found["whole"]["value"]
    assert found["play"]["minimum_detectable"] < found["whole"]["minimum_detectable"]
    shown = run("aa", "-s", settings, "--replicates", 120, "--json")
    assert shown.exit_code == 0, shown.output
    levels = {level["metric"]: level for level in json.loads(shown.stdout)["levels"]}
    assert levels["play"]["trusted"]
    assert levels["fixed"]["uniform_p"] != levels["whole"]["uniform_p"]


def test_a_capped_metric_is_planned_for_from_the_days_before_the_start(tmp_path: Path) -> None:
    begins = START + 3 * DAY_MS
    fixed = {**CAPPED, "name": "fixed", "role": "diagnostic", "winsorize": {"at": 5}}
    before = {**CAPPED, "name": "before", "role": "diagnostic", "winsorize": {"quantile": 0.8, "of": "pre"}}
    whole = {**CAPPED, "name": "whole", "role": "diagnostic", "winsorize": None}
    changes = {"start_ms": begins, "end_ms": begins + 7 * DAY_MS, "metrics": [CAPPED, fixed, before, whole]}
    found = planned(settings_with(tmp_path, week(users=120), **changes), "--effect", 0.05)
    assert found["play"]["value"] == found["before"]["value"] < found["whole"]["value"]
    assert found["fixed"]["value"] <= 5
    unknown = {**CAPPED, "columns": ["usage_s"], "winsorize": {"quantile": 0.8, "of": "pre"}}
    shown = run("plan", settings_with(tmp_path, week(users=120), metrics=[unknown]), "--effect", 0.05)
    assert "there is no 'pre.usage_s'" in str(shown.exception)


def test_looks_cost_users(tmp_path: Path) -> None:
    settings = settings_with(tmp_path, week(users=120), analysis={"kind": "group-sequential"})
    shown = run("plan", settings, "--effect", 0.05)
    assert "more users than one look at the end" in shown.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--rate", 0.2], "needs --users-per-day"),
        (["--rate", 1.2, "--users-per-day", 9], "between 0 and 1"),
        (["--mean", 2, "--users-per-day", 9], "--mean with --sd"),
        (["--metric", "nothing"], "no metric 'nothing'"),
        *(
            ([option, value, *others, "--users-per-day", 9], f"{option} is {float(value):g}; it must")
            for option, others in (
                ("--sd", ["--mean", 2]),
                ("--mean", ["--sd", 2]),
                ("--rate", []),
                ("--effect", ["--rate", 0.2]),
            )
            for value in ("inf", "-inf", "nan", "-1", "0", "1e300", "1e-300", "5e-324")
        ),
        *(
            (["--rate", 0.2, "--users-per-day", value], f"--users-per-day is {float(value):g}; it must be a number")
            for value in ("inf", "-inf", "nan", "-1", "0", "1e300")
        ),
        (["--mean", 1, "--sd", 1e9, "--users-per-day", 9], "one must not be more than 1,000,000 times the other"),
        (["--mean", 1e9, "--sd", 1, "--users-per-day", 9], "one must not be more than 1,000,000 times the other"),
    ],
)
def test_what_makes_no_plan_is_one_sentence(settings: Path, arguments: list[object], said: str) -> None:
    shown = run("plan", settings, *arguments)
    assert shown.exit_code != 0
    assert said in str(shown.exception)


def test_a_plan_from_rows_and_from_the_aggregate_that_was_saved_of_them(tmp_path: Path) -> None:
    metrics = [{"name": "play", "kind": "mean", "columns": ["play_s"], "role": "primary", "minimum_effect": 0.02}]
    file = tmp_path / "e.yaml"
    file.write_text(yaml.safe_dump(experiment().model_dump(mode="json") | {"metrics": metrics}))
    random = np.random.default_rng(4)
    user, day = np.nonzero(random.random((400, 7)) < 0.6)
    arm = np.where(user % 2 == 0, "control", "treatment")
    rows = pd.DataFrame({"user_id": user, "arm": arm, "day": day, "play_s": random.exponential(60.0, len(user))})
    rows.to_parquet(tmp_path / "days.parquet", index=False)
    assert (
        run(
            "report",
            "-s",
            file,
            "--data",
            tmp_path / "days.parquet",
            "--out",
            tmp_path,
            "--save-state",
            tmp_path / "saved.npz",
        ).exit_code
        == 0
    )
    one, other = (
        planned(file, option, tmp_path / name)["play"]
        for option, name in (("--data", "days.parquet"), ("--state", "saved.npz"))
    )
    assert one == other
    sums = rows.groupby("user_id")["play_s"].sum()
    assert one["value"] == pytest.approx(sums.mean())
    spread = sums.var() / sums.mean() ** 2
    least = math.expm1((1.959964 + 0.841621) * math.sqrt(4 * spread / len(sums)))
    assert one["minimum_detectable"] == pytest.approx(least, rel=1e-6)
    assert one["users_by_day"][-1] == len(sums)
    metrics[0]["winsorize"] = {"at": 300}  # the rows can be capped, and what was saved of them cannot
    file.write_text(yaml.safe_dump(experiment().model_dump(mode="json") | {"metrics": metrics}))
    capped = planned(file, "--data", tmp_path / "days.parquet")["play"]
    assert capped["value"] == pytest.approx(sums.clip(upper=300).mean())
    shown = planned(file, "--state", tmp_path / "saved.npz")["play"]
    assert shown["reason"] == "the data have no column 'play_s capped at 300'"


def test_two_baselines_are_refused(settings: Path) -> None:
    shown = run("plan", settings, "--rate", 0.2, "--users-per-day", 9, "--state", "x.npz")
    assert "Give one baseline" in str(shown.exception)


def test_an_experiments_file_alone_has_no_baseline(tmp_path: Path) -> None:
    (tmp_path / "e.yaml").write_text(yaml.safe_dump(experiment().model_dump(mode="json")))
    assert "There is no baseline" in str(run("plan", tmp_path / "e.yaml").exception)


@pytest.mark.parametrize(
    ("arguments", "least", "days"),
    [
        (["--mean", 5, "--sd", 0.01, "--effect", 0.5], 20, 1),  # as few users as a normal approximation may have
        (["--mean", 5, "--sd", 3, "--effect", 5], 34, 1),  # the largest of 34 gamma distributed has a tenth at most
        (["--mean", 5, "--sd", 50, "--effect", 5], 4338, 9),
        (["--rate", 0.01, "--effect", 5], 2340, 5),  # 23.6 events expected, so that there are 20 in four cases of five
        (["--rate", 0.8, "--effect", 0.24], 20, 1),
    ],
)
def test_a_plan_has_as_many_users_as_the_verdicts_rule_needs(
    settings: Path, arguments: list[object], least, days
) -> None:
    found = planned(settings, *arguments, "--users-per-day", 1000)["evr"]
    assert set(found["users_per_arm"].values()) == {max(least, min(found["users_per_arm"].values()))}
    assert found["least_users"] == least
    assert found["days_needed"] == days
    shown = run("plan", settings, *arguments, "--users-per-day", 1000)
    binding = set(found["users_per_arm"].values()) == {least}
    assert (f"an arm needs {least:,} users for the verdict's rule" in " ".join(shown.stdout.split())) is binding


def shares(random: np.random.Generator, users: int) -> dict[str, np.ndarray]:
    return {arm: (random.random((users, 1)) < rate).astype(float) for arm, rate in (("a", 0.02), ("b", 0.12))}


def spends(random: np.random.Generator, users: int) -> dict[str, np.ndarray]:
    """Exponentially distributed: a standard deviation as large as the mean."""
    return {arm: random.exponential(mean, (users, 1)) for arm, mean in (("a", 1.0), ("b", 6.0))}


@pytest.mark.parametrize(("draw", "spread", "rate"), [(shares, 49.0, 0.02), (spends, 1.0, None)])
def test_what_a_plan_says_is_enough_ships_a_large_effect_with_the_plans_power(draw, spread, rate) -> None:
    """Of 200 weeks; half as many users ship next to none of them, however large the effect."""
    plan = power.plan(power.steady(1.0, spread, 2000, 1), {"a": 1, "b": 1}, "a", 5.0, rate=rate)
    assert plan.by_rule
    metric = Mean("x", "x", "", "", "x", role="primary")

    def shipped(users: int) -> float:
        random, ships = np.random.default_rng(0), 0
        for _ in range(200):
            given = users_of(("x",), draw(random, users))
            (verdict,) = verdicts_on([metric], given, "a", AnalysisPlan(cuped=False))
            ships += verdict.decision == "ship"
        return ships / 200

    assert shipped(plan.users["a"]) == pytest.approx(plan.power, abs=0.08)
    assert shipped(plan.users["a"] // 2) < 0.1


def test_more_users_than_there_are_is_said_and_is_no_number(settings: Path) -> None:
    arguments = ("--mean", 1, "--sd", 1e6, "--effect", 1e-6, "--users-per-day", 1000)
    found = planned(settings, *arguments)["evr"]
    assert (found["users_per_arm"], found["days_needed"], found["minimum_detectable"]) == (None, None, None)
    shown = run("plan", settings, *arguments).stdout
    assert "over 1,000,000,000,000,000" in shown
    assert "evr needs more users than ever come to find 0.0001 %. Nothing is likely to be found in" in shown
