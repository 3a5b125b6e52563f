"""A replica's Prometheus metrics."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from contracts.runtime.worker import seconds_histogram

BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128)


class ServingMetrics:
    """A replica's Prometheus metrics."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.recalls = Counter(
            "serving_recalls", "Recalls by arm and status code", ["arm", "code"], registry=self.registry
        )
        self.fallbacks = Counter(
            "serving_fallbacks", "Answers not from the arm's own model", ["why"], registry=self.registry
        )
        self.latency = seconds_histogram(
            "serving_recall_seconds", "Time spent in the server per Recall", self.registry, ("arm",)
        )
        self.swaps = Counter(
            "serving_swaps", "Snapshots that have begun to serve as what is live", ["model"], registry=self.registry
        )
        self.load_attempts = Counter(
            "serving_load_attempts", "Loads of snapshots that were begun", ["model"], registry=self.registry
        )
        self.failed_loads = Counter(
            "serving_failed_loads",
            "Loads of snapshots that have failed, each attempt, and pointers that could not be read",
            ["model"],
            registry=self.registry,
        )
        self.version = Gauge(
            "serving_snapshot_version", "Number of the snapshot that serves", ["model"], registry=self.registry
        )
        self.sequence = Gauge(
            "serving_snapshot_delta",
            "Number of the newest delta on the snapshot that serves; 0: none",
            ["model"],
            registry=self.registry,
        )
        self.other_definition = Gauge(
            "serving_experiment_differs",
            "1 where the collector of the experiment has another definition of it than this replica",
            registry=self.registry,
        )
        self.canary_version = Gauge(
            "serving_canary_version",
            "Number of the snapshot that some requests are answered from to try it; 0: none",
            ["model"],
            registry=self.registry,
        )
        self.canary_share = Gauge(
            "serving_canary_share", "Share of requests that it answers; 0: none", ["model"], registry=self.registry
        )
        self.published = Gauge(
            "serving_snapshot_published_timestamp_seconds",
            "When the trainer last let anything go live (Unix time): a trainer that is dead cannot say so itself",
            ["model"],
            registry=self.registry,
        )
        self.swap_seconds = seconds_histogram(
            "serving_swap_seconds", "From finding a new snapshot to serving it", self.registry, ("kind",)
        )
        self.event_to_answer = seconds_histogram(
            "serving_event_to_answer_seconds",
            "From sending feedback to the first answer from a snapshot that learned from it",
            self.registry,
            ("model",),
        )
        self.exposures_lost = Counter(
            "serving_exposures_lost", "Exposures that found no room or that Kafka did not take", registry=self.registry
        )
        self.batch_requests = Histogram(
            "serving_batch_requests", "Requests answered together", registry=self.registry, buckets=BATCH_BUCKETS
        )
        self.waiting = Gauge("serving_waiting_requests", "Requests in the queue", registry=self.registry)
        self.stage_seconds = Counter(
            "serving_stage_seconds", "Time spent on batches by stage", ["stage"], registry=self.registry
        )
        self.towers_run = Counter(
            "serving_user_vectors", "User vectors that a tower was run for; others were kept", registry=self.registry
        )
        self.withdrawn = Gauge(
            "serving_withdrawn_items", "Items that are withdrawn, or will expire", registry=self.registry
        )
