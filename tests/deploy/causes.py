"""Causes of alerts, in real parts: each gives what targets show to Prometheus before and after it.

Nothing of the metrics is made up: they come from the workers' own registries. What stands in for a part says so.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import grpc
import torch
from kafka import TopicPartition
from kafka.record import MemoryRecords
from prometheus_client import CollectorRegistry, generate_latest

from abtest.collect.state import CollectorState
from abtest.collect.store import Saved
from abtest.collect.worker import Meters as CollectorMeters
from abtest.collect.worker import lag_of
from contracts.config.metrics import MetricsSettings, Process
from contracts.config.settings import KafkaSettings, ServingSettings
from contracts.kafka import bus, consumers
from contracts.kafka.batches import Batches, ReadCounts, Reading
from contracts.messages.experiments import definition_record
from contracts.runtime.clock import HOUR_MS, ManualClock, SystemClock
from contracts.runtime.endpoint import Endpoint
from contracts.snapshots import canary, snapshot
from contracts.snapshots.canary import Canary
from contracts.wire.events_pb2 import Example
from contracts.wire.recall_pb2 import RecallReply, RecallRequest
from contracts.wire.recall_pb2_grpc import RecallServiceStub
from feature_repo.offline import OfflineFiles, prepare
from feature_repo.row import FeaturesUnavailable
from feature_repo.store import apply
from serving.answerer import Answerer, Asked
from serving.batcher import Batcher, BatchSize
from serving.catalogue import Withdrawn
from serving.experiment import RunningExperiment
from serving.exposures import AnsweredRequest, ExposureLog
from serving.features import Features
from serving.handlers import handlers
from serving.metrics import ServingMetrics
from serving.model import LoadedModel
from serving.replica import DESCRIPTOR
from serving.service import Recall
from serving.swapper import Swapper
from stream.archive import Archive
from tests.abtest.abtest_cases import experiment, rules
from tests.contracts.kafka.batch_cases import batch
from tests.contracts.runtime.endpoint_cases import get
from tests.deploy.promtool import Scraped
from tests.serving.serving_cases import make_snapshot
from tests.stream.stream_cases import settings_for
from tests.trainer.test_engine import ITEMS, announce, run_engine
from tests.trainer.trainer_cases import START_MS, make_example, markov_examples, small_settings
from tests.trainer.trainer_rig import EXAMPLES, Rig
from trainer.engine import Engine
from trainer.evaluation.drift import DriftDetector
from trainer.meters import Meters

BACKLOG = 25_000  # records: more than any rule of a lag allows


class Cause(NamedTuple):
    """What targets showed, when to look, and whether the cause goes on after the last scrape as before it."""

    scrapes: list[Scraped]
    minutes: int
    grows: bool = False
    since: int = 0  # minute from which on to look


def shown(registry: CollectorRegistry) -> str:
    return generate_latest(registry).decode()


def at(minute: int, instance: str, registry: CollectorRegistry) -> Scraped:
    return Scraped(minute, instance, shown(registry), SystemClock().now_ms() / 1000)


# The processes, by their own endpoints over HTTP


def _process(minutes: int, then: Callable[[Endpoint, ManualClock], None], process: Process = "collector") -> Cause:
    """A process that does its work, and from minute 3 on what `then` makes of it."""
    clock = ManualClock()
    endpoint = Endpoint(process, MetricsSettings(), clock, release="1", settings="abc")
    try:
        endpoint.pulse.beat()
        scrapes = [Scraped(0, process, get(endpoint.port, "/metrics")[1])]
        then(endpoint, clock)
        scrapes.append(Scraped(3, process, get(endpoint.port, "/metrics")[1]))
    finally:
        endpoint.close()
    return Cause(scrapes, minutes)


def worker_down() -> Cause:
    cause = _process(15, lambda _endpoint, _clock: None)
    return cause._replace(scrapes=[cause.scrapes[0], Scraped(3, "collector", None)])


def worker_stuck() -> Cause:
    """The loop makes no step any more; the thread that answers does."""
    return _process(15, lambda _endpoint, clock: clock.advance(121_000))


def worker_not_ready() -> Cause:
    return _process(20, lambda endpoint, _clock: endpoint.pulse.beat(["no broker is connected"]))


# Serving


def _swapper(root: Path) -> tuple[Swapper, ServingMetrics]:
    settings = settings_for(KafkaSettings(bootstrap_servers="nowhere:1"), root)
    metrics = ServingMetrics()
    swapper = Swapper(settings, list, metrics, ManualClock())
    snapshot.write(root, make_snapshot())
    snapshot.publish(root, "two_tower", "v000001")
    asyncio.run(swapper.check())
    return swapper, metrics


def nothing_fresh(root: Path) -> Cause:
    _, metrics = _swapper(root)
    return Cause([at(0, "replica", metrics.registry)], 70)


def snapshot_not_loaded(root: Path) -> Cause:
    swapper, metrics = _swapper(root)
    before = at(0, "replica", metrics.registry)
    damaged = snapshot.write(root, make_snapshot(number=2)) / "tower.onnx"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    snapshot.publish(root, "two_tower", "v000002")
    asyncio.run(swapper.check())
    return Cause([before, at(5, "replica", metrics.registry)], 15)


def trial_does_not_end(root: Path) -> Cause:
    swapper, metrics = _swapper(root)
    snapshot.write(root, make_snapshot(number=2))
    assert canary.try_out(root, "two_tower", Canary("v000002", 0.5, "v000002"))
    asyncio.run(swapper.check())
    return Cause([at(0, "replica", metrics.registry)], 390)


class Away:
    """Stands in for a store that does not answer in time."""

    def read(self, user_ids: object) -> Any:
        raise FeaturesUnavailable("late")

    def close(self) -> None: ...


class Empty(Away):
    """Stands in for a store that knows nobody."""

    def read(self, user_ids: Any) -> Any:
        return [None for _ in user_ids]


def _answers(store: Away, models: tuple[str, ...]) -> Cause:
    """Ten requests at minute 0 and each minute after, answered from what is given."""
    metrics, clock = ServingMetrics(), ManualClock()
    definition = settings_for(KafkaSettings(bootstrap_servers="nowhere:1"), Path()).experiment
    loaded = {name: LoadedModel(make_snapshot(name)) for name in models}
    answerer = Answerer(
        RunningExperiment(definition, metrics),
        loaded,
        {},
        Features(store, 10, clock),
        Withdrawn().at,
        lambda: None,
        {},
        clock,
        metrics,
    )  # type: ignore[arg-type]

    def ask() -> None:
        answerer([Asked(RecallRequest(user_id=user, k=1), 0) for user in range(1, 11)])

    ask()
    before = at(0, "replica", metrics.registry)
    ask()
    return Cause([before, at(1, "replica", metrics.registry)], 40, grows=True)


def features_late() -> Cause:
    return _answers(Away(), ("two_tower", "t2diff"))


def source_without_snapshot() -> Cause:
    return _answers(Empty(), ("two_tower",))


def experiment_differs() -> Cause:
    """The collector's record says another salt than the replica's settings."""
    metrics = ServingMetrics()
    running = RunningExperiment(experiment(), metrics)
    before = at(0, "replica", metrics.registry)
    theirs = definition_record(experiment(salt="another"), 1)
    running.take(SimpleNamespace(offset=0, value=theirs))
    return Cause([before, at(1, "replica", metrics.registry)], 15)


def exposures_lost() -> Cause:
    """Its thread does not come to send: there is no room for the second one."""
    metrics = ServingMetrics()
    kafka = KafkaSettings(bootstrap_servers="nowhere:1")
    log = ExposureLog(None, kafka, "replica", 1, ManualClock(), metrics)  # type: ignore[arg-type]
    before = at(0, "replica", metrics.registry)
    reply = RecallReply(items=[RecallReply().items.add()])
    for _ in range(2):
        log.offer(AnsweredRequest(1, 0, False, reply, 1.0))
    return Cause([before, at(5, "replica", metrics.registry)], 15)


def requests_turned_away() -> Cause:
    """A real gRPC server whose queue has room for one: of two calls one waits, and the other is turned away."""
    metrics, clock = ServingMetrics(), SystemClock()

    async def ask() -> list[Scraped]:
        batcher: Any = Batcher(lambda _batch: [], BatchSize(1, 1.0), 1, 0.0, clock)
        exposures: Any = None  # nothing is answered, so nothing is exposed
        server = grpc.aio.server()
        recall = Recall(
            ServingSettings(), batcher, exposures, list, RunningExperiment(experiment(), metrics), clock, metrics
        )
        server.add_generic_rpc_handlers((handlers(DESCRIPTOR, recall),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        scrapes = []
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = RecallServiceStub(channel)
            calls = [stub.Recall(RecallRequest(user_id=1, k=1)) for _ in range(2)]
            for minute in (0, 1):
                codes = [asyncio.ensure_future(call.code()) for call in calls]
                done, _ = await asyncio.wait(codes, return_when="FIRST_COMPLETED")
                assert {each.result() for each in done} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
                scrapes.append(at(minute, "replica", metrics.registry))
                calls = [stub.Recall(RecallRequest(user_id=1, k=1))]
            for code in codes:
                code.cancel()
        await server.stop(0)
        return scrapes

    return Cause(asyncio.run(ask()), 20, grows=True)


# The trainer


def gate_holds(root: Path) -> Cause:
    """One that starts from nothing, where what is live was taught: the gate holds its snapshot."""
    settings = small_settings(root, models=("two_tower",), gate={"judge": "recall", "k": 1})
    taught = run_engine(settings, markov_examples(601, ITEMS, step_ms=6000))[-1]
    snapshot.write(settings.snapshots, taught)
    snapshot.publish(settings.snapshots, "two_tower", taught.manifest.version)
    meters = Meters()
    run_engine(settings, markov_examples(80, ITEMS, seed=1), meters)
    return Cause([at(0, "trainer", meters.registry)], 75)


def arm_is_stale(rig: Rig) -> Cause:
    """One snapshot, and then examples for 25 hours without another."""
    rig.add_items(ITEMS)
    rig.add_examples(markov_examples(16, ITEMS))
    rig.steps(20)
    rig.worker.publish_now()
    before = at(0, "trainer", rig.meters.registry)
    late = [make_example([1, 2], 3, START_MS + 25 * HOUR_MS + n, user_id=n + 1) for n in range(16)]
    rig.add_examples(late)
    rig.steps(20)
    return Cause([before, at(5, "trainer", rig.meters.registry)], 20)


def steps_are_no_numbers(root: Path) -> Cause:
    """A weight that is no number: so is every loss from then on."""
    meters = Meters()
    engine = Engine(small_settings(root, models=("two_tower",), gate={"enabled": False}), meters)
    announce(engine, range(1, ITEMS + 1))
    examples = markov_examples(32, ITEMS, step_ms=1000)
    for offset, example in enumerate(examples[:16]):
        engine.take(example, "examples:0", offset)
    before = at(0, "trainer", meters.registry)
    with torch.no_grad():
        next(iter(engine.lines)).learner.model.items.ids.fill_(float("nan"))
    for offset, example in enumerate(examples[16:], 16):
        engine.take(example, "examples:0", offset)
    return Cause([before, at(5, "trainer", meters.registry)], 15)


def examples_lost(make_rig: Callable[..., Rig], root: Path) -> Cause:
    """A trainer that was away for longer than the log holds. (The log is one in memory.)"""
    settings = small_settings(root, models=("two_tower",), gate={"enabled": False})
    rig = make_rig(settings)
    rig.add_items(ITEMS)
    rig.add_examples(markov_examples(60, ITEMS, step_ms=1000))
    rig.steps(20)
    rig.worker.keep()
    rig.close()
    rig.log.first = 500
    again = make_rig(settings, log=rig.log)
    again.worker.resume()
    return Cause([at(5, "trainer", again.meters.registry)], 15)


def trainer_behind(rig: Rig) -> Cause:
    rig.add_items(3)
    rig.add_examples([make_example([], 1 + n % 3, START_MS + n, user_id=n + 1) for n in range(200)])
    rig.steps(2)
    before = at(0, "trainer", rig.meters.registry)
    content = make_example([], 1, START_MS + 300).SerializeToString()
    for partition in EXAMPLES:
        for _ in range(BACKLOG // 2):
            rig.log.append(partition, content)
    rig.steps(2)
    return Cause([before, at(5, "trainer", rig.meters.registry)], 30)


def recall_drifts() -> Cause:
    """A detector that is told of hits, and then of far fewer."""
    meters, detector = Meters(), DriftDetector()
    hits = torch.arange(4000).numpy()
    meters.count_drifts("t2diff", detector.add(hits % 10 < 4))
    before = at(0, "trainer", meters.registry)
    meters.count_drifts("t2diff", detector.add(hits % 10 < 1))
    return Cause([before, at(5, "trainer", meters.registry)], 15)


def examples_skipped(root: Path) -> Cause:
    meters = Meters()
    engine = Engine(small_settings(root, models=("two_tower",), gate={"enabled": False}), meters)
    announce(engine, range(1, ITEMS + 1))
    examples = markov_examples(32, ITEMS, step_ms=1000)
    for example in examples[::8]:
        example.item_id = 999
    scrapes = []
    for minute, part in enumerate((examples[:16], examples[16:])):
        for offset, example in enumerate(part, 16 * minute):
            engine.take(example, "examples:0", offset)
        scrapes.append(at(minute, "trainer", meters.registry))
    return Cause(scrapes, 45, grows=True)


# Kafka


def broker_cannot_give_records() -> Cause:
    """Fetches with a batch whose length is damaged: what a broker gives again and again where its disk is."""
    counts, registry = ReadCounts(), CollectorRegistry()
    counts.register(registry)
    reading = Reading(counts, lambda _where: None, ManualClock())
    damaged = batch([b"x"])
    damaged[8:12] = (5).to_bytes(4, "big")
    scrapes = []
    for minute in (0, 1):
        Batches(TopicPartition("feedback", 0), MemoryRecords(bytes(damaged)), 0, reading).next_batch()
        scrapes.append(at(minute, "stream", registry))
    return Cause(scrapes, 20, grows=True)


def _backlog(kafka: KafkaSettings, topic: str, value: bytes) -> None:
    producer = bus.producer(kafka)
    for _ in range(BACKLOG):
        producer.send(kafka.topic(topic), value=value, partition=0)
    producer.flush()
    producer.close()


def collector_behind(kafka: KafkaSettings) -> Cause:
    """A collector's consumer that has fetched once."""
    registry = CollectorRegistry()
    meters, saved = CollectorMeters(registry), Saved(CollectorState(rules()))
    before = at(0, "collector", registry)
    _backlog(kafka, bus.EXPOSURES, b"x")
    client = consumers.consumer(kafka, [bus.EXPOSURES], None, max_poll_records=1)
    partitions = bus.partitions_of(kafka, [bus.EXPOSURES])
    while any(client.end(where) is None for where in partitions):
        client.poll(100)
    meters.lag.set(lag_of(saved, client, [f"{where.topic}:{where.partition}" for where in partitions]))
    client.close()
    return Cause([before, at(5, "collector", registry)], 30)


def archive_behind(kafka: KafkaSettings, root: Path) -> Cause:
    settings = settings_for(kafka, root, poll_records=50)
    apply(settings.feature_repo)
    files = OfflineFiles(prepare(settings.feature_repo))
    with files.claim():
        consumer = consumers.consumer(kafka, [], "archive")
        producer = bus.producer(kafka, max_request_size=bus.LARGEST_RECORD_BYTES)
        archive = Archive(settings, consumer, producer, files, SystemClock())
        before = at(0, "archive", archive.metrics.registry)
        _backlog(kafka, bus.EXAMPLES, Example(schema_version=1, user_id=1, item_id=1, time_ms=1).SerializeToString())
        while not archive.metrics.registry.get_sample_value("archive_lag"):
            archive.step()
        after = at(5, "archive", archive.metrics.registry)
        consumer.close()
        producer.close()
    return Cause([before, after], 30)
