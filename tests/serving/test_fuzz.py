"""Ten thousand requests that nobody sane would send: each has the right status, and the replica is there at the end."""

from collections import deque
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from google.protobuf.message import DecodeError

from contracts.config.settings import KafkaSettings
from contracts.wire.recall_pb2 import RecallBatchReply, RecallBatchRequest, RecallReply, RecallRequest
from serving.answerer import Refusal
from serving.service import admit
from tests.serving.replica_cases import KNOWN_USER, Replica, running

REQUESTS = 10_000
IN_FLIGHT = 64
MOST = 50  # serving.max_k and serving.max_batch_requests of the replica
RECALL = "/driftline.v1.RecallService/Recall"
BATCH = "/driftline.v1.RecallService/RecallBatch"

NUMBERS = (0, 1, -1, 2, KNOWN_USER, 50, 51, 2**31 - 1, -(2**31), 1000, 9999)
LARGE = (*NUMBERS, 2**63 - 1, -(2**63), 7_258_118_400_000, 7_258_118_399_999)
TEXTS = ("", "r", "ü" * 256, "x" * 257, "\x00", "a\nb", "🙂")


def test_ten_thousand_fuzzed_requests(tmp_path: Path, embedded: KafkaSettings) -> None:
    with running(tmp_path, embedded, max_batch_requests=MOST, queue_requests=MOST * IN_FLIGHT) as replica:
        replica.publish(1)
        replica.wait_for("serving_swaps_total", 1)
        rng = np.random.default_rng(6)
        under_way: deque[tuple[Any, bytes, grpc.StatusCode]] = deque()
        for _ in range(REQUESTS):
            if len(under_way) == IN_FLIGHT:
                settle(*under_way.popleft())
            under_way.append(send(replica, rng))
        for each in under_way:
            settle(*each)
        assert replica.child.process.poll() is None
        assert replica.recall().snapshot_version == "v000001"
        assert "Traceback" not in replica.child.log.read_text()


def send(replica: Replica, rng: np.random.Generator) -> tuple[Any, bytes, grpc.StatusCode]:
    """Send something to a method, and say what may come of it."""
    batch = rng.random() < 0.2
    message = strange_batch(rng) if batch else strange_request(rng)
    content = message.SerializeToString()
    if rng.random() < 0.3:
        content = damaged(content, rng)
    call = replica.channel.unary_unary(BATCH if batch else RECALL).future(content, timeout=30)
    return call, content, expected(content, RecallBatchRequest if batch else RecallRequest)


def settle(call: Any, content: bytes, code: grpc.StatusCode) -> None:
    """See that it came to that, and that what came can be read."""
    assert call.code() == code, f"{content[:200]!r}: {call.code()} {call.details()}"
    if call.code() == grpc.StatusCode.OK:
        try:
            RecallReply.FromString(call.result())
        except DecodeError:
            RecallBatchReply.FromString(call.result())


def expected(content: bytes, kind: type[RecallRequest] | type[RecallBatchRequest]) -> grpc.StatusCode:
    """The status of bytes: OK, or INVALID_ARGUMENT for what is no message at all or asks for what there is not."""
    try:
        message = kind.FromString(content)
    except DecodeError:
        return grpc.StatusCode.INVALID_ARGUMENT
    if isinstance(message, RecallRequest):
        refused = isinstance(admit(message, 1, MOST), Refusal)
        return grpc.StatusCode.INVALID_ARGUMENT if refused else grpc.StatusCode.OK
    return grpc.StatusCode.OK if 1 <= len(message.requests) <= MOST else grpc.StatusCode.INVALID_ARGUMENT


def strange_request(rng: np.random.Generator) -> RecallRequest:
    request = RecallRequest(
        user_id=int(rng.choice(np.array(LARGE, object))),
        k=int(rng.choice(np.array(NUMBERS, object))),
        request_id=str(rng.choice(TEXTS)),
        exclude_item_ids=rng.choice(np.array(LARGE, object), rng.integers(0, 20)).tolist(),
    )
    if rng.random() < 0.5:
        request.context.time_ms = int(rng.choice(np.array(LARGE, object)))
    if rng.random() < 0.5:
        request.context.recent_item_ids.extend(rng.integers(-(2**63), 2**63 - 1, rng.integers(0, 200)).tolist())
    if rng.random() < 0.3:
        request.user_key = str(rng.choice(TEXTS))
        request.user_id = request.user_id if rng.random() < 0.2 else 0
    if rng.random() < 0.2:
        request.exclude_item_keys.extend(map(str, rng.choice(TEXTS, rng.integers(0, 3))))
    if rng.random() < 0.2:
        request.context.recent_item_keys.extend(map(str, rng.choice(TEXTS, rng.integers(0, 3))))
    request.context.explain = bool(rng.random() < 0.5)
    return request


def strange_batch(rng: np.random.Generator) -> RecallBatchRequest:
    count = int(rng.choice((0, 1, 2, 3, MOST, MOST + 1), p=(0.2, 0.3, 0.2, 0.2, 0.05, 0.05)))
    return RecallBatchRequest(requests=[strange_request(rng) for _ in range(count)])


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """Cut off, bits flipped, or noise."""
    how = rng.integers(3)
    if how == 0:
        return content[: rng.integers(0, len(content) + 1)]
    if how == 1 and content:
        broken = bytearray(content)
        for at in rng.integers(0, len(broken), 3):
            broken[at] ^= 1 << int(rng.integers(8))
        return bytes(broken)
    return rng.bytes(int(rng.integers(0, 300)))
