"""Feast as a user of a repository has it: its command line, its Redis, and historical features as rows to compare."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import redis

from driftline.processes.server import Server
from feature_repo.store import HistoricalSequences, UserRow


def feast(repo: Path, *arguments: str) -> str:
    """What Feast's own command says in a repository."""
    command = [Path(sys.executable).with_name("feast"), "--chdir", repo, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def historical(repo: Path, users: Sequence[int], times_ms: Sequence[int]) -> list[UserRow | None]:
    """What `get_historical_features` says of users at times, in the order asked for.

    None where the user had no behaviour. `feedback_offset` is 0: the offline store has none.
    """
    return HistoricalSequences(repo).read(users, times_ms)


def redis_address(server: Server, db: int) -> str:
    """Feast's connection string of a database of a Redis, which is emptied."""
    host, port = server.address.split(":")
    with redis.Redis(host=host, port=int(port), db=db) as client:
        client.flushdb()
    return f"{server.address},db={db}"
