"""Where the online store is, as Feast itself finds it."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from feature_repo.config import NotKnown, OnlineStore, online_store
from feature_repo.online import OnlineSequences
from feature_repo.row import CONFIG
from feature_repo.store import UserSequences
from tests.feature_repo.feast_cases import REDIS, configured, users_of


@pytest.mark.parametrize(
    "changes",
    [
        {"online_store": {"type": "dynamodb", "region": "eu-north-1"}},
        {"online_store": None},
        {"online_store": REDIS | {"redis_type": "redis_cluster"}},
        {"online_store": REDIS | {"redis_type": "redis_sentinel"}},
        {"online_store": REDIS | {"client": "glide"}},
        {"entity_key_serialization_version": 2},
        {"registry": {"path": "data/registry.db", "enable_online_feature_view_versioning": True}},
    ],
)
def test_what_only_feasts_client_can_read_is_left_to_it(repo: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(NotKnown):
        OnlineSequences(configured(repo, **changes))


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"online_store": "redis"}, {"redis": "localhost:6379"}),
        ({"online_store": {"type": "redis"}}, {"redis": "localhost:6379"}),
        ({"online_store": {"path": "/elsewhere/online.db"}}, {"database": Path("/elsewhere/online.db")}),
        ({"online_store": REDIS, "registry": "s3://bucket/registry.db"}, {"redis": REDIS["connection_string"]}),
        (
            {"online_store": REDIS, "registry": {"registry_type": "sql", "path": "postgresql://host/feast"}},
            {"redis": REDIS["connection_string"]},
        ),
    ],
)
def test_settings_are_found_as_feast_finds_them(repo: Path, changes: dict[str, Any], found: dict[str, Any]) -> None:
    assert online_store(configured(repo, **changes)) == OnlineStore("driftline", **found)


def test_the_environment_says_what_feast_lets_it_say(
    repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configured(repo, online_store={"type": "sqlite", "path": "$FOLDER/online.db"})
    elsewhere = shutil.move(repo / CONFIG, tmp_path / "elsewhere.yaml")
    monkeypatch.setenv("FOLDER", "data")
    monkeypatch.setenv("FEAST_FS_YAML_FILE_PATH", str(elsewhere))
    found = users_of(OnlineSequences(repo), 2, 1)
    assert found == users_of(UserSequences(repo), 2, 1) == [[2], [1]]
