"""An open-loop load generator: requests leave when they are due, however long the answers take.

It is a process of its own, which reads a `Shot` a line on standard input and answers with a line of figures. Latency
counts from the moment at which a request was due, not from when it left, so what a slow server holds up counts in full
(no coordinated omission). Clocks of both processes are one: `perf_counter` is the machine's monotonic clock on Linux.
uvloop's timers tick in milliseconds, so requests leave up to 1 ms late, which counts as latency; `late_p99_ms` says
how late they left. Requests are serialised beforehand and replies are not decoded, to leave the machine to the server.
"""

import asyncio
import json
import re
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import grpc
import numpy as np
import uvloop

from benchmarks.serving_figures import percentiles, schedule
from contracts.features import Floats, Ints
from contracts.wire.recall_pb2 import Context, RecallRequest

METHOD = "/driftline.v1.RecallService/Recall"
OK = 0
VERSION = re.compile(rb"\x2a.v(\d{6})(?:\+(\d{3}))?")  # field 5 of a reply, which comes before its items
TICK_S = 0.001
WARM_SEED = 1_000_000
BURST = 8  # requests that leave at once before answers get a turn
TIMED_OUT, UNAVAILABLE = (code.value[0] for code in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE))
OVERLAY = Path(".bench-serving")  # what `make bench-serving` lays over driftline's environment
BALANCED = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": [{"service": "driftline.v1.RecallService"}],
            "retryPolicy": {
                "maxAttempts": 3,
                "initialBackoff": "0.01s",
                "maxBackoff": "0.1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
}

Ask = Callable[[int], Awaitable[bytes]]


@dataclass(frozen=True)
class Shot:
    """A constant load for a while.

    Attributes:
        addresses: HOST:PORT of each server; they take turns.
        rate: requests a second, on average.
        seconds: that count; `warm_s` more come before them.
        users: who may ask; each asks once before one asks a second time.
        time_ms: of every request; 0: the server's clock.
        explained: share of the requests that ask for the user vector too; their replies are kept in `out`.
        kind: how the servers are asked. "recall": a channel to each. "balanced": one channel, on which gRPC balances
            and retries. "client": `serving.client`. "http": POST {"user_ids": [u]} to /recall.
        out: a directory for what came of each request; "" for none.

    """

    addresses: tuple[str, ...]
    rate: float
    seconds: float
    users: int
    warm_s: float = 1.0
    k: int = 100
    seed: int = 0
    deadline_s: float = 1.0
    time_ms: int = 0
    explained: float = 0.0
    kind: Literal["recall", "balanced", "client", "http"] = "recall"
    out: str = ""


class Requests(NamedTuple):
    """What came of each request, (R,) each; times in seconds of the machine's monotonic clock."""

    due_s: Floats
    sent_s: Floats
    done_s: Floats
    code: Ints  # gRPC's; whatever goes wrong over HTTP is UNAVAILABLE, but for a deadline
    version: Ints  # 1000 · number + sequence of the snapshot that answered; 0 where none is named
    user: Ints
    server: Ints  # place among the addresses; -1 where somebody else chose
    counts: Ints  # 0 for those that only warm up
    explained: Ints


class Generator:
    """The load generator, from the side of whoever measures."""

    def __init__(self, child: "subprocess.Popen[str]") -> None:
        self._child = child

    def fire(self, shot: Shot) -> dict[str, Any]:
        """Send a load and wait for its end."""
        self.begin(shot)
        return self.finish()

    def begin(self, shot: Shot) -> None:
        """Send a load, and don't wait; `finish` must follow."""
        assert self._child.stdin
        self._child.stdin.write(json.dumps(asdict(shot)) + "\n")
        self._child.stdin.flush()

    def finish(self) -> dict[str, Any]:
        """Figures of the load: how many were sent and answered, codes, latencies, what it cost to generate."""
        assert self._child.stdout
        line = self._child.stdout.readline()
        if not line:
            raise RuntimeError("the load generator ended; standard error has its reason")
        told: dict[str, Any] = json.loads(line)
        return told


@contextmanager
def generator() -> Iterator[Generator]:
    """A load generator for as long as the context lasts."""
    path = f"PYTHONPATH={Path.cwd()}:{OVERLAY.resolve()}"  # driftline's own packages come first
    command = ["env", path, sys.executable, "-W", "ignore", "-m", "benchmarks.serving_load"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        try:
            yield Generator(child)
        finally:
            assert child.stdin
            child.stdin.close()  # which ends it
            child.wait()


def requests_of(shot: Shot) -> Requests:
    """What came of each request of a shot that had an `out`."""
    with np.load(Path(shot.out) / "requests.npz") as told:
        return Requests(**told)


def replies_of(shot: Shot) -> Iterator[tuple[int, bytes]]:
    """The kept replies: the place of the request, and what was answered."""
    with (Path(shot.out) / "replies.bin").open("rb") as file:
        while head := file.read(12):
            place, size = int.from_bytes(head[:8], "big"), int.from_bytes(head[8:], "big")
            yield place, file.read(size)


async def _fire(shot: Shot) -> dict[str, Any]:
    rng = np.random.default_rng(shot.seed)
    warm = schedule(shot.rate, shot.warm_s, shot.seed + WARM_SEED)
    due = np.concatenate((warm, shot.warm_s + schedule(shot.rate, shot.seconds, shot.seed)))
    users = np.concatenate([rng.permutation(shot.users) + 1 for _ in range(len(due) // shot.users + 1)])[: len(due)]
    servers = np.arange(len(due)) % len(shot.addresses)
    if shot.kind in {"balanced", "client"}:
        servers[:] = -1
    counts, explained = due >= shot.warm_s, rng.random(len(due)) < shot.explained
    floats, ints = np.zeros((2, len(due))), np.zeros((2, len(due)), np.int64)
    table = Requests(due, *floats, *ints, users, servers, counts.astype(np.int64), explained.astype(np.int64))
    kept: IO[bytes] | None = None
    async with AsyncExitStack() as stack:
        if shot.out:
            kept = stack.enter_context((Path(shot.out) / "replies.bin").open("wb"))
        ask = await _asker(shot, table, stack)
        began = _cpu_s()
        table.due_s[:] += time.perf_counter() + TICK_S
        await _send(table, ask, kept)
        spent = _cpu_s() - began
    if shot.out:
        np.savez(Path(shot.out) / "requests.npz", **table._asdict())
    return figures(shot, table) | {"generator_cpu_s": round(spent, 2)}


async def _send(table: Requests, ask: Ask, kept: IO[bytes] | None) -> None:
    """Send each request when it is due, and note what comes of it."""
    clock, under_way = time.perf_counter, set[asyncio.Task[None]]()

    async def one(place: int) -> None:
        table.sent_s[place] = clock()
        table.code[place], reply = await _outcome(ask(place))
        table.done_s[place] = clock()
        if named := VERSION.search(reply, 0, 400):
            table.version[place] = 1000 * int(named[1]) + int(named[2] or 0)
        if kept and reply and table.explained[place]:
            kept.write(place.to_bytes(8, "big") + len(reply).to_bytes(4, "big") + reply)

    for place, due_s in enumerate(table.due_s.tolist()):
        early_s = due_s - clock()
        while early_s > 0:
            await asyncio.sleep(max(early_s, TICK_S))
            early_s = due_s - clock()
        if place % BURST == 0:
            await asyncio.sleep(0)
        task = asyncio.create_task(one(place))
        under_way.add(task)
        task.add_done_callback(under_way.discard)
    if under_way:
        await asyncio.gather(*under_way)


async def _outcome(asked: Awaitable[bytes]) -> tuple[int, bytes]:
    """The code, and the reply where there is one."""
    try:
        return OK, await asked
    except grpc.RpcError as error:
        code: int = error.code().value[0]
        return code, b""
    except TimeoutError:
        return TIMED_OUT, b""
    except OSError:  # HTTP, and everything that is no 200
        return UNAVAILABLE, b""


async def _asker(shot: Shot, table: Requests, stack: AsyncExitStack) -> Ask:
    """How one request is put, by the shot's kind."""
    users, servers = table.user.tolist(), table.server.tolist()
    if shot.kind == "http":
        from benchmarks.serving_http import post

        posts = await post(shot.addresses, shot.deadline_s, stack)
        bodies = [json.dumps({"user_ids": [user]}).encode() for user in users]
        return lambda place: posts[servers[place]](bodies[place])
    if shot.kind == "client":
        from serving.client import AsyncRecallClient

        client = await stack.enter_async_context(AsyncRecallClient(list(shot.addresses), deadline_s=shot.deadline_s))

        async def through(place: int) -> bytes:
            content: bytes = (await client.recall(users[place], shot.k)).SerializeToString()
            return content

        return through
    options: list[tuple[str, Any]] = [("grpc.enable_http_proxy", 0)]
    targets = list(shot.addresses)
    if shot.kind == "balanced":
        targets, servers = ["ipv4:" + ",".join(targets)], [0] * len(users)
        options.append(("grpc.service_config", json.dumps(BALANCED)))
    channels = [await stack.enter_async_context(grpc.aio.insecure_channel(target, options)) for target in targets]
    await asyncio.gather(*(channel.channel_ready() for channel in channels))
    calls = [channel.unary_unary(METHOD) for channel in channels]
    content = [_request(shot, user, explain) for user, explain in zip(users, table.explained.tolist(), strict=True)]
    return lambda place: calls[servers[place]](content[place], timeout=shot.deadline_s)


def _request(shot: Shot, user_id: int, explain: bool) -> bytes:
    context = Context(explain=explain, **({"time_ms": shot.time_ms} if shot.time_ms else {}))
    content: bytes = RecallRequest(user_id=user_id, k=shot.k, context=context).SerializeToString()
    return content


def figures(shot: Shot, table: Requests) -> dict[str, Any]:
    """What a shot came to, without the requests that only warmed up."""
    due, sent, done, code = (each[table.counts.astype(bool)] for each in table[:4])
    ok = code == OK
    lasted = max(float(done.max() - due.min()), shot.seconds) if len(due) else shot.seconds
    return {
        "asked_rate": shot.rate,
        "offered_rate": round(len(due) / shot.seconds, 1),
        "achieved_rate": round(int(ok.sum()) / lasted, 1),
        "sent": len(due),
        "ok": int(ok.sum()),
        "codes": {str(value): count for value, count in Counter(code.tolist()).items() if value != OK},
        **percentiles((done - due)[ok]),
        "late_p99_ms": percentiles(sent - due)["p99_ms"],
    }


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    for line in sys.stdin:
        told = json.loads(line)
        shot = Shot(**told | {"addresses": tuple(told["addresses"])})
        if shot.out:
            Path(shot.out).mkdir(parents=True, exist_ok=True)
        sys.stdout.write(json.dumps(uvloop.run(_fire(shot))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
