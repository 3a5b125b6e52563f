"""The stream on Apache Flink makes of a log what a worker makes of it, whatever is killed meanwhile."""

import json
import random
import shutil
from pathlib import Path

import pytest

from contracts.config.store import Location
from contracts.runtime.clock import SystemClock
from driftline.processes import flink_job, flink_store
from driftline.processes.server import Server
from tests.conftest import S3_KEYS
from tests.stream.flink_cases import (
    Rows,
    by_worker,
    cluster,
    compare,
    examples_of,
    in_parts,
    kill_one,
    need_flink,
    prepared,
    readable_by_others,
    send,
    settled,
    until,
)


@pytest.fixture(autouse=True)
def _flink() -> None:
    need_flink()


@pytest.mark.timeout(600)
def test_a_killed_taskmanager_whose_disk_is_gone_changes_nothing(apache_server: Server, tmp_path: Path) -> None:
    """Late, repeated and broken events among them; both logs go on while it is away."""
    before, after = in_parts(seed=1, size=3000, parts=2)
    expected = by_worker(apache_server, tmp_path / "worker", before + after)
    settings = prepared(apache_server, tmp_path / "flink")
    send(settings.kafka, before, items=True)
    with cluster(tmp_path / "cluster") as running:
        flink_job.submit(running, settings, parallelism=2, checkpoint_ms=1000)
        rows = Rows(settings)
        until(lambda: examples_of(settings) > 0, "nothing was committed")
        running.kill_taskmanager(0)
        send(settings.kafka, after)
        running.start_taskmanager(0)
        settled(settings, rows, expected)
        assert flink_job.overview(running)["restored"] > 0
        flink_job.stop_with_savepoint(running, (tmp_path / "savepoint").as_uri())
    rows.write()
    rows.close()
    compare(settled(settings, Rows(settings), expected), expected)


@pytest.mark.timeout(600)
def test_what_is_on_a_store_outlives_all_hosts(apache_server: Server, tmp_path: Path, s3_location: Location) -> None:
    """The JobManager and the TaskManagers are killed and their disks deleted; another cluster goes on from the store.

    The store's key stands in no argument, and in no file of the cluster's that others can read.
    """
    before, after = in_parts(seed=2, size=3000, parts=2)
    expected = by_worker(apache_server, tmp_path / "worker", before + after)
    settings = prepared(apache_server, tmp_path / "flink").model_copy(update={"store": s3_location.store})
    send(settings.kafka, before, items=True)
    place = s3_location.url
    with cluster(tmp_path / "first", store=s3_location.store) as running:
        job = flink_job.submit(running, settings, parallelism=2, checkpoint_ms=1000, checkpoints=place)
        until(lambda: examples_of(settings) > 0, "nothing was committed")
        assert readable_by_others(running, S3_KEYS[1]) == []
        for number in running.taskmanagers():
            running.kill_taskmanager(number)
        running.kill_jobmanager()
        shutil.rmtree(running.directory)
    newest = flink_job.newest(place, settings.store)
    assert newest is not None
    assert newest.startswith(f"{place}/{job}/chk-")
    send(settings.kafka, after)
    with cluster(tmp_path / "second", store=s3_location.store) as running:
        flink_job.submit(running, settings, parallelism=2, checkpoint_ms=1000, checkpoints=place)
        assert flink_job.overview(running)["restored"] == 1
        rows = Rows(settings)
        settled(settings, rows, expected)
        savepoint = flink_job.stop_with_savepoint(running, f"{place}/savepoints")
        assert flink_store.is_whole(savepoint, settings.store)
        logs = list(running.directory.rglob("server.log"))
        assert len(logs) == 3
        for log in logs:  # of Python's end, too
            assert S3_KEYS[1].encode() not in log.read_bytes()
            assert log.stat().st_mode & 0o077 == 0
    rows.write()
    rows.close()
    compare(settled(settings, Rows(settings), expected), expected)


@pytest.mark.proof
@pytest.mark.timeout(3600)
def test_twenty_random_kills_change_nothing(apache_server: Server, tmp_path: Path) -> None:
    """TaskManagers with their disks, their Python, and the JobManager, while 40,000 events come."""
    kills, chance = 20, random.Random(7)
    parts = in_parts(seed=7, size=40_000, parts=kills + 1)
    expected = by_worker(apache_server, tmp_path / "worker", [each for part in parts for each in part])
    settings = prepared(apache_server, tmp_path / "flink")
    send(settings.kafka, parts[0], items=True)
    killed: list[str] = []
    clock, recovered_s = SystemClock(), []
    with cluster(tmp_path / "cluster") as running:
        flink_job.submit(running, settings, parallelism=2, checkpoint_ms=1000)
        rows = Rows(settings)
        until(lambda: examples_of(settings) > 0, "nothing was committed")
        for part in parts[1:]:
            came, began_s = examples_of(settings), clock.elapsed_s()
            killed.append(kill_one(running, settings, chance))
            send(settings.kafka, part)
            until(lambda came=came: examples_of(settings) > came, "nothing more was committed")  # type: ignore[misc]
            recovered_s.append(round(clock.elapsed_s() - began_s, 1))
            rows.write()
            (tmp_path / "recovered.json").write_text(json.dumps([*zip(killed, recovered_s, strict=True)]))
        settled(settings, rows, expected)
        flink_job.stop_with_savepoint(running, (tmp_path / "savepoint").as_uri())
    rows.write()
    rows.close()
    assert {"taskmanager", "python", "jobmanager"} == set(killed)
    compare(settled(settings, Rows(settings), expected), expected)


@pytest.mark.proof
@pytest.mark.timeout(1800)
def test_two_tasks_become_four_from_a_savepoint(apache_server: Server, tmp_path: Path) -> None:
    before, after = in_parts(seed=3, size=8000, parts=2, partitions=4)
    expected = by_worker(apache_server, tmp_path / "worker", before + after, partitions=4)
    settings = prepared(apache_server, tmp_path / "flink", partitions=4)
    send(settings.kafka, before, items=True)
    with cluster(tmp_path / "cluster", slots=2) as running:
        flink_job.submit(running, settings, parallelism=2, checkpoint_ms=1000)
        until(lambda: examples_of(settings) > 0, "nothing was committed")
        savepoint = flink_job.stop_with_savepoint(running, (tmp_path / "savepoint").as_uri())
        send(settings.kafka, after)
        flink_job.submit(running, settings, parallelism=4, checkpoint_ms=1000, restore=savepoint)
        rows = Rows(settings)
        settled(settings, rows, expected)
        flink_job.stop_with_savepoint(running, (tmp_path / "savepoint").as_uri())
    rows.write()
    rows.close()
    compare(settled(settings, Rows(settings), expected), expected)
