import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from abtest.read.engines import DataError, opened
from abtest.read.rows import read
from tests.abtest.read.read_cases import WEEK, parquet


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("play_s", np.nan, "column 'play_s' has 2 values that are not a number"),
        ("play_s", -1.0, "column 'play_s' has 2 negative values"),
        ("views", -3, "column 'views' has 2 negative values"),
        ("play_s", np.inf, "column 'play_s' has 2 infinite values"),
        ("views", None, "column 'views' has 2 missing values"),
        ("user_id", None, "column 'user_id' has 2 missing values"),
        ("day", None, "column 'day' has 2 missing values"),
        ("arm", None, "column 'arm' has 2 missing values"),
        ("arm", "contrl", "column 'arm' has 2 values other than 'control', 'treatment'"),
    ],
)
def test_rows_that_no_number_may_be_made_of_are_named_and_counted(tmp_path, crowd, column, value, said):
    days = crowd[0].copy()
    if column in {"views", "user_id"}:
        days[column] = days[column].astype("Int64")
    days.iloc[[10, 13], days.columns.get_loc(column)] = value
    table = pa.Table.from_pandas(days, preserve_index=False)
    if column == "play_s":  # not a number is not missing
        table = table.set_column(table.schema.get_field_index(column), column, pa.array(days.play_s.to_numpy()))
    path = tmp_path / "days.parquet"
    pq.write_table(table, path)
    with pytest.raises(DataError, match=f"^The data cannot be used: {said}") as raised:
        read(opened(path), WEEK)
    assert column == "user_id" or f"first: user_id {days.user_id.iloc[10]}" in str(raised.value)


def test_two_rows_of_one_user_and_day_are_refused(tmp_path, crowd):
    days = pd.concat([crowd[0], crowd[0].iloc[[5, 6, 5]]])
    with pytest.raises(DataError, match="'user_id' has 3 rows of a user and day that another row has"):
        read(opened(parquet(tmp_path, days)), WEEK)


def test_a_user_who_stands_twice_in_the_table_of_covariates_is_refused(tmp_path, crowd):
    days, pre = crowd
    pre = pd.concat([pre, pre.iloc[[2]]])
    with pytest.raises(DataError, match=f"1 repeated users in the table of covariates .first: {pre.user_id.iloc[2]}"):
        read(opened(parquet(tmp_path, days)), WEEK, opened(parquet(tmp_path, pre, "pre.parquet")))
