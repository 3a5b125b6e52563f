"""What reading users' rows costs a replica: Feast's own client beside the reader that needs no Feast.

    python -m benchmarks.serving.features [--json] [--redis] [--users 10000] [--calls 2000] [--quick]

Three readers take the same batches of users in turn, in one process, from rows with sequences of 200:

    to_dict   `get_online_features(…).to_dict()`, as Feast's manual has it
    proto     the same answer's protobuf, to arrays: `UserSequences.read`
    online    `OnlineSequences.read`

A start is that of a process of its own: its imports, the opened store, one user's row.
"""

import argparse
import gc
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from feast import FeatureStore

from driftline.processes import redis as redis_server
from feature_repo.online import OnlineSequences
from feature_repo.store import SERVICE, UserRow, UserSequences, apply

LENGTH = 200
BATCHES = (1, 16, 32)
STARTS = 5
TIMEOUT_S = 5.0  # a slow call shall be seen, not cut off
STARTED = """
import sys, time
began = time.perf_counter()
from pathlib import Path
from {module} import {name}
imported = time.perf_counter()
(row,) = {name}(Path(sys.argv[1])).read([1])
done = time.perf_counter()
import json, psutil
print(json.dumps([row.user_id, imported - began, done - began, psutil.Process().memory_info().rss / 2**20]))
"""

Read = Callable[[list[int]], Any]


def row(user_id: int, rng: np.random.Generator) -> UserRow:
    """A heavy user's row, in realistic numbers."""
    times = 1_760_000_000_000 + np.cumsum(rng.integers(1, 1_000_000, LENGTH))
    return UserRow(
        user_id,
        rng.integers(1, 10_000, LENGTH).tolist(),
        times.tolist(),
        rng.integers(0, 60_000, LENGTH).tolist(),
        rng.integers(0, 2, LENGTH).tolist(),
        rng.integers(0, 2, LENGTH).tolist(),
        (np.arange(LENGTH) // 8).tolist(),
        last_event_ms=int(times[-1]),
        feedback_offset=user_id,
        session_start=LENGTH - 8,
    )


@contextmanager
def readers(repo: Path) -> Iterator[dict[str, Read]]:
    """The three of them, by name."""
    store, proto, online = FeatureStore(repo_path=str(repo)), UserSequences(repo), OnlineSequences(repo, TIMEOUT_S)
    service = store.get_feature_service(SERVICE)

    def to_dict(users: list[int]) -> dict[str, Any]:
        entity_rows = [{"user_id": user_id} for user_id in users]
        return store.get_online_features(features=service, entity_rows=entity_rows).to_dict()

    yield {"to_dict": to_dict, "proto": proto.read, "online": online.read}
    online.close()


def timed(by_name: dict[str, Read], batch: int, users: int, calls: int) -> dict[str, Any]:
    """Microseconds a user, of `calls` calls of each reader."""
    rng = np.random.default_rng(batch)
    took: dict[str, list[float]] = {name: [] for name in by_name}
    names = list(by_name)
    for call in range(-calls // 20, calls):  # the first ones warm up
        user_ids = (rng.choice(users, batch, replace=False) + 1).tolist()
        names.append(names.pop(0))
        for name in names:
            began = time.perf_counter()
            by_name[name](user_ids)
            if call >= 0:
                took[name].append((time.perf_counter() - began) * 1e6 / batch)
    return {
        name: {"p50_us": round(statistics.median(each), 1), "p99_us": round(float(np.quantile(each, 0.99)), 1)}
        for name, each in took.items()
    }


def start(repo: Path, module: str, name: str) -> dict[str, float]:
    """Seconds until imported and until the first row, and the memory by then; medians of `STARTS`."""
    program = STARTED.format(module=module, name=name)
    starts = []
    for _ in range(STARTS):
        done = subprocess.run([sys.executable, "-c", program, repo], capture_output=True, text=True, check=True)
        starts.append(json.loads(done.stdout)[1:])
    imported, first_row, rss = (statistics.median(each) for each in zip(*starts, strict=True))
    return {"import_s": round(imported, 3), "first_row_s": round(first_row, 3), "rss_mb": round(rss, 1)}


def measure(repo: Path, redis: str | None, users: int, calls: int) -> dict[str, Any]:
    """Everything, on one store."""
    apply(repo, redis)
    rng = np.random.default_rng(0)
    writer = UserSequences(repo)
    for first in range(1, users + 1, 1000):
        writer.write([row(user_id, rng) for user_id in range(first, min(first + 1000, users + 1))])
    with readers(repo) as by_name:
        gc.freeze()  # what Feast's import left to the collector is not the other reader's
        per_user = {f"batch {batch}": timed(by_name, batch, users, calls) for batch in BATCHES}
    return {
        "store": "redis" if redis else "sqlite",
        "users": users,
        "length": LENGTH,
        "calls": calls,
        **per_user,
        "start": {
            "proto": start(repo, "feature_repo.store", "UserSequences"),
            "online": start(repo, "feature_repo.online", "OnlineSequences"),
        },
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=10_000)
    parser.add_argument("--calls", type=int, default=2000, help="of each reader at each batch size")
    parser.add_argument("--redis", action="store_true", help="Redis instead of SQLite")
    parser.add_argument("--quick", action="store_true", help="a tenth of everything: does it run?")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of lines")
    arguments = parser.parse_args()
    scale = 10 if arguments.quick else 1
    users, calls = arguments.users // scale, arguments.calls // scale
    with tempfile.TemporaryDirectory(prefix="features-bench-") as scratch:
        repo = Path(scratch) / "features"
        if arguments.redis:
            with redis_server.start(redis_server.default_home(), Path(scratch) / "redis") as redis:
                figures = measure(repo, redis.address, users, calls)
        else:
            figures = measure(repo, None, users, calls)
    if arguments.json:
        sys.stdout.write(json.dumps(figures) + "\n")
    else:
        for name, value in figures.items():
            sys.stdout.write(f"{name:10} {json.dumps(value)}\n")


if __name__ == "__main__":
    main()
