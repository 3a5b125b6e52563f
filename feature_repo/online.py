"""What a replica reads users' rows with: Feast's online store in Feast's own format, without Feast.

Importing Feast costs a process seconds and some 350 MB, and its `get_online_features` several times the time of the
read itself. Nothing is written here, and every other kind of store is left to Feast's own client.
"""

import json
import sqlite3
import struct
import threading
import weakref
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import mmh3
import numpy as np
from google.protobuf.message import DecodeError
from redis import Redis, RedisError
from redis.backoff import NoBackoff
from redis.retry import Retry

from contracts.config.settings import SettingsError
from contracts.wire.feast_value_pb2 import FeastValue
from feature_repo.config import NotKnown, online_store
from feature_repo.row import NUMBERS, SEQUENCES, VIEW, FeaturesUnavailable, UserRow

TIMEOUT_S = 0.05
_FEATURES = (*SEQUENCES, *NUMBERS)
_STRING, _INT64 = 2, 4  # feast.types.ValueType
# An entity key: how many join keys, each one's type, length and name, then each value's type, length and bytes.
_KEY = struct.pack("<III7sII", 1, _STRING, len(b"user_id"), b"user_id", _INT64, 8)
_ID = struct.Struct("<q")

_Stored = Mapping[str, bytes | None]  # a user's features as they lie in the store


class SequenceReader(Protocol):
    """Reads users' rows."""

    def read(self, user_ids: Sequence[int]) -> list[UserRow | None]:
        """Read users' rows, in the order asked for; None for a user without one.

        Raises:
            FeaturesUnavailable: the store does not answer.

        """

    def close(self) -> None:
        """Let go of the store."""


def reader(repo: Path, timeout_s: float = TIMEOUT_S) -> SequenceReader:
    """The fastest reader of a repository's online store.

    That is `OnlineSequences`, or Feast's own client, which is imported only then and knows no `timeout_s`.

    Raises:
        SettingsError: as by `OnlineSequences`, but for stores that only Feast knows.

    """
    try:
        return OnlineSequences(repo, timeout_s)
    except NotKnown:
        return FeastSequences(repo)


class OnlineSequences:
    """The `user_sequence` rows of one repository, on SQLite or Redis. Any number of threads may read.

    A row is read whole: as it was before a write, or as it was after. A connection that was lost is made anew by the
    next read.

    Args:
        repo: an applied Feast repository.
        timeout_s: that a read waits for a locked SQLite, or each time for Redis; connecting is one more wait.

    Raises:
        SettingsError: the repository was not applied, its feature_store.yaml is wrong, or its online store cannot be
            reached.
        NotKnown: a SettingsError; only Feast's own client can read its rows.

    """

    def __init__(self, repo: Path, timeout_s: float = TIMEOUT_S) -> None:
        store = online_store(repo)
        self._rows: _Sqlite | _Redis
        if store.database is not None:
            self._rows = _Sqlite(store.database, store.project, timeout_s)
        else:
            assert store.redis is not None
            self._rows = _Redis(store.redis, store.project, timeout_s)

    def read(self, user_ids: Sequence[int]) -> list[UserRow | None]:
        """Read users' rows in one go, in the order asked for; None for a user without one.

        The arrays of a row are its own; a user who is asked for twice gets one row twice. SQLite takes 32,766
        users at once.

        Raises:
            FeaturesUnavailable: the store does not answer, or a row in it cannot be decoded.

        """
        distinct = list(dict.fromkeys(user_ids))
        if not distinct:
            return []
        try:
            rows = {
                user_id: decode(user_id, stored)
                for user_id, stored in zip(distinct, self._rows.fetch(distinct), strict=True)
            }
        except (sqlite3.Error, RedisError, DecodeError) as error:
            raise FeaturesUnavailable(f"Users' rows cannot be read: {_said(error)}.") from error
        return [rows[user_id] for user_id in user_ids]

    def close(self) -> None:
        """Let go of the store. It is not read again."""
        self._rows.close()


class FeastSequences:
    """The rows of any online store that Feast knows, by Feast's own client."""

    def __init__(self, repo: Path) -> None:
        from feature_repo.store import UserSequences

        self._features = UserSequences(repo)

    def read(self, user_ids: Sequence[int]) -> list[UserRow | None]:
        """Read users' rows, in the order asked for; None for a user without one.

        Raises:
            FeaturesUnavailable: Feast raised anything.

        """
        try:
            return self._features.read(user_ids) if len(user_ids) else []
        except Exception as error:  # each store's client has its own exceptions
            raise FeaturesUnavailable(f"Users' rows cannot be read: {_said(error)}.") from error

    def close(self) -> None:
        """Let go of the store. It is not read again."""
        self._features.close()


def entity_key(user_id: int) -> bytes:
    """A user as Feast writes the keys of rows; on Redis the project's name follows."""
    return _KEY + _ID.pack(user_id)


def decode(user_id: int, stored: _Stored) -> UserRow | None:
    """The row of a user's stored features; None where there is none, which Feast's client tells by the same feature."""
    if not stored.get("last_event_ms"):
        return None
    # A message that is merged into another extends its lists. So there is one array to make, in place of one a feature.
    merged, ends = FeastValue(), [0]
    for name in SEQUENCES:
        merged.MergeFromString(stored.get(name) or b"")
        ends.append(len(merged.int64_list_val.val))
    flat = np.asarray(merged.int64_list_val.val, np.int64)
    columns: dict[str, Any] = {name: flat[slice(*at)] for name, at in zip(SEQUENCES, pairwise(ends), strict=True)}
    numbers: dict[str, Any] = {name: FeastValue.FromString(stored.get(name) or b"").int64_val for name in NUMBERS}
    return UserRow(int(user_id), **columns, **numbers)


class _Sqlite:
    def __init__(self, database: Path, project: str, timeout_s: float) -> None:
        table = f"{project}_{VIEW}".replace('"', '""')
        # A line for each user, not for each feature: Python's lock is let go and taken again for every line.
        cells = ", ".join(f"max(CASE feature_name WHEN '{name}' THEN value END)" for name in _FEATURES)
        self._query = f'SELECT entity_key, {cells} FROM "{table}" WHERE entity_key IN '  # noqa: S608
        self._lock = threading.Lock()  # SQLite can be built without one of its own
        try:
            self._connection = sqlite3.connect(
                f"{database.absolute().as_uri()}?mode=ro",
                uri=True,
                timeout=timeout_s,
                isolation_level=None,
                check_same_thread=False,
            )
        except sqlite3.Error as error:
            raise SettingsError(f"Cannot open the online store {database}: {error}.") from error
        self._end = weakref.finalize(self, self._connection.close)  # for a reader that nobody closes
        try:
            self.fetch([0])
        except sqlite3.Error as error:
            self.close()
            raise SettingsError(f"Cannot read users' rows from {database}: {error}.") from error

    def fetch(self, user_ids: Sequence[int]) -> list[_Stored]:
        keys = [_KEY + _ID.pack(user_id) for user_id in user_ids]
        query = f"{self._query}({','.join('?' * len(keys))}) GROUP BY entity_key"
        with self._lock:
            lines = self._connection.execute(query, keys).fetchall()
        by_key = {key: dict(zip(_FEATURES, cells, strict=True)) for key, *cells in lines}
        return [by_key.get(key, {}) for key in keys]

    def close(self) -> None:
        with self._lock:
            self._end()


class _Redis:
    def __init__(self, connection_string: str, project: str, timeout_s: float) -> None:
        # Feast writes a hash as four bytes, the lowest first.
        fields = [struct.pack("<I", mmh3.hash(f"{VIEW}:{name}", signed=False)) for name in _FEATURES]
        limits = {"socket_timeout": timeout_s, "socket_connect_timeout": timeout_s, "retry": Retry(NoBackoff(), 0)}
        address = connection_string.partition(",")[0]  # what follows may be a password
        try:
            self._pool: Any = Redis(**redis_options(connection_string) | limits).connection_pool
            self._around = self._packed(project.encode(), fields)
            self.fetch([0])
        except RedisError as error:
            raise SettingsError(f"No Redis answers at {address}: {_said(error)}.") from error
        except (TypeError, ValueError) as error:
            raise SettingsError(
                f"The connection_string of the Redis at {address} has a setting that is none."
            ) from error

    def _packed(self, project: bytes, fields: list[bytes]) -> tuple[bytes, bytes]:
        """The command that asks for one user: what stands before and after the user's id.

        It is packed once: to pack each anew costs more than all the rest that is done here.
        """
        key = _KEY + _ID.pack(0) + project
        connection = self._pool.get_connection()
        try:
            before, _, after = b"".join(connection.pack_command("HMGET", key, *fields)).partition(key)
        finally:
            self._pool.release(connection)
        return before + _KEY, project + after

    def fetch(self, user_ids: Sequence[int]) -> list[_Stored]:
        before, after = self._around
        commands = b"".join([before + _ID.pack(user_id) + after for user_id in user_ids])
        connection = self._pool.get_connection()  # sees whether it still stands, and else connects
        try:
            connection.send_packed_command([commands])
            replies = [connection.read_response(disable_decoding=True) for _ in user_ids]
        except BaseException:
            connection.disconnect()  # a reply that is still to come must not answer the next read
            raise
        finally:
            self._pool.release(connection)
        return [dict(zip(_FEATURES, values, strict=True)) for values in replies]

    def close(self) -> None:
        self._pool.disconnect()


def _said(error: Exception) -> str:
    return str(error).rstrip(".")


def redis_options(connection_string: str) -> dict[str, Any]:
    """What Feast hands to `redis.Redis`.

    >>> redis_options("redis:6379,db=0,ssl=true,password=a=b")
    {'host': 'redis', 'port': '6379', 'db': 0, 'ssl': True, 'password': 'a=b'}
    """
    parts = connection_string.split(",")
    addresses = [part for part in parts if "=" not in part]
    host, _, port = (addresses or [""])[0].partition(":")
    return {"host": host, "port": port} | {
        name: _json_or_text(value) for name, _, value in (part.partition("=") for part in parts if "=" in part)
    }


def _json_or_text(value: str) -> Any:
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value
