"""What is done with a batch: features, answers, replies. Acts on what `serving.answer` decides."""

import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from weakref import WeakSet

import grpc

from contracts.config.experiment import EXPLORE
from contracts.messages.ids import ItemKeys
from contracts.runtime.clock import Clock
from contracts.snapshots.snapshot import Manifest
from contracts.wire.recall_pb2 import RecallReply, RecallRequest, SourceReport
from serving.answer import Answer, FeaturedRequest, NoAnswer, Source, answer
from serving.catalogue import Hides
from serving.experiment import RunningExperiment
from serving.features import Features
from serving.metrics import ServingMetrics
from serving.model import LoadedModel, OnTrial, Want

RECORDED_REQUESTS = 16  # kept to warm the next snapshot up with


@dataclass(frozen=True)
class Asked:
    """A request that has been found well-formed, with the numbers of all that it names by text, and its event time."""

    request: RecallRequest
    time_ms: int


@dataclass(frozen=True)
class Refusal:
    """Why there is no reply."""

    code: grpc.StatusCode
    message: str


Outcome = RecallReply | Refusal


class Answerer:
    """Answers batches from what is live and what is on trial, which the swapper replaces on the same event loop."""

    def __init__(
        self,
        running: RunningExperiment,
        models: Mapping[str, LoadedModel],
        canaries: Mapping[str, OnTrial],
        features: Features,
        hides: Hides,
        newest: Callable[[], Sequence[int] | None],
        keys: ItemKeys,
        clock: Clock,
        metrics: ServingMetrics,
    ) -> None:
        """`newest`: as `serving.answer.answer` takes it, at the moment of a batch."""
        self._running = running
        self._models = models
        self._canaries = canaries
        self._features = features
        self._hides = hides
        self._newest = newest
        self._keys = keys
        self._clock = clock
        self._metrics = metrics
        self._answered_from: WeakSet[LoadedModel] = WeakSet()
        self.recorded: deque[Want] = deque(maxlen=RECORDED_REQUESTS)

    def __call__(self, batch: Sequence[Asked]) -> list[Outcome]:
        """The outcome of each request. All of a batch is answered from the models that are loaded as it begins."""
        stage, metrics = self._clock.elapsed_s(), self._metrics
        models, canaries = dict(self._models), dict(self._canaries)
        experiment, definition = self._running.now
        rows = self._features.read([admitted.request.user_id for admitted in batch])
        read = self._clock.elapsed_s()
        featured = [
            FeaturedRequest(
                admitted.request.user_id,
                admitted.time_ms,
                admitted.request.k,
                row,
                late,
                admitted.request.exclude_item_ids,
                admitted.request.context.recent_item_ids,
            )
            for admitted, (row, late) in zip(batch, rows, strict=True)
        ]
        loaded = [*models.values(), *(tried.model for tried in canaries.values())]
        vectors_before = sum(model.vectors_made for model in loaded)
        answers = answer(experiment, models, featured, self._hides, canaries, self._newest())
        answered = self._clock.elapsed_s()
        outcomes = [
            self._outcome(admitted.request, each, definition) for admitted, each in zip(batch, answers, strict=True)
        ]
        self._observe_stages(stage, read, answered, self._clock.elapsed_s())
        metrics.towers_run.inc(sum(model.vectors_made for model in loaded) - vectors_before)
        metrics.batch_requests.observe(len(batch))
        if featured[0].row is not None:
            self.recorded.append(featured[0].want)
        return outcomes

    def _observe_stages(self, began_s: float, read_s: float, answered_s: float, replied_s: float) -> None:
        seconds = self._metrics.stage_seconds
        seconds.labels("features").inc(read_s - began_s)
        seconds.labels("answers").inc(answered_s - read_s)
        seconds.labels("replies").inc(replied_s - answered_s)

    def _outcome(self, request: RecallRequest, answered: Answer | NoAnswer, definition: str) -> Outcome:
        if isinstance(answered, NoAnswer):
            return Refusal(grpc.StatusCode.UNAVAILABLE, f"Cannot recall: {answered}.")
        for fallback in answered.fallbacks:
            self._metrics.fallbacks.labels(fallback).inc()
        model = answered.model
        if model is not None and model not in self._answered_from and not answered.fallbacks:
            self._answered_from.add(model)
            self._observe_freshness(model.manifest)
        return reply_to(request, answered, self._keys, definition)

    def _observe_freshness(self, manifest: Manifest) -> None:
        now = self._clock.now_ms()
        for sent_at in manifest.sent_at_ms:
            self._metrics.event_to_answer.labels(manifest.model).observe(max(now - sent_at, 0) / 1000)


def reply_to(
    request: RecallRequest, answered: Answer, keys: ItemKeys | None = None, definition: str = ""
) -> RecallReply:
    """An answer as it is sent, with the items' text ids where they have some.

    `definition`: the hash of the experiment's definition.
    """
    explain = request.context.explain
    reports = [_report(source, explain=explain) for source in answered.sources]
    first = reports[0]
    reply = RecallReply(
        request_id=request.request_id or f"{random.getrandbits(128):032x}",
        experiment=answered.experiment,
        arm=answered.arm,
        model=first.model,
        snapshot_version=first.snapshot_version,
        model_time_ms=answered.model.manifest.event_time_ms if answered.model else 0,
        fallback=", ".join(answered.fallbacks),
        user_vector=first.user_vector,
        sources=reports,
        experiment_hash=definition if answered.arm else "",
    )
    add = reply.items.add  # half the time of making items first and handing them over
    if keys:
        text = keys.get
        for item_id, score, source in answered.picks:
            add(item_id=item_id, score=score, source=source, item_key=text(item_id))
    else:
        for item_id, score, source in answered.picks:
            add(item_id=item_id, score=score, source=source)
    if answered.propensities:
        for item in reply.items:
            if item.source == EXPLORE:
                item.propensity = answered.propensities[item.item_id]
    return reply


def _report(source: Source, *, explain: bool) -> SourceReport:
    report = SourceReport(source=source.name)
    if source.model is not None:
        report.model = source.model.manifest.model
        report.snapshot_version = source.model.manifest.version
    if explain and (vector := source.candidates.user_vector) is not None:
        report.user_vector[:] = vector
    return report
