"""`abtest.plan_power`, `aa` and `assign`: what the commands say, and the sentence on what cannot be used."""

import json
import math
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

import abtest
from abtest.assignment.assign import assign as assigned
from abtest.assignment.assign import bucket
from contracts.config.experiment import Experiment, validated
from contracts.messages.ids import id_of_text
from driftline.cli.app import app

OURS = {
    "name": "week",
    "salt": "week",
    "start": "2026-03-01T00:00:00+00:00",
    "end": "2026-03-08T00:00:00+00:00",
    "arms": {"control": {"weight": 1, "model": "two_tower"}, "treatment": {"weight": 1, "model": "t2diff"}},
    "control": "control",
    "metrics": [{"name": "play", "kind": "mean", "columns": ["play_s"], "role": "primary", "minimum_effect": 0.1}],
}
TABLE = {
    "columns": {"user": "uid", "arm": "variant"},
    "control": "a",
    "metrics": [{"name": "bought", "kind": "conversion"}, {"name": "spend", "kind": "revenue"}],
}


@pytest.fixture
def shop() -> pd.DataFrame:
    random = np.random.default_rng(2)
    bought = random.random(3_000) < 0.2
    return pd.DataFrame(
        {
            "uid": range(3_000),
            "variant": np.where(random.random(3_000) < 0.5, "a", "b"),
            "bought": bought,
            "spend": np.where(bought, random.exponential(20, 3_000), 0.0),
        }
    )


def command(tmp_path, plan, *options):
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan))
    shown = CliRunner().invoke(app, ["experiment", "plan", str(tmp_path / "plan.yaml"), *options, "--json"])
    assert shown.exit_code == 0, shown.output
    return json.loads(shown.stdout)


def test_a_plan_from_numbers_is_the_command_s(tmp_path):
    ours = abtest.plan_power(OURS, mean=60, sd=90, users_per_day=2_000)
    theirs = command(tmp_path, OURS, "--mean", "60", "--sd", "90", "--users-per-day", "2000")
    assert json.loads(json.dumps(ours.to_json())) == theirs


def test_a_plan_from_rows_is_the_command_s(tmp_path):
    random = np.random.default_rng(4)
    user, day = np.nonzero(random.random((300, 7)) < 0.6)
    arm = np.where(user % 2 == 0, "control", "treatment")
    rows = pd.DataFrame({"user_id": user, "arm": arm, "day": day, "play_s": random.exponential(60.0, len(user))})
    rows.to_parquet(tmp_path / "rows.parquet")
    ours = json.loads(json.dumps(abtest.plan_power(OURS, rows, days=14).to_json()))
    theirs = command(tmp_path, OURS, "--data", str(tmp_path / "rows.parquet"), "--days", "14")
    assert ours["metrics"] == theirs["metrics"]


def test_a_table_of_one_s_own_is_planned_from(shop):
    power = abtest.plan_power(TABLE, shop, effect=0.1)
    frame = power.to_frame()
    assert frame["metric"].tolist() == ["bought", "spend"]
    assert frame["value"][0] == pytest.approx(shop["bought"].mean())
    assert frame["users_per_arm"][1]["a"] > frame["users_per_arm"][0]["a"]  # spend varies more
    assert "bought" in power._repr_html_()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "Give one baseline: a frame, or mean with sd, or rate alone."),
        ({"rate": 2.0, "users_per_day": 9}, "rate is 2; it must lie between 0 and 1"),
        ({"mean": 1.0, "users_per_day": 9}, "A baseline in numbers is mean with sd, or rate alone."),
        ({"rate": 0.5}, "A baseline in numbers needs users_per_day, 1 or more."),
        ({"rate": 0.5, "users_per_day": 9, "effect": -1}, "effect is -1; it must be above 0"),
        ({"rate": 0.5, "users_per_day": 9, "effect": 3}, "effect is 3, which is 300 %"),
        ({"rate": 0.5, "users_per_day": 9, "days": 0}, "days is 0; it must be a whole number from 1 to 90."),
        ({"rate": 0.5, "users_per_day": 9, "days": 7.5}, "days is 7.5; it must be a whole number from 1 to 90."),
        ({"rate": 0.5, "users_per_day": 9, "days": "7"}, "days is '7'; it must be a whole number from 1 to 90."),
        ({"rate": 0.5, "users_per_day": math.inf, "days": 7}, "users_per_day is inf; it must lie between 1 and"),
        ({"rate": 0.5, "users_per_day": math.nan, "days": 7}, "users_per_day is nan; it must lie between 1 and"),
        ({"rate": 0.5, "users_per_day": "9", "days": 7}, "users_per_day is '9'; it must be a number."),
        ({"rate": "half", "users_per_day": 9, "days": 7}, "rate is 'half'; it must be a number."),
        ({"rate": 0.5, "users_per_day": 9, "days": 7, "effect": True}, "effect is True; it must be a number."),
    ],
)
def test_numbers_that_cannot_be_planned_by_are_named_as_they_were_given(given, said):
    with pytest.raises(abtest.SettingsError) as refused:
        abtest.plan_power(OURS, **given)
    assert said in str(refused.value)


def test_without_rows_arms_and_days_have_to_be_named():
    with pytest.raises(abtest.SettingsError, match="There are no rows to tell the arms"):
        abtest.plan_power(TABLE, rate=0.1, users_per_day=9, days=7)
    with pytest.raises(abtest.SettingsError, match="There are no rows to tell the days"):
        abtest.plan_power({**TABLE, "arms": ["a", "b"]}, rate=0.1, users_per_day=9)


def test_shuffled_users_differ_as_often_as_alpha_says(shop):
    found = abtest.aa(shop, TABLE, replicates=300, seed=1)
    assert [level.metric for level in found.levels] == ["bought", "spend"]
    assert found.trusted is True
    assert found.verdicts.users == 3_000
    assert found.to_frame()["false_positives"].max() < 0.1
    assert found.to_json() == abtest.aa(shop, TABLE, replicates=300, seed=1).to_json()


def test_three_users_cannot_be_shuffled(shop):
    three = shop.head(3).assign(variant=["a", "b", "a"])
    with pytest.raises(abtest.DataError, match="There are 3 users in the rows"):
        abtest.aa(three, TABLE)


@pytest.mark.parametrize(
    ("number", "said"),
    [
        ({"replicates": 0}, "replicates is 0; it must be a whole number, 1 or more."),
        ({"replicates": 10.0}, "replicates is 10.0; it must be a whole number, 1 or more."),
        ({"replicates": "x"}, "replicates is 'x'; it must be a whole number, 1 or more."),
        ({"seed": -1}, "seed is -1; it must be a whole number, 0 or more."),
    ],
)
def test_a_number_of_shuffles_that_is_none_is_said(shop, number, said):
    with pytest.raises(abtest.SettingsError) as refused:
        abtest.aa(shop, TABLE, **number)
    assert said in str(refused.value)


def test_capped_sums_are_what_is_shuffled(shop):
    capped = {**TABLE, "metrics": [{"name": "spend", "kind": "revenue", "winsorize": {"quantile": 0.99}}]}
    assert abtest.aa(shop, capped, replicates=150).levels != abtest.aa(shop, TABLE, replicates=150).levels[1:]


def test_users_are_in_the_arms_that_replicas_say():
    experiment = validated(Experiment, OURS, "plan")
    at = datetime(2026, 3, 2, tzinfo=UTC)
    time_ms = round(at.timestamp()) * 1000
    expected = [assigned(experiment, user, time_ms).arm for user in (1, 2, 3, id_of_text("anna"))]
    assert abtest.assign(OURS, [1, 2, np.int64(3), "anna"], at=at) == expected
    assert abtest.assign(OURS, np.array([1.0, 2.0, 3.0]), at=at) == expected[:3], "a column with gaps has them so"
    assert expected[0] == ("control" if bucket("week", 1) < 0.5 else "treatment")
    assert abtest.assign(OURS, [1], at=datetime(2027, 1, 1, tzinfo=UTC)) == [None]


@pytest.mark.parametrize(
    ("plan", "users", "at", "said"),
    [
        (TABLE, [1], None, "assignment external: driftline does not assign its users"),
        (OURS, [1], datetime(2026, 3, 2), "at is 2026-03-02T00:00:00, which has no zone"),  # noqa: DTZ001
        (OURS, [2**63], None, "User 9223372036854775808 is not a signed 64-bit integer."),
        (OURS, [""], None, "The text id '' is empty."),
        (OURS, [1, 2.5], None, "User 2.5 is neither a whole number nor a text id."),
        (OURS, [math.nan], None, "User nan is neither"),
        (OURS, [2.0**60], None, "is neither a whole number nor a text id."),
        (OURS, [True], None, "User True is neither"),
        (OURS, [np.True_], None, "is neither a whole number nor a text id."),
        (OURS, [None], None, "User None is neither"),
        (OURS, [b"5"], None, "User b'5' is neither"),
        (OURS, "anna", None, "users is 'anna'; give several"),
        (OURS, 5, None, "users is 5; give several"),
    ],
)
def test_whom_it_cannot_assign_is_said(plan, users, at, said):
    with pytest.raises(abtest.SettingsError) as refused:
        abtest.assign(plan, users, at=at)
    assert said in str(refused.value)
