"""All long-running processes on one settings file, seen as an operator sees them: ports, health, metrics, logs."""

import json
import os
import pty
import re
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

from contracts.config.metrics import PROCESSES, MetricsPorts, MetricsSettings, Process
from contracts.config.settings import KafkaSettings, Settings, TrainerSettings, dump
from contracts.kafka import bus
from contracts.runtime.clock import SystemClock
from contracts.wire.events_pb2 import Feedback
from contracts.wire.recall_pb2 import Context, RecallReply, RecallRequest
from contracts.wire.recall_pb2_grpc import RecallServiceStub
from driftline.inspect.metrics import read_metrics
from driftline.processes import broker
from driftline.processes.supervisor import Child, Supervisor
from tests.contracts.kafka.batch_cases import send_garbage
from tests.contracts.runtime.endpoint_cases import get, wait_for
from tests.deploy.deployed import ALERTS, labels_of, queries
from tests.deploy.promql import OF_A_SCRAPE, named_by
from tests.deploy.promtool import Scraped, assert_fires, evaluate, input_series
from tests.serving.replica_cases import prepared
from tests.serving.replicas import until
from tests.stream.stream_cases import Sender

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


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    clock, directory = SystemClock(), tmp_path_factory.mktemp("fleet")
    with Supervisor(directory / "logs", clock) as supervisor:
        kafka = broker.start_embedded(supervisor, clock)
        broker.prepare(kafka)
        ports = MetricsPorts(**dict(zip(PROCESSES, free_ports(len(PROCESSES)), strict=True)))
        trainer = {"models": ("two_tower",), "publish_every_examples": 8, "gate": {"judge": "recall"}}
        trainer["model"] = {"dim": 8, "window": 6, "batch_size": 8}
        settings = prepared(directory, kafka).model_copy(
            update={"metrics": MetricsSettings(ports=ports), "trainer": TrainerSettings.model_validate(trainer)}
        )
        dump(settings, directory / "settings.yaml")
        workers = {
            name: supervisor.start_worker(name, COMMANDS.get(name, [name]), directory / "settings.yaml")
            for name in PROCESSES
        }
        supervisor.wait_ready([*workers.values()])
        yield Fleet(settings, supervisor.children[0], workers)


def logged(child: Child) -> list[dict[str, Any]]:
    return [json.loads(line) for line in child.log.read_text().splitlines()]


def overall_health(child: Child) -> int:
    with grpc.insecure_channel(f"127.0.0.1:{child.facts['port']}") as channel:
        request = health_pb2.HealthCheckRequest(service="")
        status: int = health_pb2_grpc.HealthStub(channel).Check(request, timeout=10).status
        return status


def live(fleet: Fleet) -> None:
    """Let users ask, watch half of what they get, and ask again when a snapshot has learned from it."""
    replica, sender = fleet.workers["replica"], Sender(fleet.settings.kafka)
    sender.items(*range(1, 9))
    wait_for(port_of(fleet, "replica"), 200, [])
    with grpc.insecure_channel(f"127.0.0.1:{replica.facts['port']}") as channel:
        stub = RecallServiceStub(channel)

        def ask(user: int) -> RecallReply:
            request = RecallRequest(user_id=user, k=2, context=Context(time_ms=1000))
            reply: RecallReply = stub.Recall(request, timeout=60)
            return reply

        for user in range(1, 25):
            reply = ask(user)
            watched = Feedback(
                schema_version=1, event_id=reply.request_id, request_id=reply.request_id, user_id=user, time_ms=2000,
                item_id=reply.items[0].item_id, play_time_ms=9, effective_view=True,
            )  # fmt: skip
            sender.send(bus.FEEDBACK, watched.SerializeToString(), user)
        sender.send(bus.FEEDBACK, b"no feedback", 1)
        sender.flush()
        send_garbage(fleet.settings.kafka, bus.FEEDBACK, 2)
        until_shown(fleet, "replica", "serving_swaps_total")
        ask(1)
    sender.close()
    until_shown(fleet, "collector", "abtest_evr")


def port_of(fleet: Fleet, name: Process) -> int:
    return fleet.settings.metrics.port_of(name)


def until_shown(fleet: Fleet, name: Process, metric: str) -> None:
    until(lambda: read_metrics([port_of(fleet, name)]).total(metric) > 0)


def test_processes_are_ready_while_they_do_their_work(fleet: Fleet) -> None:
    states = health_pb2.HealthCheckResponse
    replica = fleet.workers["replica"]
    # A replica that has neither a snapshot nor an item lives, and is not ready.
    assert get(port_of(fleet, "replica"), "/healthz")[0] == 200
    wait_for(port_of(fleet, "replica"), 503, ["there is neither a snapshot nor an item"])
    assert overall_health(replica) == states.NOT_SERVING
    sender = Sender(fleet.settings.kafka)
    sender.items(*range(1, 9))
    sender.close()
    for name in PROCESSES:
        wait_for(port_of(fleet, name), 200, [])
        assert fleet.workers[name].facts["metrics_port"] == port_of(fleet, name)
    assert overall_health(replica) == states.SERVING


def scraped(fleet: Fleet, minute: int) -> list[Scraped]:
    now_s = SystemClock().now_ms() / 1000
    return [Scraped(minute, name, get(port_of(fleet, name), "/metrics")[1], now_s) for name in PROCESSES]


@pytest.fixture(scope="module")
def scrapes(fleet: Fleet) -> list[Scraped]:
    """What all showed before and after some traffic."""
    before = scraped(fleet, 0)
    live(fleet)
    return [*before, *scraped(fleet, 2)]


def test_every_query_of_the_dashboard_and_of_the_rules_is_of_metrics_and_labels_that_exist(
    scrapes: list[Scraped],
) -> None:
    labels = labels_of(each.text or "" for each in scrapes)
    told = [(rule["expr"], re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"])) for rule in ALERTS.values()]
    for query, labels_told in [*told, *((query, []) for query in queries())]:
        named = named_by(query)
        for metric, chosen_by in named.metrics.items():
            assert metric in labels, query
            # Of a metric that has no series in a fleet in good order the labels are not known here.
            wanted = chosen_by | named.groups | {*labels_told}
            assert not labels[metric] or wanted <= labels[metric] | OF_A_SCRAPE, query


def test_every_query_of_the_dashboard_gives_a_value(scrapes: list[Scraped], tmp_path: Path) -> None:
    given = {f"count({query}) > bool 0": ["{}"] for query in queries()}
    evaluate(tmp_path, input_series(scrapes, 4), 4, given)


def test_a_fleet_in_good_order_alerts_nobody(scrapes: list[Scraped], tmp_path: Path) -> None:
    """What could not be used came twenty minutes before."""
    assert_fires(tmp_path, [each for each in scrapes if each.minute], 45, since=25)


def test_a_broker_that_is_gone_is_told_by_readiness_and_logs_are_json_alone(fleet: Fleet) -> None:
    fleet.broker.process.kill()
    workers: tuple[Process, ...] = ("stream", "trainer", "collector", "archive")
    for name in workers:
        wait_for(port_of(fleet, name), 503, ["no broker is connected"])
        assert get(port_of(fleet, name), "/healthz")[0] == 200
    wait_for(port_of(fleet, "replica"), 200, [])  # it answers on; what it cannot log is counted
    replica = fleet.workers["replica"]
    for name in PROCESSES:
        child = fleet.workers[name]
        started = logged(child)[0]
        assert (started["event"], started["process"], started["pid"]) == ("started", name, child.process.pid)
        assert (started["metrics_host"], started["metrics_port"]) == ("127.0.0.1", port_of(fleet, name))
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
