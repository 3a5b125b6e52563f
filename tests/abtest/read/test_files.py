import gzip
from pathlib import Path

import pandas as pd
import pytest

from abtest.read.engines import DataError, opened
from abtest.read.rows import read
from tests.abtest.abtest_cases import experiment
from tests.abtest.read.read_cases import FIRST, METRICS, WEEK, assert_same, parquet


def some(first, count=100, **changes):
    ids = range(first, first + count)
    arm = ["treatment" if i % 2 else "control" for i in ids]
    columns = {"user_id": ids, "arm": arm, "day": 0, "views": 10, "effective_views": 3, "play_s": 1.5}
    return pd.DataFrame({**columns, **changes})


def users_of(data):
    return sum(read(opened(data), WEEK).aggregate.users.values())


UNCOMMITTED = (
    "_temporary/0/part-9.parquet",
    "_temporary/0/_temporary/attempt_1/part-0.parquet",
    ".part-1.parquet",
    "_part-2.parquet",
    ".spark-staging/day=3/part-0.parquet",
    "day=3/_tmp.part-0.parquet",
    "day=3/.part-0.parquet.parquet",
    "part-3.parquet.part",
    "part-4.parquet.crc",
)


def test_names_that_begin_with_a_dot_or_an_underscore_are_no_data_at_any_depth(tmp_path):
    parquet(tmp_path, some(1), "rows/part-0.parquet")
    for i, name in enumerate(UNCOMMITTED):
        parquet(tmp_path, some(1000 * (i + 1)), f"rows/{name}")
    (tmp_path / "rows" / "_SUCCESS").touch()
    (tmp_path / "rows" / "._SUCCESS.crc").write_bytes(b"crc")
    assert users_of(tmp_path / "rows") == 100
    for pattern in ("rows/*.parquet", "rows/**/*.parquet", "rows/*", "r*/**/*", "**/*.parquet"):
        assert users_of(tmp_path / pattern) == 100, pattern


def test_partitions_by_hive_are_data_and_uncommitted_ones_are_not(tmp_path):
    for day in (0, 3):
        parquet(tmp_path, some(1 + 200 * day).drop(columns="day"), f"rows/day={day}/part-0.parquet")
    parquet(tmp_path, some(5000).drop(columns="day"), "rows/_temporary/day=4/part-0.parquet")
    parquet(tmp_path, some(6000).drop(columns="day"), "rows/day=3/.part-0.parquet")
    counted = read(opened(tmp_path / "rows"), WEEK)
    assert counted.counts["rows"] == 200
    assert [sum(counted.aggregate.new_users(day).values()) for day in range(4)] == [100, 0, 0, 100]
    assert users_of(tmp_path / "rows" / "day=*" / "*.parquet") == 200


def test_uncommitted_covariates_are_left_out_too(tmp_path):
    parquet(tmp_path, some(1), "rows.parquet")
    parquet(tmp_path, some(1)[["user_id", "views"]], "pre/part-0.parquet")
    parquet(tmp_path, some(1)[["user_id", "views"]], "pre/_temporary/0/part-0.parquet")
    counted = read(opened(tmp_path / "rows.parquet"), WEEK, opened(tmp_path / "pre"))
    assert counted.aggregate.users == {"control": 50, "treatment": 50}


def test_what_a_person_names_is_data_whatever_stands_above_it(tmp_path):
    parquet(tmp_path, some(1), ".cache/_job/rows/part-0.parquet")
    parquet(tmp_path, some(1), ".cache/_job/_one.parquet")
    home = tmp_path / ".cache" / "_job"
    assert [users_of(home / "rows"), users_of(home / "rows" / "*.parquet"), users_of(home / "_one.parquet")] == [
        100
    ] * 3


@pytest.mark.parametrize("name", ["rows.csv", "rows.csv.gz", "rows.tsv", "rows.tsv.gz", "ROWS.CSV", "rows [1].csv"])
def test_csv_gives_the_numbers_of_parquet(tmp_path, crowd, name):
    days, pre = crowd
    days.to_csv(tmp_path / name, index=False, sep="\t" if ".tsv" in name else ",")
    pre.to_csv(tmp_path / f"pre-{name}", index=False, sep="\t" if ".tsv" in name else ",")
    found = read(opened(tmp_path / name), WEEK, opened(tmp_path / f"pre-{name}"))
    before = opened(parquet(tmp_path, pre, "pre.parquet"))
    assert_same(found.aggregate, read(opened(parquet(tmp_path, days)), WEEK, before).aggregate)


def test_files_are_read_by_their_url_and_by_the_short_name_of_parquet(tmp_path, crowd):
    days, _ = crowd
    days.to_csv(tmp_path / "a b.csv", index=False)
    plain = read(opened(parquet(tmp_path, days, "rows.pq")), WEEK).aggregate
    for place in ((tmp_path / "a b.csv").as_uri(), (tmp_path / "rows.pq").as_uri(), f"file://{tmp_path}/rows.pq"):
        assert_same(read(opened(place), WEEK).aggregate, plain)
    folder = tmp_path / "several"
    folder.mkdir()
    days[:300].to_csv(folder / "a.csv", index=False)
    days[300:].to_csv(folder / "b.csv.gz", index=False)
    days[:9].to_csv(folder / "_b.csv", index=False)
    assert_same(read(opened(folder), WEEK).aggregate, plain)


def test_an_arm_in_csv_is_text_and_a_user_is_as_written(tmp_path):
    arms = {name: {"weight": 1, "model": "two_tower"} for name in ("true", "false", "1")}
    three = experiment(metrics=METRICS, arms=arms, control="true")
    for pair in (("true", "false"), ("1", "1")):
        rows = some(
            1, arm=[pair[i % 2] for i in range(100)], user_id=[f"00{i}" if i % 2 else str(i) for i in range(100)]
        )
        rows.loc[0, "user_id"] = "1"  # and not 001, which the file has too
        rows.to_csv(tmp_path / "rows.csv", index=False)
        users = read(opened(tmp_path / "rows.csv"), three).aggregate.users
        assert users == {name: pair.count(name) * 50 for name in arms}


def test_a_number_with_text_in_it_is_not_made_one(tmp_path):
    some(1, views=["ten", *["10"] * 99]).to_csv(tmp_path / "rows.csv", index=False)
    with pytest.raises(
        DataError,
        match=r"rows\.csv, line 2: column 'views' has 'ten', which is no number; where",
    ):
        read(opened(tmp_path / "rows.csv"), WEEK)
    some(1, views=["", *["10"] * 99]).to_csv(tmp_path / "rows.csv", index=False)
    with pytest.raises(DataError, match="column 'views' has 1 missing value "):
        read(opened(tmp_path / "rows.csv"), WEEK)
    some(1, play_s=["nan", *["10.5"] * 99]).to_csv(tmp_path / "rows.csv", index=False)
    with pytest.raises(DataError, match="column 'play_s' has 1 value that is not a number"):
        read(opened(tmp_path / "rows.csv"), WEEK)


def write(path: Path, data: bytes) -> None:
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("name", "damage", "said"),
    [
        ("rows.parquet", lambda data: b"", "rows.parquet is empty"),
        ("rows.csv", lambda data: b"", "rows.csv is empty"),
        ("rows.csv", lambda data: data, "rows.csv is called CSV, but is Parquet"),
        (
            "rows.parquet",
            lambda data: b"user_id,arm\n1,a\n",
            "rows.parquet as Parquet: it does not begin as Parquet does",
        ),
        ("rows.parquet", lambda data: data[:-9], "rows.parquet as Parquet: it breaks off before its end"),
        ("rows.parquet", lambda data: b"PAR1", "rows.parquet as Parquet: it breaks off before its end"),
        ("rows.parquet", lambda data: data[:4] + b"x" * 99 + b"PAR1", "Cannot read .*rows.parquet"),
        ("rows.csv.gz", lambda data: b"user_id,arm\n", "Cannot read .*rows.csv.gz"),
        ("rows.csv.gz", lambda data: gzip.compress(b"user_id,arm\n1,a\n" * 999)[:-20], "Cannot read .*rows.csv.gz"),
        ("rows.txt", lambda data: data, "rows.txt is neither by its name"),
        ("rows.xlsx", lambda data: data, "rows.xlsx is neither by its name"),
    ],
)
def test_a_file_that_is_not_what_its_name_says_is_named(tmp_path, name, damage, said):
    (tmp_path / name).write_bytes(damage(parquet(tmp_path, some(1), "whole/a.parquet").read_bytes()))
    with pytest.raises(DataError, match=said) as raised:
        read(opened(tmp_path / name), WEEK)
    assert "\n" not in str(raised.value)


def test_one_bad_file_among_many_is_named_and_two_formats_are_refused(tmp_path):
    for i in range(3):
        parquet(tmp_path, some(1 + 200 * i), f"rows/{i}.parquet")
    (tmp_path / "rows" / "7.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"Cannot read .*7.parquet as Parquet"):
        opened(tmp_path / "rows")
    (tmp_path / "rows" / "7.parquet").unlink()
    some(900).to_csv(tmp_path / "rows" / "a.csv", index=False)
    with pytest.raises(
        DataError, match=r"CSV \(a.csv\) and Parquet|Parquet \(0.parquet\) and CSV \(a.csv\); give those"
    ):
        opened(tmp_path / "rows")


def test_a_folder_of_uncommitted_files_alone_has_none(tmp_path):
    parquet(tmp_path, some(1), "rows/_temporary/0/a.parquet")
    for place in (tmp_path / "rows", tmp_path / "rows" / "**" / "*.parquet"):
        with pytest.raises(DataError, match="There is no Parquet or CSV file at"):
            opened(place)


def test_an_object_store_that_cannot_be_reached_is_one_sentence(tmp_path):
    with pytest.raises(DataError, match=r"Cannot read s3://nowhere.invalid/rows: ") as raised:
        opened("s3://nowhere.invalid/rows")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["part-0.parquet", "part-0.csv"])
@pytest.mark.parametrize(
    ("key", "folder", "in_file"),
    [("arm", "control", "treatment"), ("arm", "1", "01"), ("Arm", "control", "treatment"), ("day", "2", 3)],
)
def test_a_folder_that_says_another_value_than_its_file_is_refused(tmp_path, name, key, folder, in_file):
    path = tmp_path / f"rows/{key}={folder}" / name
    path.parent.mkdir(parents=True)
    rows = some(1, **{key.lower(): in_file})
    rows.to_parquet(path) if name.endswith("parquet") else rows.to_csv(path, index=False)
    said = f"^Column '{key.lower()}' of .*{name} has {in_file}, but the file's folder says {folder};"
    with pytest.raises(DataError, match=said):
        opened(tmp_path / "rows")


@pytest.mark.parametrize("day", [2, str(FIRST), pd.Timestamp(FIRST), FIRST])
@pytest.mark.parametrize("name", ["part-0.parquet", "part-0.csv"])
def test_a_folder_that_says_what_its_file_says_is_read(tmp_path, name, day):
    folder = tmp_path / f"day={str(day)[:10]}" / "arm=control"
    folder.mkdir(parents=True)
    rows = some(1, arm="control", day=day)
    rows.to_parquet(folder / name) if name.endswith("parquet") else rows.to_csv(folder / name, index=False)
    assert users_of(tmp_path) == 100


def test_csv_files_with_a_header_alone_have_no_rows_and_change_no_type(tmp_path):
    some(1).head(0).to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(DataError, match=r"a\.csv has no rows\.$"):
        opened(tmp_path / "a.csv")
    some(1).to_csv(tmp_path / "b.csv", index=False)
    assert users_of(tmp_path) == 100
