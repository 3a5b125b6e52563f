"""The topic `items`: what it says of each item now, and sending to it, by the public contract (`docs/events.md`)."""

from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

from contracts.config.settings import Settings
from contracts.kafka import bus, consumers
from contracts.messages.events import BadEvent, decode_catalogue
from contracts.wire.events_pb2 import Item


class Record(NamedTuple):
    """What is said of an item; None: it is deleted."""

    item_id: int
    item: Item | None


def current(settings: Settings, wanted: Collection[int] | None = None) -> dict[int, Item]:
    """The items that the topic has now, in the order of their records; of `wanted` alone, where that is given.

    What no worker can use is left out.

    Raises:
        SettingsError: the broker does not answer, or has no such topic.

    """
    bus.check_topics(settings.kafka)
    items: dict[int, Item] = {}
    for record in consumers.read_to_end(settings.kafka, bus.ITEMS, 0, 0):
        try:
            item_id, item = decode_catalogue(record.key, record.value, max_bytes=settings.stream.max_event_bytes)
        except BadEvent:
            continue
        if wanted is None or item_id in wanted:
            items.pop(item_id, None)
            if item is not None:
                items[item_id] = item
    return items


def send(settings: Settings, records: Iterable[Record]) -> int:
    """Send records in their order and wait until the broker has them; how many there were.

    Raises:
        KafkaError: it does not take one; those before it may be there.
        SettingsError: the broker does not answer, or has no such topic.

    """
    bus.check_topics(settings.kafka)
    topic, sent = settings.kafka.topic(bus.ITEMS), 0
    failures: list[Exception] = []
    # One request at a time: a batch that has to be sent twice does not land behind the next one.
    producer = bus.producer(settings.kafka, max_in_flight_requests_per_connection=1)
    try:
        for item_id, item in records:
            value = None if item is None else item.SerializeToString()
            sending: Any = producer.send(topic, key=bus.key_of(item_id), value=value, partition=0)
            sending.add_errback(failures.append)
            sent += 1
            if failures:
                break
        producer.flush()
    finally:
        producer.close()
    if failures:
        raise failures[0]
    return sent
