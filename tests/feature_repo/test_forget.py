"""Users leave the online store, on SQLite and on Redis, and the files of SQLite."""

from pathlib import Path

import pytest

from feature_repo.forget import forget_online, has_row, place_of
from feature_repo.online import OnlineSequences, entity_key
from feature_repo.row import UserRow
from feature_repo.store import UserSequences, apply
from tests.feature_repo.feast_cases import redis_address, users_of

REDIS_DB = 8  # of this module's tests
USER, OTHER = 6_149_554_607_595_376_846, 5


@pytest.fixture(params=["sqlite", "redis"])
def repo(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """An applied repository on each online store."""
    redis = request.getfixturevalue("redis_server") if request.param == "redis" else None
    apply(tmp_path, redis and redis_address(redis, REDIS_DB))
    return tmp_path


def full_row(user: int) -> UserRow:
    return UserRow(user, *[[user] * 200] * 6, last_event_ms=5, feedback_offset=user, written_us=5)


def content(repo: Path) -> bytes:
    return b"".join(path.read_bytes() for path in (repo / "data").glob("online.db*"))


def test_a_row_goes_and_a_new_one_may_be_older(repo: Path) -> None:
    features = UserSequences(repo)
    features.write([full_row(USER), full_row(OTHER)])

    def readers() -> list[list[int]]:
        return users_of(OnlineSequences(repo, 1.0), USER, OTHER)

    assert readers() == [[USER], [OTHER]]
    assert has_row(repo, USER)
    for _ in range(2):
        features.forget([USER, 77], erase=True)
        assert readers() == [[], [OTHER]]
        assert not has_row(repo, USER)
    assert features.write([full_row(USER)]) == 0
    assert readers() == [[USER], [OTHER]]
    features.forget([USER], erase=False)
    assert readers() == [[], [OTHER]]
    features.close()


def test_no_byte_of_the_user_is_left_in_the_files_of_sqlite(tmp_path: Path) -> None:
    apply(tmp_path)
    features = UserSequences(tmp_path)
    for _ in range(3):
        features.write([full_row(user) for user in (USER, *range(1, 40))])
    assert entity_key(USER) in content(tmp_path)
    with OnlineSequencesOpen(tmp_path):
        forget_online(tmp_path, [USER], erase=True)
    assert USER.to_bytes(8, "little") not in content(tmp_path)
    assert (5).to_bytes(8, "little") in content(tmp_path)
    assert place_of(tmp_path) == str(tmp_path / "data" / "online.db")
    features.close()


class OnlineSequencesOpen:
    """A replica that has read a row, and keeps its connection."""

    def __init__(self, repo: Path) -> None:
        self._reader = OnlineSequences(repo, 1.0)

    def __enter__(self) -> None:
        self._reader.read([USER])

    def __exit__(self, *error: object) -> None:
        self._reader.close()
