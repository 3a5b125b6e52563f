"""The gRPC face of a replica: checks requests, hands them to the batcher, logs the exposure, counts everything."""

from collections.abc import Callable
from typing import NoReturn

import grpc
import structlog

from contracts.config.calendar import MAX_TIME_MS
from contracts.config.settings import ServingSettings
from contracts.messages.ids import BadTextId, id_of, id_of_text
from contracts.runtime.clock import Clock
from contracts.wire.recall_pb2 import (
    ModelStatus,
    RecallBatchReply,
    RecallBatchRequest,
    RecallOutcome,
    RecallReply,
    RecallRequest,
    StatusReply,
    StatusRequest,
)
from contracts.wire.recall_pb2_grpc import RecallServiceServicer
from serving.answerer import Asked, Outcome, Refusal
from serving.batcher import Batcher, Expired, Overloaded
from serving.experiment import RunningExperiment
from serving.exposures import AnsweredRequest, ExposureLog
from serving.metrics import ServingMetrics

log = structlog.get_logger()

LONGEST_REQUEST_ID = 256


class Recall(RecallServiceServicer):
    """Answers `Recall`, `RecallBatch` and `Status`; status codes as in recall.proto."""

    def __init__(
        self,
        settings: ServingSettings,
        batcher: Batcher[Asked, Outcome],
        exposures: ExposureLog,
        status: Callable[[], list[ModelStatus]],
        running: RunningExperiment,
        clock: Clock,
        metrics: ServingMetrics,
    ) -> None:
        self._settings = settings
        self._batcher = batcher
        self._exposures = exposures
        self._status = status
        self._running = running
        self._clock = clock
        self._metrics = metrics
        self.draining = False
        self.begun = 0  # requests and batches so far

    async def Recall(  # noqa: N802  (the name in the proto)
        self, request: RecallRequest, context: grpc.aio.ServicerContext
    ) -> RecallReply:
        """Answer one request."""
        began = self._clock.elapsed_s()
        (outcome,) = await self._outcomes([request], context)
        if isinstance(outcome, Refusal):
            await _refuse(context, outcome.code, outcome.message)
        self._metrics.latency.labels(outcome.arm).observe(self._clock.elapsed_s() - began)
        return outcome

    async def RecallBatch(  # noqa: N802
        self, request: RecallBatchRequest, context: grpc.aio.ServicerContext
    ) -> RecallBatchReply:
        """Answer several requests, each with an outcome of its own."""
        count, most = len(request.requests), self._settings.max_batch_requests
        if not 1 <= count <= most:
            await _refuse(
                context, grpc.StatusCode.INVALID_ARGUMENT, f"There are {count} requests; 1 to {most} are allowed."
            )
        began = self._clock.elapsed_s()
        outcomes = await self._outcomes(list(request.requests), context)
        self._metrics.latency.labels("").observe(self._clock.elapsed_s() - began)
        return RecallBatchReply(
            outcomes=[
                RecallOutcome(code=outcome.code.value[0], message=outcome.message)
                if isinstance(outcome, Refusal)
                else RecallOutcome(reply=outcome)
                for outcome in outcomes
            ]
        )

    async def Status(  # noqa: N802
        self, request: StatusRequest, context: grpc.aio.ServicerContext
    ) -> StatusReply:
        """Say what is served, and what could not be loaded and why."""
        del request, context
        return StatusReply(
            models=self._status(),
            waiting=self._batcher.waiting,
            draining=self.draining,
            experiment=self._running.status(self._clock.now_ms()),
        )

    async def _outcomes(self, requests: list[RecallRequest], context: grpc.aio.ServicerContext) -> list[Outcome]:
        """What becomes of each request, counted and, where there are items, logged as an exposure."""
        self.begun += 1
        began_s = self._clock.elapsed_s()
        now_ms = self._clock.now_ms()
        decided = [(request, admit(request, now_ms, self._settings.max_k)) for request in requests]
        admitted = [admission for _, admission in decided if isinstance(admission, Asked)]
        self._metrics.waiting.set(self._batcher.waiting)
        try:
            replies = iter(await self._batcher.submit(admitted, context.time_remaining()))
        except Overloaded as error:
            self._metrics.recalls.labels("", "RESOURCE_EXHAUSTED").inc(len(requests))
            await _refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, f"Too busy: {error}.")
        except Expired as error:
            self._metrics.recalls.labels("", "DEADLINE_EXCEEDED").inc(len(requests))
            await _refuse(context, grpc.StatusCode.DEADLINE_EXCEEDED, f"Too late: {error}.")
        answer_ms = 1000 * (self._clock.elapsed_s() - began_s)
        outcomes: list[Outcome] = []
        for request, admission in decided:
            outcome = admission if isinstance(admission, Refusal) else next(replies)
            outcomes.append(outcome)
            if isinstance(outcome, Refusal):
                self._metrics.recalls.labels("", outcome.code.name).inc()
            elif isinstance(admission, Asked):
                self._metrics.recalls.labels(outcome.arm, "OK").inc()
                answered = AnsweredRequest(
                    request.user_id,
                    admission.time_ms,
                    request.context.simulated,
                    outcome,
                    answer_ms,
                    served_only(request, default=self._settings.served_only),
                    request.user_key,
                )
                self._exposures.offer(answered)
        return outcomes


async def _refuse(context: grpc.aio.ServicerContext, code: grpc.StatusCode, message: str) -> NoReturn:
    await context.abort(code, message)
    raise AssertionError  # abort has raised


def served_only(request: RecallRequest, *, default: bool) -> bool:
    """Whether what is answered is not shown as it is.

    >>> shown = RecallRequest(context={"served_only": False})
    >>> served_only(RecallRequest(), default=True), served_only(shown, default=True)
    (True, False)
    """
    return request.context.served_only if request.context.HasField("served_only") else default


def admit(request: RecallRequest, now_ms: int, max_k: int) -> Asked | Refusal:
    """A request with its event time, `now_ms` where it names none; or the refusal of one that is not well-formed.

    What the request names by text ids is named by numbers as well from here on.
    """
    complaint = fill_numbers(request) or complaint_about(request, max_k)
    if complaint:
        return Refusal(grpc.StatusCode.INVALID_ARGUMENT, complaint)
    return Asked(request, request.context.time_ms if request.context.HasField("time_ms") else now_ms)


def fill_numbers(request: RecallRequest) -> str:
    """Fill in the numbers of what a request names by text ids; what is wrong with them, else the empty string.

    >>> request = RecallRequest(user_key="anna", exclude_item_ids=[7], exclude_item_keys=["a"])
    >>> fill_numbers(request), request.user_id, len(request.exclude_item_ids)
    ('', 6149554607595376846, 2)
    >>> fill_numbers(RecallRequest(user_key="anna", exclude_item_keys=[""]))
    'exclude_item_keys is empty.'
    """
    if not (request.user_key or request.exclude_item_keys or request.context.recent_item_keys):
        return ""
    context, field = request.context, "user_key"
    if context.recent_item_keys and context.recent_item_ids:
        return "context has recent_item_ids and recent_item_keys; one of the two is allowed, as their order counts."
    try:
        if request.user_key:
            request.user_id = id_of(request.user_id, request.user_key)
        field = "exclude_item_keys"
        request.exclude_item_ids.extend([id_of_text(text) for text in request.exclude_item_keys])
        field = "context.recent_item_keys"
        if context.recent_item_keys:
            context.recent_item_ids.extend([id_of_text(text) for text in context.recent_item_keys])
    except BadTextId as error:
        return f"{field} {error}."
    return ""


def complaint_about(request: RecallRequest, max_k: int) -> str:
    """What is wrong with a request, in one sentence; empty where nothing is.

    >>> complaint_about(RecallRequest(user_id=1, k=0), 500)
    'k is 0; 1 to 500 are allowed.'
    """
    if not 1 <= request.k <= max_k:
        return f"k is {request.k}; 1 to {max_k} are allowed."
    if request.user_id <= 0:
        return f"user_id is {request.user_id}; it must be above 0, or user_key given."
    if request.context.HasField("time_ms") and not 0 < request.context.time_ms < MAX_TIME_MS:
        return f"context.time_ms is {request.context.time_ms}; 1 to {MAX_TIME_MS - 1} are allowed."
    if len(request.request_id) > LONGEST_REQUEST_ID:
        return f"request_id has {len(request.request_id)} characters; up to {LONGEST_REQUEST_ID} are allowed."
    return ""
