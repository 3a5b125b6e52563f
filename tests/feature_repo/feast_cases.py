"""Feast as a user of a repository has it: its command line, its Redis, and historical features as rows to compare."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import redis
import yaml

from driftline.processes.server import Server
from feature_repo.online import SequenceReader
from feature_repo.row import CONFIG
from feature_repo.store import HistoricalSequences, UserRow

REDIS = {"type": "redis", "connection_string": "127.0.0.1:1,password=secret"}


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


def full_row(user_id: int) -> UserRow:
    return UserRow(user_id, *[[user_id] * 200] * 6, last_event_ms=5, feedback_offset=user_id, written_us=user_id)


def users_of(features: SequenceReader, *user_ids: int) -> list[list[int]]:
    """Whom the rows tell of, in all their items."""
    return [sorted(set(row.item_ids)) if row else [] for row in features.read(user_ids)]


def configured(repo: Path, **changes: Any) -> Path:
    file = repo / CONFIG
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | changes))
    return repo
