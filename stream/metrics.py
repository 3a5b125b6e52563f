"""The stream worker's Prometheus metrics."""

from collections.abc import Iterator, Sequence

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

from contracts.messages.events import Reason
from contracts.runtime.worker import SECONDS_BUCKETS


class BatchHistogram(Collector):
    """A histogram of durations that takes a batch at once: one by one they cost as much as a join does.

    >>> histogram = BatchHistogram("wait_seconds", "How long", CollectorRegistry())
    >>> histogram.observe([0.0005, 0.5])
    >>> (family,) = histogram.collect()
    >>> [int(s.value) for s in family.samples if s.labels.get("le") in ("0.001", "+Inf")], family.samples[-1].value
    ([1, 2], 0.5005)
    """

    def __init__(self, name: str, what: str, registry: CollectorRegistry) -> None:
        self._name, self._what = name, what
        self._counts = np.zeros(len(SECONDS_BUCKETS) + 1, np.int64)
        self._sum = 0.0
        registry.register(self)

    def observe(self, seconds: Sequence[float]) -> None:
        """Count a batch of durations."""
        self._sum += sum(seconds)
        np.add.at(self._counts, np.searchsorted(SECONDS_BUCKETS, seconds), 1)

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """What Prometheus is told."""
        edges = [*map(str, SECONDS_BUCKETS), "+Inf"]
        cumulative = np.cumsum(self._counts).astype(float)
        yield HistogramMetricFamily(self._name, self._what, list(zip(edges, cumulative, strict=True)), self._sum)


class StreamMetrics:
    """One worker's metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.events_in = Counter(
            "stream_events_in", "Exposure and feedback records consumed", ["topic"], registry=self.registry
        )
        self.outcomes = Counter(
            "stream_outcomes",
            "What became of each record: example, non_positive, folded, impression, duplicate, dead_letter, "
            "forget, forgotten",
            ["topic", "outcome"],
            registry=self.registry,
        )
        self.dead_letters = Counter(
            "stream_dead_letters", "Records sent to the dead-letter topic", ["reason"], registry=self.registry
        )
        for reason in Reason:  # from 0 on: an alert on the increase would miss a series that begins at 1
            self.dead_letters.labels(str(reason))
        self.sessions = Gauge("stream_sessions", "Sessions cut since the worker started", registry=self.registry)
        self.closed = Counter(
            "stream_sessions_closed", "Sessions that a timer closed because their user was idle", registry=self.registry
        )
        self.expired_users = Counter(
            "stream_users_expired", "Users who were away for longer than users are kept", registry=self.registry
        )
        self.erased = Counter(
            "stream_erasures", "Times that a state was rewritten without what was deleted", registry=self.registry
        )
        self.dropped = Counter(
            "stream_behaviours_dropped", "Behaviours that the history limit cut off", registry=self.registry
        )
        self.views = Counter(
            "stream_served_only_views",
            "Items that feedback has told were shown, of served ones",
            registry=self.registry,
        )
        self.effective_views = Counter(
            "stream_served_only_effective_views", "Those of them that became effective views", registry=self.registry
        )
        self.not_served = Counter(
            "stream_impressions_not_served", "Items of impressions that their exposures lack", registry=self.registry
        )
        self.held = Gauge("stream_held_feedback", "Feedback that waits for its exposure", registry=self.registry)
        self.held_seconds = Gauge(
            "stream_held_feedback_seconds",
            "For how long some partition has held feedback without a break",
            registry=self.registry,
        )
        self.lag = Gauge("stream_lag", "Records not taken in yet, by partition", ["partition"], registry=self.registry)
        self.waiting_bytes = Gauge(
            "stream_waiting_bytes", "Fetched records that wait in memory", registry=self.registry
        )
        self.partitions = Gauge("stream_partitions", "Partitions that this worker owns", registry=self.registry)
        self.redelivered = Counter(
            "stream_redeliveries",
            "Times that an outbox was delivered again, by cause",
            ["cause"],
            registry=self.registry,
        )
        self.lost = Counter(
            "stream_records_lost", "Records that the broker deleted before they were read", registry=self.registry
        )
        self.event_to_feature = BatchHistogram(
            "stream_event_to_feature_seconds", "From sending feedback to its user row in Feast", self.registry
        )
