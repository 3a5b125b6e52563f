"""Historical logs as rows, in all three formats, and the same as live events."""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from contracts.config.settings import Settings
from contracts.runtime.clock import HOUR_MS, MINUTE_MS
from stream.import_file import Bounds, Format, HistoryFile
from tests.stream.step_cases import Event, exposure, feedback

BEGIN_MS = 1_650_000_000_000
NOW_MS = BEGIN_MS + 1000 * HOUR_MS
ITEMS = range(1, 41)

Row = dict[str, Any]


def rows_of(seed: int, pages: int, users: int = 9, begin_ms: int = BEGIN_MS) -> list[Row]:
    """Pages of five items in 12 hours, each row at a time of its own, in no order."""
    chance = random.Random(seed)
    times = random.Random(seed + 1).sample(range(12 * HOUR_MS), 6 * pages)
    rows = []
    for page in range(pages):
        user, at_ms = chance.randint(1, users), begin_ms + times.pop()
        rows += [
            {
                "user_id": user,
                "item_id": item,
                "time_ms": at_ms if item % 5 == 0 else at_ms + chance.randrange(1, 60 * MINUTE_MS),
                "request_id": f"{seed}-{page}",
                "effective_view": chance.random() < 0.4,
                "play_time_ms": chance.randrange(60_000),
                "follow": chance.random() < 0.1,
            }
            for item in chance.sample(ITEMS, 5)
        ]
    chance.shuffle(rows)
    return rows


def live(rows: Sequence[Row]) -> list[Event]:
    """What a service would have sent, in the order of time."""
    pages: dict[str, list[Row]] = {}
    for row in rows:
        pages.setdefault(row["request_id"], []).append(row)
    events: list[Event] = []
    for name, page in pages.items():
        at_ms = min(row["time_ms"] for row in page)
        events.append(exposure(name, at_ms, tuple(row["item_id"] for row in page), page[0]["user_id"]))
        events += [
            feedback(
                row["item_id"], row["time_ms"], name, view=row["effective_view"], event=f"{name}/{n}",
                user=row["user_id"], play_ms=row["play_time_ms"], follow=row["follow"],
            )
            for n, row in enumerate(page)
        ]  # fmt: skip
    return sorted(events, key=lambda event: event.time_ms)


def write(rows: Sequence[Row], path: Path) -> Path:
    """A file of rows; its name says in which format."""
    match path.suffix:
        case ".csv":
            pyarrow.csv.write_csv(pa.Table.from_pylist(list(rows)), path)
        case ".parquet":
            pq.write_table(pa.Table.from_pylist(list(rows)), path)
        case _:
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def opened(path: Path, settings: Settings, scratch: Path, known: Sequence[int] = ITEMS, **columns: str) -> HistoryFile:
    kinds: dict[str, Format] = {".csv": "csv", ".parquet": "parquet", ".jsonl": "jsonl"}
    scratch.mkdir(parents=True)
    limits = settings.stream
    bounds = Bounds(NOW_MS, limits.future_tolerance_ms, limits.attribution_window_ms)
    return HistoryFile(path, kinds[path.suffix], columns, scratch, set(known), bounds)
