"""The client, on servers that do as a test says: what is repeated, when it gives up, what it sends and returns."""

import asyncio
import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NoReturn

import grpc
import pytest

from contracts.runtime.clock import SystemClock
from contracts.wire.recall_pb2 import ModelStatus, RecallReply, RecallRequest, StatusReply
from serving.client import (
    Ask,
    AsyncRecallClient,
    ClientTls,
    DeadlineError,
    RecallClient,
    Recalled,
    RecallError,
)
from tests.serving.replicas import LONG_S, Stand, driftline, until

SHORT_S = 0.3
DEAD = "127.0.0.1:1"  # nothing listens there


@contextmanager
def stands(*names: str) -> Iterator[tuple[Stand, ...]]:
    with ExitStack() as stack:
        yield tuple(stack.enter_context(Stand(name)) for name in names)


def refuse(code: grpc.StatusCode) -> Callable[[RecallRequest, grpc.ServicerContext], NoReturn]:
    def answer(request: RecallRequest, context: grpc.ServicerContext) -> NoReturn:
        context.abort(code, "not here")
        raise AssertionError

    return answer


def test_a_replica_that_is_not_ready_or_drains_gets_no_calls() -> None:
    with stands("a", "b") as (a, b), RecallClient([a.address, b.address], deadline_s=LONG_S) as client:
        until(lambda: {client.recall(1, 1).model for _ in range(4)} == {"a", "b"})
        a.be(ready=False)
        until(lambda: {client.recall(1, 1).model for _ in range(10)} == {"b"})
        asked = len(a.asked)
        assert {client.recall(1, 1).model for _ in range(50)} == {"b"}
        assert len(a.asked) == asked
        a.be(ready=True)
        until(lambda: {client.recall(1, 1).model for _ in range(4)} == {"a", "b"})


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED])
def test_what_one_replica_refuses_another_answers_under_the_same_id(host: str, code: grpc.StatusCode) -> None:
    """On one channel (addresses) by gRPC's own attempts, and on one for each name by ours."""
    with stands("a", "b") as (a, b):
        with RecallClient([f"{host}:{a.port}", f"{host}:{b.port}"], deadline_s=LONG_S) as client:
            until(lambda: {client.recall(1, 1).model for _ in range(4)} == {"a", "b"})
            before = len(a.asked)
            a.answer = refuse(code)
            assert {client.recall(1, 1).model for _ in range(10)} == {"b"}
        refused = {each.request_id for each in a.asked[before:]}
        assert refused
        assert refused <= {each.request_id for each in b.asked}


def breaks_off(stand: Stand) -> None:
    """Let a server go down when it has begun to answer: gRPC makes no other attempt then."""

    def answer(request: RecallRequest, context: grpc.ServicerContext) -> RecallReply:
        context.send_initial_metadata(())
        stand.server.stop(0)
        threading.Event().wait(SHORT_S)  # a reply that comes too late for the connection
        return RecallReply()

    stand.answer = answer


def test_an_answer_that_breaks_off_is_asked_for_again() -> None:
    with stands("a") as (a,):
        breaks_off(a)
        with RecallClient([a.address], deadline_s=LONG_S, attempts=1) as client, pytest.raises(RecallError) as caught:
            client.recall(1, 1)
        assert caught.value.code in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
    for host in ("127.0.0.1", "localhost"):
        with stands("a", "b") as (a, b):
            breaks_off(a)
            with RecallClient([f"{host}:{a.port}", f"{host}:{b.port}"], deadline_s=LONG_S) as client:
                until(lambda: client.recall(1, 1).model == "b" and len(a.asked) > 0)
            assert a.asked[0].request_id in {each.request_id for each in b.asked}


def test_what_is_wrong_with_a_request_is_not_asked_twice() -> None:
    with stands("a") as (a,), RecallClient([a.address], deadline_s=LONG_S) as client:
        a.answer = refuse(grpc.StatusCode.INVALID_ARGUMENT)
        with pytest.raises(RecallError, match="INVALID_ARGUMENT: not here"):
            client.recall(1, 1)
        assert len(a.asked) == 1


def test_attempts_end() -> None:
    """Each of at most two calls is three attempts of gRPC's; with a channel for each there are three in all."""
    for host, most in (("127.0.0.1", 6), ("localhost", 3)):
        with stands("a", "b") as (a, b):
            a.answer = b.answer = refuse(grpc.StatusCode.UNAVAILABLE)
            addresses = [f"{host}:{a.port}", f"{host}:{b.port}"]
            with (
                RecallClient(addresses, deadline_s=LONG_S, attempts=3) as client,
                pytest.raises(RecallError, match="UNAVAILABLE: not here"),
            ):
                client.recall(1, 1)
            assert 3 <= len(a.asked) + len(b.asked) <= most


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_the_deadline_holds_for_all_attempts(host: str) -> None:
    """A server that says UNAVAILABLE just before the deadline is not asked again for a whole deadline."""
    clock = SystemClock()
    stop = threading.Event()

    def slow(request: RecallRequest, context: grpc.ServicerContext) -> RecallReply:
        stop.wait(SHORT_S * 0.6)
        context.abort(grpc.StatusCode.UNAVAILABLE, "not here")
        raise AssertionError

    with stands("a", "b") as (a, b):
        addresses = [f"{host}:{a.port}", f"{host}:{b.port}"]
        with RecallClient(addresses, deadline_s=LONG_S) as client:
            client.recall(1, 1)  # connected
            a.answer = b.answer = slow
            began_s = clock.elapsed_s()
            with pytest.raises(DeadlineError) as caught:
                client.recall(1, 1, deadline_s=SHORT_S)
            assert SHORT_S <= clock.elapsed_s() - began_s < 2 * SHORT_S
    assert str(caught.value) == "DEADLINE_EXCEEDED: No answer within 0.3 s."


def test_without_any_replica_a_client_waits_or_says_so_at_once() -> None:
    addresses = [DEAD, "127.0.0.1:2"]
    with RecallClient(addresses, deadline_s=SHORT_S) as client, pytest.raises(DeadlineError):
        client.recall(1, 1)
    with (
        RecallClient(addresses, deadline_s=LONG_S, wait_for_ready=False) as client,
        pytest.raises(RecallError, match=r"UNAVAILABLE: .*onnect"),
    ):
        client.recall(1, 1)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_client_finds_a_replica_that_comes_late(host: str) -> None:
    """Whichever of its channels that is: none of them waits alone."""
    with stands("a") as (a,), RecallClient([f"{host}:1", f"{host}:{a.port}"], deadline_s=SHORT_S * 10) as client:
        a.be(ready=False)
        threading.Timer(SHORT_S, a.be, kwargs={"ready": True}).start()
        assert client.recall(1, 1).model == "a"


def test_a_request_carries_what_was_asked_and_the_token() -> None:
    with stands("a") as (a,), RecallClient([a.address], deadline_s=LONG_S, token="t") as client:  # noqa: S106
        client.recall(7, 2, exclude=[3, 4], time_ms=5, recent=[6], simulated=True, served_only=False)
        client.recall(8, 1)
        first, second = a.asked
        assert (first.context.HasField("served_only"), first.context.served_only) == (True, False)
        assert not second.context.HasField("served_only"), "the replica's settings say"
        assert (first.user_id, first.k, [*first.exclude_item_ids]) == (7, 2, [3, 4])
        assert (first.context.time_ms, first.context.simulated, [*first.context.recent_item_ids]) == (5, True, [6])
        assert not second.context.HasField("time_ms")
        assert first.request_id != second.request_id
        assert [each["authorization"] for each in a.metadata] == ["Bearer t"] * 2


def both_clients(addresses: list[str], ask: Callable[[Any], Any], **options: Any) -> tuple[Any, Any]:
    """What the client for threads and the one for asyncio give."""
    with RecallClient(addresses, **options) as client:
        first = ask(client)

    async def other() -> Any:
        async with AsyncRecallClient(addresses, **options) as client:
            return await ask(client)

    return first, asyncio.run(other())


def test_a_batch_has_an_outcome_for_each_request() -> None:
    with stands("a") as (a,):
        asks = [Ask(1, 2), Ask(-1, 2, request_id="wrong"), Ask(2, 2)]
        for found in both_clients([a.address], lambda client: client.recall_batch(asks), deadline_s=LONG_S):
            assert [type(each) for each in found] == [Recalled, RecallError, Recalled]
            assert [each.request_id for each in found] == [each.request_id for each in asks]
            assert str(found[1]) == "INVALID_ARGUMENT: no user"


LOADED = ModelStatus(
    model="m", snapshot_version="v2", live_version="v3", error="It is damaged.", items=1234, index="flat"
)


def test_status_is_that_of_each_address() -> None:
    with stands("a", "b") as (a, b):
        a.status, b.status = StatusReply(models=[LOADED], waiting=2), StatusReply(draining=True)
        b.be(ready=False)  # and yet it is asked
        for found in both_clients([a.address, DEAD, b.address], lambda client: client.status(), token="t"):  # noqa: S106
            assert list(found) == [a.address, DEAD, b.address]
            assert (found[a.address], found[b.address]) == (a.status, b.status)
            assert isinstance(found[DEAD], RecallError)
        assert a.metadata[0]["authorization"] == "Bearer t"


def test_the_command_shows_the_status_of_replicas() -> None:
    with stands("a", "b") as (a, b):
        a.status, b.status = StatusReply(models=[LOADED], waiting=2), StatusReply(draining=True)
        shown = driftline("status", a.address, b.address)
        assert shown.returncode == 0
        lines = [line.split() for line in shown.stdout.splitlines()]
        assert [a.address, "serving", "2", "m", "v2", "v3", "1,234", "flat", "It", "is", "damaged."] in lines
        assert [b.address, "draining", "0"] in lines
        as_json = driftline("status", a.address, DEAD, "--json")
        assert as_json.returncode == 1
        first, second = map(json.loads, as_json.stdout.splitlines())
        assert first["models"][0]["items"] == 1234
        assert "UNAVAILABLE" in second["error"]


# Hedging.


def test_a_slow_answer_is_asked_for_elsewhere_and_given_up() -> None:
    clock = SystemClock()
    given_up = threading.Event()

    def hang(request: RecallRequest, context: grpc.ServicerContext) -> RecallReply:
        context.add_callback(given_up.set)
        given_up.wait(LONG_S)
        return RecallReply(model="too late")

    async def ask(addresses: list[str], a: Stand) -> None:
        async with AsyncRecallClient(addresses, deadline_s=LONG_S, hedge_after_s=0.05) as client:
            while not a.asked:
                began_s = clock.elapsed_s()
                assert (await client.recall(1, 1)).model == "b"
                assert clock.elapsed_s() - began_s < LONG_S / 2
            assert await asyncio.to_thread(given_up.wait, LONG_S)

    with stands("a", "b") as (a, b):
        a.answer = hang
        asyncio.run(ask([a.address, b.address], a))
        assert a.asked[0].request_id in {each.request_id for each in b.asked}


def test_a_fast_answer_is_not_asked_for_twice() -> None:
    async def ask(addresses: list[str]) -> None:
        async with AsyncRecallClient(addresses, deadline_s=LONG_S, hedge_after_s=LONG_S / 2) as client:
            for _ in range(20):
                await client.recall(1, 1)

    with stands("a", "b") as (a, b):
        asyncio.run(ask([a.address, b.address]))
        assert len(a.asked) + len(b.asked) == 20


def test_hedging_fails_only_where_both_do() -> None:
    async def ask(addresses: list[str]) -> None:
        async with AsyncRecallClient(addresses, deadline_s=LONG_S, hedge_after_s=0.001, attempts=1) as client:
            await client.recall(1, 1)

    with stands("a", "b") as (a, b):
        a.answer = b.answer = refuse(grpc.StatusCode.INTERNAL)
        with pytest.raises(RecallError, match="INTERNAL: not here"):
            asyncio.run(ask([a.address, b.address]))


# What needs no server.


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"addresses": []}, "No address of a replica was given."),
        ({"addresses": ["10.0.0.1"]}, "'10.0.0.1' is not HOST:PORT."),
        ({"addresses": ["::1:7000"]}, "'::1:7000' is not HOST:PORT."),
        ({"attempts": 6}, "attempts is 6; 1 to 5 are allowed."),
        ({"deadline_s": 0}, "deadline_s is 0; it must be above 0."),
        ({"token": "s3cret\n"}, "The token is empty, or not of printable ASCII characters alone."),
        ({"hedge_after_s": 0.1}, "hedge_after_s: only AsyncRecallClient asks a second replica beside the first."),
    ],
)
def test_an_argument_that_cannot_be_used_is_one_sentence(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=r"\.$") as caught:
        RecallClient(**{"addresses": ["10.0.0.1:7000"], **arguments})
    assert str(caught.value) == said


def test_tls_files_that_cannot_be_used_are_one_sentence(tmp_path: Any) -> None:
    with pytest.raises(ValueError, match=r"Cannot read .*absent: No such file"):
        RecallClient(["10.0.0.1:7000"], tls=ClientTls(ca=tmp_path / "absent"))
    with pytest.raises(ValueError, match=r"one is missing"):
        RecallClient(["10.0.0.1:7000"], tls=ClientTls(certificate=tmp_path / "a"))


def test_it_imports_light() -> None:
    """A production service takes in grpc and protobuf with it, and nothing of a replica."""
    code = "import sys, serving.client; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=True)
    brought = Counter(shown.stdout.split())
    assert brought["grpc"]
    assert not brought.keys() & {"structlog", "kafka", "feast", "onnxruntime", "faiss", "numpy", "pydantic", "yaml"}
