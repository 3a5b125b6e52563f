"""`driftline demo`: the whole experiment on one machine, from an empty directory to a report."""

import asyncio
import json
import shlex
import shutil
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TextIO

from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError
from rich.console import Console

from abtest.analyse.analysis import analyse
from abtest.analyse.results import Report
from abtest.collect.parts import load_state
from abtest.report.files import FILES, write
from abtest.report.wording import sentence
from contracts.config.settings import (
    Arm,
    CanarySettings,
    Experiment,
    GateSettings,
    KafkaSettings,
    Settings,
    StreamSettings,
    TrainerSettings,
    dump,
)
from contracts.kafka import bus
from contracts.runtime.clock import HOUR_MS, Clock, SystemClock
from contracts.runtime.durable import LockedError, lock_file
from driftline.deadletters import letters as deadletters
from driftline.demo import freshness
from driftline.demo.arms import warnings
from driftline.demo.monitor import Monitor, Readings, Workers, read
from driftline.demo.progress import Progress
from driftline.demo.summary import complaints, context, summarise, tables
from driftline.errors import RunError, UsageError
from driftline.experiment.context import known_context
from driftline.processes import broker
from driftline.processes.supervisor import Supervisor, interrupt_on_stop_signals
from evaluation.lab.plan import WorldPlan
from world.base import LATENESS_MS, World
from world.drive import Driver, DriverReport, send_catalogue

EMBEDDED = "embedded"
REPLICAS = 2
RUN_MARK = ".driftline-demo"
# So that a trial ends well within each half-day, at night too: in four hours 1,000 users see 150 to 1,200 items on each
# side of a trial, and where those are too few to end it they count on in the next four.
PUBLISH_EVERY_MS = 4 * HOUR_MS
LEAST_ITEMS = 300
# What to hold one week's verdict against.
KNOWN = "T2Diff has not been shown to earn more than the two-tower where both learn alike (docs/model.md)."


@dataclass(frozen=True)
class DemoOptions:
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
    births: float | None = None
    freshness: bool | None = None  # measure what it was worth; None: but for `data`, where that takes long

    @property
    def world(self) -> WorldPlan:
        """What is simulated, up to its seed."""
        return WorldPlan(
            data=self.data,
            days=self.days,
            warmup_days=self.warmup_days,
            slate=self.slate,
            users=self.users,
            items=self.items,
            births=self.births or 0.0,
        )


def run(options: DemoOptions) -> None:
    """Run the experiment and write the report's files and summary.json."""
    console = _console()
    clock = SystemClock()
    began_s = clock.elapsed_s()
    interrupt_on_stop_signals()
    shared = None if options.broker == EMBEDDED else broker.outside(options.broker)
    console.print(f"Preparing the world{f' from {options.data}' if options.data else ''} …")
    world = options.world.open(options.seed)
    console.print(world.description, highlight=False)
    directory = (options.out / "run").resolve()
    with _claim(options.out, directory), Supervisor(directory / "logs", clock) as supervisor:
        console.print("Starting the broker, the feature store and the workers (half a minute) …")
        kafka = shared or broker.start_embedded(supervisor, clock)
        settings = make_settings(options.seed, world, directory, kafka)
        dump(settings, directory / "settings.yaml")
        broker.prepare(kafka)
        try:
            readings, tally = _run(settings, world, supervisor, directory, console, clock)
        finally:
            console.print("Stopping …")
            supervisor.stop_all()
            if shared:
                broker.remove(shared)
        wall_s = clock.elapsed_s() - began_s
        state = load_state(settings)
        report = analyse(state, known_context(settings, state).models)
        summary = summarise(settings, world, readings, tally, report, wall_s)
        write(report, replace(context(settings, world, summary, state), command=command(options)), options.out)
        _write(summary, options.out)
        _tell(summary, report, options, console)
        if broken := complaints(summary):
            raise RunError(f"The run is not sound: {'; '.join(broken)}. Its logs are in {directory / 'logs'}.")
        _write(summary | {"freshness_worth": _freshness(options, settings, console)}, options.out)


def _tell(summary: Mapping[str, Any], report: Report, options: DemoOptions, console: Console) -> None:
    """What came out, but for what freshness was worth."""
    for table in tables(summary):
        console.print(table)
    console.print(f"Wrote {', '.join(FILES)} and summary.json to {options.out}/", highlight=False)
    for warning in warnings(summary["arms"], (report.end_ms - report.start_ms) / HOUR_MS):
        console.print(warning, highlight=False)
    for verdict in report.verdicts:
        console.print(sentence(verdict), highlight=False)
    console.print(KNOWN, highlight=False)


def _freshness(options: DemoOptions, settings: Settings, console: Console) -> dict[str, Any]:
    """What freshness was worth, which is printed, too; or how to measure it."""
    by_hand = freshness.command(options.world, settings, options.out / "run" / "settings.yaml")
    wanted = options.data is None if options.freshness is None else options.freshness
    if wanted:
        return {"command": by_hand, "arms": freshness.measure(options.world, settings, console)}
    console.print("What freshness was worth was not measured. This does it, in the laboratory:")
    console.print(by_hand, highlight=False, soft_wrap=True)
    return {"command": by_hand, "arms": None}


def _write(summary: Mapping[str, Any], out: Path) -> None:
    (out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")


def command(options: DemoOptions) -> str:
    """What runs the same demo again.

    >>> command(DemoOptions(None, 3, None, 7, Path("out"), "embedded", 4, None, None))
    'driftline demo --days 3 --seed 7 --out out --broker embedded --slate 4'
    """
    given = {field.name: getattr(options, field.name) for field in fields(options)}
    words = [word for name, value in given.items() if value is not None for word in _words(name, value)]
    return shlex.join(["driftline", "demo", *words])


def _words(name: str, value: object) -> tuple[str, ...]:
    dashed = name.replace("_", "-")
    if isinstance(value, bool):
        return (f"--{dashed}" if value else f"--no-{dashed}",)
    return f"--{dashed}", str(value)


def make_settings(seed: int, world: World, directory: Path, kafka: KafkaSettings) -> Settings:
    """The settings of one run; they are also written down as an example to start from."""
    return Settings(
        kafka=kafka,
        feature_repo=directory / "feature_repo",
        snapshots=directory / "snapshots",
        state=directory / "state",
        seed=seed,
        stream=StreamSettings(allowed_lateness_ms=LATENESS_MS),
        trainer=TrainerSettings(
            publish_every_ms=PUBLISH_EVERY_MS,
            keep_snapshots=10_000,  # the summary counts them
            gate=GateSettings(canary=CanarySettings(least_items=LEAST_ITEMS)),
        ),
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
) -> tuple[Readings, DriverReport]:
    """Start the workers, drive the users, and read the workers' metrics when all is done."""
    _apply_features(settings.feature_repo)
    send_catalogue(settings.kafka, world.catalogue, world.start_ms)
    workers = _start(supervisor, directory / "settings.yaml")
    admin = bus.admin(settings.kafka)
    try:
        with Progress(console, clock) as progress:
            monitor = Monitor(settings, world, supervisor, workers, admin, progress, clock)
            asyncio.run(_watched(_drive(settings, world, workers, admin, monitor, clock), monitor))
        deadletters.save(settings.kafka, directory / "deadletters.jsonl")
        return read(workers), monitor.tally
    except (OSError, KafkaError) as error:
        supervisor.check()  # a process that has ended is the better explanation
        raise RunError(f"The run broke off: {error}. Its logs are in {directory / 'logs'}.") from error
    finally:
        admin.close()


async def _watched(driving: Coroutine[Any, Any, None], monitor: Monitor) -> None:
    """Drive until done, or until one of the processes ends."""
    drive, watch = asyncio.create_task(driving), asyncio.create_task(monitor.watch())
    done, rest = await asyncio.wait({drive, watch}, return_when=asyncio.FIRST_COMPLETED)
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)
    for task in done:
        task.result()


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


def _claim(out: Path, directory: Path) -> TextIO:
    """Empty `directory`, if a demo made it, and hold it until the file that is returned is closed.

    Raises:
        UsageError: no demo made it, or another is using it, or it cannot be made.

    """
    mark = directory / RUN_MARK
    try:
        if directory.is_dir() and not mark.exists() and any(directory.iterdir()):
            raise UsageError(f"{directory} is not from an earlier demo; choose another --out.")
        directory.mkdir(parents=True, exist_ok=True)
        held = lock_file(mark)
        for name in (*FILES, "summary.json"):
            (out / name).unlink(missing_ok=True)
        for entry in directory.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry)
            elif entry != mark:
                entry.unlink()
    except LockedError as error:
        raise UsageError(f"Another demo is running in {directory}; choose another --out.") from error
    except OSError as error:
        raise UsageError(f"Cannot use {directory}: {error.strerror}.") from error
    return held


def _console() -> Console:
    """Where there is no terminal to ask for its width, tables get room."""
    console = Console()
    return console if console.is_terminal else Console(width=120)
