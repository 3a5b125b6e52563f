"""The laboratory's join beside a real demo's: one small world on a real broker."""

from pathlib import Path

import pytest
from rich.console import Console

from contracts.config.settings import Settings, dump
from contracts.kafka import bus, consumers
from contracts.runtime.clock import SystemClock
from contracts.wire.events_pb2 import Example, Exposure, Item
from driftline.demo import run as demo
from driftline.processes import broker
from driftline.processes.supervisor import Supervisor
from evaluation.lab.join import Join
from world.open import open_world
from world.records import Record


def joined(settings: Settings, number: int) -> list[bytes]:
    """What the laboratory makes of one partition of the demo's log; when an event was sent is left out."""
    join = Join(settings.stream)
    items = (Item.FromString(each.value) for each in consumers.read_to_end(settings.kafka, bus.ITEMS, 0, 0))
    join.known_items.update(item.item_id for item in items)
    records = [
        (each.timestamp, place, each.offset, Record(topic, 0, each.timestamp, each.value))
        for place, topic in enumerate((bus.EXPOSURES, bus.FEEDBACK))
        for each in consumers.read_to_end(settings.kafka, topic, number, 0)
    ]
    made = (join.take(record) for *_, record in sorted(records, key=lambda entry: entry[:3]))
    return comparable(example for example in made if example is not None)


def comparable(examples) -> list[bytes]:
    found = []
    for example in examples:
        example.ClearField("sent_at_ms")
        found.append(example.SerializeToString(deterministic=True))
    return sorted(found)


@pytest.mark.proof
@pytest.mark.e2e
@pytest.mark.timeout(900)
def test_the_laboratory_makes_the_examples_that_a_demo_made(tmp_path: Path) -> None:
    clock = SystemClock()
    world = open_world(None, days=2, warmup_days=2, users=60, items=200, births=0.05)
    with Supervisor(tmp_path / "logs", clock) as supervisor:
        kafka = broker.start_embedded(supervisor, clock)
        settings = demo.make_settings(0, world, tmp_path, kafka)
        dump(settings, tmp_path / "settings.yaml")
        broker.prepare(kafka)
        demo._run(settings, world, supervisor, tmp_path, Console(), clock)
        partitions = range(kafka.partitions)
        emitted = [
            comparable(Example.FromString(each.value) for each in consumers.read_to_end(kafka, bus.EXAMPLES, number, 0))
            for number in partitions
        ]
        made = [joined(settings, number) for number in partitions]
        items = [each.timestamp for each in consumers.read_to_end(kafka, bus.ITEMS, 0, 0)]
        shown = {
            item.item_id
            for number in partitions
            for each in consumers.read_to_end(kafka, bus.EXPOSURES, number, 0)
            for item in Exposure.FromString(each.value).items
        }
    assert made == emitted
    assert sum(map(len, emitted)) > 500
    born = world.catalogue.born_ms
    assert sorted(items) == sorted(max(at_ms, world.start_ms) for at_ms in born.tolist())
    assert shown & set(world.catalogue.item_ids[born > world.experiment_start_ms].tolist())
