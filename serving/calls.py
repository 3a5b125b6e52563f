"""What both clients share: requests and answers as values, where a call goes, and when it is made again. No network."""

import ipaddress
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import grpc

from contracts.runtime.clock import Clock
from contracts.wire import recall_pb2
from contracts.wire.recall_pb2 import Context, RecallBatchReply, RecallReply, RecallRequest

SERVICE = recall_pb2.DESCRIPTOR.services_by_name["RecallService"].full_name
MOST_ATTEMPTS = 5  # gRPC takes no more
CODES = {code.value[0]: code for code in grpc.StatusCode}
# A replica that is killed gives the first; one that shuts down around a call may give the second.
BROKEN_OFF = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED})
ELSEWHERE = frozenset({*BROKEN_OFF, grpc.StatusCode.RESOURCE_EXHAUSTED})
BROKEN_OFF_CALLS = 2  # on a shared channel: each of them is up to `attempts` of gRPC's own


class Item(NamedTuple):
    """One item that was recalled, and the candidate source that contributed it."""

    item_id: int
    score: float
    source: str


@dataclass(frozen=True)
class Recalled:
    """The answer to one Recall; the fields are those of `RecallReply`."""

    request_id: str  # what the feedback on these items has to carry
    experiment: str
    arm: str
    model: str
    snapshot_version: str
    items: tuple[Item, ...]  # best first
    fallback: str
    item_keys: tuple[str, ...] = ()  # of each item its text id; empty where the catalogue has none for it


class RecallError(Exception):
    """A call that failed. `request_id` is empty where the call had none of its own."""

    def __init__(self, code: grpc.StatusCode, message: str, request_id: str) -> None:
        super().__init__(code, message, request_id)
        self.code = code
        self.message = message
        self.request_id = request_id

    def __str__(self) -> str:
        return f"{self.code.name}: {self.message}"


class DeadlineError(RecallError):
    """There was no answer in time."""


Outcome: TypeAlias = Recalled | RecallError


def new_request_id() -> str:
    """An id that no other request has."""
    return uuid.uuid4().hex


@dataclass(frozen=True)
class Ask:
    """One request. Attempts with one `request_id` are one exposure.

    The user is named by `user_id`, by `user_key`, or by both; "42" as a key is a text, and not the user 42.
    """

    user_id: int = 0
    k: int = 10
    request_id: str = field(default_factory=new_request_id)
    exclude: Sequence[int] = ()  # item ids not to return
    time_ms: int | None = None  # event time, Unix milliseconds; None: the replica's clock
    recent: Sequence[int] = ()  # item ids that a user without features has just watched, oldest first
    simulated: bool = False  # nobody looks at the items: the exposure says so
    served_only: bool | None = None  # whether impressions will tell what is shown; None: as the replica's settings say
    user_key: str = ""  # the user's text id
    exclude_keys: Sequence[str] = ()  # items not to return, by text id
    recent_keys: Sequence[str] = ()  # as `recent`, by text id; one of the two

    def message(self) -> RecallRequest:
        """The request as it is sent."""
        context = Context(
            time_ms=self.time_ms,
            simulated=self.simulated,
            recent_item_ids=self.recent,
            recent_item_keys=self.recent_keys,
        )
        if self.served_only is not None:
            context.served_only = self.served_only
        return RecallRequest(
            user_id=self.user_id,
            k=self.k,
            context=context,
            request_id=self.request_id,
            exclude_item_ids=self.exclude,
            user_key=self.user_key,
            exclude_item_keys=self.exclude_keys,
        )


@dataclass(frozen=True)
class ClientTls:
    """How to know the replicas, and to be known to them; all files are PEM.

    `ca`: who has signed their certificates; None: the authorities that gRPC ships with. `certificate` and `key`: this
    client's own, for replicas with `tls.client_ca`. `server_name`: the name in the replicas' certificates, where it is
    not the host in the address.
    """

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    server_name: str | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        """What gRPC makes of them.

        Raises:
            ValueError: a file cannot be read, or of certificate and key one is missing.

        """
        if (self.certificate is None) != (self.key is None):
            raise ValueError("Of the client's certificate and its key one is missing.")
        ca, key, certificate = (None if path is None else _read(path) for path in (self.ca, self.key, self.certificate))
        return grpc.ssl_channel_credentials(ca, key, certificate)


@dataclass
class Attempts:
    """The attempts at one call: where the next one goes, how long it may take, and when to give up.

    `turn` is the number of the call: calls begin at one channel after the other. `shared`: there is one channel for
    all replicas, on which gRPC makes attempts of its own and waits for a replica by itself.
    """

    request_id: str
    clock: Clock
    deadline_s: float
    most: int
    shared: bool
    wait_for_ready: bool
    turn: int
    made: int = 0
    tried: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._began_s = self.clock.elapsed_s()

    @property
    def left_s(self) -> float:
        """Seconds until the deadline, never below 0."""
        return max(self.deadline_s - (self.clock.elapsed_s() - self._began_s), 0.0)

    def waits(self, ready: Sequence[bool]) -> bool:
        """Whether to wait until one of several channels is connected to a replica that answers."""
        return self.wait_for_ready and not self.shared and not any(ready) and self.left_s > 0

    def next(self, ready: Sequence[bool]) -> int:
        """The channel that the next attempt goes to."""
        self.tried.append(choose(ready, self.tried, self.turn))
        return self.tried[-1]

    def failed(self, error: grpc.RpcError) -> None:
        """Count an attempt that failed.

        Raises:
            RecallError: there is not to be another one.

        """
        self.made += 1
        if not self.left_s or not again(error.code(), self.made, self.most, shared=self.shared):
            raise error_of(error, self.request_id, self.deadline_s) from error


def again(code: grpc.StatusCode, calls: int, most: int, *, shared: bool) -> bool:
    """Whether to call again after so many calls.

    gRPC has made up to `most` attempts by itself on a shared channel, but none once an answer had begun to come. It
    does not tell the two apart, so that what may have broken off is called once more.

    >>> again(grpc.StatusCode.UNAVAILABLE, 1, 3, shared=True), again(grpc.StatusCode.UNAVAILABLE, 2, 3, shared=True)
    (True, False)
    >>> again(grpc.StatusCode.RESOURCE_EXHAUSTED, 1, 3, shared=True)
    False
    >>> again(grpc.StatusCode.RESOURCE_EXHAUSTED, 2, 3, shared=False)
    True
    """
    if shared:
        return code in BROKEN_OFF and calls < min(most, BROKEN_OFF_CALLS)
    return code in ELSEWHERE and calls < most


def choose(ready: Sequence[bool], tried: Sequence[int], turn: int) -> int:
    """The channel to try: the least tried; of those one that is connected to a replica that answers; from `turn` on.

    Having been tried comes first: that a connection has broken is known here a moment later.

    >>> [choose([True, False, True], [], turn) for turn in range(4)]
    [0, 2, 2, 0]
    >>> choose([True, False], [0], 0), choose([False, True], [0, 1], 0)
    (1, 1)
    """
    order = [(turn + n) % len(ready) for n in range(len(ready))]
    return min(order, key=lambda n: (tried.count(n), not ready[n]))


def targets(addresses: Sequence[str], *, apart: bool) -> list[str]:
    """The gRPC targets of HOST:PORT addresses: one for all IP addresses of one kind, else one each.

    >>> targets(["10.0.0.1:7000", "10.0.0.2:7000"], apart=False)
    ['ipv4:10.0.0.1:7000,10.0.0.2:7000']
    >>> targets(["[::1]:7000", "recall.internal:7000"], apart=False)
    ['ipv6:[::1]:7000', 'dns:///recall.internal:7000']

    Raises:
        ValueError: an address is not HOST:PORT.

    """
    each = [_target(address) for address in addresses]
    schemes = {target.partition(":")[0] for target in each}
    if apart or schemes not in ({"ipv4"}, {"ipv6"}):
        return each
    return [f"{schemes.pop()}:{','.join(target.partition(':')[2] for target in each)}"]


def host_of(address: str) -> str:
    """The host of HOST:PORT, an IPv6 address without its brackets.

    Raises:
        ValueError: it is not HOST:PORT.

    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or (":" in host) != (host[0] == "["):
        raise ValueError(f"'{address}' is not HOST:PORT.")
    return host.strip("[]")


def service_config(attempts: int, *, shared: bool) -> dict[str, Any]:
    """What gRPC is told about the service: balance over replicas that are ready, and make attempts of its own.

    With several channels it makes none: the next attempt is to go to another channel.
    """
    method: dict[str, Any] = {"name": [{"service": SERVICE}]}
    if shared and attempts > 1:
        method["retryPolicy"] = {
            "maxAttempts": attempts,
            "initialBackoff": "0.01s",
            "maxBackoff": "0.1s",
            "backoffMultiplier": 2,
            "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"],
        }
    return {
        "loadBalancingConfig": [{"round_robin": {}}],
        "healthCheckConfig": {"serviceName": SERVICE},
        "methodConfig": [method],
        # Where replicas fail by hundreds of calls more than a tenth of those that succeed, more calls do not help.
        "retryThrottling": {"maxTokens": 1000, "tokenRatio": 0.1},
    }


def recalled(reply: RecallReply) -> Recalled:
    """A reply as a value."""
    return Recalled(
        request_id=reply.request_id,
        experiment=reply.experiment,
        arm=reply.arm,
        model=reply.model,
        snapshot_version=reply.snapshot_version,
        items=tuple(Item(item.item_id, item.score, item.source) for item in reply.items),
        fallback=reply.fallback,
        item_keys=tuple(item.item_key for item in reply.items),
    )


def outcomes(asks: Sequence[Ask], reply: RecallBatchReply) -> list[Outcome]:
    """What became of each request of a batch, in their order."""
    return [
        RecallError(CODES.get(each.code, grpc.StatusCode.UNKNOWN), each.message, ask.request_id)
        if each.code
        else recalled(each.reply)
        for ask, each in zip(asks, reply.outcomes, strict=True)
    ]


def error_of(error: grpc.RpcError, request_id: str, deadline_s: float) -> RecallError:
    """A failed call's error."""
    code = error.code()
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlineError(code, f"No answer within {deadline_s:g} s.", request_id)
    return RecallError(code, error.details() or "", request_id)


def _target(address: str) -> str:
    try:
        version = ipaddress.ip_address(host_of(address)).version
    except ValueError:
        host_of(address)
        return f"dns:///{address}"
    return f"ipv{version}:{address}"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"Cannot read {path}: {error.strerror}.") from error
