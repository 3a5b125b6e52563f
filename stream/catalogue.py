"""Which items exist: every worker reads all of the `items` topic, which is a table with the item as its key."""

from collections.abc import Iterator
from typing import Any

from contracts.config.settings import KafkaSettings, SettingsError
from contracts.kafka import bus, consumers
from contracts.kafka.batches import ReadCounts
from contracts.messages.events import BadEvent, decode_catalogue, require_own_number
from contracts.messages.ids import ItemKeys
from stream.join import Origin
from stream.outputs import Rejected

POLL_MS = 50


class KnownItems:
    """The ids of the items that the topic has named so far.

    A deleted item stays known here: what users did with it was done, and whether a worker has read of the deletion
    when it meets feedback must not decide what becomes of the feedback. That it is not recommended any more is the
    trainer's part. So is its text id: of two texts with one number, the one that the topic has named first is known.
    """

    def __init__(self, settings: KafkaSettings, max_bytes: int, reads: ReadCounts) -> None:
        """`max_bytes`: of a record; a larger one is no item. `reads`: where what cannot be read is counted."""
        self.items: set[int] = set()
        self._keys = ItemKeys()
        self._settings = settings
        self._max_bytes = max_bytes
        self._reads = reads
        self._end = 0  # next offset to read
        self._saw_bad = False

    def read(self) -> None:
        """Take in what the broker has of it now: a new client asks, so no earlier answer can stand for this one.

        Raises:
            SettingsError: no broker answers.

        """
        for record in consumers.read_to_end(self._settings, bus.ITEMS, 0, self._end, self._reads):
            self._take(record)
            self._end = record.offset + 1

    def bad_since(self, offset: int) -> tuple[list[Rejected], int]:
        """The records from `offset` on that are no items, and the offset to ask from next time."""
        if offset >= self._end or not self._saw_bad:
            return [], self._end
        try:
            return list(self._rejected(offset)), self._end
        except SettingsError:
            return [], offset  # the broker is away; the next batch asks again

    def _rejected(self, offset: int) -> Iterator[Rejected]:
        for record in consumers.read_to_end(self._settings, bus.ITEMS, 0, offset):
            if record.offset < self._end:
                try:
                    self._item_of(record)
                except BadEvent as error:
                    yield Rejected(origin_of(record), error)

    def _take(self, record: Any) -> None:
        try:
            self.items.add(self._item_of(record))
        except BadEvent:
            self._saw_bad = True

    def _item_of(self, record: Any) -> int:
        """The item that a record is about. The answer of the second time is that of the first.

        Raises:
            BadEvent: it cannot be used.

        """
        item_id, item = decode_catalogue(record.key, record.value, max_bytes=self._max_bytes)
        require_own_number(self._keys, item_id, item)
        return item_id


def origin_of(record: Any) -> Origin:
    """Where a record that the client fetched came from."""
    return Origin(
        record.topic,
        record.partition,
        record.offset,
        record.key,
        record.value,
        record.timestamp,
        bus.sent_at_ms(record.headers or (), record.timestamp),
    )
