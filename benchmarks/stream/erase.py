"""What it costs to take a user out of files: a partition's state rewritten, and a SQLite store.

    python -m benchmarks.stream.erase --users 20000

Users have a full history each. The files are rewritten whole, so the time goes by all users, not by who is forgotten.
"""

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from contracts.config.settings import StreamSettings
from contracts.messages.attribution import ExposureSummary
from contracts.wire.events_pb2 import History
from contracts.wire.stream_state_pb2 import Outbox
from feature_repo.store import UserSequences, apply
from stream.deliver import row_of
from stream.join import OpenRequest
from stream.partition import PartitionStore
from stream.sessions import UserSessions

SMALL_CACHE = StreamSettings(cached_requests=1)  # all requests are read from the files
AT_ONCE, BEHAVIOURS, TIMES = 1000, 200, 3


def main() -> None:
    """Fill both stores, and forget a user several times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=20_000)
    users = parser.parse_args().users
    with tempfile.TemporaryDirectory() as directory:
        measure(Path(directory), users)


def measure(home: Path, users: int) -> None:
    """Print what each costs."""
    apply(home / "features")
    store, features = PartitionStore(home / "state", "feedback", 0, SMALL_CACHE), UserSequences(home / "features")
    chance = random.Random(0)
    for begin in range(1, users + 1, AT_ONCE):
        everyone = {number: UserSessions(history(chance)) for number in range(begin, begin + AT_ONCE)}
        for number, user in everyone.items():
            store.put_user(number, user)
        store.commit(Outbox())
        features.write([row_of(number, user) for number, user in everyone.items()])
    for place in range(users):
        items = frozenset(range(place, place + 10))
        store.put_request(f"{place:032x}", OpenRequest(shown=ExposureSummary(place, 1, "a", items)))
    store.commit(Outbox())
    look_s = _timed(lambda: store.requests_of(1))
    sys.stdout.write(f"{users:,} open requests are looked through in {look_s:.2f} s\n")
    state_mb, database_mb = (_megabytes(home / name) for name in ("state", "features"))
    sys.stdout.write(f"{users:,} users: state {state_mb:.0f} MB, SQLite {database_mb:.0f} MB\n")
    for number in range(1, TIMES + 1):
        store.drop_user(number)
        store.commit(Outbox())
        state_s = _timed(store.erase)
        database_s = _timed(lambda number=number: features.forget([number], erase=True))
        sys.stdout.write(f"state {state_s:.2f} s, SQLite {database_s:.2f} s\n")
    features.close()
    store.close()


def history(chance: random.Random) -> History:
    """Behaviours of a year, of a million items."""
    return History(
        item_ids=[chance.randrange(10**6) for _ in range(BEHAVIOURS)],
        times_ms=sorted(chance.randrange(1_700_000_000_000, 1_730_000_000_000) for _ in range(BEHAVIOURS)),
        play_times_ms=[chance.randrange(60_000) for _ in range(BEHAVIOURS)],
        effective_views=[chance.random() < 0.3 for _ in range(BEHAVIOURS)],
        follows=[False] * BEHAVIOURS,
        sessions=[place // 9 for place in range(BEHAVIOURS)],
    )


def _timed(work: Callable[[], object]) -> float:
    begun_s = time.perf_counter()
    work()
    return time.perf_counter() - begun_s


def _megabytes(home: Path) -> float:
    return sum(path.stat().st_size for path in home.rglob("*") if path.is_file()) / 1e6


if __name__ == "__main__":
    main()
