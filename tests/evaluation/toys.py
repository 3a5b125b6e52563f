"""Small data sets in the files that the real ones come in, and results that no model made."""

from pathlib import Path

import numpy as np
import pandas as pd

from contracts.config.settings import ModelSettings
from evaluation.fit import Plan
from evaluation.results import Result
from evaluation.tasks import Task

USERS, ITEMS, BEHAVIOURS = 24, 12, 9
TEST_USERS = 4
MIDNIGHT_MS = 1_651_420_800_000  # 2022-05-02 in Beijing
DAYS = 9
SHAPE = ModelSettings(dim=4, id_dim=2, category_dim=2, window=6, session_length=3, learning_rate=0.01, batch_size=32)
PLAN = Plan(epochs=2, batch_size=16)


def movielens(folder: Path) -> Path:
    """Each user walks through the items in a circle, from another start; the file has them backwards."""
    folder.mkdir()
    (folder / "movies.dat").write_text(
        "".join(f"{i}::M{i} (1999)::{'Drama' if i % 2 else 'War'}\n" for i in walk(0, 12))
    )
    lines = [
        f"{user}::{item}::4::{1_000 * place}\n"
        for user in range(1, USERS + 1)
        for place, item in reversed(list(enumerate(walk(user, BEHAVIOURS))))
    ]
    (folder / "ratings.dat").write_text("".join(lines))
    return folder


def instances(folder: Path) -> Path:
    """The last of the users test: what they rated in the file's order, the last of it as the target."""
    folder.mkdir()
    users = list(range(USERS - TEST_USERS + 1, USERS + 1))
    told = [walk(user, BEHAVIOURS)[::-1] for user in users]
    pd.DataFrame(
        {"user_id": users, "history_item_idx": [t[:-1] for t in told], "target_item_idx": [t[-1] for t in told]}
    ).to_parquet(folder / "test_instances.parquet")
    pd.DataFrame({"item_idx": walk(0, ITEMS), "movie_id": walk(0, ITEMS)}).to_parquet(folder / "item_map.parquet")
    return folder


def kuairand(folder: Path) -> Path:
    """Each user views two videos a day, further along the circle."""
    folder.mkdir()
    rows = [
        (user, walk(user, 2 * DAYS)[2 * day + place], day * 86_400_000 + 1_000 * user + place)
        for day in range(DAYS)
        for user in range(8)
        for place in range(2)
    ]
    log = pd.DataFrame(rows, columns=["user_id", "video_id", "time_ms"])
    log["date"] = 20220502 + log["time_ms"] // 86_400_000
    log["time_ms"] += MIDNIGHT_MS
    log = log.assign(long_view=1, is_follow=0, play_time_ms=1, duration_ms=2, tab=0)
    log.to_csv(folder / "log_standard_pure.csv", index=False)
    videos = pd.DataFrame({"video_id": walk(0, ITEMS), "video_duration": 1.0, "tag": "1"})
    videos.to_csv(folder / "video_features_basic_pure.csv", index=False)
    pd.DataFrame(
        {"user_id": [0], "last_time_ms": [MIDNIGHT_MS - 1], "watch_seq": [[12]], "long_watch_seq": [[12]]}
    ).to_parquet(folder / "user_history_until_4_24.parquet")
    return folder


def walk(start: int, count: int) -> list[int]:
    """Items 1 to 12 in a circle.

    >>> walk(10, 4)
    [11, 12, 1, 2]
    """
    return [(start + step) % ITEMS + 1 for step in range(count)]


def result(task: Task, ranks: list[int], **other: object) -> Result:
    """A result of a run that never was, a user a query."""
    given: dict[str, object] = {
        "items": 100,
        "coverage": 0.5,
        "parameter_bytes": 1_000,
        "training_s": 2.0,
        "best_epoch": 1,
        "epochs": 2,
        "inference_ms": {1: 0.5, 64: 0.25},
        "device": "a machine",
        "threads": 1,
        "versions": {"torch": "2", "python": "3"},
    }
    return Result(task, np.array(ranks), np.arange(1, len(ranks) + 1), **(given | other))  # type: ignore[arg-type]
