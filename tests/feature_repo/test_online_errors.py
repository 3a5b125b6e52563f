"""What goes wrong with a replica's reads: at the start one sentence, later one exception and then rows again."""

import os
import shutil
import signal
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.protos.feast.core.Registry_pb2 import Registry
from redis import Redis

from contracts.config.settings import SettingsError
from driftline.processes import redis as redis_server_of
from driftline.processes.server import Server
from feature_repo.online import FeastSequences, OnlineSequences, reader
from feature_repo.row import CONFIG, VIEW, FeaturesUnavailable
from feature_repo.store import UserSequences, apply, to_feast
from tests.conftest import serve
from tests.feature_repo.feast_cases import REDIS, configured, full_row, users_of

TABLE = f'"driftline_{VIEW}"'
PATIENT_S = 30.0  # tests share their machine
SHORT_S = 0.05


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A Redis that the test may stop; it comes up again with what it held."""
    kept = {"appendonly": "yes", "appendfsync": "always"}
    yield from serve(lambda: redis_server_of.start(redis_server_of.default_home(), tmp_path / "redis", extra=kept))


@pytest.fixture
def on_redis(server: Server, tmp_path: Path) -> Path:
    target = tmp_path / "repo"
    apply(target, server.address)
    UserSequences(target).write([full_row(1), full_row(2)])
    return target


def entity_key(user_id: int) -> bytes:
    """Feast's own key of a user."""
    key, *_ = to_feast(full_row(user_id))
    return bytes(serialize_entity_key(key, entity_key_serialization_version=3))


def nothing_there(repo: Path) -> None:
    shutil.rmtree(repo)


def no_registry(repo: Path) -> None:
    (repo / "data" / "registry.db").unlink()


def another_project(repo: Path) -> None:
    configured(repo, project="mine")


def torn_registry(repo: Path) -> None:
    (repo / "data" / "registry.db").write_bytes(b"\xff")


def edited_registry(repo: Path, edit: Callable[[Any], object]) -> None:
    file = repo / "data" / "registry.db"
    registry = Registry.FromString(file.read_bytes())
    edit(registry.feature_views[0].spec)
    file.write_bytes(registry.SerializeToString())


def a_feature_less(repo: Path) -> None:
    edited_registry(repo, lambda spec: spec.features.pop())


def a_feature_of_another_type(repo: Path) -> None:
    edited_registry(repo, lambda spec: setattr(spec.features[0], "value_type", 13))


def users_of_another_type(repo: Path) -> None:
    edited_registry(repo, lambda spec: setattr(spec.entity_columns[0], "value_type", 2))


def no_database(repo: Path) -> None:
    configured(repo, online_store={"type": "sqlite", "path": "data/lost.db"})


def no_table(repo: Path) -> None:
    on_database(repo, f"DROP TABLE {TABLE}")


def no_redis(repo: Path) -> None:
    configured(repo, online_store=REDIS)


def no_redis_setting(repo: Path) -> None:
    configured(repo, online_store=REDIS | {"connection_string": "127.0.0.1:1,pasword=secret"})


def no_redis_port(repo: Path) -> None:
    configured(repo, online_store=REDIS | {"connection_string": "127.0.0.1,password=secret"})


def no_yaml(repo: Path) -> None:
    (repo / CONFIG).write_text("project: [")


def no_project(repo: Path) -> None:
    (repo / CONFIG).write_text("provider: local")


def on_database(repo: Path, statement: str, *values: bytes) -> None:
    connection = sqlite3.connect(repo / "data" / "online.db")
    connection.execute(statement, values)
    connection.commit()
    connection.close()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (nothing_there, "There is no applied Feast repository in "),
        (no_registry, "There is no applied Feast repository in "),
        (another_project, "There is no applied Feast repository in "),
        (torn_registry, r".*registry.db is no registry of Feast's\.$"),
        (a_feature_less, "The Feast repository in .* is of another version; "),
        (a_feature_of_another_type, "The Feast repository in .* is of another version; "),
        (users_of_another_type, "The Feast repository in .* is of another version; "),
        (no_database, "Cannot open the online store .*lost.db: unable to open database file"),
        (no_table, "Cannot read users' rows from .*online.db: no such table"),
        (no_redis, "No Redis answers at 127.0.0.1:1: "),
        (no_redis_setting, "The connection_string of the Redis at 127.0.0.1:1 "),
        (no_redis_port, "The connection_string of the Redis at 127.0.0.1 "),
        (no_yaml, ".*feature_store.yaml is not valid YAML"),
        (no_project, ".*feature_store.yaml names no project"),
    ],
)
def test_what_a_user_can_mend_is_one_sentence(repo: Path, spoil: Callable[[Path], None], says: str) -> None:
    spoil(repo)
    with pytest.raises(SettingsError, match=says) as raised:
        reader(repo)
    assert "secret" not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_the_reader_is_the_fastest_one_that_can_read_the_store(repo: Path) -> None:
    ours = reader(repo)
    # To name the class in the place of its kind is how Feast takes stores that it does not know.
    feasts = reader(configured(repo, online_store={"type": "feast.infra.online_stores.sqlite.SqliteOnlineStore"}))
    assert isinstance(ours, OnlineSequences)
    assert isinstance(feasts, FeastSequences)
    assert users_of(ours, 2, 3, 1) == users_of(feasts, 2, 3, 1) == [[2], [], [1]]
    assert feasts.read([]) == []
    no_table(repo)
    for each in (ours, feasts):
        with pytest.raises(FeaturesUnavailable, match="no such table"):
            each.read([1])
        each.close()


def test_a_locked_sqlite_is_unavailable_until_it_is_free(repo: Path) -> None:
    on_database(repo, "PRAGMA journal_mode=DELETE")
    features = OnlineSequences(repo, SHORT_S)
    writer = sqlite3.connect(repo / "data" / "online.db", isolation_level=None)
    writer.execute("BEGIN EXCLUSIVE")
    with pytest.raises(FeaturesUnavailable, match="database is locked"):
        features.read([1])
    writer.execute("ROLLBACK")
    writer.close()
    assert users_of(features, 1) == [[1]]
    features.close()
    with pytest.raises(FeaturesUnavailable):
        features.read([1])


def test_a_row_that_cannot_be_decoded_is_unavailable(repo: Path) -> None:
    on_database(repo, f"UPDATE {TABLE} SET value = ? WHERE entity_key = ?", b"\x72\xff", entity_key(2))  # noqa: S608
    features = OnlineSequences(repo)
    with pytest.raises(FeaturesUnavailable):
        features.read([1, 2])
    assert users_of(features, 1) == [[1]]
    features.close()


def test_replies_that_come_too_late_answer_no_other_read(on_redis: Path, server: Server) -> None:
    features = OnlineSequences(on_redis, 2.0)
    os.kill(server.pid, signal.SIGSTOP)
    try:
        with pytest.raises(FeaturesUnavailable, match="Timeout"):
            features.read([1])
    finally:
        os.kill(server.pid, signal.SIGCONT)
    assert users_of(features, 2) == [[2]]
    features.close()


def test_an_error_amid_a_batch_leaves_no_reply_behind(on_redis: Path, server: Server) -> None:
    features = OnlineSequences(on_redis, PATIENT_S)
    host, port = server.address.split(":")
    with Redis(host=host, port=int(port)) as client:
        client.set(entity_key(3) + b"driftline", "no hash")
    with pytest.raises(FeaturesUnavailable, match="WRONGTYPE"):
        features.read([3, 1])
    assert users_of(features, 2) == [[2]]
    features.close()


def test_a_redis_that_went_away_is_found_again(on_redis: Path, server: Server) -> None:
    features = OnlineSequences(on_redis, PATIENT_S)
    server.kill()
    with pytest.raises(FeaturesUnavailable):
        features.read([1])
    server.restart()
    assert users_of(features, 1, 2) == [[1], [2]]
    server.kill()
    server.restart()  # between two reads: nobody notices
    assert users_of(features, 2, 1) == [[2], [1]]
    features.close()
