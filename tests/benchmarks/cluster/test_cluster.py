"""Hosts without a shared path are killed with their disks while users ask, and nothing comes of it."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks.cluster.judge import Outcome, compared
from benchmarks.cluster.run import KINDS_OF, measure, schedule
from driftline.processes import s3
from tests.conftest import need_servers
from tests.stream.flink_cases import need_flink


def test_every_kind_is_killed_in_each_round_and_a_seed_names_the_hosts() -> None:
    killed = [*schedule(30, 3)]
    assert killed == [*schedule(30, 3)]
    assert killed != [*schedule(30, 4)]
    for first in range(0, 30, 3):
        assert sorted(name.split("-")[0] for name in killed[first : first + 3]) == ["collector", "replica", "trainer"]
    assert {"replica-1", "replica-2", "collector-1", "collector-2"} < {*killed}


def test_of_flink_seven_kinds_are_killed() -> None:
    killed = [*schedule(70, 3, KINDS_OF["flink"])]
    for first in range(0, 70, 7):
        kinds = [name.split("-")[0] for name in killed[first : first + 7]]
        assert sorted(kinds) == ["collector", "jobmanager", "python", "replica", "rows", "taskmanager", "trainer"]
    assert {"taskmanager-1", "taskmanager-2", "python-1", "python-2", "jobmanager", "rows"} < {*killed}


def test_what_is_missing_doubled_and_in_another_order_is_counted() -> None:
    a, b, c = ((b"k", value) for value in (b"a", b"b", b"c"))
    letter = ("feedback", 0, 1, b"why")
    wanted = Outcome({0: [a, b], 1: [c]}, [letter])
    same = compared(wanted, wanted)
    assert (same["lost"], same["doubled"], same["examples_equal"], same["dead_letters_equal"]) == (0, 0, True, True)
    other = compared(Outcome({0: [a, a], 1: [c]}, [letter, letter]), wanted)
    assert (other["lost"], other["doubled"], other["dead_letters_doubled"]) == (1, 1, 1)
    assert other["dead_letters_equal"]
    assert not compared(Outcome({0: [b, a], 1: [c]}, []), wanted)["examples_equal"]
    assert not compared(Outcome({0: [a, b], 1: [c]}, []), wanted)["dead_letters_equal"]


@pytest.mark.e2e
def test_a_replica_a_collector_and_the_trainer_lose_their_disks_and_nothing_is_lost(tmp_path: Path) -> None:
    need_s3()
    said: list[str] = []
    found = measure(tmp_path, kills=3, seconds=3, seed=0, rate=20, say=said.append)
    assert kinds_of(found) == ["collector", "replica", "trainer"]
    assert found["trainer_resumed"] == 1
    undisturbed(found)


@pytest.mark.e2e
@pytest.mark.timeout(900)
def test_flink_loses_a_taskmanager_its_python_and_the_jobmanager_and_nothing_is_lost(tmp_path: Path) -> None:
    """Those with a disk lose it; what the job goes on from lies on the run's S3 server."""
    need_flink()
    need_s3()
    said: list[str] = []
    found = measure(tmp_path, kills=3, seconds=3, seed=4, rate=10, say=said.append, engine="flink")
    assert kinds_of(found) == ["jobmanager", "python", "taskmanager"]
    undisturbed(found)


def need_s3() -> None:
    """Skip where no S3 server can be had."""
    need_servers()
    if s3.binary(s3.default_home()) is None and s3.go() is None:
        pytest.skip("there is neither versitygw nor go to build it")


def kinds_of(found: dict[str, Any]) -> list[str]:
    """Kinds of what was killed, sorted."""
    return sorted(name.split("-")[0] for name, _ in found["recoveries"])


def undisturbed(found: dict[str, Any]) -> None:
    """Everything came out as it would have without a kill, and was something."""
    assert (found["lost"], found["doubled"], found["dead_letters_doubled"]) == (0, 0, 0), found
    assert found["examples_equal"]
    assert found["dead_letters_equal"]
    assert found["rows_equal"]
    assert found["report_equal"]
    assert (found["recalls_failed"], found["recalls_mixed"], found["foreign_files"]) == (0, 0, 0), found["errors"]
    assert found["recalls"] > 0
    assert found["examples"] > 0
    assert found["dead_letters"] > 0
    assert found["rows"] > 0
    assert found["report_users"] > 0
