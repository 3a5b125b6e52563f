"""A replica whose end hangs: the process ends all the same, and says at what it was."""

import json
import signal
from pathlib import Path

import grpc

from contracts.config.settings import dump
from contracts.runtime.clock import SystemClock
from contracts.snapshots import snapshot
from contracts.wire.recall_pb2_grpc import RecallServiceStub
from driftline.processes import broker
from driftline.processes.supervisor import Supervisor
from tests.serving.replica_cases import DEADLINE_S, Replica, prepared
from tests.serving.serving_cases import make_snapshot


def test_a_broker_that_hangs_does_not_keep_a_replica(tmp_path: Path) -> None:
    clock = SystemClock()
    with Supervisor(tmp_path / "logs", clock) as supervisor:
        kafka = broker.start_embedded(supervisor, clock)
        [of_broker] = supervisor.children
        broker.prepare(kafka)
        settings = prepared(tmp_path, kafka, drain_s=0).model_copy(update={"stop_within_s": 1.0})
        snapshot.write(settings.snapshots, make_snapshot("two_tower", 1, 6, 1.0))
        snapshot.publish(settings.snapshots, "two_tower", "v000001")
        dump(settings, tmp_path / "settings.yaml")
        child = supervisor.start_worker("replica", ["serve"], tmp_path / "settings.yaml")
        supervisor.wait_ready([child])
        with grpc.insecure_channel(f"127.0.0.1:{child.facts['port']}") as channel:
            stub = RecallServiceStub(channel)
            replica = Replica(settings, stub, channel, child, supervisor)
            replica.wait_for("serving_swaps_total", 1)
            replica.recall()
            replica.exposures(1)
            of_broker.process.send_signal(signal.SIGSTOP)
            try:
                replica.recall()  # its exposure waits for the broker
                child.process.terminate()
                assert child.process.wait(DEADLINE_S) == 1
            finally:
                of_broker.process.send_signal(signal.SIGCONT)
        supervisor.children.remove(child)
    said = json.loads(child.log.read_text().splitlines()[-1])
    assert said["event"] == "not stopped in time, so the process ends here"
    assert "exposures.py" in said["threads"]["MainThread"]
