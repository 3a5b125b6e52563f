"""The cluster: its servers, its hosts, what is killed when, and what is held against an undisturbed run."""

import os
import random
import shutil
import statistics
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import SecretStr

from abtest.analyse.analysis import analyse
from abtest.collect.parts import Share
from abtest.collect.parts import load_state as load_parts
from abtest.collect.state import folded
from benchmarks.cluster.engine import Engine, JobManager, PythonOf, TaskManager
from benchmarks.cluster.hosts import CLOCK, Host, Machine, Victim, foreign_files
from benchmarks.cluster.judge import Outcome, by_worker, caught_up, compared, copy, outcome, rows_of
from benchmarks.cluster.load import START_MS, USERS, Load
from contracts.config.settings import (
    Arm,
    Experiment,
    KafkaSettings,
    ModelName,
    ServingSettings,
    Settings,
    StoreSettings,
    StreamSettings,
    TrainerSettings,
)
from contracts.kafka import bus, consumers
from contracts.runtime.clock import DAY_MS
from contracts.snapshots.room import open_room
from contracts.wire.events_pb2 import Exposure
from driftline.inspect.metrics import read_metrics
from driftline.processes import broker, kafka, redis, s3
from driftline.processes.process import wait_until
from driftline.processes.server import free_port

MODEL: ModelName = "two_tower"
BUCKET = "driftline"
KEYS = ("cluster", "the-key-of-a-cluster")
PARTITIONS = 2
LATENESS_MS = 8 * DAY_MS  # a minute of the run is more than a day: hosts are back well within it
BATCH = 8
POLLS = 100
WAIT_S = 180.0
TRAINER = {
    "models": [MODEL],
    "model": {"dim": 8, "window": 6, "batch_size": BATCH},
    "gate": {"enabled": False},  # each snapshot goes live, so that replicas swap all the time
    "publish_every_s": 3,
    "keep_snapshots": 10_000,  # each reply is held against the one that it names
    "checkpoint_every_examples": 100,
}
KINDS = ("replica", "collector", "trainer")  # the stream worker's state is its disk: it is not killed with it
SINGLE = ("trainer", "jobmanager", "rows")  # kinds of which there is one; of the others, two
KINDS_OF: dict[str, tuple[str, ...]] = {
    "worker": KINDS,
    "flink": ("taskmanager", "python", "jobmanager", "rows", *KINDS),
}
ENGINES = tuple(KINDS_OF)

Say = Callable[[str], None]


def schedule(kills: int, seed: int, kinds: Sequence[str] = KINDS) -> Iterator[str]:
    """What is killed: all kinds in each round, in an order and on hosts by the seed.

    >>> [*schedule(4, 1)]
    ['collector-2', 'trainer', 'replica-1', 'replica-1']
    """
    chance = random.Random(seed)
    done = 0
    while done < kills:
        for kind in chance.sample(kinds, len(kinds))[: kills - done]:
            yield kind if kind in SINGLE else f"{kind}-{chance.randint(1, 2)}"
            done += 1


class Cluster:
    """Kafka, Redis and an S3 server, which are not killed, and the hosts that are."""

    def __init__(self, root: Path, stack: ExitStack, say: Say, engine: str = "worker") -> None:
        """Start the servers; `stack` ends everything. `engine`: that the stream runs on."""
        self.root, self._stack = root, stack
        say("Apache Kafka, Redis and an S3 server …")
        at_kafka = stack.enter_context(kafka.start(kafka.default_home(), root / "stores" / "kafka"))
        self._redis = stack.enter_context(redis.start(redis.default_home(), root / "stores" / "redis")).address
        s3.install(s3.default_home())
        server = stack.enter_context(s3.start(s3.default_home(), root / "stores" / "s3", *KEYS))
        s3.bucket(server.directory, BUCKET)
        self.kafka = KafkaSettings(
            bootstrap_servers=at_kafka.address, partitions=PARTITIONS, topic_config={"retention.ms": "-1"}
        )
        self._store = StoreSettings(
            endpoint=f"http://{server.address}",
            region=s3.REGION,
            access_key_id=KEYS[0],
            secret_access_key=SecretStr(KEYS[1]),
        )
        broker.prepare(self.kafka)
        self.ports = {f"replica-{number}": free_port() for number in (1, 2)}
        self.hosts: dict[str, Host] = {}
        self.engine: Engine | None = None
        self.victims: dict[str, Victim] = {}
        self.machines: list[Machine] = []
        self.features = self._stream(engine)
        self._host("trainer", ["trainer"])
        for number in (1, 2):
            self._host(f"replica-{number}", ["serve"], features=True)
            self._host(f"collector-{number}", ["experiment", "collect", "--share", f"{number}/2"])

    def settings(self, directory: Path, topics: KafkaSettings | None = None) -> Settings:
        """Settings of the host of this directory."""
        arms = {name: Arm(weight=1, model=MODEL) for name in ("a", "b")}
        return Settings(
            kafka=topics or self.kafka,
            feature_repo=directory / "feature_repo",
            snapshots=f"s3://{BUCKET}/snapshots",
            store=self._store,
            state=directory / "state",
            stream=StreamSettings(allowed_lateness_ms=LATENESS_MS),
            serving=ServingSettings(port=self.ports.get(directory.name, 0), drain_s=0.5),
            trainer=TrainerSettings.model_validate(TRAINER),
            experiment=Experiment(
                name="cluster", salt="s", start_ms=START_MS, end_ms=START_MS + 365 * DAY_MS, arms=arms, control="a"
            ),
        )

    def start(self, *names: str) -> None:
        """Start what was killed, or hosts, and wait until they are ready."""
        for name in names:
            self.victims[name].start()
        for name in names:
            self.victims[name].wait_ready()

    def start_stream(self) -> None:
        """Start what the stream runs on, and what writes features."""
        if self.engine is not None:
            self.engine.start()
        self.start(self.features.name)

    def _stream(self, engine: str) -> Host:
        """Make the hosts that the stream runs on; the one that writes features."""
        if engine == "worker":
            return self._host("stream", ["stream"], features=True)
        directory = self.root / "hosts" / "flink"
        self.engine = running = Engine(directory, self.settings(directory / "client"), f"s3://{BUCKET}/flink")
        self._stack.callback(running.stop)
        manager = JobManager(running)
        tasks = [TaskManager(running, f"taskmanager-{number}", number - 1) for number in (1, 2)]
        self.machines += [manager, *tasks]
        pythons = [PythonOf(running, f"python-{number}", number - 1) for number in (1, 2)]
        self.victims |= {each.name: each for each in (manager, *tasks, *pythons)}
        return self._host("rows", ["flink", "rows"], features=True)

    def _host(self, name: str, command: list[str], *, features: bool = False) -> Host:
        host = Host(self.root / "hosts" / name, command, self.settings, self._redis if features else None)
        self.hosts[name] = self.victims[name] = host
        self.machines.append(host)
        self._stack.callback(host.stop)
        return host


def measure(
    root: Path, kills: int, seconds: float, seed: int, rate: float, say: Say, engine: str = "worker"
) -> dict[str, Any]:
    """All figures of a run."""
    busy = [os.getloadavg()[0]]
    with ExitStack() as stack:
        cluster = Cluster(root, stack, say, engine)
        settings = cluster.settings(root / "report")
        room = open_room(settings.snapshot_root)
        load = Load(
            cluster.kafka, [f"127.0.0.1:{port}" for port in cluster.ports.values()], settings.snapshot_root, rate, seed
        )
        stack.callback(load.close)
        load.begin()
        say("stream, trainer, two collectors …")
        cluster.start_stream()
        cluster.start("trainer", "collector-1", "collector-2")
        until(lambda: room.live(MODEL) is not None, "No snapshot was published")
        say("two replicas …")
        cluster.start("replica-1", "replica-2")
        load.start()
        recoveries, resumed, foreign = _disturb(cluster, [*schedule(kills, seed, KINDS_OF[engine])], seconds, load, say)
        busy.append(os.getloadavg()[0])
        load.stop()
        for name in cluster.ports:
            cluster.hosts[name].stop()  # it sends the exposures that it has
        load.end()
        polls = [_timed_ms(lambda: room.glance(MODEL)) for _ in range(POLLS)]
        say("what an undisturbed worker and collector make of the log …")
        found = _judged(cluster, say)
        swaps, unlogged = len(room.versions(MODEL)), _unlogged(cluster.kafka, load)
    times = [took for _, took in recoveries]
    kinds = sorted({name.rstrip("-12") for name, _ in recoveries})
    return {
        "kills": len(recoveries),
        "lost": found["lost"],
        "doubled": found["doubled"],
        "recalls": load.recalls,
        "recalls_failed": load.failed,
        "recalls_mixed": load.mixed,
        "recall_p50_ms": _quantile(load.latency_ms, 0.5),
        "recall_p99_ms": _quantile(load.latency_ms, 0.99),
        "unchanged_poll_ms": round(statistics.median(polls), 2),
        "unchanged_poll_p99_ms": _quantile(polls, 0.99),
        "recovery_p50_s": _quantile(times, 0.5),
        "recovery_p99_s": _quantile(times, 0.99),
        "recoveries": [[name, round(took, 1)] for name, took in recoveries],
        "recovery_longest_s": {
            kind: round(max(took for name, took in recoveries if name.startswith(kind)), 1) for kind in kinds
        },
        "engine": engine,
        "flink_checkpoints": cluster.engine.checkpoints if cluster.engine else None,
        "taskmanagers_died": cluster.engine.died if cluster.engine else 0,
        "machine_load": [round(each, 1) for each in busy],
        "hosts": len(cluster.machines),
        "isolation": "ports",
        "foreign_files": foreign,
        "trainer_resumed": resumed,
        "snapshots": swaps,
        "feedback": load.feedback,
        "exposures_lost": unlogged,
        "errors": load.errors[:5],
        **{name: value for name, value in found.items() if name not in ("lost", "doubled")},
    }


def _disturb(
    cluster: Cluster, names: Sequence[str], seconds: float, load: Load, say: Say
) -> tuple[list[tuple[str, float]], int, int]:
    """Kill, one after the other, within `seconds` or longer; what took how long (s), and what was seen meanwhile."""
    pause, began_s = threading.Event(), CLOCK.elapsed_s()
    recoveries: list[tuple[str, float]] = []
    disks = cluster.root / "hosts"
    resumed, foreign = 0, len(foreign_files(cluster.machines, disks))
    for number, name in enumerate(names):
        pause.wait(max(began_s + seconds * number / len(names) - CLOCK.elapsed_s(), 1.0))
        killed_s = CLOCK.elapsed_s()
        cluster.victims[name].kill()
        cluster.start(name)
        recoveries.append((name, CLOCK.elapsed_s() - killed_s))
        resumed += name == "trainer" and '"resumed"' in cluster.hosts[name].log()
        foreign += len(foreign_files(cluster.machines, disks))
        say(f"{name} is back after {recoveries[-1][1]:.1f} s; {load.recalls} recalls, {load.failed} failed")
    pause.wait(max(began_s + seconds - CLOCK.elapsed_s(), 1.0))
    return recoveries, resumed, foreign


def _judged(cluster: Cluster, say: Say) -> dict[str, Any]:
    """Hold what came against what an undisturbed worker and one collector make of a copy of the log."""
    topics = cluster.kafka.model_copy(update={"topic_prefix": "undisturbed."})
    broker.prepare(topics)
    records = copy(cluster.kafka, topics)
    alone = Host(cluster.root / "undisturbed", ["experiment", "collect"], lambda home: cluster.settings(home, topics))
    try:
        alone.start()
        expected = by_worker(alone.settings, records)
        found = _settled(cluster.kafka, expected)
        result = {"records": records, **compared(found, expected)}
        rows, wanted = _rows(cluster.features.settings.feature_repo, alone.settings.feature_repo)
        result["rows"] = sum(row is not None for row in rows)
        result["rows_equal"] = rows == wanted
        say("the collectors' parts …")
        report = cluster.settings(cluster.root / "report")
        report.state.mkdir(parents=True, exist_ok=True)
        for share in (Share(1, 2), Share(2, 2)):
            settings = cluster.hosts[f"collector-{share.number}"].settings
            until(lambda s=settings, o=share: caught_up(s, o), f"Collector {share} did not catch up")  # type: ignore[misc]
            shutil.copy(share.path(settings), share.path(report))
        until(lambda: caught_up(alone.settings, Share()), "The undisturbed collector did not catch up")
    finally:
        alone.stop()
    one, both = folded(load_parts(alone.settings)), folded(load_parts(report))
    result["report_equal"] = analyse(one) == analyse(both) and one.users == both.users
    result["report_users"] = len(both.users)
    result["trainer_tested"] = _tested(cluster.hosts["trainer"], result["examples"])
    return result


def _settled(topics: KafkaSettings, expected: Outcome) -> Outcome:
    """What has come, once it is as much as is expected, or after a while."""

    def enough() -> bool:
        found = outcome(topics)
        return len(found.letters) >= len(expected.letters) and all(
            len(rows) >= len(expected.examples[at]) for at, rows in found.examples.items()
        )

    with suppress(TimeoutError):  # what is missing is counted as lost
        until(enough, "")
    return outcome(topics)


def _rows(features: Path, alone: Path) -> tuple[list[Any], list[Any]]:
    """The features of all users and those that are wanted, once they are the same, or after a while."""
    wanted = rows_of(alone, USERS)
    with suppress(TimeoutError):
        until(lambda: rows_of(features, USERS) == wanted, "")
    return rows_of(features, USERS), wanted


def _tested(trainer: Host, examples: int) -> int:
    """How many examples the trainer has been tested on, once it has had all but the last batch, or after a while."""
    assert trainer.child is not None
    port = int(trainer.child.facts["metrics_port"])

    def tested() -> int:
        return int(read_metrics([port]).total("trainer_tested_examples"))

    with suppress(TimeoutError):
        until(lambda: tested() > examples - BATCH, "")
    return tested()


def _unlogged(topics: KafkaSettings, load: Load) -> int:
    """Requests that were answered and have no exposure in the log: their replica was killed before it was sent."""
    logged = {
        Exposure.FromString(record.value).request_id
        for at in range(topics.partitions)
        for record in consumers.read_to_end(topics, bus.EXPOSURES, at, 0)
    }
    return len(load.answered - logged)


def until(done: Callable[[], bool], what: str) -> None:
    """Wait.

    Raises:
        TimeoutError: it took too long.

    """
    wait_until(done, lambda: None, lambda: TimeoutError(f"{what} in {WAIT_S:.0f} s."), timeout_s=WAIT_S, clock=CLOCK)


def _timed_ms(act: Callable[[], object]) -> float:
    began_s = CLOCK.elapsed_s()
    act()
    return (CLOCK.elapsed_s() - began_s) * 1000


def _quantile(values: list[float], q: float) -> float | None:
    return round(float(np.quantile(values, q)), 2) if values else None
