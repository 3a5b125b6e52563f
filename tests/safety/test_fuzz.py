"""Whatever a process loads: changed files are refused in a sentence, or are as they were; nothing in them ever runs."""

from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog

from tests.safety.guard import peak_megabytes, watched
from tests.safety.kind import Kind
from tests.safety.kinds import KINDS
from tests.safety.mutations import RAN

FEW, MANY = 100, 5000
MOST_MEGABYTES = 400  # more than before the first file; of it Python and the libraries take some


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Where a payload that runs would leave its mark."""
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    yield
    assert not (tmp_path / "cwd" / RAN).exists()


def fuzz(kind: Kind, files: int, seed: int) -> Counter[str]:
    """Change the files of a kind so many times; how many were accepted and refused."""
    sound = repr(kind.read())
    kind.repair()
    assert repr(kind.read()) == sound
    before, outcomes = peak_megabytes(), Counter[str]()
    for number in range(files):
        kind.repair()
        must_be_same = kind.change(np.random.default_rng([seed, number]))
        where = f"file {number} of seed {seed}"
        with structlog.testing.capture_logs() as logs, watched(kind.home.parent) as seen:
            outcome, value = _read(kind)
        outcomes[outcome] += 1
        assert not [event for event in seen if not (kind.names_files and event.startswith("open "))], f"{where}: {seen}"
        assert not [log for log in logs if "exc_info" in log], f"{where}: {value} {logs}"
        if outcome == "accepted" and must_be_same:
            assert kind.as_before(value, sound), f"{where} was accepted with other values"
        elif outcome == "refused":
            assert value.strip(), where
            assert "\n" not in value, f"{where}: {value}"
            assert "Traceback" not in value
    assert peak_megabytes() - before < MOST_MEGABYTES
    return outcomes


def _read(kind: Kind) -> tuple[str, Any]:
    try:
        return "accepted", repr(kind.read())
    except kind.refuses as error:
        return "refused", str(error)


@pytest.mark.parametrize("name", KINDS)
def test_changed_files_are_refused_or_as_they_were(name: str, tmp_path: Path) -> None:
    with closing(KINDS[name](tmp_path / "files" / "of")) as kind:
        outcomes = fuzz(kind, FEW, seed=1)
    assert outcomes["refused"] >= FEW / 10


@pytest.mark.proof
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("name", KINDS)
def test_thousands_of_changed_files_are_refused_or_as_they_were(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(KINDS[name](tmp_path / "files" / "of")) as kind:
        outcomes = fuzz(kind, MANY, seed=22)
    with capsys.disabled():
        print(f"\n{name}: {MANY} files, {outcomes['refused']} refused, {outcomes['accepted']} accepted")  # noqa: T201
    assert outcomes["refused"] >= MANY / 10
