"""A small KuaiRand-Pure folder, made of a synthetic log, and the real one where it is to be had."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from world.synthetic import synthetic


@pytest.fixture(scope="session")
def small_log() -> pd.DataFrame:
    """Five days of 150 users and 120 items in KuaiRand's columns, without defects."""
    log = synthetic(5, days=1, warmup_days=5, users=150, items=120).log
    sound = (
        log["play_time_ms"].ge(0).fillna(False) & log["video_id"].lt(120) & log["time_ms"].lt(1_704_067_200_000 * 1.01)
    )
    return log[sound].drop_duplicates().astype({"play_time_ms": "int64"}).reset_index(drop=True)


@pytest.fixture(scope="session")
def write_folder():
    """A function that writes a folder as Kuaishou ships it, or as parquet."""
    return _write_folder


def _write_folder(folder: Path, log: pd.DataFrame, kind: str = "csv") -> Path:
    people = pd.DataFrame({"user_id": np.arange(150), "user_active_degree": "full_active", "register_days": 100})
    videos = pd.DataFrame({"video_id": np.arange(120), "video_duration": 30_000.0, "tag": "3,7"})
    videos.loc[0, ["video_duration", "tag"]] = [np.nan, None]
    half = len(log) // 2
    if kind == "csv":
        log[:half].to_csv(folder / "log_standard_1_pure.csv", index=False)
        log[half:].to_csv(folder / "log_standard_2_pure.csv", index=False)
        people.to_csv(folder / "user_features_pure.csv", index=False)
        videos.to_csv(folder / "video_features_basic_pure.csv", index=False)
    else:
        log.to_parquet(folder / "log_standard_1_pure.parquet")
        people.to_parquet(folder / "user_features_pure.parquet")
        videos.to_parquet(folder / "video_features_pure.parquet")
    return folder


@pytest.fixture(scope="session")
def real_folder() -> Path:
    """`kuairand-pure` among the public data sets: in DRIFTLINE_DATA, or beside the checkout."""
    beside = Path(__file__).resolve().parents[3] / "shared" / "data"
    folder = Path(os.environ.get("DRIFTLINE_DATA", beside)) / "kuairand-pure"
    if not any(folder.glob("log_standard_*")):
        pytest.skip("kuairand-pure is not there; DRIFTLINE_DATA names the folder of public data sets")
    return folder
