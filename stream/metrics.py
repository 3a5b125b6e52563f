"""The stream worker's Prometheus metrics."""

from prometheus_client import CollectorRegistry, Counter, Gauge

from contracts.worker import seconds_histogram


class Metrics:
    """One worker's metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.events_in = Counter(
            "stream_events_in", "Exposure and feedback records consumed", ["topic"], registry=self.registry
        )
        self.outcomes = Counter(
            "stream_outcomes",
            "What became of each record: example, non_positive, folded, duplicate, dead_letter",
            ["topic", "outcome"],
            registry=self.registry,
        )
        self.dead_letters = Counter(
            "stream_dead_letters", "Records sent to the dead-letter topic", ["reason"], registry=self.registry
        )
        self.sessions = Gauge("stream_sessions", "Sessions cut since the worker started", registry=self.registry)
        self.closed = Counter(
            "stream_sessions_closed", "Sessions that a timer closed because their user was idle", registry=self.registry
        )
        self.dropped = Counter(
            "stream_behaviours_dropped", "Behaviours that the history limit cut off", registry=self.registry
        )
        self.held = Gauge("stream_held_feedback", "Feedback that waits for its exposure", registry=self.registry)
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
        self.event_to_feature = seconds_histogram(
            "stream_event_to_feature_seconds", "From sending feedback to its user row in Feast", self.registry
        )
