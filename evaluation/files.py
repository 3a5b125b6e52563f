"""Reading the files of a dataset folder: what is not as it should be is one sentence."""

from pathlib import Path

import pandas as pd

from evaluation.data import DataError
from world.base import WorldError
from world.kuairand import read_file


def read_parquet(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    """These columns of a parquet file.

    Raises:
        DataError: the file or a column is missing, or the file is unreadable.

    """
    if not path.is_file():
        raise DataError(f"{path.parent} has no {path.name}.")
    try:
        return read_file(path, columns)
    except WorldError as error:
        raise DataError(str(error)) from error
