"""Watching a run: reads every worker's metrics about once a second, shows them, and holds simulated time back."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from kafka.admin import KafkaAdminClient

from contracts.config.settings import Settings
from contracts.kafka.bus import EXAMPLES
from contracts.runtime.clock import DAY_MS, HOUR_MS, Clock
from contracts.snapshots.canary import Canary
from contracts.snapshots.staleness import is_stale
from driftline.demo.progress import ArmStatus, Progress, Status
from driftline.inspect.metrics import Scrape, read_metrics
from driftline.inspect.snapshots import on_trial
from driftline.processes.supervisor import Child, Supervisor
from world.base import World
from world.drive import DriverReport

PAUSE_S = 0.005
SHOW_EVERY_S = 1.0
WATCH_EVERY_S = 0.2
CHECK_EVERY_S = 0.25
MAX_TRAINER_LAG = 1000  # examples; simulated time waits for the trainer past it


@dataclass(frozen=True)
class Workers:
    """The processes of one run."""

    stream: Child
    trainer: Child
    collector: Child
    replicas: tuple[Child, ...]

    def ports(self, *children: Child) -> list[int]:
        """The metrics ports of some of them."""
        return [int(child.facts["metrics_port"]) for child in children]


@dataclass
class Readings:
    """The metrics of each kind of worker; the replicas' are added up."""

    stream: Scrape = field(default_factory=Scrape)
    trainer: Scrape = field(default_factory=Scrape)
    collector: Scrape = field(default_factory=Scrape)
    replicas: Scrape = field(default_factory=Scrape)
    each_replica: tuple[Scrape, ...] = ()


@dataclass
class Standing:
    """What keeps what a model has learned from all users, and since when it was so, in simulated time (ms)."""

    trial: str = ""  # version on trial
    group: str = ""  # the first version of this trial
    trial_since_ms: int = 0
    held_since_ms: int | None = None

    def see(self, tried: Canary | None, *, held: bool, now_ms: int) -> None:
        """Take in what is so now."""
        if tried is not None and tried.group != self.group:
            self.trial_since_ms = now_ms
        self.trial, self.group = (tried.version, tried.group) if tried is not None else ("", "")
        self.held_since_ms = None if not held else now_ms if self.held_since_ms is None else self.held_since_ms


def read(workers: Workers) -> Readings:
    """Read all metrics now."""
    return Readings(
        read_metrics(workers.ports(workers.stream)),
        read_metrics(workers.ports(workers.trainer)),
        read_metrics(workers.ports(workers.collector)),
        read_metrics(workers.ports(*workers.replicas)),
        tuple(read_metrics(workers.ports(replica)) for replica in workers.replicas),
    )


def examples_emitted(stream: Scrape) -> int:
    """Training examples that the stream worker has put on Kafka."""
    return int(stream.total("stream_outcomes_total", outcome="example"))


class Monitor:
    """The driver's pace: children must live, the trainer must keep up, and someone may be looking."""

    def __init__(
        self,
        settings: Settings,
        world: World,
        supervisor: Supervisor,
        workers: Workers,
        admin: KafkaAdminClient,
        progress: Progress,
        clock: Clock,
    ) -> None:
        self.tally = DriverReport()
        self._admin = admin
        self._settings = settings
        self._world = world
        self._supervisor = supervisor
        self._workers = workers
        self._progress = progress
        self._clock = clock
        self._shown_s = self._checked_s = float("-inf")
        self._standings: dict[str, Standing] = {arm.model: Standing() for arm in settings.experiment.arms.values()}
        self._before = (0.0, 0, 0)  # seconds, events, recalls when last shown

    async def pause(self) -> None:
        """Wait a moment."""
        await asyncio.sleep(PAUSE_S)
        await self._show()

    async def watch(self) -> None:
        """See every now and then that everything still runs; never returns.

        Raises:
            ChildFailed: a process has ended.

        """
        while True:
            self._supervisor.check()
            await asyncio.sleep(WATCH_EVERY_S)

    async def catch_up(self) -> None:
        """Wait until the trainer is near the present. Reading metrics costs CPU, so it asks only now and then."""
        if self._clock.elapsed_s() - self._checked_s >= CHECK_EVERY_S:
            while await asyncio.to_thread(self._trainer_lag) > MAX_TRAINER_LAG:
                await self.trainer_moment()
            self._checked_s = self._clock.elapsed_s()
        await self._show()

    async def trainer_moment(self) -> None:
        """A pause as long as the trainer needs for a batch or so: asking it more often only slows it down."""
        await asyncio.sleep(10 * PAUSE_S)
        await self.pause()

    async def learned(self) -> None:
        """Wait until the trainer has taken in every example."""
        while await asyncio.to_thread(self._trainer_lag) > 0:
            await self.trainer_moment()

    async def snapshots_loaded(self) -> None:
        """Wait until every replica serves a snapshot of every model."""
        models = {model for arm in self._settings.experiment.arms.values() for model in arm.models}
        while True:
            readings = await asyncio.to_thread(read, self._workers)
            served = [metrics.values("serving_snapshot_version", "model") for metrics in readings.each_replica]
            if all(models <= set(versions) for versions in served):
                return
            await self.trainer_moment()

    def _trainer_lag(self) -> int:
        """Examples that the stream worker emitted and the trainer has not taken in yet."""
        stream = read_metrics(self._workers.ports(self._workers.stream))
        return max(examples_emitted(stream) - self._examples_taken(), 0)

    def _examples_taken(self) -> int:
        kafka = self._settings.kafka
        group = kafka.topic_prefix + "trainer"
        offsets = self._admin.list_group_offsets([group])[group]
        return sum(committed.offset for tp, committed in offsets.items() if tp.topic == kafka.topic(EXAMPLES))

    async def _show(self) -> None:
        now_s = self._clock.elapsed_s()
        if now_s - self._shown_s < SHOW_EVERY_S:
            return
        self._shown_s = now_s
        readings = await asyncio.to_thread(read, self._workers)
        taken = await asyncio.to_thread(self._examples_taken)
        for model, standing in self._standings.items():
            standing.see(
                on_trial(self._settings.snapshot_root, model),
                held=readings.trainer.values("trainer_gate_open", "model").get(model) == 0,
                now_ms=self.tally.simulated_ms,
            )
        events = int(readings.stream.total("stream_events_in_total"))
        then_s, events_then, recalls_then = self._before
        self._before = (now_s, events, self.tally.recalls)
        self._progress.show(
            status(
                self._settings,
                self._world,
                readings,
                self.tally,
                self._standings,
                trainer_lag=max(examples_emitted(readings.stream) - taken, 0),
                events_per_s=(events - events_then) / (now_s - then_s),
                recalls_per_s=(self.tally.recalls - recalls_then) / (now_s - then_s),
            )
        )


def status(
    settings: Settings,
    world: World,
    readings: Readings,
    tally: DriverReport,
    standings: Mapping[str, Standing],
    *,
    trainer_lag: int,
    events_per_s: float,
    recalls_per_s: float,
) -> Status:
    """What to show, from what was read."""
    at_ms = max(tally.simulated_ms, world.start_ms)
    total_ms = world.end_ms - world.start_ms
    evr = readings.collector.values("abtest_evr", "arm")
    users = readings.collector.values("abtest_users", "arm")
    oldest: dict[str, int] = {}
    for metrics in readings.each_replica:
        for model, version in metrics.values("serving_snapshot_version", "model").items():
            oldest[model] = min(int(version), oldest.get(model, int(version)))
    begin_ms, end_ms = world.start_ms, world.experiment_start_ms
    if at_ms >= world.experiment_start_ms:
        begin_ms, end_ms = world.experiment_start_ms, world.end_ms
    return Status(
        phase=tally.phase,
        day=min((at_ms - begin_ms) // DAY_MS + 1, (end_ms - begin_ms) // DAY_MS),
        days=(end_ms - begin_ms) // DAY_MS,
        fraction=min((at_ms - world.start_ms) / total_ms, 1.0),
        simulated_time=_moment(at_ms, world, "%Y-%m-%d %H:%M"),
        events=int(readings.stream.total("stream_events_in_total")),
        events_per_s=events_per_s,
        recalls=tally.recalls,
        recalls_per_s=recalls_per_s,
        stream_lag=int(readings.stream.total("stream_lag")),
        trainer_lag=trainer_lag,
        event_to_feature_p50=readings.stream.quantile("stream_event_to_feature_seconds", 0.5),
        event_to_snapshot_p50=readings.trainer.quantile("trainer_event_to_snapshot_seconds", 0.5),
        event_to_answer_p50=readings.replicas.quantile("serving_event_to_answer_seconds", 0.5),
        arms=tuple(
            ArmStatus(
                name,
                arm.model,
                f"v{oldest[arm.model]:06d}" if arm.model in oldest else "",
                evr.get(name),
                int(users.get(name, 0)),
                standing.trial,
                _moment(standing.trial_since_ms, world),
                "" if standing.held_since_ms is None else _moment(standing.held_since_ms, world),
                _stale_h(readings.trainer, arm.model),
            )
            for name, arm in settings.experiment.arms.items()
            for standing in (standings[arm.model],)
        ),
    )


def _stale_h(trainer: Scrape, model: str) -> float | None:
    """Hours of event time by which what is live is behind, where it is stale."""
    learned_ms, now_ms = (
        round(1000 * trainer.values(f"trainer_{name}timestamp_seconds", "model").get(model, 0.0))
        for name in ("live_event_", "event_")
    )
    return (now_ms - learned_ms) / HOUR_MS if learned_ms and is_stale(learned_ms, now_ms) else None


def _moment(at_ms: int, world: World, form: str = "%b %-d %H:%M") -> str:
    return datetime.fromtimestamp((at_ms + world.day_offset_ms) / 1000, UTC).strftime(form)
