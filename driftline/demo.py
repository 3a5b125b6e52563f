"""`driftline demo`: the whole experiment on one machine, from an empty directory to a report."""

import asyncio
import json
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path

from kafka.admin import KafkaAdminClient
from rich.console import Console

from abtest.analysis import analyse
from abtest.report import write
from abtest.store import load_state
from contracts import bus
from contracts.clock import Clock, SystemClock
from contracts.settings import (
    HOUR_MS,
    Arm,
    Experiment,
    KafkaSettings,
    Settings,
    StreamSettings,
    TrainerSettings,
    dump,
)
from driftline import broker, deadletters
from driftline.errors import RunError, UsageError
from driftline.monitor import Monitor, Readings, Workers, read
from driftline.progress import Progress
from driftline.summary import complaints, context, summarise, tables
from driftline.supervise import Supervisor
from world.base import World
from world.drive import Driver, Tally, send_catalogue
from world.open import open_world

EMBEDDED = "embedded"
REPLICAS = 2
RUN_MARK = "settings.yaml"


@dataclass(frozen=True)
class Options:
    """What `driftline demo` was asked for; None where the world decides."""

    data: Path | None
    days: int
    warmup_days: int | None
    seed: int
    out: Path
    broker: str
    slate: int
    users: int | None
    items: int | None


def run(options: Options) -> None:
    """Run the experiment and write report.html, report.json and summary.json."""
    console = _console()
    clock = SystemClock()
    began_s = clock.elapsed_s()
    signal.signal(signal.SIGTERM, _interrupt)
    console.print(f"Preparing the world{f' from {options.data}' if options.data else ''} …")
    world = open_world(
        options.data,
        days=options.days,
        warmup_days=options.warmup_days,
        seed=options.seed,
        slate=options.slate,
        users=options.users,
        items=options.items,
    )
    console.print(world.description, highlight=False)
    directory = _run_directory(options.out)
    with Supervisor(directory / "logs", clock) as supervisor:
        console.print("Starting the broker, the feature store and the workers …")
        embedded = options.broker == EMBEDDED
        kafka = broker.start_embedded(supervisor, clock) if embedded else broker.outside(options.broker)
        settings = make_settings(options.seed, world, directory, kafka)
        dump(settings, directory / RUN_MARK)
        broker.prepare(kafka)
        try:
            readings, tally = _run(settings, world, supervisor, directory, console, clock)
        finally:
            if not embedded:
                supervisor.stop_all()
                broker.remove(kafka)
    wall_s = clock.elapsed_s() - began_s
    report = analyse(load_state(settings))
    summary = summarise(settings, world, readings, tally, report, wall_s)
    write(report, context(settings, world, summary), options.out)
    (options.out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    for table in tables(summary):
        console.print(table)
    console.print(f"Wrote report.html, report.json and summary.json to {options.out}/", highlight=False)
    broken = complaints(summary)
    if broken:
        raise RunError(f"The run is not sound: {'; '.join(broken)}. Its logs are in {directory / 'logs'}.")


def make_settings(seed: int, world: World, directory: Path, kafka: KafkaSettings) -> Settings:
    """The settings of one run; they are also written down as an example to start from."""
    return Settings(
        kafka=kafka,
        feature_repo=directory / "feature_repo",
        snapshots=directory / "snapshots",
        state=directory / "state",
        seed=seed,
        stream=StreamSettings(allowed_lateness_ms=2 * HOUR_MS),
        trainer=TrainerSettings(),
        experiment=Experiment(
            name="t2diff-against-two-tower",
            salt=f"t2diff-against-two-tower-{seed}",
            start_ms=world.experiment_start_ms,
            end_ms=world.end_ms,
            arms={"control": Arm(weight=1, model="two_tower"), "treatment": Arm(weight=1, model="t2diff")},
            control="control",
            day_offset_ms=world.day_offset_ms,
        ),
    )


def _run(
    settings: Settings, world: World, supervisor: Supervisor, directory: Path, console: Console, clock: Clock
) -> tuple[Readings, Tally]:
    """Start the workers, drive the users, and read the workers' metrics when all is done."""
    _apply_features(settings.feature_repo)
    send_catalogue(settings.kafka, world.catalogue, world.start_ms)
    workers = _start(supervisor, directory / RUN_MARK)
    admin = bus.admin(settings.kafka)
    try:
        with Progress(console, clock) as progress:
            monitor = Monitor(settings, world, supervisor, workers, admin, progress, clock)
            asyncio.run(_drive(settings, world, workers, admin, monitor, clock))
    finally:
        admin.close()
    deadletters.save(settings.kafka, directory / "deadletters.jsonl")
    return read(workers), monitor.tally


def _start(supervisor: Supervisor, settings_file: Path) -> Workers:
    """Start the workers as processes and wait until all are ready."""
    workers = Workers(
        supervisor.start_worker("stream", ["stream"], settings_file),
        supervisor.start_worker("trainer", ["trainer"], settings_file),
        supervisor.start_worker("collector", ["experiment", "collect"], settings_file),
        tuple(supervisor.start_worker(f"replica-{i}", ["serve"], settings_file) for i in range(1, REPLICAS + 1)),
    )
    supervisor.wait_ready([workers.stream, workers.trainer, workers.collector, *workers.replicas])
    return workers


async def _drive(
    settings: Settings, world: World, workers: Workers, admin: KafkaAdminClient, monitor: Monitor, clock: Clock
) -> None:
    """Let the users come, and return when every stage has taken in what they did."""
    producer = bus.producer(settings.kafka)
    replicas = [f"127.0.0.1:{replica.facts['port']}" for replica in workers.replicas]
    driver = Driver(settings, world, producer, admin, replicas, clock, monitor, monitor.tally)
    try:
        await driver.warm_up()
        await monitor.learned()
        await monitor.snapshots_loaded()
        await driver.experiment()
        await driver.collected()
        await monitor.learned()
    finally:
        producer.close()


def _apply_features(repo: Path) -> None:
    from feature_repo.store import apply

    apply(repo)


def _run_directory(out: Path) -> Path:
    """An empty `run` directory in `out`; only one that an earlier run made is emptied.

    Raises:
        UsageError: there is one that no run made, or it cannot be made.

    """
    directory = (out / "run").resolve()
    if directory.exists() and not (directory / RUN_MARK).exists() and any(directory.iterdir()):
        raise UsageError(f"{directory} is not from an earlier run; choose another --out.")
    shutil.rmtree(directory, ignore_errors=True)
    try:
        directory.mkdir(parents=True)
        (directory / RUN_MARK).touch()
    except OSError as error:
        raise UsageError(f"Cannot make {directory}: {error.strerror}.") from error
    return directory


def _interrupt(_signum: int, _frame: object) -> None:
    """SIGTERM ends a run as Ctrl-C does."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.raise_signal(signal.SIGINT)


def _console() -> Console:
    """Where there is no terminal to ask for its width, tables get room."""
    console = Console()
    return console if console.is_terminal else Console(width=120)
