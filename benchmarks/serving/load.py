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
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import IO, Any

import grpc
import numpy as np
import uvloop

from benchmarks.serving.figures import schedule
from benchmarks.serving.shots import OK, Requests, Shot, figures, text_of
from contracts.wire.recall_pb2 import Context, RecallReply, RecallRequest
from serving.client import AsyncRecallClient, RecallError

METHOD = "/driftline.v1.RecallService/Recall"
VERSION = re.compile(rb"\x2a.v(\d{6})(?:\+(\d{3}))?")  # field 5 of a reply, which comes before its items
TICK_S = 0.001
WARM_SEED = 1_000_000
BURST = 8  # requests that leave at once before answers get a turn
TIMED_OUT, UNAVAILABLE = (code.value[0] for code in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE))
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
    replies: IO[bytes] | None = None
    async with AsyncExitStack() as stack:
        if shot.out:
            replies = stack.enter_context((Path(shot.out) / "replies.bin").open("wb"))
        ask = await _asker(shot, table, stack)
        began = _cpu_s()
        table.due_s[:] += time.perf_counter() + TICK_S
        await _send(table, ask, replies)
        spent = _cpu_s() - began
    if shot.out:
        np.savez(Path(shot.out) / "requests.npz", **table._asdict())
    return figures(shot, table) | {"generator_cpu_s": round(spent, 2)}


async def _send(table: Requests, ask: Ask, replies: IO[bytes] | None) -> None:
    """Send each request when it is due, and note what comes of it."""
    clock, under_way = time.perf_counter, set[asyncio.Task[None]]()

    async def one(place: int) -> None:
        table.sent_s[place] = clock()
        table.code[place], reply = await _outcome(ask(place))
        table.done_s[place] = clock()
        if named := VERSION.search(reply, 0, 400):
            table.version[place] = 1000 * int(named[1]) + int(named[2] or 0)
        if replies and reply and table.explained[place]:
            replies.write(place.to_bytes(8, "big") + len(reply).to_bytes(4, "big") + reply)

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


async def _outcome(call: Awaitable[bytes]) -> tuple[int, bytes]:
    """The code, and the reply where there is one."""
    try:
        return OK, await call
    except grpc.RpcError as error:
        code: int = error.code().value[0]
        return code, b""
    except RecallError as error:
        return int(error.code.value[0]), b""
    except TimeoutError:
        return TIMED_OUT, b""
    except OSError:  # HTTP, and everything that is no 200
        return UNAVAILABLE, b""


async def _asker(shot: Shot, table: Requests, stack: AsyncExitStack) -> Ask:
    """How one request is put, by the shot's kind."""
    users, servers = table.user.tolist(), table.server.tolist()
    if shot.kind == "http":
        from benchmarks.serving.http import post

        posts = await post(shot.addresses, shot.deadline_s, stack)
        bodies = [json.dumps({"user_ids": [user]}).encode() for user in users]
        return lambda place: posts[servers[place]](bodies[place])
    if shot.kind == "client":
        client = await stack.enter_async_context(AsyncRecallClient(list(shot.addresses), deadline_s=shot.deadline_s))

        async def through(place: int) -> bytes:
            recalled = await client.recall(users[place], shot.k, time_ms=shot.time_ms or None)
            content: bytes = RecallReply(snapshot_version=recalled.snapshot_version).SerializeToString()
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
    request = RecallRequest(user_id=user_id, k=shot.k, context=context)
    if shot.text_ids:
        request.user_id, request.user_key = 0, text_of(user_id)
    content: bytes = request.SerializeToString()
    return content


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    for line in sys.stdin:
        fields = json.loads(line)
        shot = Shot(**fields | {"addresses": tuple(fields["addresses"])})
        if shot.out:
            Path(shot.out).mkdir(parents=True, exist_ok=True)
        sys.stdout.write(json.dumps(uvloop.run(_fire(shot))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
