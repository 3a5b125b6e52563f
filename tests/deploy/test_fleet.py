"""All long-running processes on one settings file, seen as an operator sees them: ports, health, logs."""

import json
import os
import pty
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest
import yaml
from grpc_health.v1 import health_pb2, health_pb2_grpc

from contracts.config.metrics import PROCESSES, MetricsPorts, MetricsSettings
from contracts.config.settings import KafkaSettings, Settings, TrainerSettings, dump
from contracts.kafka import bus
from contracts.runtime.clock import SystemClock
from contracts.wire.events_pb2 import Item
from driftline.processes import broker
from driftline.processes.supervisor import Child, Supervisor
from tests.contracts.runtime.endpoint_cases import get, wait_for
from tests.serving.replica_cases import prepared

COMMANDS = {"collector": ["experiment", "collect"], "replica": ["serve"]}  # those that are not called as the process


class Fleet(NamedTuple):
    """One process of each kind, and the broker that they are on."""

    settings: Settings
    broker: Child
    workers: dict[str, Child]


def free_ports(count: int) -> list[int]:
    listening = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in listening]
    for each in listening:
        each.close()
    return ports


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    clock = SystemClock()
    with Supervisor(tmp_path / "logs", clock) as supervisor:
        kafka = broker.start_embedded(supervisor, clock)
        broker.prepare(kafka)
        ports = MetricsPorts(**dict(zip(PROCESSES, free_ports(len(PROCESSES)), strict=True)))
        settings = prepared(tmp_path, kafka).model_copy(
            update={"metrics": MetricsSettings(ports=ports), "trainer": TrainerSettings(models=("two_tower",))}
        )
        dump(settings, tmp_path / "settings.yaml")
        workers = {
            name: supervisor.start_worker(name, COMMANDS.get(name, [name]), tmp_path / "settings.yaml")
            for name in PROCESSES
        }
        supervisor.wait_ready([*workers.values()])
        yield Fleet(settings, supervisor.children[0], workers)


def logged(child: Child) -> list[dict[str, Any]]:
    return [json.loads(line) for line in child.log.read_text().splitlines()]


def send_item(kafka: KafkaSettings) -> None:
    producer = bus.producer(kafka)
    item = Item(schema_version=1, item_id=1)
    producer.send(kafka.topic(bus.ITEMS), key=bus.key_of(1), value=item.SerializeToString())
    producer.flush()
    producer.close()


def overall_health(child: Child) -> int:
    with grpc.insecure_channel(f"127.0.0.1:{child.facts['port']}") as channel:
        request = health_pb2.HealthCheckRequest(service="")
        status: int = health_pb2_grpc.HealthStub(channel).Check(request, timeout=10).status
        return status


def test_processes_are_ready_while_they_do_their_work_and_log_json_alone(fleet: Fleet) -> None:
    states = health_pb2.HealthCheckResponse
    ports = {name: fleet.settings.metrics.port_of(name) for name in PROCESSES}
    replica = fleet.workers["replica"]
    # A replica that has neither a snapshot nor an item lives, and is not ready.
    assert get(ports["replica"], "/healthz")[0] == 200
    wait_for(ports["replica"], 503, ["there is neither a snapshot nor an item"])
    assert overall_health(replica) == states.NOT_SERVING
    send_item(fleet.settings.kafka)
    for name in PROCESSES:
        wait_for(ports[name], 200, [])
        assert fleet.workers[name].facts["metrics_port"] == ports[name]
    assert overall_health(replica) == states.SERVING

    fleet.broker.process.kill()
    for name in ("stream", "trainer", "collector", "archive"):
        wait_for(ports[name], 503, ["no broker is connected"])
        assert get(ports[name], "/healthz")[0] == 200
    wait_for(ports["replica"], 200, [])  # it answers on; what it cannot log is counted

    for name, child in fleet.workers.items():
        started = logged(child)[0]
        assert (started["event"], started["process"], started["pid"]) == ("started", name, child.process.pid)
        assert (started["metrics_host"], started["metrics_port"]) == ("127.0.0.1", ports[name])
        assert started["version"]
        assert started["settings"] == logged(replica)[0]["settings"]
    assert logged(replica)[0]["port"] == replica.facts["port"]


@pytest.fixture
def refused(tmp_path: Path) -> list[str]:
    """A command whose settings are wrong."""
    paths = dict.fromkeys(("feature_repo", "snapshots", "state"), str(tmp_path))
    content = {"kafka": {"bootstrap_servers": "h:1"}, **paths, "experiment": 3}
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(content))
    return [sys.executable, "-m", "driftline", "experiment", "collect", "-s", str(tmp_path / "settings.yaml")]


def test_bad_settings_are_a_sentence_at_a_terminal_and_a_line_of_the_log_elsewhere(refused: list[str]) -> None:
    done = subprocess.run(refused, capture_output=True, text=True, timeout=60, check=False)
    (line,) = map(json.loads, done.stderr.splitlines())
    assert (done.returncode, line["level"]) == (2, "critical")
    assert line["event"].endswith("settings.yaml: experiment: this is not a mapping of settings.")
    ours, theirs = pty.openpty()
    with subprocess.Popen(refused, stderr=theirs, stdout=subprocess.DEVNULL) as process:
        os.close(theirs)
        assert process.wait(60) == 2
    said = os.read(ours, 10_000).decode()
    os.close(ours)
    assert said == f"driftline: {line['event']}\r\n"


def test_the_command_line_wins_over_the_settings_and_a_taken_port_stops_the_start(tmp_path: Path) -> None:
    settings = prepared(tmp_path, KafkaSettings(bootstrap_servers="127.0.0.1:1"))
    dump(settings, tmp_path / "settings.yaml")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        command = [sys.executable, "-m", "driftline", "experiment", "collect", "-s", str(tmp_path / "settings.yaml")]
        command += ["--metrics-host", "127.0.0.1", "--metrics-port", str(port)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    (line,) = map(json.loads, done.stderr.splitlines())
    assert done.returncode == 2
    assert line["event"].startswith(f"Metrics cannot be served on port {port} of 127.0.0.1: ")
