"""Taking users out of the stores, and looking whether they are in them: online rows, and the files of the archive.

On SQLite a deleted row stays in free pages and in the write-ahead log, so the database is written anew and the log is
emptied. What Redis writes to its own disk is Redis's affair (docs/forget.md).
"""

import contextlib
import sqlite3
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from redis import Redis

from feature_repo.config import OnlineStore, online_store
from feature_repo.offline import EXAMPLES, SCHEMA, OfflineFiles, directory, examples_directory
from feature_repo.online import entity_key, redis_options
from feature_repo.row import VIEW

BUSY_S = 30.0  # that a writer of other rows is waited for


def forget_online(repo: Path, user_ids: Sequence[int], *, erase: bool) -> None:
    """Remove users' rows; `erase`: from the files of SQLite too.

    Raises:
        NotKnown: only Feast's own client knows the store.
        sqlite3.Error, RedisError: the store does not answer.

    """
    store = online_store(repo)
    if store.database is not None:
        _forget_sqlite(store.database, store.project, user_ids, erase=erase)
    else:
        with closing(_redis(store)) as client:
            client.delete(*(entity_key(user_id) + store.project.encode() for user_id in user_ids))


def has_row(repo: Path, user_id: int) -> bool:
    """Whether a user has any feature in the online store."""
    store = online_store(repo)
    if store.database is None:
        with closing(_redis(store)) as client:
            return bool(client.exists(entity_key(user_id) + store.project.encode()))
    with closing(sqlite3.connect(store.database, timeout=BUSY_S)) as connection:
        query = f'SELECT count(*) FROM "{_table(store.project)}" WHERE entity_key = ?'  # noqa: S608
        return bool(connection.execute(query, (entity_key(user_id),)).fetchone()[0])


def place_of(repo: Path) -> str:
    """What the online store is, in words, without a password."""
    store = online_store(repo)
    return str(store.database) if store.database is not None else f"Redis at {str(store.redis).partition(',')[0]}"


def forget_offline(repo: Path, user_ids: Collection[int]) -> int:
    """Write the archive's files anew without these users; returns how many files had any of them.

    An example goes before its rows do: a backfill that reads meanwhile finds no example without its features.
    """
    changed = 0
    for home, schema in ((examples_directory(repo), EXAMPLES), (directory(repo), SCHEMA)):
        files = OfflineFiles(home, schema=schema)
        for path in _files_with(home, user_ids):
            files.write(path.name, _without(path, user_ids))
            changed += 1
    return changed


def expire_offline(repo: Path, before_ms: int) -> int:
    """Empty the files whose newest example was logged before a time (Unix ms); returns how many there were.

    They stay, without rows, because their names say how far the archive has come.
    """
    emptied = 0
    rows, examples = OfflineFiles(directory(repo)), OfflineFiles(examples_directory(repo), schema=EXAMPLES)
    for path in sorted(examples_directory(repo).glob("*.parquet")):
        newest_ms = pc.max(pq.read_table(path, columns=["logged_ms"])["logged_ms"]).as_py()
        if newest_ms is not None and newest_ms < before_ms:
            examples.write(path.name, [])
            rows.write(path.name, [])
            emptied += 1
    return emptied


def archived(repo: Path, user_id: int) -> list[Path]:
    """The files of the archive that a user is in."""
    homes = [home for home in (examples_directory(repo), directory(repo)) if home.exists()]
    return [path for home in homes for path in _files_with(home, [user_id])]


def _forget_sqlite(database: Path, project: str, user_ids: Sequence[int], *, erase: bool) -> None:
    with closing(sqlite3.connect(database, timeout=BUSY_S, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA secure_delete={'ON' if erase else 'OFF'}")
        query = f'DELETE FROM "{_table(project)}" WHERE entity_key = ?'  # noqa: S608
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(query, [(entity_key(user_id),) for user_id in user_ids])
        connection.execute("COMMIT")
        if not erase:
            return
        connection.execute("VACUUM")
        busy, *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise sqlite3.OperationalError(f"the log of {database} is in use and was not emptied")


def _table(project: str) -> str:
    return f"{project}_{VIEW}".replace('"', '""')


def _redis(store: OnlineStore) -> Redis:
    return Redis(**redis_options(str(store.redis)))


def _files_with(home: Path, user_ids: Collection[int]) -> Iterator[Path]:
    wanted = pa.array([*user_ids], pa.int64())
    for path in sorted(home.glob("*.parquet")):
        # A file that is replaced or dropped meanwhile is looked at by whoever does it.
        with contextlib.suppress(FileNotFoundError):
            column = pq.read_table(path, columns=["user_id"])["user_id"]
            if pc.any(pc.is_in(column, value_set=wanted)).as_py():
                yield path


def _without(path: Path, user_ids: Collection[int]) -> Iterator[pa.Table]:
    wanted = pa.array([*user_ids], pa.int64())
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            table = file.read_row_group(group)
            kept = table.filter(pc.invert(pc.is_in(table["user_id"], value_set=wanted)))
            if len(kept):
                yield kept
