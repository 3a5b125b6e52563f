"""A CSV file that cannot be used is refused in one sentence with the file, the line, the column and what to do."""

import gzip

import pandas as pd
import pytest

from abtest.incremental import read as kept_days
from abtest.read.engines import DataError, opened
from abtest.read.rows import read
from tests.abtest.read.read_cases import WEEK

HEADER = "user_id,arm,day,views,effective_views,play_s"
ROWS = [f"{i},{'treatment' if i % 2 else 'control'},0,10,{i % 4},1.5" for i in range(1, 41)]
SEPARATORS = "write numbers without separators of thousands and with a decimal point, such as 1234.5"


def written(row, at=6):
    """The text of a file in which the row of line `at` + 2 is another one."""
    return "\n".join([HEADER, *ROWS[:at], row, *ROWS[at + 1 :]]) + "\n"


def missing(column, user="7", day="0"):
    shown = {"user_id": user, "day": day} | {column: "missing"}
    met = ", ".join(f"{name} {value}" for name, value in shown.items())
    todo = "" if column in {"user_id", "arm", "day"} else ", and a row needs 0 where nothing happened"
    return f"The data cannot be used: column '{column}' has 1 missing value (first: {met}, {{place}}){todo}."


def no_number(text, todo):
    return f"{{place}}: column 'views' has '{text}', which is no number; {todo}."


def fields(has):
    return (
        f"{{place}}: {has}, and the first line names 6 columns (user_id, arm, day, views, effective_views, play_s); a "
        "field that is empty needs its ',' too, and one with ',' in it needs quotes."
    )


CASES = {
    "7,control,0,10,3": fields("there are 5 fields"),
    "7": fields("there is 1 field"),
    "7,control,0,10,3,1.5,": fields("there are 7 fields"),
    "7,control,0,,3,1.5": missing("views"),
    '7,control,0,"",3,1.5': missing("views"),
    "7,control,0,NULL,3,1.5": missing("views"),
    "7,control,0,null,3,1.5": missing("views"),
    "7,control,0,NA,3,1.5": missing("views"),
    "7,control,0,N/A,3,1.5": missing("views"),
    "7,control,0,\\N,3,1.5": missing("views"),
    "7,NULL,0,10,3,1.5": missing("arm"),
    "7,,0,10,3,1.5": missing("arm"),
    "7,control,NULL,10,3,1.5": missing("day"),
    "NULL,control,0,10,3,1.5": missing("user_id"),
    '7,control,0,"1,234",3,1.5': no_number("1,234", SEPARATORS),
    '7,control,0,"1.234,5",3,1.5': no_number("1.234,5", SEPARATORS),
    '7,control,0,"1,234.5",3,1.5': no_number("1,234.5", SEPARATORS),
    "7,control,0,1 234,3,1.5": no_number("1 234", SEPARATORS),
    "7,control,0,10 %,3,1.5": no_number("10 %", "write the number alone, without a unit or a currency"),
    "7,control,0,$10,3,1.5": no_number("$10", "write the number alone, without a unit or a currency"),
    "7,control,0,-,3,1.5": no_number("-", "where nothing happened write 0"),
    "7,control,0,none,3,1.5": no_number("none", "where nothing happened write 0"),
    "7,control,01.03.2026,10,3,1.5": (
        "{place}: column 'day' has '01.03.2026', which is no day; write a date such as 2026-03-01, or the number of "
        "the day, the first one being 0."
    ),
    "7,contrl,0,10,3,1.5": (
        "The data cannot be used: column 'arm' has 1 value other than 'control', 'treatment' (first: user_id 7, day 0, "
        "arm contrl, {place})."
    ),
    "7,control,0,10,3,nan": (
        "The data cannot be used: column 'play_s' has 1 value that is not a number (first: user_id 7, day 0, play_s "
        "nan, {place})."
    ),
}


@pytest.mark.parametrize(("row", "said"), CASES.items())
@pytest.mark.parametrize("kept", [False, True])
def test_a_row_that_cannot_be_used_is_named_by_file_and_line_whether_days_are_kept_or_not(tmp_path, row, said, kept):
    path = tmp_path / "rows [1].csv"
    path.write_text(written(row))
    with pytest.raises(DataError) as raised:
        kept_days.read(tmp_path / "kept", opened(path), WEEK) if kept else read(opened(path), WEEK)
    assert str(raised.value) == said.format(place=f"{path}, line 8")


def test_of_several_files_the_one_that_is_wrong_is_named(tmp_path):
    (tmp_path / "a.csv").write_text("\n".join([HEADER, *ROWS]))
    text = written('107,control,0,"1,234",3,1.5', at=20).replace("\n", "\r\n")
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress(text.encode("utf-8-sig")))
    with pytest.raises(DataError, match=r"b\.csv\.gz, line 22: column 'views' has '1,234'"):
        read(opened(tmp_path), WEEK)


def test_a_comma_for_the_point_between_semicolons_is_named(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("\n".join([HEADER, *ROWS]).replace(",", ";").replace(";1.5", ";1,5"))
    with pytest.raises(DataError, match=rf"line 2: column 'play_s' has '1,5', which is no number; {SEPARATORS}\.$"):
        read(opened(path), WEEK)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("\n".join(ROWS), "; the first line of a CSV file has to name its columns."),
        ("\n".join([HEADER, *ROWS]).replace(",10,", ",NA,"), "Column 'views' has no value in any row"),
    ],
)
def test_a_file_without_names_and_one_without_values_are_told(tmp_path, text, said):
    path = tmp_path / "rows.csv"
    path.write_text(text)
    with pytest.raises(DataError) as raised:
        read(opened(path), WEEK)
    assert said in str(raised.value)


def test_a_text_that_is_not_in_utf_8_is_named_by_its_line(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_bytes(written("José,control,0,10,3,1.5").encode("latin-1"))
    with pytest.raises(DataError, match=r"rows\.csv: the text of line \d+ is not in UTF-8; save the file as UTF-8\.$"):
        read(opened(path), WEEK)


def test_a_covariate_that_is_missing_is_no_fault(tmp_path):
    path = tmp_path / "rows.csv"
    pre = [("NULL", "", "NA", "7")[i % 4] for i in range(40)]
    path.write_text("\n".join([f"{HEADER},pre.views", *(f"{row},{x}" for row, x in zip(ROWS, pre, strict=True))]))
    counted = read(opened(path), WEEK)
    assert counted.aggregate.covariates == ("pre.views", "pre.unknown")
    assert counted.counts["users_without_pre"] == 30


def test_a_parquet_table_has_no_lines(tmp_path):
    rows = pd.DataFrame({"user_id": [1, 2], "arm": ["control", None], "day": 0, "views": 1, "effective_views": 1})
    rows.assign(play_s=1.0).to_parquet(tmp_path / "rows.parquet")
    with pytest.raises(DataError, match=r"'arm' has 1 missing value \(first: user_id 2, day 0, arm missing\)\.$"):
        read(opened(tmp_path / "rows.parquet"), WEEK)
