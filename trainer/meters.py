"""What the trainer shows to Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge

from contracts.messages.events import Reason
from contracts.runtime.worker import seconds_histogram
from contracts.snapshots.parts import Part
from trainer.evaluation.drift import DriftDetector, Drifts
from trainer.evaluation.progressive import Progress
from trainer.evaluation.ranking import LIST
from trainer.gate.decision import Verdict
from trainer.regimes.regimes import Regimes


class Meters:
    """The trainer's metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.examples = Counter("trainer_examples_total", "Examples tested", registry=self.registry)
        self.tested = Gauge("trainer_tested_examples", "Examples tested, over all restarts", registry=self.registry)
        self.lag = Gauge(
            "trainer_lag",
            "Examples and exposures not taken in yet, by the last fetches",
            registry=self.registry,
        )
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
        self.loss = Gauge(
            "trainer_progressive_loss", "Nats, before learning", ["model", "scope"], registry=self.registry
        )
        self.expected = Gauge(
            "trainer_expected_recall",
            f"Recall@{LIST} that the model gave itself before learning",
            ["model", "scope"],
            registry=self.registry,
        )
        self.calibration_error = Gauge(
            "trainer_calibration_error",
            f"Expected calibration error of its recall@{LIST}",
            ["model", "scope"],
            registry=self.registry,
        )
        self.regime_leads = Gauge(
            "trainer_regime_leads", "1 of the regime that leads", ["model", "regime"], registry=self.registry
        )
        self.regime_changes = Gauge(
            "trainer_regime_changes", "Changes of the regime that leads, over all restarts", ["model"],
            registry=self.registry,
        )  # fmt: skip
        self.regime_loss = Gauge(
            "trainer_regime_page_loss",
            "Nats within the page, before learning, on pages that no snapshot of the model chose",
            ["model", "regime"],
            registry=self.registry,
        )
        self.regime_diverged = Gauge(
            "trainer_regime_diverged", "1 of a regime that learns no more", ["model", "regime"], registry=self.registry
        )
        self.part_worth = Gauge(
            "trainer_part_worth",
            "Relative recall@20 with the part beside without, before learning",
            ["model", "part"],
            registry=self.registry,
        )
        self.part_served = Gauge(
            "trainer_part_served", "1 of a part that replicas get", ["model", "part"], registry=self.registry
        )
        self.drifts = Counter(
            "trainer_drifts_total", "Lasting changes of its hits", ["model", "direction"], registry=self.registry
        )
        self.recall_since_drift = Gauge(
            "trainer_recall_since_drift", "Recall@100 since the last of them", ["model"], registry=self.registry
        )
        self.rejected = Counter(
            "trainer_snapshots_rejected_total",
            "Snapshots that the gate held or users rolled back",
            ["model"],
            registry=self.registry,
        )
        self.trials = Counter(
            "trainer_trials_total", "Trials that have ended, and how", ["model", "outcome"], registry=self.registry
        )
        self.gate_open = Gauge(
            "trainer_gate_open",
            "0 while the newest snapshot is held, or was rolled back",
            ["model"],
            registry=self.registry,
        )
        self.gate_difference = Gauge(
            "trainer_gate_difference",
            "Recall of the newest snapshot less the incumbent's",
            ["model", "on", "what"],
            registry=self.registry,
        )
        self.published = Counter(
            "trainer_snapshots_published_total",
            "Snapshots and deltas that went live",
            ["model", "kind"],
            registry=self.registry,
        )
        self.version = Gauge(
            "trainer_snapshot_version", "Number of the newest published snapshot", ["model"], registry=self.registry
        )
        self.event_time = Gauge(
            "trainer_event_timestamp_seconds",
            "Event time of the newest example that there was to learn from (Unix time)",
            ["model"],
            registry=self.registry,
        )
        self.live_event_time = Gauge(
            "trainer_live_event_timestamp_seconds",
            "Event time of the newest example that what is live has learned from (Unix time)",
            ["model"],
            registry=self.registry,
        )
        self.dead_letters = Counter(
            "trainer_dead_letters_total", "Records sent to the dead-letter topic", ["reason"], registry=self.registry
        )
        for reason in Reason:  # from 0 on: an alert on the increase would miss a series that begins at 1
            self.dead_letters.labels(str(reason))
        self.forgotten = Counter(
            "trainer_forgotten_users_total", "Requests to forget a user that were followed", registry=self.registry
        )
        self.lost = Counter(
            "trainer_lost_examples_total",
            "Records after the checkpoint that the log held no more",
            registry=self.registry,
        )
        self.items = Gauge("trainer_catalogue_items", "Items in the catalogue", registry=self.registry)
        self.expired = Counter("trainer_expired_items_total", "Items that were idle too long", registry=self.registry)
        self.freshness = seconds_histogram(
            "trainer_event_to_snapshot_seconds",
            "From an event's arrival in Kafka to a published snapshot that learned from it",
            self.registry,
            ("model",),
        )
        self.checkpoint_seconds = seconds_histogram("trainer_checkpoint_seconds", "Writing a checkpoint", self.registry)
        self.train_seconds = seconds_histogram(
            "trainer_train_seconds", "Test and learn, one batch of one model", self.registry, ("model",)
        )

    def show(self, model: str, progress: Progress, drift: DriftDetector) -> None:
        """Show how well a model foresees."""
        for scope in progress.scopes():
            for k, value in scope.recall.items():
                self.recall.labels(model, str(k), scope.name).set(value)
            self.loss.labels(model, scope.name).set(scope.loss)
            self.expected.labels(model, scope.name).set(scope.expected)
            self.calibration_error.labels(model, scope.name).set(scope.calibration_error)
        self.recall_since_drift.labels(model).set(drift.mean)

    def show_regimes(self, model: str, regimes: Regimes) -> None:
        """Show which regime leads, and how all did; nothing where there is one alone."""
        for name, loss in regimes.losses.items():
            self.regime_leads.labels(model, name).set(name == regimes.leader)
            self.regime_loss.labels(model, name).set(loss)
            self.regime_diverged.labels(model, name).set(name in regimes.diverged)
        self.regime_changes.labels(model).set(regimes.changes)

    def show_part(self, model: str, part: Part) -> None:
        """Show what a part is worth that a model may be served without; nothing where it has none."""
        if part.name:
            self.part_served.labels(model, part.name).set(part.served)
        if part.worth is not None:
            self.part_worth.labels(model, part.name).set(part.worth)

    def count_drifts(self, model: str, drifts: Drifts) -> None:
        """Count lasting changes."""
        for direction, count in drifts._asdict().items():
            self.drifts.labels(model, direction).inc(count)

    def show_trial(self, model: str, *, promoted: bool) -> None:
        """Count a trial that has ended."""
        self.trials.labels(model, "promoted" if promoted else "rolled back").inc()
        self.gate_open.labels(model).set(promoted)
        self.rejected.labels(model).inc(not promoted)

    def show_verdict(self, model: str, verdict: Verdict, *, rolled_back: bool = False) -> None:
        """Show what the gate decided, and on what grounds. `rolled_back`: the newest trial has ended so."""
        self.gate_open.labels(model).set(verdict.passed and not rolled_back)
        self.rejected.labels(model).inc(not verdict.passed)
        for name, comparison in (("fresh", verdict.fresh), ("anchor", verdict.anchor)):
            if comparison is not None:
                for what in ("difference", "low", "high"):
                    self.gate_difference.labels(model, name, what).set(getattr(comparison, what))
