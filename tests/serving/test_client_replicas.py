"""The client on real replicas: balanced, and undisturbed where one of them ends."""

import asyncio
import json
import pickle
import signal
from collections.abc import Callable, Iterator

import grpc
import pytest

from contracts.kafka import bus, consumers
from contracts.wire.events_pb2 import Exposure
from contracts.wire.recall_pb2 import StatusReply
from driftline.processes.supervisor import Child
from serving.client import Ask, AsyncRecallClient, Item, RecallClient, Recalled, RecallError
from tests.serving.replica_cases import KNOWN_USER
from tests.serving.replicas import LONG_S, Cluster, address_of, answered_by, cluster, driftline, until

CALLERS = 16


@pytest.fixture(scope="module")
def replicas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cluster, list[Child]]]:
    """Four of them; the tests that end one come last and leave the first."""
    with cluster(tmp_path_factory.mktemp("cluster")) as made:
        yield made, made.start("stays", "drained", "killed", "killed by name")


def test_calls_are_balanced_and_are_exposures_of_one_id(replicas: tuple[Cluster, list[Child]]) -> None:
    made, (a, b, *_) = replicas
    with RecallClient([address_of(a), address_of(b)], deadline_s=LONG_S) as client:
        until(lambda: bool(client.recall(KNOWN_USER, 3, time_ms=1) and answered_by(a) and answered_by(b)))
        before = answered_by(a), answered_by(b)
        found = [client.recall(KNOWN_USER, 3, request_id=f"r{n}", time_ms=1000) for n in range(10)]
        assert (answered_by(a) - before[0], answered_by(b) - before[1]) == (5, 5)
        assert [each.request_id for each in found] == [f"r{n}" for n in range(10)]
        assert {(each.experiment, each.model, each.snapshot_version) for each in found} == {
            ("e", "two_tower", "v000001")
        }
        assert [item.item_id for item in found[0].items] == [2, 3, 4]
        assert all(isinstance(item, Item) and item.source == "two_tower" for item in found[0].items)
        own = client.recall(12, 3, time_ms=1000, simulated=True)
        assert (own.fallback, len(own.request_id)) == ("unknown user", 32)
    consumer = consumers.consumer(made.settings.kafka, [bus.EXPOSURES], None)
    logged: dict[str, Exposure] = {}
    while own.request_id not in logged:
        for records in consumer.poll(100).values():
            logged |= {each.request_id: each for each in (Exposure.FromString(record.value) for record in records)}
    consumer.close()
    assert logged[own.request_id].simulated


def test_a_wrong_request_is_a_typed_error(replicas: tuple[Cluster, list[Child]]) -> None:
    _, (a, *_) = replicas
    with RecallClient([address_of(a)], deadline_s=LONG_S) as client, pytest.raises(RecallError) as caught:
        client.recall(KNOWN_USER, 51, request_id="mine")
    error = caught.value
    assert (error.code, error.request_id) == (grpc.StatusCode.INVALID_ARGUMENT, "mine")
    assert str(error) == "INVALID_ARGUMENT: k is 51; 1 to 50 are allowed."
    assert str(pickle.loads(pickle.dumps(error))) == str(error)  # noqa: S301


def test_replicas_say_what_they_serve_and_answer_batches(replicas: tuple[Cluster, list[Child]]) -> None:
    _, (a, b, *_) = replicas
    addresses = [address_of(a), address_of(b)]
    with RecallClient(addresses, deadline_s=LONG_S) as client:
        first, second = client.recall_batch([Ask(KNOWN_USER, 3, time_ms=1000), Ask(KNOWN_USER, 51, request_id="wrong")])
        assert isinstance(first, Recalled)
        assert [item.item_id for item in first.items] == [2, 3, 4]
        assert isinstance(second, RecallError)
        assert str(second) == "INVALID_ARGUMENT: k is 51; 1 to 50 are allowed."
        for status in client.status(deadline_s=LONG_S).values():
            assert isinstance(status, StatusReply)
            (model,) = status.models
            assert (model.model, model.snapshot_version, model.live_version) == ("two_tower", "v000001", "v000001")
            assert (model.items, model.error, status.draining) == (6, "", False)


def test_the_command_asks_through_the_client(replicas: tuple[Cluster, list[Child]]) -> None:
    _, (a, b, *_) = replicas
    shown = driftline("recall", "12", "--k", "2", "--target", address_of(a), "--target", address_of(b))
    reply = json.loads(shown.stdout)
    assert [item["source"] for item in reply["items"]] == ["popular"] * 2
    assert (reply["model"], reply["fallback"]) == ("two_tower", "unknown user")
    wrong = driftline("recall", "12", "--k", "99", "--target", address_of(a))
    assert (wrong.returncode, wrong.stderr) == (2, "driftline: INVALID_ARGUMENT: k is 99; 1 to 50 are allowed.\n")


async def under_load(addresses: list[str], at_half: Callable[[], None], answers: int) -> tuple[int, list[RecallError]]:
    """Ask until there are so many answers, and do something halfway; how many there were, and what failed."""
    failed: list[RecallError] = []
    answered = 0
    async with AsyncRecallClient(addresses, deadline_s=LONG_S) as client:

        async def call() -> None:
            nonlocal answered
            while answered < answers and not failed:
                try:
                    await client.recall(KNOWN_USER, 3)
                except RecallError as error:
                    failed.append(error)
                answered += 1
                if answered == answers // 2:
                    at_half()

        await asyncio.gather(*(call() for _ in range(CALLERS)))
    return answered, failed


@pytest.mark.parametrize(
    ("victim", "signum", "host"),
    [
        ("killed", signal.SIGKILL, "127.0.0.1"),
        ("killed by name", signal.SIGKILL, "localhost"),
        ("drained", signal.SIGTERM, "127.0.0.1"),
    ],
)
def test_a_replica_that_ends_under_load_reaches_no_caller(
    replicas: tuple[Cluster, list[Child]], victim: str, signum: signal.Signals, host: str
) -> None:
    """By address all share one channel of gRPC's, by name each has one of its own."""
    made, children = replicas
    stays, ends = children[0], next(child for child in children if child.name == victim)
    before = answered_by(stays)
    addresses = [f"{host}:{each.facts['port']}" for each in (stays, ends)]
    answers, failed = asyncio.run(under_load(addresses, lambda: ends.process.send_signal(signum), 600))
    made.forget(ends)
    assert failed == []
    # The other one has had its share until halfway, and all but what was on its way then has come from this one.
    assert 300 < answered_by(stays) - before <= answers - 100
