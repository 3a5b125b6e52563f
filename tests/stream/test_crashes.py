"""Killed at any point, the stream ends where an undisturbed one does: byte for byte, nothing lost, nothing doubled."""

import random
from pathlib import Path

import pytest

from contracts.settings import Settings
from contracts.wire.events_pb2 import Example
from driftline import broker
from driftline.servers import Server
from feature_repo.store import apply
from tests.conftest import own_topics
from tests.stream.crash_cases import kill_until_done, zygote
from tests.stream.log_cases import Log, Outcome, outcome, write_log
from tests.stream.stream_cases import settings_for

BATCH = 25  # records, so that a log makes many batches
MOST_STEPS = 20  # a batch of both partitions takes 9 of them, a start with something to deliver again 4


def prepared(server: Server, directory: Path, seed: int, size: int, redis: str | None = None) -> tuple[Settings, Log]:
    kafka = own_topics(server)
    broker.prepare(kafka)
    directory.mkdir()
    apply(directory / "features", redis)
    return settings_for(kafka, directory, poll_records=BATCH), write_log(kafka, seed, size)


def undisturbed(server: Server, directory: Path, seed: int, size: int) -> Outcome:
    settings, log = prepared(server, directory, seed, size)
    with zygote(settings, log, directory) as workers:
        assert workers.run() == 0
    found = outcome(settings)
    sent = [Example.FromString(value).event_id for records in found.examples.values() for _, value, _ in records]
    assert sorted(sent) == sorted(log.expected_examples), "each example once, and no other"
    return found


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
