"""What a replica keeps of the `items` topic: what nobody gets any more, the newest items, and all text ids. The same
thread reads what is said of the experiment.

A snapshot is as old as its publication; what is deleted, blocked or expired must not wait for the next. A replica
therefore reads the catalogue's topic beside its snapshots, and keeps what is withdrawn or will expire. Before there is
a snapshot, the newest items are what it answers with, so it keeps a bounded number of these, too.
"""

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence

import structlog
from kafka.errors import KafkaError

from contracts.config.settings import KafkaSettings
from contracts.kafka import bus, consumers
from contracts.messages.events import BadEvent, decode_catalogue, require_own_number
from contracts.messages.ids import ItemKeys
from contracts.wire.events_pb2 import Item
from serving.experiment import RunningExperiment

log = structlog.get_logger()

Hides = Callable[[int], Callable[[int], bool] | None]  # a time (Unix ms) to: whether an item is withdrawn then
POLL_MS = 500
CLOSE_TIMEOUT_S = 5.0
NEWEST_PER_ANSWER = 20  # newest items kept, by `serving.max_k`: most of them may have been seen, excluded or expired


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


class Newest:
    """The items that came last, by the order of their records in the topic: an item that is sent again comes anew.

    The topic is compacted, so the order of the items' last records is all that a replica that starts later can know;
    going by it, all replicas have one order. Written by one thread, read by another: `ids` is replaced as a whole.

    >>> newest = Newest(room=2)
    >>> for item_id in (7, 8, 9, 8):
    ...     newest.take(item_id, Item(item_id=item_id))
    >>> newest.show()
    >>> newest.ids
    (8, 9)
    >>> newest.take(9, None)
    >>> newest.show()
    >>> newest.ids
    (8,)

    """

    def __init__(self, room: int) -> None:
        """`room`: how many are kept; what has been dropped for want of room does not come back."""
        self._room = room
        self._ids: OrderedDict[int, None] = OrderedDict()  # oldest first
        self.ids: Sequence[int] = ()  # newest first, as of the last `show`

    def take(self, item_id: int, item: Item | None) -> None:
        """Take in what the topic says of an item; None: it is deleted."""
        self._ids.pop(item_id, None)
        if item is not None and not item.blocked:
            self._ids[item_id] = None
            if len(self._ids) > self._room:
                self._ids.popitem(last=False)

    def show(self) -> None:
        """Let readers see what was taken in."""
        self.ids = tuple(reversed(self._ids))


class CatalogueReader:
    """A thread that keeps a `Withdrawn`, a `Newest` and the items' text ids at what the topic says, and the experiment
    at what its own topic says.
    """

    def __init__(self, settings: KafkaSettings, max_bytes: int, max_k: int, experiment: RunningExperiment) -> None:
        """`max_bytes`: of a record; a larger one is no item. `max_k`: items that an answer has at most."""
        self._max_bytes = max_bytes
        self.withdrawn = Withdrawn()
        self.newest = Newest(NEWEST_PER_ANSWER * max_k)
        self.keys = ItemKeys()
        self.experiment = experiment
        self.caught_up = threading.Event()  # everything that was in the topics at the start has been read
        self._stop = threading.Event()
        topics = [bus.ITEMS, bus.EXPERIMENTS]
        self._items, self._experiments = bus.partitions_of(settings, topics)
        self._consumer = consumers.consumer(settings, topics, None)
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
        read = self._consumer.poll(POLL_MS)
        for record in read.pop(self._experiments, ()):
            self.experiment.take(record)
        for records in read.values():
            for record in records:
                with contextlib.suppress(BadEvent):  # the stream worker dead-letters it
                    item_id, item = decode_catalogue(record.key, record.value, max_bytes=self._max_bytes)
                    require_own_number(self.keys, item_id, item)
                    self.withdrawn.take(item_id, item)
                    self.newest.take(item_id, item)
            self.newest.show()
        if all(map(self._consumer.at_end, (self._items, self._experiments))):
            self.caught_up.set()
