"""What the trainer shows to Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge

from contracts.worker import seconds_histogram
from trainer.progress import Progress


class Meters:
    """The trainer's metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.examples = Counter("trainer_examples_total", "Examples tested", registry=self.registry)
        self.skipped = Counter(
            "trainer_skipped_examples_total", "Examples whose item is not in the catalogue", registry=self.registry
        )
        self.learned = Counter("trainer_learned_total", "Examples learned from", ["model"], registry=self.registry)
        self.nan_steps = Counter(
            "trainer_nan_steps_total",
            "Steps not taken: loss or gradient was no number",
            ["model"],
            registry=self.registry,
        )
        self.recall = Gauge(
            "trainer_progressive_recall", "Recall before learning", ["model", "k", "scope"], registry=self.registry
        )
        self.published = Counter(
            "trainer_snapshots_published_total", "Snapshots published", ["model"], registry=self.registry
        )
        self.version = Gauge(
            "trainer_snapshot_version", "Number of the newest published snapshot", ["model"], registry=self.registry
        )
        self.dead_letters = Counter(
            "trainer_dead_letters_total", "Records sent to the dead-letter topic", ["reason"], registry=self.registry
        )
        self.items = Gauge("trainer_catalogue_items", "Items in the catalogue", registry=self.registry)
        self.expired = Counter("trainer_expired_items_total", "Items that were idle too long", registry=self.registry)
        self.freshness = seconds_histogram(
            "trainer_event_to_snapshot_seconds",
            "From an event's arrival in Kafka to a published snapshot that learned from it",
            self.registry,
            ("model",),
        )
        self.train_seconds = seconds_histogram(
            "trainer_train_seconds", "Test and learn, one batch of one model", self.registry, ("model",)
        )

    def show(self, model: str, progress: Progress) -> None:
        """Show a model's progressive recall."""
        for scope, k, value, _ in progress.recalls():
            self.recall.labels(model, str(k), scope).set(value)
