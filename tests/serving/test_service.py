"""Whether a request is answered is decided before anything is done about it."""

import grpc

from contracts.wire.recall_pb2 import Context, RecallRequest
from serving.answerer import Asked, Refusal
from serving.service import admit

NOW_MS = 1_000


def test_a_request_is_answered_as_of_its_own_time_or_of_now() -> None:
    timed, plain = (RecallRequest(user_id=1, k=2, context=context) for context in (Context(time_ms=7), Context()))
    assert admit(timed, NOW_MS, max_k=10) == Asked(timed, 7)
    assert admit(plain, NOW_MS, max_k=10) == Asked(plain, NOW_MS)


def test_a_request_that_is_not_well_formed_is_refused_with_one_sentence() -> None:
    refused = admit(RecallRequest(user_id=1, k=11), NOW_MS, max_k=10)
    assert refused == Refusal(grpc.StatusCode.INVALID_ARGUMENT, "k is 11; 1 to 10 are allowed.")
