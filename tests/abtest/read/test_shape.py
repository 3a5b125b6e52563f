"""Tables of any shape: the analysis has of them what it has of rows of users and days under its own names."""

import gzip
from datetime import date

import duckdb
import ibis
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from abtest.read.engines import opened
from abtest.read.problems import DataError
from abtest.read.rows import read
from abtest.read.shape import shaped
from contracts.config.external import plan_of
from tests.abtest.read.read_cases import WEEK, assert_same, people

OWN = {"user_id": "uid", "arm": "variant", "day": "when", "views": "Views", "effective_views": "Good views"}
DAYS = {
    "assignment": "external",
    "columns": {"user": "uid", "arm": "variant", "day": "when"},
    "control": "control",
    "metrics": [
        {"name": "evr", "kind": "ratio", "columns": ["Good views", "Views"]},
        {"name": "play", "kind": "mean", "column": "play_s"},
    ],
}
EVENTS = {
    "assignment": "external",
    "columns": {"user": "uid", "arm": "variant", "day": "at"},
    "row": "event",
    "control": "a",
    "metrics": [
        {"name": "buyers", "kind": "conversion", "where": {"event": "buy"}},
        {"name": "orders", "kind": "count", "where": {"event": "buy"}},
        {"name": "revenue", "kind": "revenue", "column": "amount", "where": {"event": "buy"}},
    ],
}


def aggregate_of(rows, plan):
    found = shaped(rows, plan_of(plan, "plan"))
    return read(found.table, found.experiment, None, found.called)


def events(users=60, seed=3):
    random = np.random.default_rng(seed)
    user = random.integers(0, users, 2_000)
    return pd.DataFrame(
        {
            "uid": [f"user-{each}" for each in user],
            "variant": np.where(user % 2 == 0, "a", "b"),
            "at": pd.Timestamp("2026-03-01") + pd.to_timedelta(random.integers(0, 3 * 86_400, 2_000), unit="s"),
            "event": np.where(random.random(2_000) < 0.1, "buy", "see"),
            "amount": np.round(random.exponential(20, 2_000), 2),
        }
    )


def test_a_table_under_its_own_names_gives_the_same_aggregate_as_under_ours():
    days, _ = people()
    ours = read(days, WEEK).aggregate
    theirs = aggregate_of(days.rename(columns=OWN), DAYS).aggregate
    assert theirs.users == ours.users
    np.testing.assert_allclose(
        [theirs.through(6)[arm].total("good_views") for arm in ours.arms],
        [ours.through(6)[arm].total("effective_views") for arm in ours.arms],
    )


@pytest.mark.parametrize(
    "as_rows",
    [
        pa.Table.from_pandas,
        duckdb.from_df,
        ibis.memtable,
        lambda frame: pa.Table.from_pandas(frame).to_reader(),
        lambda frame: pytest.importorskip("polars", reason="polars is not installed").from_pandas(frame),
    ],
    ids=["arrow", "duckdb", "ibis", "c-stream", "polars"],
)
def test_every_kind_of_table_gives_what_a_frame_of_pandas_gives(as_rows):
    days, _ = people()
    frame = days.rename(columns=OWN)
    assert_same(aggregate_of(as_rows(frame), DAYS).aggregate, aggregate_of(frame, DAYS).aggregate)


def test_what_is_no_table_is_said_to_be_none():
    with pytest.raises(DataError, match=r"Rows are a data frame .pandas, polars., an Arrow table"):
        aggregate_of(object(), DAYS)
    with pytest.raises(DataError, match="not list"):
        aggregate_of([1, 2], DAYS)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda days: pd.concat([days, days[["play_s"]]], axis=1),
            "The DataFrame of rows has two columns named 'play_s'",
        ),
        (
            lambda days: pa.Table.from_pandas(days).append_column("when", pa.nulls(len(days))),
            "The Table of rows has two columns named",
        ),
        (lambda days: days[[]], "The DataFrame of rows has no columns"),
        (lambda _: None, "not NoneType: no table"),
        (
            lambda days: days.assign(play_s=[*days["play_s"].astype(object)[:-1], "12 s"]),
            r"Column 'play_s' of the data frame has values that no one type holds: float .first: .*, str .first: 12 s.",
        ),
        (
            lambda days: days.assign(uid=["u", *range(len(days) - 1)]),
            r"Column 'uid' of the data frame has values that no one type holds: str .first: u., int .first: 0.",
        ),
        (
            lambda days: days.assign(variant=["", *days["variant"][1:]]),
            "Column 'variant' has an empty text in some rows; an arm has a name",
        ),
    ],
)
def test_a_frame_that_cannot_be_read_is_one_sentence_about_the_frame(change, said):
    days, _ = people()
    with pytest.raises(DataError, match=said):
        aggregate_of(change(days.rename(columns=OWN)), DAYS)


def test_events_are_summed_by_user_and_day():
    frame = events()
    found = aggregate_of(frame, EVENTS).aggregate
    buys = frame[frame["event"] == "buy"]
    for arm in ("a", "b"):
        of_arm = buys[buys["variant"] == arm]
        moments = found.through(found.days - 1)[arm]
        assert moments.n == frame[frame["variant"] == arm]["uid"].nunique()
        assert moments.total("orders") == pytest.approx(len(of_arm))
        assert moments.total("revenue") == pytest.approx(of_arm["amount"].sum())
        assert moments.total("buyers") == pytest.approx(of_arm["uid"].nunique())  # once a user, on whichever day


def test_moments_with_a_zone_are_cut_into_days_by_the_plan_s_calendar():
    frame = pd.DataFrame(
        {
            "uid": [1, 2, 3, 4],
            "variant": ["a", "b", "a", "b"],
            "at": pd.to_datetime(["2026-03-01T22:59Z", "2026-03-01T23:01Z", "2026-03-01T12:00Z", "2026-03-02T22:59Z"]),
            "event": "buy",
            "amount": 1.0,
        }
    )
    utc = shaped(frame, plan_of(EVENTS, "plan"))
    berlin = shaped(frame, plan_of({**EVENTS, "zone": "Europe/Berlin"}, "plan"))
    ahead = shaped(frame, plan_of({**EVENTS, "day_offset": "+01:00"}, "plan"))
    by_user = {
        name: dict(zip(rows["user_id"], rows["day"], strict=True))
        for name, rows in (
            ("utc", utc.table.execute()),
            ("berlin", berlin.table.execute()),
            ("+1", ahead.table.execute()),
        )
    }
    assert by_user == {
        "utc": {1: 0, 2: 0, 3: 0, 4: 1},
        "berlin": {1: 0, 2: 1, 3: 0, 4: 1},
        "+1": {1: 0, 2: 1, 3: 0, 4: 1},
    }
    assert berlin.experiment.days == 2


def test_a_conversion_before_the_start_does_not_hide_the_one_within():
    frame = pd.DataFrame(
        {"uid": [1, 1, 2], "variant": ["a", "a", "b"], "when": [date(2026, 2, 1), date(2026, 3, 2), date(2026, 3, 1)]}
    ).assign(bought=[1, 1, 0])
    plan = {**DAYS, "control": "a", "metrics": [{"name": "bought", "kind": "conversion"}]}
    plan |= {"start": "2026-03-01T00:00:00+00:00", "end": "2026-03-08T00:00:00+00:00"}
    found = aggregate_of(frame, plan)
    assert found.counts["rows_outside_days"] == 1
    assert found.aggregate.through(1)["a"].total("bought") == 1


def test_without_a_day_or_a_user_each_row_is_a_user():
    frame = pd.DataFrame({"variant": ["a", "b", "b"], "spend": [1.0, 2.0, 3.0]})
    plan = {"columns": {"arm": "variant"}, "control": "a", "metrics": [{"name": "spend", "kind": "revenue"}]}
    found = shaped(frame, plan_of(plan, "plan"))
    assert (found.experiment.days, list(found.experiment.arms)) == (1, ["a", "b"])
    assert read(found.table, found.experiment).aggregate.users == {"a": 1, "b": 2}


def test_days_that_are_numbered_from_one_are_the_experiment_s_days():
    frame = pd.DataFrame({"uid": [1, 2, 1, 2], "variant": list("abab"), "when": [1, 1, 7, 7], "spend": 1.0})
    plan = {**DAYS, "control": "a", "metrics": [{"name": "spend", "kind": "revenue"}]}
    found = shaped(frame, plan_of(plan, "plan"))
    assert found.experiment.days == 7
    assert read(found.table, found.experiment).counts["days_without_rows"] == 5


def test_arms_by_number_or_truth_are_text():
    frame = pd.DataFrame({"uid": [1, 2], "spend": 1.0})
    metrics = [{"name": "spend", "kind": "revenue"}]
    for values, control, other in (([0, 1], "0", "1"), ([False, True], "false", "true")):
        plan = {"columns": {"user": "uid", "arm": "variant"}, "control": control, "metrics": metrics}
        found = shaped(frame.assign(variant=values), plan_of(plan, "plan"))
        assert list(found.experiment.arms) == [control, other]


def test_a_gzipped_csv_is_read_with_arms_and_users_as_it_writes_them(tmp_path):
    with gzip.open(tmp_path / "rows.csv.gz", "wt") as file:
        file.write("uid,variant,spend\n007,0,1.5\n7,1,2.5\n8,1,3\n")
    plan = plan_of(
        {
            "columns": {"user": "uid", "arm": "variant"},
            "control": "0",
            "metrics": [{"name": "spend", "kind": "revenue"}],
        },
        "plan",
    )
    found = shaped(opened(tmp_path / "rows.csv.gz", None, "uid", "variant"), plan)
    assert read(found.table, found.experiment).aggregate.users == {"0": 1, "1": 2}


@pytest.mark.parametrize("kind", ["revenue", "conversion"])
@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("1,a,2\n2,b,x\n", "rows.csv, line 3: column 'spend' has 'x', which is no number"),
        ("1,a,2\n2,b,\n3,a,1\n", "column 'spend' has 1 missing value (first: uid 2, spend missing, "),
        ("1,a,2\n,b,4\n3,a,1\n", "rows.csv, line 3)"),
        ("1,a,2\n2,,4\n3,b,1\n", "column 'variant' has 1 missing value (first: uid 2, variant missing, "),
        ("1,a,2\n1,a,4\n3,b,1\n", "column 'uid' has 1 row of a user that another row has, though a row is a user;"),
    ],
)
def test_what_is_wrong_in_a_csv_is_named_by_its_line(tmp_path, kind, written, said):
    (tmp_path / "rows.csv").write_text(f"uid,variant,spend\n{written}")
    plan = {"columns": {"user": "uid", "arm": "variant"}, "control": "a", "arms": ["a", "b"]}
    plan["metrics"] = [{"name": "spend", "kind": kind}]
    assert said in refusal(opened(tmp_path / "rows.csv", None, "uid", "variant"), plan)


def refusal(frame, plan) -> str:
    with pytest.raises(DataError) as refused:
        aggregate_of(frame, plan)
    return str(refused.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"drop": "Views"}, "The table has no column 'Views', which is wanted as metric 'evr'; did you mean 'Good"),
        ({"rename": {"Views": "views"}}, "no column 'Views', which is wanted as metric 'evr'; did you mean 'views'?"),
        ({"drop": "uid"}, "The table has no column 'uid', which is wanted as columns: user; it has variant, when,"),
        ({"variant": 0.5}, "Column 'variant' is float64 (first: 0.5); an arm must be text, or a whole number."),
        ({"variant": "control"}, "Column 'variant' has only 'control'; an experiment needs at least two arms."),
        ({"variant": "row"}, "Column 'variant' has more than 20 values ('r"),
        (
            {"when": "01.03.2026"},
            "a text that is no date of ISO 8601, such as 2026-03-01 (first: 01.03.2026)",
        ),
        ({"when": 20260301}, "column 'when' has a number that is not counted from the experiment's first day"),
        (
            {"when": pd.Timestamp("2026-03-01T12:00")},
            "no midnight, though a day is wanted (first: 2026-03-01T12",
        ),
        ({"when": True}, "Column 'when' is boolean; a day must be a date, a midnight, text of ISO 8601, or a number"),
        ({"when": None}, "Column 'when' has no value in any row, so there is no period; give start and end."),
        ({"Views": "many"}, "Column 'Views' of the table is string; it must be a number."),
        ({"Views": -1}, "column 'Views' has "),
    ],
)
def test_a_refusal_says_the_table_s_own_name_and_the_first_value(change, said):
    frame = people(users=40)[0].rename(columns=OWN)
    if "drop" in change:
        frame = frame.drop(columns=change["drop"])
    elif "rename" in change:
        frame = frame.rename(columns=change["rename"])
    else:
        ((column, value),) = change.items()
        frame[column] = [f"r{row}" for row in range(len(frame))] if value == "row" else value
        frame[column] = frame[column].astype("datetime64[us]") if column == "when" and value is None else frame[column]
    assert said in refusal(frame, DAYS)


def test_a_stray_date_makes_no_period_of_years():
    frame = people(users=40)[0].rename(columns=OWN)
    frame.loc[0, "when"] = date(2026, 1, 1)
    said = "Column 'when' goes from 1970-01-11 to 2026-01-01, 20,445 days; if that is meant, or"
    assert said in refusal(frame, DAYS)


def test_an_amount_that_is_missing_where_it_counts_is_refused_and_elsewhere_is_not():
    frame = events()
    frame.loc[frame["event"] == "see", "amount"] = None
    assert aggregate_of(frame, EVENTS).counts["rows"] > 0
    frame.loc[frame[frame["event"] == "buy"].index[0], "amount"] = None
    assert "column 'amount' has 1 missing value (first: uid user-" in refusal(frame, EVENTS)


def test_a_control_that_no_row_has_is_named_beside_those_that_there_are():
    assert "Control arm 'c' is not in column 'variant'; it has 'a', 'b'." in refusal(
        events(), {**EVENTS, "control": "c"}
    )


@pytest.mark.parametrize("value", [1, True])
def test_a_value_that_a_column_cannot_have_is_said_beside_one_that_it_has(value):
    metrics = [{"name": "buyers", "kind": "conversion", "where": {"event": value}}]
    said = refusal(events(), {**EVENTS, "metrics": metrics})
    assert "where of metric 'buyers': column 'event' is string (first: " in said
    assert said.endswith(f"so {value!r} cannot be in it; it must be text.")


def test_text_that_is_to_be_summed_is_shown():
    frame = events().assign(amount="12 €")
    said = "Column 'amount' of metric 'revenue' is string (first: 12 €); it must be a number."
    assert said in refusal(frame, EVENTS)
