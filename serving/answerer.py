"""What is done with a batch: features, answers, replies. Acts on what `serving.answer` decides."""

import random
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import grpc

from contracts.config.settings import Experiment
from contracts.runtime.clock import Clock
from contracts.snapshots.snapshot import Manifest
from contracts.wire.recall_pb2 import RecallReply, RecallRequest, SourceReport
from serving.answer import Answer, FeaturedRequest, NoAnswer, answer
from serving.catalogue import Hides
from serving.features import Features
from serving.metrics import ServingMetrics
from serving.model import LoadedModel, Want

RECORDED_REQUESTS = 16  # kept to warm the next snapshot up with


@dataclass(frozen=True)
class Asked:
    """A request that has been found well-formed, and its event time."""

    request: RecallRequest
    time_ms: int


@dataclass(frozen=True)
class Refusal:
    """Why there is no reply."""

    code: grpc.StatusCode
    message: str


Outcome = RecallReply | Refusal


class Answerer:
    """Answers batches from the models in `models`, which the swapper replaces one reference at a time."""

    def __init__(
        self,
        experiment: Experiment,
        models: Mapping[str, LoadedModel],
        features: Features,
        hides: Hides,
        clock: Clock,
        metrics: ServingMetrics,
    ) -> None:
        self._experiment = experiment
        self._models = models
        self._features = features
        self._hides = hides
        self._clock = clock
        self._metrics = metrics
        self._answered_from: dict[str, str] = {}
        self.recorded: deque[Want] = deque(maxlen=RECORDED_REQUESTS)

    def __call__(self, batch: Sequence[Asked]) -> list[Outcome]:
        """The outcome of each request. All of a batch is answered from the models that are loaded as it begins."""
        stage, metrics = self._clock.elapsed_s(), self._metrics
        models = dict(self._models)
        known = self._features.read([asked.request.user_id for asked in batch])
        read = self._clock.elapsed_s()
        featured = [
            FeaturedRequest(
                asked.request.user_id,
                asked.time_ms,
                asked.request.k,
                row,
                late,
                asked.request.exclude_item_ids,
                asked.request.context.recent_item_ids,
            )
            for asked, (row, late) in zip(batch, known, strict=True)
        ]
        made = sum(model.vectors_made for model in models.values())
        found = answer(self._experiment, models, featured, self._hides)
        answered = self._clock.elapsed_s()
        outcomes = [self._outcome(asked.request, each) for asked, each in zip(batch, found, strict=True)]
        metrics.stage_seconds.labels("features").inc(read - stage)
        metrics.stage_seconds.labels("answers").inc(answered - read)
        metrics.stage_seconds.labels("replies").inc(self._clock.elapsed_s() - answered)
        metrics.towers_run.inc(sum(model.vectors_made for model in models.values()) - made)
        metrics.batch_requests.observe(len(batch))
        if featured[0].row is not None:
            self.recorded.append(featured[0].want)
        return outcomes

    def _outcome(self, request: RecallRequest, found: Answer | NoAnswer) -> Outcome:
        if isinstance(found, NoAnswer):
            return Refusal(grpc.StatusCode.UNAVAILABLE, f"Cannot recall: {found}.")
        for fallback in found.fallbacks:
            self._metrics.fallbacks.labels(fallback).inc()
        manifest = found.model.manifest
        if self._answered_from.get(manifest.model) != manifest.version and not found.fallbacks:
            self._answered_from[manifest.model] = manifest.version
            self._observe_freshness(manifest)
        return reply_to(request, found)

    def _observe_freshness(self, manifest: Manifest) -> None:
        now = self._clock.now_ms()
        for sent_at in manifest.sent_at_ms:
            self._metrics.event_to_answer.labels(manifest.model).observe(max(now - sent_at, 0) / 1000)


def reply_to(request: RecallRequest, found: Answer) -> RecallReply:
    """An answer as it is sent."""
    explain = request.context.explain
    reports = [
        SourceReport(
            source=source.name,
            model=source.model.manifest.model,
            snapshot_version=source.model.manifest.version,
            user_vector=vector if explain and (vector := source.candidates.user_vector) is not None else (),
        )
        for source in found.sources
    ]
    reply = RecallReply(
        request_id=request.request_id or f"{random.getrandbits(128):032x}",
        experiment=found.experiment,
        arm=found.arm,
        model=found.model.manifest.model,
        snapshot_version=found.model.manifest.version,
        model_time_ms=found.model.manifest.event_time_ms,
        fallback=", ".join(found.fallbacks),
        user_vector=reports[0].user_vector,
        sources=reports,
    )
    add = reply.items.add  # half the time of making items first and handing them over
    for item_id, score, source in found.picks:
        add(item_id=item_id, score=score, source=source)
    return reply
