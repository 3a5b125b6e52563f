"""Items that nobody gets any more, as the `items` topic says: deleted, blocked or expired, before any snapshot knows.

A snapshot is as old as its publication; what is withdrawn must not wait for the next. A replica therefore reads the
catalogue's topic beside its snapshots, and keeps only what is withdrawn or will expire, and the items' text ids.
"""

import contextlib
import threading
from collections.abc import Callable

import structlog
from kafka.errors import KafkaError

from contracts.config.settings import KafkaSettings
from contracts.kafka import bus, consumers
from contracts.messages.events import BadEvent, decode_catalogue, require_own_number
from contracts.messages.ids import ItemKeys
from contracts.wire.events_pb2 import Item

log = structlog.get_logger()

Hides = Callable[[int], Callable[[int], bool] | None]  # a time (Unix ms) to: whether an item is withdrawn then
POLL_MS = 500
CLOSE_TIMEOUT_S = 5.0


class Withdrawn:
    """Which items are withdrawn. Written by one thread, read by another; each entry changes at once.

    >>> withdrawn = Withdrawn()
    >>> withdrawn.take(7, Item(item_id=7, expires_ms=100))
    >>> withdrawn.take(8, None)
    >>> [(withdrawn.at(now)(7), withdrawn.at(now)(8)) for now in (99, 100)]
    [(False, True), (True, True)]
    >>> withdrawn.take(8, Item(item_id=8))
    >>> withdrawn.at(99)(8)
    False

    """

    def __init__(self) -> None:
        self._until: dict[int, int] = {}  # item -> time from which on it is withdrawn; 0: it is now

    def take(self, item_id: int, item: Item | None) -> None:
        """Take in what the topic says of an item; None: it is deleted."""
        if item is None or item.blocked:
            self._until[item_id] = 0
        elif item.HasField("expires_ms"):
            self._until[item_id] = item.expires_ms
        else:
            self._until.pop(item_id, None)

    def at(self, time_ms: int) -> Callable[[int], bool] | None:
        """Whether an item is withdrawn at a time; None where none is or will be."""
        until = self._until
        if not until:
            return None
        return lambda item_id: until.get(item_id, time_ms + 1) <= time_ms

    def __len__(self) -> int:
        return len(self._until)


class CatalogueReader:
    """A thread that keeps a `Withdrawn`, and the items' text ids, at what the topic says."""

    def __init__(self, settings: KafkaSettings, max_bytes: int) -> None:
        """`max_bytes`: of a record; a larger one is no item."""
        self._max_bytes = max_bytes
        self.withdrawn = Withdrawn()
        self.keys = ItemKeys()
        self.caught_up = threading.Event()  # everything that was in the topic at the start has been read
        self._stop = threading.Event()
        (self._partition,) = bus.partitions_of(settings, [bus.ITEMS])
        self._consumer = consumers.consumer(settings, [bus.ITEMS], None)
        self.reads = self._consumer.reads  # what could not be read
        self._thread = threading.Thread(target=self._run, name="catalogue", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def close(self) -> None:
        """Stop reading; a thread that does not end in time is left behind, and ends with the process."""
        self._stop.set()
        self._thread.join(CLOSE_TIMEOUT_S)
        if self._thread.is_alive():
            log.error("the catalogue's reader did not stop", seconds=CLOSE_TIMEOUT_S)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._read()
            except KafkaError as error:  # a broker that is away for a while; what is known stays in force
                log.warning("catalogue not readable", error=str(error))
                self._stop.wait(POLL_MS / 1000)
        self._consumer.close()

    def _read(self) -> None:
        for records in self._consumer.poll(POLL_MS).values():
            for record in records:
                with contextlib.suppress(BadEvent):  # the stream worker dead-letters it
                    item_id, item = decode_catalogue(record.key, record.value, max_bytes=self._max_bytes)
                    require_own_number(self.keys, item_id, item)
                    self.withdrawn.take(item_id, item)
        if self._consumer.at_end(self._partition):
            self.caught_up.set()
