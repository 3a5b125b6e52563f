"""The broker is killed under a worker, over and over: it ends where an undisturbed one does, and waits in peace."""

import os
import random
import signal
import threading
from collections import deque
from pathlib import Path

import psutil
import pytest

from driftline.processes.server import Server
from tests.stream.crash_cases import prepared, undisturbed, zygote
from tests.stream.log_cases import Outcome, outcome

MOST_STEPS = 30  # of a worker between two crashes; a batch of both partitions takes 9 of them
AWAY_S = 6.0


def crashed(server: Server, directory: Path, seed: int, size: int, crashes: int) -> tuple[Outcome, int]:
    """Kill the broker at random ones of the worker's steps, and with it the worker in half of the cases.

    Elsewhere the worker goes on all the while. Returns what came of it, and how many crashes there were.
    """
    settings, log = prepared(server, directory, seed, size)
    chance = random.Random(seed)
    both = [n % 2 == 0 for n in range(crashes)]
    chance.shuffle(both)
    moments = deque((chance.randint(1, MOST_STEPS), worker_too) for worker_too in both)
    killed = 0
    with zygote(settings, log, directory) as workers:
        ended = False
        while not ended:
            steps, dies = [0], False
            while moments and not dies:
                gap, dies = moments.popleft()
                steps.append(steps[-1] + gap)
            workers.begin(tell_at=steps[1:], kill_at=steps[-1] if dies else None)
            while "step" in (news := workers.heard()):
                server.kill()
                killed += 1
                server.restart()
            ended = news["exit"] == 0
            assert ended or (dies and news["exit"] == -signal.SIGKILL), "a worker ended by itself; its log says why"
    return outcome(settings), killed


@pytest.mark.timeout(300)
def test_a_worker_outlives_its_broker(apache_of_its_own: Server, tmp_path: Path) -> None:
    expected = undisturbed(apache_of_its_own, tmp_path / "undisturbed", seed=1, size=500)
    found, killed = crashed(apache_of_its_own, tmp_path / "crashed", seed=1, size=500, crashes=4)
    assert found == expected
    assert killed >= 3


@pytest.mark.proof
@pytest.mark.timeout(300)
def test_a_worker_waits_in_peace_while_its_broker_is_away(apache_of_its_own: Server, tmp_path: Path) -> None:
    settings, log = prepared(apache_of_its_own, tmp_path / "away", seed=1, size=500)
    with zygote(settings, log, tmp_path) as workers:
        workers.begin(stays=True, tell_at=[MOST_STEPS])
        while "step" not in (news := workers.heard()):
            pass
        apache_of_its_own.kill()
        worker, printed = psutil.Process(news["pid"]), tmp_path / "zygote.log"
        lines, before = len(printed.read_text().splitlines()), worker.cpu_times()
        threading.Event().wait(AWAY_S)  # what it does meanwhile is measured
        after = worker.cpu_times()
        assert after.user + after.system - before.user - before.system < 0.3 * AWAY_S
        assert len(printed.read_text().splitlines()) - lines < 50 * AWAY_S
        apache_of_its_own.restart()
        while not (news.get("quiet") and sum(news["owned"].values()) == log.size):
            news = workers.heard()
            assert "exit" not in news
        os.kill(news["pid"], signal.SIGTERM)
        assert workers.ended() == 0


@pytest.mark.proof
@pytest.mark.timeout(3000)
def test_sixteen_crashes_of_a_broker(apache_of_its_own: Server, tmp_path: Path) -> None:
    killed = 0
    for seed in range(2, 12):
        expected = undisturbed(apache_of_its_own, tmp_path / f"undisturbed-{seed}", seed, size=1000)
        found, crashes = crashed(apache_of_its_own, tmp_path / f"crashed-{seed}", seed, size=1000, crashes=8)
        assert found == expected
        killed += crashes
        if killed >= 16:
            return
    pytest.fail("the logs were too short for 16 crashes")
