"""The rooms' calls on the Feast store: apply the repository, write user rows, read user rows.

Rows are written straight through Feast's provider (four times as fast as `push`) and read by `get_online_features`,
on SQLite and on Redis alike; feature_store.yaml says which. Each user has one writer at a time; replicas read.
"""

import re
import runpy
import shutil
import warnings
import weakref
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import structlog
import yaml
from feast import FeatureStore
from feast.errors import FeastObjectNotFoundException
from feast.infra.online_stores.sqlite import SqliteOnlineStoreConfig
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from redis import RedisError

from contracts.config.settings import SettingsError
from contracts.runtime.durable import write_private
from feature_repo import forget, offline
from feature_repo.config import NotKnown, provide
from feature_repo.row import CONFIG, NUMBERS, SEQUENCES, VERSION, VIEW, UserRow
from feature_repo.sqlite import Versions, allow_readers, close_store, feast_closed

__all__ = ["SERVICE", "VIEW", "HistoricalSequences", "UserRow", "UserSequences", "apply", "to_feast"]

log = structlog.get_logger()
SERVICE = "recall_features"
REDIS_ADDRESS = re.compile(r"[^:,=]+:\d+(,|$)")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Feasted = tuple[EntityKey, dict[str, Value], datetime, datetime | None]


def apply(target: Path, redis: str | None = None) -> None:
    """Make a Feast repository in `target` from this one, and apply it.

    A feature_store.yaml that is there already is kept. `redis`: Feast's connection string of the online store,
    "host:port" at least; None leaves the online store as the file has it, which is SQLite at first.

    Raises:
        SettingsError: the online store cannot be reached.

    """
    target.mkdir(parents=True, exist_ok=True)
    (target / "data").mkdir(exist_ok=True)
    source = Path(__file__).parent
    for name in ("definitions.py", ".feastignore"):
        shutil.copyfile(source / name, target / name)
    config = target / CONFIG
    if not config.exists():
        write_private(config, (source / CONFIG).read_bytes())
    before = config.read_bytes()
    if redis is not None:
        if not REDIS_ADDRESS.match(redis):
            address = redis.partition(",")[0]
            raise SettingsError(f"'{address}' is no address of a Redis: HOST:PORT is wanted.")
        online = {"online_store": {"type": "redis", "connection_string": redis}}
        write_private(config, yaml.safe_dump(yaml.safe_load(before) | online, sort_keys=False).encode())
    provide(target)
    offline.prepare(target)
    # The copy's own definitions: they name the directory that they lie in.
    definitions = runpy.run_path(str(target / "definitions.py"))
    store = FeatureStore(repo_path=str(target))
    with feast_closed():
        store.apply([definitions[name] for name in ("user", "user_sequence", "recall_features")])
    if isinstance(store.config.online_store, SqliteOnlineStoreConfig):
        allow_readers(_database(store))
    try:
        UserSequences(target).close()
    except SettingsError:
        write_private(config, before)  # a store that does not answer is not chosen
        raise


class UserSequences:
    """The `user_sequence` features of one repository. One that nobody closes closes when nobody holds it any more.

    Raises:
        SettingsError: the repository was not applied, or its online store cannot be reached.

    """

    def __init__(self, repo: Path) -> None:
        self._store, self._view, self._service = _open(repo)
        self._provider = self._store._get_provider()  # noqa: SLF001  (Feast reads by it too: one connection for both)
        online = self._store.config.online_store
        self._versions = (
            Versions(
                _database(self._store),
                f"{self._store.project}_{VIEW}",
                self._store.config.entity_key_serialization_version,
            )
            if isinstance(online, SqliteOnlineStoreConfig)
            else None
        )
        self.close = weakref.finalize(self, _close, self._versions, self._provider.online_store)
        try:
            self.read([0])
        except RedisError as error:
            # What follows the first comma may be a password.
            address = online.connection_string.partition(",")[0]
            raise SettingsError(f"No Redis answers at {address}: {error}.") from error

    def write(self, rows: Sequence[UserRow]) -> int:
        """Write rows in one batch; returns how many were left out.

        Left out is a row that is not newer (`written_us`) than the one that the store holds for its user.
        """
        if not rows:
            return 0
        batch = [to_feast(row) for row in rows]
        fresh = self._newer(batch) if self._versions else batch
        reports: list[int] = []
        self._provider.online_write_batch(self._store.config, self._view, fresh, reports.append)
        if self._versions:
            return len(batch) - len(fresh)
        # Feast's Redis store reports each row that it leaves out, and then once what it has written.
        return len(reports) - 1

    def forget(self, user_ids: Sequence[int], *, erase: bool) -> None:
        """Remove users' rows from the store; one that is not there is no error.

        Feast has no call for it, so on another store than SQLite and Redis the rows stay, and the log says so.

        `erase`: from the files of a SQLite store too, which are written anew.
        """
        try:
            forget.forget_online(Path(self._store.repo_path), user_ids, erase=erase)
        except NotKnown as error:
            log.warning("rows of forgotten users are to be removed by hand", rows=len(user_ids), error=str(error))

    def read(self, user_ids: Sequence[int]) -> list[UserRow | None]:
        """Read users' rows, in the order asked for; None for a user without one."""
        response = self._store.get_online_features(
            features=self._service, entity_rows=[{"user_id": user_id} for user_id in user_ids]
        ).proto
        results = {
            name: result.values
            for name, result in zip(response.metadata.feature_names.val, response.results, strict=True)
        }
        return [
            _from_feast(user_id, {name: values[i] for name, values in results.items()})
            for i, user_id in enumerate(user_ids)
        ]

    def _newer(self, batch: list[Feasted]) -> list[Feasted]:
        assert self._versions
        newest: dict[int, int] = {}
        fresh = []
        for entry in batch:
            key, values, _, _ = entry
            user_id, version = key.entity_values[0].int64_val, values[VERSION].int64_val
            stored = newest[user_id] if user_id in newest else self._versions.of(key)
            if version > stored:
                fresh.append(entry)
            newest[user_id] = max(version, stored)
        return fresh


class HistoricalSequences:
    """The `user_sequence` features of one repository as they were, from its offline store.

    Raises:
        SettingsError: the repository was not applied.

    """

    def __init__(self, repo: Path) -> None:
        self._store, _, self._service = _open(repo)

    def read(self, user_ids: Sequence[int], times_ms: Sequence[int]) -> list[UserRow | None]:
        """Users' rows as of times (Unix ms), in the order asked for; None for one who had no behaviour by then.

        `feedback_offset` is 0: the offline store has none. Each call reads the whole store, so ask for many at once.
        """
        entity_rows = pd.DataFrame(
            {
                "user_id": np.asarray(user_ids, np.int64),
                "event_timestamp": pd.to_datetime(np.asarray(times_ms, np.int64), unit="ms", utc=True),
                "n": np.arange(len(user_ids)),
            }
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # ibis calls what DuckDB 2 deprecates
            answer = self._store.get_historical_features(entity_df=entity_rows, features=self._service).to_arrow()
        answer = answer.sort_by("n")
        if answer["n"].to_pylist() != list(range(len(user_ids))):
            raise RuntimeError("Feast did not answer each row that it was asked for once.")
        sequences = {name: answer[name].to_pylist() for name in SEQUENCES}
        starts, newest, versions = (answer[name].to_pylist() for name in ("session_start", "last_event_ms", VERSION))
        return [
            UserRow(
                user_id=int(user_ids[i]),
                **{name: pieces[i] for name, pieces in sequences.items()},
                last_event_ms=newest[i],
                feedback_offset=0,
                session_start=starts[i],
                written_us=versions[i],
            )
            if newest[i] is not None
            else None
            for i in range(len(user_ids))
        ]


def _close(versions: Versions | None, store: Any) -> None:
    """Close the connections to a SQLite store; Redis closes its own."""
    if versions:
        versions.close()
    close_store(store)


def _open(repo: Path) -> tuple[FeatureStore, Any, Any]:
    provide(repo)
    try:
        store = FeatureStore(repo_path=str(repo))
        view, service = store.get_feature_view(VIEW), store.get_feature_service(SERVICE)
    except (FileNotFoundError, FeastObjectNotFoundException) as error:
        raise SettingsError(f"There is no applied Feast repository in {repo}; `driftline init` makes one.") from error
    if {feature.name for feature in view.features} != {*SEQUENCES, *NUMBERS}:
        raise SettingsError(f"The Feast repository in {repo} is of another version; `driftline init` renews it.")
    return store, view, service


def _database(store: FeatureStore) -> Path:
    return Path(store.repo_path) / str(store.config.online_store.path)


def to_feast(row: UserRow) -> Feasted:
    """A row as Feast's providers take it."""
    written_us = row.written_us or row.last_event_ms * 1000
    values: dict[str, Value] = {}
    for name in SEQUENCES:
        value = values[name] = Value()
        value.int64_list_val.val.extend(getattr(row, name))  # a third faster than to build the list apart
    values["session_start"] = Value(int64_val=row.session_start)
    values["last_event_ms"] = Value(int64_val=row.last_event_ms)
    values["feedback_offset"] = Value(int64_val=row.feedback_offset)
    values[VERSION] = Value(int64_val=written_us)
    key = EntityKey(join_keys=["user_id"], entity_values=[Value(int64_val=row.user_id)])
    return key, values, EPOCH + timedelta(microseconds=written_us), None


def _from_feast(user_id: int, values: dict[str, Value]) -> UserRow | None:
    # A missing entity is NOT_FOUND on SQLite but PRESENT with no value on Redis; an unset time covers both.
    if values["last_event_ms"].WhichOneof("val") is None:
        return None
    columns: dict[str, Any] = {name: np.asarray(values[name].int64_list_val.val, np.int64) for name in SEQUENCES}
    numbers: dict[str, Any] = {name: values[name].int64_val for name in NUMBERS}
    return UserRow(user_id, **columns, **numbers)
