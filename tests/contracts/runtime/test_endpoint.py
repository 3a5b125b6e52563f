"""What a process tells of itself over HTTP, asked as Prometheus and a supervisor ask."""

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.parser import text_string_to_metric_families

from contracts.config.metrics import MetricsPorts, MetricsSettings
from contracts.config.settings import SettingsError, parse
from contracts.runtime.clock import ManualClock
from contracts.runtime.endpoint import Endpoint, _listening, hash_of
from tests.contracts.runtime.endpoint_cases import get

EXPERIMENT = {
    "name": "e", "salt": "s", "start_ms": 0, "end_ms": 1, "control": "a",
    "arms": {"a": {"weight": 1, "model": "two_tower"}, "b": {"weight": 1, "model": "t2diff"}},
}  # fmt: skip
PATHS = {"feature_repo": "f", "snapshots": "s", "state": "t"}
SETTINGS = {"kafka": {"bootstrap_servers": "h:1"}, **PATHS, "experiment": EXPERIMENT}


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def endpoint(clock: ManualClock) -> Iterator[Endpoint]:
    endpoint = Endpoint("trainer", MetricsSettings(stuck_after_s=10), clock, release="1.2", settings="abc")
    yield endpoint
    endpoint.close()


def told(endpoint: Endpoint, path: str) -> tuple[int, str, list[str]]:
    code, body = get(endpoint.port, path)
    answer: dict[str, Any] = json.loads(body)
    assert answer["process"] == "trainer"
    return code, answer["status"], answer.get("missing", [])


def test_a_process_is_live_while_its_loop_makes_steps_and_ready_while_it_lacks_nothing(
    endpoint: Endpoint, clock: ManualClock
) -> None:
    assert told(endpoint, "/healthz") == (200, "ok", [])
    assert told(endpoint, "/readyz") == (503, "not ready", ["its work has not begun"])
    endpoint.pulse.beat(["no broker is connected"])
    assert told(endpoint, "/readyz") == (503, "not ready", ["no broker is connected"])
    endpoint.pulse.beat()
    clock.advance(10_000)
    assert told(endpoint, "/healthz") == (200, "ok", [])
    assert told(endpoint, "/readyz") == (200, "ready", [])
    # The thread that answers lives on, but the loop does not: that is told, and where the main thread is.
    clock.advance(1_000)
    stuck = (503, "stuck", ["the main loop has made no step for 11 s, and may take 10 s"])
    assert told(endpoint, "/healthz") == told(endpoint, "/readyz") == stuck
    assert json.loads(_asked_while_the_main_thread_waits(endpoint))["at"].startswith("test_endpoint.py")
    endpoint.pulse.beat()
    assert told(endpoint, "/readyz") == (200, "ready", [])


def _asked_while_the_main_thread_waits(endpoint: Endpoint) -> str:
    """What /healthz says to another thread. Locks are taken in C: the main thread's innermost call is this function."""
    may_ask, answered, bodies = threading.Lock(), threading.Lock(), list[str]()

    def ask() -> None:
        with may_ask:
            try:
                bodies.append(get(endpoint.port, "/healthz")[1])
            finally:
                answered.release()

    may_ask.acquire()
    answered.acquire()
    asking = threading.Thread(target=ask)
    asking.start()
    may_ask.release()
    answered.acquire()
    asking.join()
    return bodies[0]


def test_metrics_are_the_workers_own_and_what_the_process_is(endpoint: Endpoint, clock: ManualClock) -> None:
    registry = CollectorRegistry()
    Counter("things", "t", registry=registry).inc(3)
    endpoint.show(registry)
    clock.advance(4_000)
    code, text = get(endpoint.port, "/metrics")
    samples = {
        sample.name: (sample.labels, sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert code == 200
    assert samples["things_total"] == ({}, 3)
    info = {"process": "trainer", "version": "1.2", "settings": "abc"}
    assert samples["driftline_process_info"] == (info, 1)
    assert samples["driftline_ready"][1] == 0
    assert samples["driftline_loop_age_seconds"][1] == 4
    assert samples["driftline_loop_bound_seconds"][1] == 10
    endpoint.pulse.beat()
    assert 'driftline_ready{process="trainer"} 1.0' in get(endpoint.port, "/metrics")[1]


def test_another_path_says_which_there_are(endpoint: Endpoint) -> None:
    code, body = get(endpoint.port, "/")
    assert (code, json.loads(body)) == (404, {"paths": ["/metrics", "/healthz", "/readyz"]})


def test_a_taken_port_is_said_in_one_sentence(endpoint: Endpoint, clock: ManualClock) -> None:
    taken = MetricsSettings(ports=MetricsPorts(stream=endpoint.port))
    with pytest.raises(SettingsError) as caught:
        Endpoint("stream", taken, clock)
    assert str(caught.value) == (
        f"Metrics cannot be served on port {endpoint.port} of 127.0.0.1: Address already in use; metrics.host, "
        "metrics.ports.stream, --metrics-host and --metrics-port name another."
    )


@pytest.mark.parametrize("host", ["", "a\udcff", "a..b", "a\0b", "a\nb"])
def test_a_host_of_the_command_line_is_as_good_as_one_of_the_settings(host: str) -> None:
    with pytest.raises(SettingsError, match=r"^--metrics-host: this is no name or address of a machine\.$"):
        MetricsSettings().overridden("stream", host, None)
    for good in ("::1", "10.0.0.7", "metrics.example.org", "bücher.example"):
        assert MetricsSettings().overridden("stream", good, None).host == good


def test_many_may_wait_to_be_connected() -> None:
    """A hundred at once, while nobody takes them."""
    with contextlib.ExitStack() as opened:
        server = opened.enter_context(_listening("127.0.0.1", 0, "stream"))
        for _ in range(100):
            opened.enter_context(socket.create_connection(server.server_address[:2], timeout=10))


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        ({"ports": {"stream": 9101, "archive": 9101}}, "stream and archive both have port 9101"),
        ({"ports": {"serve": 1}}, "serve"),
        ({"ports": {"stream": 65536}}, "65535"),
        ({"host": ""}, "host"),
        ({"host": "a\0b"}, "metrics.host: this is no name or address of a machine"),
        ({"stuck_after_s": 0}, "greater than 0"),
    ],
)
def test_bad_settings_are_refused(metrics: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        parse({**SETTINGS, "metrics": metrics})


def test_the_hash_is_of_all_but_secrets_and_what_each_process_may_have_of_its_own() -> None:
    settings = parse(SETTINGS)
    kafka = settings.kafka.model_copy(update={"security": {"sasl_plain_password": "hush"}})
    same = settings.model_copy(update={"metrics": MetricsSettings(host="0.0.0.0"), "kafka": kafka})  # noqa: S104
    assert hash_of(same) == hash_of(settings)
    assert hash_of(settings.model_copy(update={"seed": 1})) != hash_of(settings)
