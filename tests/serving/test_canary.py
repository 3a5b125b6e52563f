"""A real replica with a snapshot on trial: who is answered from it, that nothing is mixed, and how trials end."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from contracts.config.settings import KafkaSettings
from contracts.snapshots import canary, delta, retention, snapshot
from contracts.snapshots.canary import Canary, answers
from contracts.snapshots.snapshot import Version, version_name
from contracts.wire.recall_pb2 import (
    Context,
    ModelStatus,
    RecallBatchRequest,
    RecallReply,
    RecallRequest,
    StatusRequest,
)
from driftline.inspect.metrics import read_metrics
from feature_repo.store import UserRow, UserSequences
from tests.serving.replica_cases import Replica, running
from tests.serving.replicas import driftline, until
from tests.serving.serving_cases import make_delta, make_snapshot

MODEL = "two_tower"
USERS = range(1, 61)
AT_MS = 1000  # of all requests, as `Replica.recall` has it
HALF = Canary("v000002", 0.5, "v000002")


@pytest.fixture
def replica(tmp_path: Path, embedded: KafkaSettings) -> Iterator[Replica]:
    """A replica that knows all USERS; v000001 is live."""
    with running(tmp_path, embedded) as replica:
        rows = [UserRow(user, [1, 6], [10, 20], [5, 5], [1, 0], [0, 0], [0, 0], 20, 2) for user in USERS]
        UserSequences(replica.settings.feature_repo).write(rows)
        write(replica, 1)
        assert snapshot.publish(replica.settings.snapshots, MODEL, "v000001")
        replica.wait_for("serving_swaps_total", 1)
        yield replica


def write(replica: Replica, number: int) -> Path:
    """A snapshot whose tower and vectors are of a scale of its own, the number; feedback was sent a moment ago."""
    made = make_snapshot(number=number, scale=float(number))
    return snapshot.write(
        replica.settings.snapshots, replace(made, manifest=replace(made.manifest, sent_at_ms=(number,)))
    )


def status(replica: Replica) -> ModelStatus:
    (found,) = replica.stub.Status(StatusRequest(), timeout=10).models
    return found


def try_out(replica: Replica, tried: Canary) -> None:
    """Begin a trial, and wait until the replica is at it."""
    assert canary.try_out(replica.settings.snapshots, MODEL, tried)
    until(lambda: status(replica).canary_version == tried.version)


def mixed(reply: RecallReply) -> bool:
    """Whether something of a reply is not of the version that it names: every user has watched item 1."""
    version = Version.parse(reply.snapshot_version)
    assert version is not None
    named = make_snapshot(number=version.number, scale=float(version.number))
    vector = version.number * named.item_vectors[0]
    scores = named.item_vectors[[item.item_id - 1 for item in reply.items]] @ vector
    said = np.array(reply.user_vector), np.array([item.score for item in reply.items])
    return not (np.allclose(said[0], vector, rtol=1e-5) and np.allclose(said[1], scores, rtol=1e-5, atol=1e-4))


def replies_of(replica: Replica) -> dict[int, RecallReply]:
    """A reply to each user, wholly of one version."""
    replies = {user: replica.recall(user) for user in USERS}
    assert not any(mixed(reply) for reply in replies.values())
    assert all(each.snapshot_version == reply.snapshot_version for reply in replies.values() for each in reply.sources)
    return replies


def versions(replica: Replica) -> dict[int, str]:
    """The version that answers each user."""
    return {user: reply.snapshot_version for user, reply in replies_of(replica).items()}


def divided(tried: Canary, live: str) -> dict[int, str]:
    return {user: tried.version if answers(MODEL, tried, user, AT_MS) else live for user in USERS}


def everybody(version: str) -> dict[int, str]:
    return dict.fromkeys(USERS, version)


def healthy(replica: Replica) -> bool:
    """Whether the replica and what is live of its model are well."""
    health = health_pb2_grpc.HealthStub(replica.channel)
    services = ("driftline.v1.RecallService", f"driftline.v1.RecallService/{MODEL}")
    said = [health.Check(health_pb2.HealthCheckRequest(service=service), timeout=10) for service in services]
    return {each.status for each in said} == {health_pb2.HealthCheckResponse.SERVING}


def loads(replica: Replica) -> float:
    metrics = read_metrics([int(replica.child.facts["metrics_port"])])
    assert metrics.total("serving_failed_loads_total") == 0
    return metrics.total("serving_swap_seconds_count")


def test_a_share_of_the_users_tries_it_and_a_good_end_gives_it_to_all_without_a_load(replica: Replica) -> None:
    before = replies_of(replica)
    assert {reply.snapshot_version for reply in before.values()} == {"v000001"}
    write(replica, 2)
    try_out(replica, HALF)
    during = replies_of(replica)
    found = {user: reply.snapshot_version for user, reply in during.items()}
    assert found == divided(HALF, "v000001")
    assert set(found.values()) == {"v000001", "v000002"}
    requests = [RecallRequest(user_id=user, k=3, context=Context(time_ms=AT_MS)) for user in USERS]
    batch = replica.stub.RecallBatch(RecallBatchRequest(requests=requests), timeout=10).outcomes
    assert [each.reply.snapshot_version for each in batch] == list(found.values())

    logged = {exposure.request_id: exposure for exposure in replica.exposures(3 * len(USERS))}
    assert len(logged) == 3 * len(USERS)
    for reply in (*before.values(), *during.values(), *(each.reply for each in batch)):
        exposure = logged[reply.request_id]
        assert exposure.snapshot_version == reply.snapshot_version
        assert exposure.snapshot_versions == {MODEL: reply.snapshot_version}

    metrics = read_metrics([int(replica.child.facts["metrics_port"])])
    assert metrics.total("serving_snapshot_version") == 1
    assert (metrics.total("serving_canary_version"), metrics.total("serving_canary_share")) == (2, 0.5)
    assert metrics.total("serving_event_to_answer_seconds_count") == 2, "each version once, however they alternate"
    row = driftline("status", f"127.0.0.1:{replica.child.facts['port']}").stdout.splitlines()[-3]
    assert row.split()[4:9] == ["v000001", "v000001", "v000002", "for", "50%"]

    assert loads(replica) == 2
    assert canary.promote(replica.settings.snapshots, MODEL, "v000002")
    replica.wait_for("serving_snapshot_version", 2)
    assert versions(replica) == everybody("v000002")
    assert (status(replica).snapshot_version, status(replica).canary_version) == ("v000002", "")
    assert loads(replica) == 2
    metrics = read_metrics([int(replica.child.facts["metrics_port"])])
    assert metrics.total("serving_event_to_answer_seconds_count") == 2


def test_a_bad_end_gives_what_is_live_to_all_and_so_does_a_rollback(replica: Replica) -> None:
    for number in (2, 3):
        write(replica, number)
    try_out(replica, HALF)
    assert versions(replica) == divided(HALF, "v000001")
    canary.withdraw(replica.settings.snapshots, MODEL)
    until(lambda: status(replica).canary_version == "")
    assert versions(replica) == everybody("v000001")

    third = Canary("v000003", 0.25, "v000003")
    try_out(replica, third)
    assert versions(replica) == divided(third, "v000001")
    retention.roll_back(replica.settings.snapshots, MODEL, "v000001", "complaints")
    until(lambda: status(replica).canary_version == "")
    assert versions(replica) == everybody("v000001")


def test_deltas_on_a_snapshot_on_trial_stay_with_those_who_have_it(replica: Replica) -> None:
    write(replica, 2)
    try_out(replica, HALF)
    made = make_delta(number=2)
    delta.write(replica.settings.snapshots, replace(made, manifest=replace(made.manifest, sampling_seed=2)))
    try_out(replica, Canary("v000002+001", 0.5, "v000002"))
    found = {user: replica.recall(user, 9) for user in USERS}
    assert {user: reply.snapshot_version for user, reply in found.items()} == divided(
        Canary("v000002+001", 0.5, "v000002"), "v000001"
    )
    for reply in found.values():
        assert (101 in {item.item_id for item in reply.items}) is (reply.snapshot_version == "v000002+001")


def test_what_cannot_be_tried_leaves_what_is_live_to_all_and_the_replica_healthy(replica: Replica) -> None:
    home = replica.settings.snapshots / MODEL
    until(lambda: healthy(replica))  # once it has read the catalogue
    path = write(replica, 2) / "tower.onnx"
    path.write_bytes(path.read_bytes()[:-1])
    assert canary.try_out(replica.settings.snapshots, MODEL, HALF)
    until(lambda: "v000002 is not on trial here" in status(replica).error)
    assert versions(replica) == everybody("v000001")
    assert healthy(replica)

    write(replica, 3)
    try_out(replica, Canary("v000003", 0.5, "v000003"))
    assert status(replica).error == ""
    (home / "CANARY").write_text('{"version": "v0000')
    until(lambda: "two_tower/CANARY cannot be read" in status(replica).error)
    assert status(replica).canary_version == ""
    assert versions(replica) == everybody("v000001")
    assert healthy(replica)
    log = replica.child.log.read_text()
    assert "does not match its checksum" in log
    assert log.count("pointer to what is on trial not readable") == 1
    replica.wait_for("serving_failed_loads_total", 2)


@dataclass
class Load:
    """Threads that ask for all USERS, on and on, until told to stop."""

    replica: Replica
    replies: list[tuple[int, RecallReply]] = field(default_factory=list)
    failed: list[grpc.RpcError] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._done = threading.Event()
        self._askers = [threading.Thread(target=self._ask, args=(USERS[first::4],)) for first in range(4)]
        for asker in self._askers:
            asker.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        for asker in self._askers:
            asker.join()

    def goes_on(self) -> None:
        """Wait until every user has been answered once more."""
        wanted = len(self.replies) + 2 * len(USERS)
        until(lambda: len(self.replies) > wanted or bool(self.failed))

    def _ask(self, users: range) -> None:
        while not self._done.is_set():
            for user in users:
                try:
                    self.replies.append((user, self.replica.recall(user)))
                except grpc.RpcError as error:
                    self.failed.append(error)


def end_in_turn(root: Path, number: int) -> bool:
    """End a trial well, badly, or by damage to its pointer; whether it ended well."""
    if number % 3 == 0:
        return canary.promote(root, MODEL, version_name(number))
    if number % 3 == 1:
        canary.withdraw(root, MODEL)
    else:
        (root / MODEL / "CANARY").write_text("{")
    return False


def test_no_answer_fails_or_is_mixed_while_trials_come_and_go(replica: Replica) -> None:
    tried = [Canary(version_name(number), 0.5, version_name(number)) for number in range(2, 14)]
    ended_badly = []
    with Load(replica) as load:
        for number, each in enumerate(tried, start=2):
            write(replica, number)
            try_out(replica, each)
            load.goes_on()
            if not end_in_turn(replica.settings.snapshots, number):
                ended_badly.append(each)
            until(lambda: status(replica).canary_version == "")
    assert load.failed == []
    assert not any(mixed(reply) for _, reply in load.replies)
    seen = {reply.snapshot_version for _, reply in load.replies}
    assert seen == {"v000001", *(each.version for each in tried)}
    assert len(ended_badly) == 8
    for each in ended_badly:
        who = {user for user, reply in load.replies if reply.snapshot_version == each.version}
        assert who == {user for user in USERS if answers(MODEL, each, user, AT_MS)}
