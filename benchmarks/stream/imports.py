"""`driftline import` of a large log: rows a second, and memory, at two sizes of one kind.

    python -m benchmarks.stream.imports [--rows 250000 1000000] [--text-ids]

It starts an Apache Kafka of its own, writes a Parquet file of pages of five items (50 rows a user, 30 % of them
effective views) and runs the command as a user would, in a process of its own. `rows_per_s` is by wall time of the
whole command, its start and the judging of every row included, `rows_per_cpu_s` by its CPU time; `peak_mb` is the
process's largest resident memory.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.stream.room import settings_for
from contracts.config.settings import KafkaSettings, dump
from contracts.kafka import bus
from contracts.messages.ids import id_of_text
from contracts.runtime.clock import SystemClock
from contracts.wire.events_pb2 import Item
from driftline.processes import broker
from driftline.processes import kafka as apache_kafka
from feature_repo.store import apply

ITEMS = 5_000
ROWS_PER_USER = 50
PAGE = 5
BEGIN_MS = 1_700_000_000_000
ASK_EVERY_S = 0.2


def write(path: Path, rows: int, *, text_ids: bool, seed: int = 0) -> None:
    """A file of a log of so many rows."""
    rng = np.random.default_rng(seed)
    pages = rows // PAGE
    users = rng.integers(1, max(rows // ROWS_PER_USER, 2), pages)
    begins = BEGIN_MS + np.sort(rng.integers(0, 30 * 24 * 3_600_000, pages))
    items = (rng.integers(0, ITEMS, pages)[:, None] + np.arange(PAGE) * 7) % ITEMS + 1
    columns: dict[str, Any] = {
        "request_id": pa.array(np.repeat(np.arange(pages), PAGE)).cast(pa.string()),
        "time_ms": np.repeat(begins, PAGE) + np.tile(np.arange(PAGE) * 20_000, pages),
        "effective_view": rng.random(rows) < 0.3,
        "play_time_ms": rng.integers(0, 60_000, rows),
    }
    named = {"user": np.repeat(users, PAGE), "item": items.ravel()}
    for name, numbers in named.items():
        texts = pa.array([f"{name}-{number:016d}" for number in numbers.tolist()]) if text_ids else numbers
        columns[f"{name}_key" if text_ids else f"{name}_id"] = texts
    pq.write_table(pa.table(columns), path)


def measure(bootstrap: str, rows: int, prefix: str, *, text_ids: bool) -> dict[str, Any]:
    """One import."""
    clock = SystemClock()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        kafka = KafkaSettings(bootstrap_servers=bootstrap, topic_prefix=prefix, topic_config={"retention.ms": "-1"})
        broker.prepare(kafka)
        apply(folder / "features")
        dump(settings_for(kafka, folder), folder / "settings.yaml")
        producer = bus.producer(kafka)
        for number in range(1, ITEMS + 1):
            item = Item(schema_version=1)
            if text_ids:
                item.item_key = f"item-{number:016d}"
            else:
                item.item_id = number
            key = bus.key_of(item.item_id or id_of_text(item.item_key))
            producer.send(kafka.topic(bus.ITEMS), key=key, value=item.SerializeToString(), partition=0)
        producer.flush()
        producer.close()
        write(folder / "log.parquet", rows, text_ids=text_ids)
        began_s = clock.elapsed_s()
        command = [sys.executable, "-m", "driftline", "import", str(folder / "log.parquet")]
        process = subprocess.Popen([*command, "-s", str(folder / "settings.yaml")], stdout=subprocess.PIPE, text=True)
        watched, peak, cpu_s = psutil.Process(process.pid), 0, 0.0
        while True:
            try:
                said, _ = process.communicate(timeout=ASK_EVERY_S)
                break
            except subprocess.TimeoutExpired:
                peak, times = max(peak, watched.memory_info().rss), watched.cpu_times()
                cpu_s = times.user + times.system
        wall_s = clock.elapsed_s() - began_s
    if process.returncode:
        raise SystemExit(f"the import failed: {said}")
    return {
        "rows": rows,
        "text_ids": text_ids,
        "wall_s": round(wall_s, 1),
        "rows_per_s": round(rows / wall_s),
        "rows_per_cpu_s": round(rows / cpu_s),
        "peak_mb": round(peak / 2**20),
        "said": said.strip().splitlines()[-1],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[250_000, 1_000_000])
    parser.add_argument("--text-ids", action="store_true", help="name users and items by texts")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as data:
        server = apache_kafka.start(apache_kafka.default_home(), Path(data))
        try:
            runs = [
                measure(server.address, rows, f"import{n}.", text_ids=options.text_ids)
                for n, rows in enumerate(options.rows)
            ]
        finally:
            server.stop()
    sys.stdout.write(json.dumps({"cores": os.cpu_count(), "load": os.getloadavg()[0], "runs": runs}, indent=1) + "\n")


if __name__ == "__main__":
    main()
