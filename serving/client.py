"""Ask replicas for items, from a production service.

    with RecallClient(["10.0.0.1:7000", "10.0.0.2:7000"]) as client:
        for item_id, score, source in client.recall(user_id=7, k=100).items: ...

gRPC balances the calls over the replicas that call themselves ready, which it asks of each all the time, and repeats
what no replica has begun to answer. What it does not repeat, such as an answer that broke off, is repeated here while
the deadline lasts. That is safe: all attempts carry one request_id and so make one exposure. Of driftline this imports
the messages and the clock, nothing of a replica.
"""

import asyncio
import itertools
import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self, TypeAlias

import grpc

from contracts.runtime.clock import Clock, SystemClock
from contracts.wire.recall_pb2 import RecallBatchReply, RecallBatchRequest, RecallReply, StatusReply, StatusRequest
from contracts.wire.recall_pb2_grpc import RecallServiceStub
from serving import calls
from serving.calls import Ask, Attempts, ClientTls, DeadlineError, Item, Outcome, Recalled, RecallError

__all__ = [
    "Ask",
    "AsyncRecallClient",
    "ClientTls",
    "DeadlineError",
    "Item",
    "Outcome",
    "RecallClient",
    "RecallError",
    "Recalled",
    "Status",
]

STATUS_DEADLINE_S = 2.0
POLL_S = 0.01
Status: TypeAlias = StatusReply | RecallError


class _Client(ABC):
    """Where the replicas are and how to ask them; the arguments are explained at `RecallClient`."""

    def __init__(
        self,
        addresses: Sequence[str],
        *,
        deadline_s: float = 0.2,
        attempts: int = 3,
        hedge_after_s: float | None = None,
        wait_for_ready: bool = True,
        tls: ClientTls | None = None,
        token: str | None = None,
        clock: Clock | None = None,
    ) -> None:
        if not addresses:
            raise ValueError("No address of a replica was given.")
        if not 1 <= attempts <= calls.MOST_ATTEMPTS:
            raise ValueError(f"attempts is {attempts}; 1 to {calls.MOST_ATTEMPTS} are allowed.")
        if deadline_s <= 0:
            raise ValueError(f"deadline_s is {deadline_s}; it must be above 0.")
        self._addresses = tuple(dict.fromkeys(addresses))
        self._deadline_s = deadline_s
        self._attempts = attempts
        self._hedge_after_s = hedge_after_s
        self._wait_for_ready = wait_for_ready
        self._credentials = None if tls is None else tls.credentials()
        self._name = None if tls is None else tls.server_name
        # A second attempt is to reach another replica for certain, and a certificate is checked against the host of
        # its own address: both take a channel for each.
        hosts = {calls.host_of(address) for address in self._addresses}
        apart = hedge_after_s is not None or (tls is not None and self._name is None and len(hosts) > 1)
        self._targets = calls.targets(self._addresses, apart=apart)
        if tls is not None and self._name is None and len(hosts) == 1:
            self._name = hosts.pop()
        self._metadata = () if token is None else (("authorization", f"Bearer {_checked(token)}"),)
        # With several channels none waits for its own replica: another channel may have one.
        self._about = {"metadata": self._metadata, "wait_for_ready": wait_for_ready and self._shared}
        self._clock = clock or SystemClock()
        self._turns = itertools.count()
        self._connect()

    @abstractmethod
    def _connect(self) -> None:
        """Make the channels to `self._targets`."""

    @property
    def _shared(self) -> bool:
        return len(self._targets) == 1

    @property
    def _alone(self) -> bool:
        """Whether there is one replica; a DNS name may be many."""
        return len(self._addresses) == 1 and not self._targets[0].startswith("dns:")

    def _start(self, request_id: str, deadline_s: float | None) -> Attempts:
        deadline_s = self._deadline_s if deadline_s is None else deadline_s
        return Attempts(
            request_id,
            self._clock,
            deadline_s,
            most=self._attempts,
            shared=self._shared,
            wait_for_ready=self._wait_for_ready,
            turn=next(self._turns),
        )

    def _options(self, *, balanced: bool) -> list[tuple[str, str | int]]:
        options: list[tuple[str, str | int]] = [
            ("grpc.max_receive_message_length", -1),  # a replica's own limit is `serving.max_message_bytes`
            # A replica that comes back is found within 2 s; one that swallows all packets is given up within 12 s.
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 1_000),
            ("grpc.max_reconnect_backoff_ms", 2_000),
            ("grpc.keepalive_time_ms", 10_000),
            ("grpc.keepalive_timeout_ms", 2_000),
            # A channel that nobody has used for long would let its connections go, and the first call wait for them.
            ("grpc.client_idle_timeout_ms", 2**31 - 1),
        ]
        if self._name:
            options += [("grpc.ssl_target_name_override", self._name), ("grpc.default_authority", self._name)]
        if balanced:
            config = json.dumps(calls.service_config(self._attempts, shared=self._shared))
            options += [("grpc.service_config", config), ("grpc.service_config_disable_resolution", 1)]
        return options


class RecallClient(_Client):
    """A client for threads: one for all of them.

    Args:
        addresses: HOST:PORT of each replica, or of a DNS name of many, which gRPC looks up again whenever a connection
            ends. IP addresses share one channel; several names have a channel each, and take turns.
        deadline_s: seconds for an answer, with all attempts.
        attempts: how often a request is sent, 1 to 5, while replicas say UNAVAILABLE (one that is killed does) or
            RESOURCE_EXHAUSTED. An answer that breaks off on a shared channel is asked for once more, in as many.
        hedge_after_s: of `AsyncRecallClient` alone.
        wait_for_ready: while no replica can be reached, wait until the deadline for one; False: fail at once, for a
            caller who has something else to show.
        tls: None: not encrypted.
        token: goes with every call; without TLS others may read it on its way.
        clock: measures the deadline.

    Raises:
        ValueError: an argument cannot be used; one sentence says why.

    """

    def _connect(self) -> None:
        if self._hedge_after_s is not None:
            raise ValueError("hedge_after_s: only AsyncRecallClient asks a second replica beside the first.")
        self._channels = [self._channel(target, balanced=True) for target in self._targets]
        self._stubs = [RecallServiceStub(channel) for channel in self._channels]
        self._ready = [False] * len(self._channels)
        self._pause = threading.Event()
        if not self._shared:
            for n, channel in enumerate(self._channels):
                channel.subscribe(self._watch(n), try_to_connect=True)

    def recall(
        self,
        user_id: int = 0,
        k: int = 10,
        *,
        user_key: str = "",
        request_id: str | None = None,
        exclude: Sequence[int] = (),
        time_ms: int | None = None,
        recent: Sequence[int] = (),
        simulated: bool = False,
        served_only: bool | None = None,
        exclude_keys: Sequence[str] = (),
        recent_keys: Sequence[str] = (),
        deadline_s: float | None = None,
    ) -> Recalled:
        """Up to k items for a user, best first; the arguments are the fields of `Ask`.

        Raises:
            RecallError: no replica answered, or the request is wrong; `DeadlineError` where time ran out.

        """
        ask = Ask(
            user_id,
            k,
            request_id or calls.new_request_id(),
            exclude,
            time_ms,
            recent,
            simulated,
            served_only,
            user_key,
            exclude_keys,
            recent_keys,
        )
        reply: RecallReply = self._call("Recall", ask.message(), self._start(ask.request_id, deadline_s))
        return calls.recalled(reply)

    def recall_batch(self, asks: Sequence[Ask], *, deadline_s: float | None = None) -> list[Outcome]:
        """Answer several requests by one replica, in one message: what became of each, in their order.

        Raises:
            RecallError: the call as a whole failed; `DeadlineError` where time ran out.

        """
        batch = RecallBatchRequest(requests=[ask.message() for ask in asks])
        reply: RecallBatchReply = self._call("RecallBatch", batch, self._start("", deadline_s))
        return calls.outcomes(asks, reply)

    def status(self, *, deadline_s: float = STATUS_DEADLINE_S) -> dict[str, Status]:
        """What each address says of itself, and of those that do not answer why; of a DNS name, one replica."""
        channels = [self._channel(target, balanced=False) for target in calls.targets(self._addresses, apart=True)]
        try:
            pending = [
                RecallServiceStub(channel).Status.future(StatusRequest(), timeout=deadline_s, metadata=self._metadata)
                for channel in channels
            ]
            return {
                address: _status_of(call, deadline_s) for address, call in zip(self._addresses, pending, strict=True)
            }
        finally:
            for channel in channels:
                channel.close()

    def close(self) -> None:
        """End the connections; calls under way fail."""
        for channel in self._channels:
            channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _call(self, method: str, message: object, attempts: Attempts) -> Any:
        while True:
            while attempts.waits(self._ready):
                self._pause.wait(POLL_S)
            stub = self._stubs[attempts.next(self._ready)]
            try:
                return getattr(stub, method)(message, timeout=attempts.left_s, **self._about)
            except grpc.RpcError as error:
                attempts.failed(error)

    def _channel(self, target: str, *, balanced: bool) -> grpc.Channel:
        options = self._options(balanced=balanced)
        if self._credentials is None:
            return grpc.insecure_channel(target, options)
        return grpc.secure_channel(target, self._credentials, options)

    def _watch(self, n: int) -> Callable[[grpc.ChannelConnectivity], None]:
        def changed(state: grpc.ChannelConnectivity) -> None:
            self._ready[n] = state is grpc.ChannelConnectivity.READY

        return changed


class AsyncRecallClient(_Client):
    """A client for asyncio; make it inside the loop that uses it. Arguments and errors as of `RecallClient`.

    With `hedge_after_s`, a request that has no answer after so many seconds goes to another replica too, and the
    answer that comes first is taken. Both replicas may then log the exposure. The second to arrive is dropped by its
    event id, which is the request_id, and nobody knows which of the two that is: what is kept is what was shown only
    where both answer alike. So hedge where all replicas serve the same snapshot.
    """

    def _connect(self) -> None:
        self._channels = [self._channel(target, balanced=True) for target in self._targets]
        self._stubs = [RecallServiceStub(channel) for channel in self._channels]
        for channel in self._channels:
            channel.get_state(try_to_connect=True)

    async def recall(
        self,
        user_id: int = 0,
        k: int = 10,
        *,
        user_key: str = "",
        request_id: str | None = None,
        exclude: Sequence[int] = (),
        time_ms: int | None = None,
        recent: Sequence[int] = (),
        simulated: bool = False,
        served_only: bool | None = None,
        exclude_keys: Sequence[str] = (),
        recent_keys: Sequence[str] = (),
        deadline_s: float | None = None,
    ) -> Recalled:
        """As `RecallClient.recall`."""
        ask = Ask(
            user_id,
            k,
            request_id or calls.new_request_id(),
            exclude,
            time_ms,
            recent,
            simulated,
            served_only,
            user_key,
            exclude_keys,
            recent_keys,
        )
        reply: RecallReply = await self._call("Recall", ask.message(), self._start(ask.request_id, deadline_s))
        return calls.recalled(reply)

    async def recall_batch(self, asks: Sequence[Ask], *, deadline_s: float | None = None) -> list[Outcome]:
        """As `RecallClient.recall_batch`."""
        batch = RecallBatchRequest(requests=[ask.message() for ask in asks])
        reply: RecallBatchReply = await self._call("RecallBatch", batch, self._start("", deadline_s))
        return calls.outcomes(asks, reply)

    async def status(self, *, deadline_s: float = STATUS_DEADLINE_S) -> dict[str, Status]:
        """As `RecallClient.status`."""
        pending = (self._status(target, deadline_s) for target in calls.targets(self._addresses, apart=True))
        return dict(zip(self._addresses, await asyncio.gather(*pending), strict=True))

    async def close(self) -> None:
        """As `RecallClient.close`."""
        for channel in self._channels:
            await channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _call(self, method: str, message: object, attempts: Attempts) -> Any:
        while True:
            try:
                if self._hedge_after_s is None or self._alone:
                    return await self._send(method, message, attempts)
                return await self._hedged(method, message, attempts, self._hedge_after_s)
            except grpc.RpcError as error:
                attempts.failed(error)

    async def _send(self, method: str, message: object, attempts: Attempts) -> Any:
        while attempts.waits(self._ready):  # noqa: ASYNC110  (gRPC has no event for "one of them")
            await asyncio.sleep(POLL_S)
        stub = self._stubs[attempts.next(self._ready)]
        return await getattr(stub, method)(message, timeout=attempts.left_s, **self._about)

    @property
    def _ready(self) -> list[bool]:
        ready = grpc.ChannelConnectivity.READY
        return [channel.get_state(try_to_connect=True) is ready for channel in self._channels]

    async def _hedged(self, method: str, message: object, attempts: Attempts, after_s: float) -> Any:
        """The first answer of two attempts; the error of the last one to fail where both do."""
        sent = [asyncio.create_task(self._send(method, message, attempts))]
        try:
            await asyncio.wait(sent, timeout=min(after_s, attempts.left_s))
            if not sent[0].done():
                sent.append(asyncio.create_task(self._send(method, message, attempts)))
            for first in asyncio.as_completed(sent):
                try:
                    return await first
                except grpc.RpcError as error:
                    failure = error
            raise failure
        finally:
            for task in sent:
                task.cancel()
            await asyncio.gather(*sent, return_exceptions=True)

    async def _status(self, target: str, deadline_s: float) -> Status:
        async with self._channel(target, balanced=False) as channel:
            call = RecallServiceStub(channel).Status(StatusRequest(), timeout=deadline_s, metadata=self._metadata)
            try:
                reply: StatusReply = await call
            except grpc.RpcError as error:
                return calls.error_of(error, "", deadline_s)
            return reply

    def _channel(self, target: str, *, balanced: bool) -> grpc.aio.Channel:
        options = self._options(balanced=balanced)
        if self._credentials is None:
            return grpc.aio.insecure_channel(target, options)
        return grpc.aio.secure_channel(target, self._credentials, options)


def _checked(token: str) -> str:
    # gRPC would say that it cannot send the token, and quote it.
    if not (token.isascii() and token.isprintable() and token.strip() == token != ""):
        raise ValueError("The token is empty, or not of printable ASCII characters alone.")
    return token


def _status_of(call: Any, deadline_s: float) -> Status:
    try:
        reply: StatusReply = call.result()
    except grpc.RpcError as error:
        return calls.error_of(error, "", deadline_s)
    return reply
