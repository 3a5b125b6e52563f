"""The calls on Feast, on SQLite and on Redis: one code path, and Feast's own tools work on what it leaves behind."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from feast import FeatureStore

import feature_repo
from contracts.config.settings import SettingsError
from contracts.wire.events_pb2 import History
from feature_repo import offline
from feature_repo.sqlite import feast_closed
from feature_repo.store import SERVICE, VIEW, UserRow, UserSequences, apply
from tests.feature_repo.feast_cases import feast, redis_address

REDIS_DB = 9  # of this module's tests


@pytest.fixture(params=["sqlite", "redis"])
def repo(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """An applied repository on each online store."""
    if request.param == "sqlite":
        apply(tmp_path)
    else:
        address = redis_address(request.getfixturevalue("redis_server"), REDIS_DB)
        apply(tmp_path, address)
    return tmp_path


def history(*item_ids: int) -> History:
    size = len(item_ids)
    return History(
        item_ids=item_ids,
        times_ms=range(1000, 1000 + size),
        play_times_ms=range(size),
        effective_views=[n % 2 == 0 for n in range(size)],
        follows=[n % 3 == 0 for n in range(size)],
        sessions=[n // 2 for n in range(size)],
    )


def row(user_id: int, *item_ids: int, written_us: int = 5_000_000) -> UserRow:
    return UserRow.of(
        user_id,
        history(*item_ids),
        session_start=len(item_ids) - 1,
        last_event_ms=1000 + len(item_ids) - 1,
        feedback_offset=3,
        written_us=written_us,
    )


def lists(found: UserRow | None) -> UserRow | None:
    """The row with lists in the place of whatever holds its columns."""
    return found and replace(found, **{name: list(getattr(found, name)) for name in offline.SEQUENCES})


def items(features: UserSequences, user_id: int) -> list[int]:
    (found,) = features.read([user_id])
    assert found is not None
    return list(found.item_ids)


def test_rows_come_back_as_they_were_written(repo: Path) -> None:
    features = UserSequences(repo)
    rows = [row(1, 11, 12, 13), row(2, *range(1, 201))]
    assert features.write(rows) == 0
    assert [lists(found) for found in UserSequences(repo).read([2, 3, 1])] == [lists(rows[1]), None, lists(rows[0])]
    (found,) = features.read([1])
    assert found is not None
    assert found.written_us == 5_000_000


def test_nothing_to_write_is_no_error(repo: Path) -> None:
    assert UserSequences(repo).write([]) == 0


def test_an_older_or_equal_row_never_replaces_a_newer_one(repo: Path) -> None:
    features = UserSequences(repo)
    assert features.write([row(1, 11, 12, written_us=7_000_001)]) == 0
    assert features.write([row(1, 99, written_us=7_000_000), row(2, 21)]) == 1
    assert features.write([row(1, 99, written_us=7_000_001)]) == 1
    assert items(features, 1) == [11, 12]
    assert items(features, 2) == [21]


def test_a_late_event_makes_a_newer_row_though_it_is_no_newer_event(repo: Path) -> None:
    features = UserSequences(repo)
    before = row(1, 11, 12, written_us=7_000_000)
    features.write([before])
    assert features.write([replace(row(1, 11, 10, 12, written_us=7_000_001), last_event_ms=before.last_event_ms)]) == 0
    assert items(features, 1) == [11, 10, 12]


def test_of_two_rows_of_a_user_in_one_batch_the_newer_stays(repo: Path) -> None:
    features = UserSequences(repo)
    assert features.write([row(1, 11, written_us=2), row(1, 12, written_us=3), row(1, 13, written_us=1)]) == 1
    assert items(features, 1) == [12]


def test_feasts_own_tools_work_on_an_applied_repository(repo: Path) -> None:
    UserSequences(repo).write([row(1, 11, 12, 13)])
    feast(repo, "apply")
    assert VIEW in feast(repo, "feature-views", "list")
    assert SERVICE in feast(repo, "feature-services", "list")
    store = FeatureStore(repo_path=str(repo))
    with feast_closed():
        found = store.get_online_features(
            features=[f"{VIEW}:item_ids", f"{VIEW}:session_start"], entity_rows=[{"user_id": 1}]
        ).to_dict()
    assert found == {"user_id": [1], "item_ids": [[11, 12, 13]], "session_start": [2]}


def test_feast_applies_the_bare_repository(tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(Path(feature_repo.__file__).parent, bare, ignore=shutil.ignore_patterns("data", "__pycache__"))
    feast(bare, "apply")
    assert VIEW in feast(bare, "feature-views", "list")


def test_applying_again_keeps_what_the_user_configured(tmp_path: Path) -> None:
    apply(tmp_path)
    file = tmp_path / "feature_store.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | {"project": "mine"}))
    apply(tmp_path)
    assert yaml.safe_load(file.read_text())["project"] == "mine"
    assert UserSequences(tmp_path).write([row(1, 11)]) == 0


def unreachable(repo: Path) -> None:
    apply(repo, "127.0.0.1:1,password=secret")


def not_applied(repo: Path) -> None:
    UserSequences(repo)


def configured_only(repo: Path) -> None:
    shutil.copyfile(Path(feature_repo.__file__).with_name("feature_store.yaml"), repo / "feature_store.yaml")
    UserSequences(repo)


@pytest.mark.parametrize(
    ("attempt", "says"),
    [
        (unreachable, "No Redis answers at 127.0.0.1:1: "),
        (not_applied, "There is no applied Feast repository in "),
        (configured_only, "There is no applied Feast repository in "),
    ],
)
def test_what_a_user_can_mend_is_one_sentence(tmp_path: Path, attempt: Callable[[Path], None], says: str) -> None:
    with pytest.raises(SettingsError) as raised:
        attempt(tmp_path)
    assert str(raised.value).startswith(says)
    assert "secret" not in str(raised.value)
