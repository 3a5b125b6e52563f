"""Reading the files of a dataset folder: what is not as it should be is one sentence."""

from pathlib import Path

import pandas as pd

from evaluation.data import DataError


def read_parquet(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    """These columns of a parquet file.

    Raises:
        DataError: the file or a column is missing, or the file is unreadable.

    """
    if not path.is_file():
        raise DataError(f"{path.parent} has no {path.name}.")
    try:
        frame = pd.read_parquet(path)
    except (OSError, ValueError) as error:  # pyarrow's own errors are among them
        raise DataError(f"{path} can't be read: {' '.join(str(error).split())}.") from error
    for name in columns:
        if name not in frame.columns:
            raise DataError(f"{path} has no column {name}.")
    return frame[list(columns)]
