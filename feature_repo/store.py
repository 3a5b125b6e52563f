"""The rooms' calls on the Feast store: apply the repository, write user rows, read user rows.

Rows are written straight through Feast's provider (four times as fast as `push`) and read by `get_online_features`.
There is one writer; replicas read.
"""

import shutil
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
from feast import FeatureStore
from feast.infra.online_stores.sqlite import SqliteOnlineStoreConfig
from feast.infra.provider import get_provider
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Int64List, Value

from contracts.features import Ints

VIEW = "user_sequence"
SERVICE = "recall_features"
COLUMNS = ("item_ids", "times_ms", "play_times_ms", "effective_views", "follows", "sessions")


@dataclass(frozen=True)
class UserRow:
    """One user's features. The six arrays (m,) run in parallel, oldest behaviour first."""

    user_id: int
    item_ids: Sequence[int] | Ints
    times_ms: Sequence[int] | Ints
    play_times_ms: Sequence[int] | Ints
    effective_views: Sequence[int] | Ints
    follows: Sequence[int] | Ints
    sessions: Sequence[int] | Ints
    last_event_ms: int
    feedback_offset: int


def apply(target: Path) -> None:
    """Make a Feast repository in `target` from this one, and apply it."""
    target.mkdir(parents=True, exist_ok=True)
    (target / "data").mkdir(exist_ok=True)
    for name in ("feature_store.yaml", "definitions.py", ".feastignore"):
        shutil.copyfile(Path(__file__).with_name(name), target / name)
    from feature_repo import definitions

    store = FeatureStore(repo_path=str(target))
    store.apply([definitions.user, definitions.user_sequence, definitions.recall_features])
    online = store.config.online_store
    if isinstance(online, SqliteOnlineStoreConfig):
        # Without a write-ahead log readers wait for the writer: p99 of a read 8.4 ms instead of 0.15 ms.
        with sqlite3.connect(target / online.path) as connection:
            connection.execute("PRAGMA journal_mode=WAL")


class UserSequences:
    """The `user_sequence` features of one repository."""

    def __init__(self, repo: Path) -> None:
        self._store = FeatureStore(repo_path=str(repo))
        self._provider = get_provider(self._store.config)
        self._view = self._store.get_feature_view(VIEW)
        self._service = self._store.get_feature_service(SERVICE)

    def write(self, rows: Sequence[UserRow]) -> None:
        """Write rows in one batch. A user's row replaces the one before; the caller never passes an older one."""
        if rows:
            self._provider.online_write_batch(self._store.config, self._view, [_to_feast(row) for row in rows], None)

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


def _to_feast(row: UserRow) -> tuple[EntityKey, dict[str, Value], datetime, None]:
    values = {name: Value(int64_list_val=Int64List(val=getattr(row, name))) for name in COLUMNS}
    values["last_event_ms"] = Value(int64_val=row.last_event_ms)
    values["feedback_offset"] = Value(int64_val=row.feedback_offset)
    key = EntityKey(join_keys=["user_id"], entity_values=[Value(int64_val=row.user_id)])
    return key, values, datetime.fromtimestamp(row.last_event_ms / 1000, UTC), None


def _from_feast(user_id: int, values: dict[str, Value]) -> UserRow | None:
    # A missing entity is NOT_FOUND on SQLite but PRESENT with no value on Redis; an unset time covers both.
    if values["last_event_ms"].WhichOneof("val") is None:
        return None
    arrays: dict[str, npt.NDArray[np.int64]] = {
        name: np.asarray(values[name].int64_list_val.val, np.int64) for name in COLUMNS
    }
    return UserRow(
        user_id,
        **arrays,
        last_event_ms=values["last_event_ms"].int64_val,
        feedback_offset=values["feedback_offset"].int64_val,
    )
