"""Killed at any point, the stream ends where an undisturbed one does: byte for byte, nothing lost, nothing doubled."""

import random
from pathlib import Path

import pytest

from driftline.processes.server import Server
from tests.stream.crash_cases import kill_until_done, prepared, undisturbed, zygote
from tests.stream.log_cases import Outcome, outcome

MOST_STEPS = 20  # a batch of both partitions takes 9 of them, a start with something to deliver again 4


def crashed(server: Server, directory: Path, seed: int, size: int, kills: int) -> tuple[Outcome, int]:
    settings, log = prepared(server, directory, seed, size)
    with zygote(settings, log, directory) as workers:
        killed = kill_until_done(workers, random.Random(seed), MOST_STEPS, kills)
    return outcome(settings), killed


def test_killed_workers_end_where_an_undisturbed_one_does(apache_server: Server, tmp_path: Path) -> None:
    expected = undisturbed(apache_server, tmp_path / "undisturbed", seed=1, size=500)
    found, killed = crashed(apache_server, tmp_path / "crashed", seed=1, size=500, kills=12)
    assert found == expected
    assert killed >= 8


@pytest.mark.proof
@pytest.mark.timeout(3000)
def test_two_hundred_kills(apache_server: Server, tmp_path: Path) -> None:
    killed = 0
    for seed in range(100):
        expected = undisturbed(apache_server, tmp_path / f"undisturbed-{seed}", seed, size=1000)
        found, kills = crashed(apache_server, tmp_path / f"crashed-{seed}", seed, size=1000, kills=60)
        assert found == expected
        killed += kills
        if killed >= 200:
            return
    pytest.fail("the logs were too short for 200 kills")
