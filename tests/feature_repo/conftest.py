"""A repository on SQLite that tests may spoil."""

import shutil
from pathlib import Path

import pytest

from feature_repo.store import UserSequences, apply
from tests.feature_repo.feast_cases import full_row


@pytest.fixture(scope="module")
def applied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository on SQLite with the rows of the users 1 and 2. Tests copy it."""
    target = tmp_path_factory.mktemp("applied")
    apply(target)
    UserSequences(target).write([full_row(1), full_row(2)])
    return target


@pytest.fixture
def repo(applied: Path, tmp_path: Path) -> Path:
    return shutil.copytree(applied, tmp_path / "repo")
