"""Folders of public data: the real ones where they are, and small ones of the same kind."""

import os
from pathlib import Path

import pandas as pd
import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """On a shared machine, threads that wait for each other cost most of the time."""
    torch.set_num_threads(1)


def real(name: str) -> Path:
    """A folder among the public data sets: in DRIFTLINE_DATA, or beside the checkout."""
    beside = Path(__file__).resolve().parents[3] / "shared" / "data"
    folder = Path(os.environ.get("DRIFTLINE_DATA", beside)) / name
    if not folder.is_dir():
        pytest.skip(f"{name} is not there; DRIFTLINE_DATA names the folder of public data sets")
    return folder


@pytest.fixture(scope="session")
def real_movielens() -> Path:
    return real("ml-1m")


@pytest.fixture(scope="session")
def real_instances() -> Path:
    return real("t2diff-official-ml1m")


@pytest.fixture(scope="session")
def real_kuairand() -> Path:
    return real("kuairand-pure")


@pytest.fixture
def movielens(tmp_path: Path) -> Path:
    """Two users and four movies (of which three are rated) in the files that GroupLens ships."""
    folder = tmp_path / "ml"
    folder.mkdir()
    movies = ["9::Nine (1999)::Drama|Children's", "2::Deux (1990)::Comedy", "5::Cinq, Les (1991)::War", "3::3 é::Drama"]
    (folder / "movies.dat").write_text("\n".join(movies) + "\n", "latin-1")
    lines = ["7::9::5::300", "7::3::1::100", "7::2::4::200", "1::2::3::50", "1::9::3::50", "1::3::2::40"]
    (folder / "ratings.dat").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def instances(tmp_path: Path) -> Path:
    """User 7 as the one test user of `movielens`."""
    folder = tmp_path / "instances"
    folder.mkdir()
    pd.DataFrame({"user_id": [7], "history_item_idx": [[0, 1, 2]], "target_item_idx": [3]}).to_parquet(
        folder / "test_instances.parquet"
    )
    pd.DataFrame({"item_idx": [1, 2, 3], "movie_id": [9, 3, 2]}).to_parquet(folder / "item_map.parquet")
    return folder
