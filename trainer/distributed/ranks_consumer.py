"""One consumer out of those of all ranks: each fetches its own partitions, and all of them see every record.

It gives the same on every rank, so what makes one order of the records (`trainer.input.intake`) need not know of ranks.
All ranks call `poll` and `beginning_offsets` together; `commit` and what only looks, each when it likes.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from kafka import TopicPartition

from contracts.kafka.consumers import Consumer, LogReader
from trainer.distributed.ranks import Ranks


class PollResult(NamedTuple):
    """What a rank says of its partitions after a poll."""

    records: dict[TopicPartition, list[Any]]
    positions: dict[TopicPartition, int]
    ends: dict[TopicPartition, int | None]


class RanksConsumer(LogReader):
    """As far as the trainer uses a consumer, it is one."""

    def __init__(self, consumer: Consumer, partitions: Sequence[TopicPartition], ranks: Ranks) -> None:
        """Deal out the partitions, to be read from their first records on."""
        self._consumer = consumer
        self._ranks = ranks
        self._own = [tp for tp in partitions if tp.partition % ranks.size == ranks.rank]
        self._positions = dict.fromkeys(partitions, 0)
        self._ends: dict[TopicPartition, int | None] = dict.fromkeys(partitions)
        self._paused: set[TopicPartition] = set()
        consumer.assign(self._own)
        consumer.seek_to_beginning()

    def poll(self, timeout_ms: int, max_records: int) -> dict[TopicPartition, list[Any]]:
        """What all ranks have fetched; each fetches up to `max_records`."""
        records = self._consumer.poll(timeout_ms, max_records=max_records)
        positions = {tp: self._consumer.position(tp) for tp in self._own}
        ends = {tp: self._consumer.end(tp) for tp in self._own}
        polled: dict[TopicPartition, list[Any]] = {}
        for result in self._ranks.gather(PollResult(records, positions, ends)):
            polled |= result.records
            self._positions |= result.positions
            self._ends |= result.ends
        return polled

    def position(self, partition: TopicPartition) -> int:
        """The next offset."""
        return self._positions[partition]

    def end(self, partition: TopicPartition) -> int | None:
        """Where the log ended when it was last fetched."""
        return self._ends[partition]

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Go on from an offset."""
        self._positions[partition] = offset
        if partition in self._own:
            self._consumer.seek(partition, offset)

    def beginning_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """The first offsets that can be read."""
        own = [tp for tp in partitions if tp in self._own]
        parts = self._ranks.gather(self._consumer.beginning_offsets(own) if own else {})
        return {tp: offset for part in parts for tp, offset in part.items()}

    def pause(self, *partitions: TopicPartition) -> None:
        """Hand out nothing of these."""
        self._paused.update(partitions)
        self._consumer.pause(*(tp for tp in partitions if tp in self._own))

    def resume(self, *partitions: TopicPartition) -> None:
        """Hand out these again."""
        self._paused.difference_update(partitions)
        self._consumer.resume(*(tp for tp in partitions if tp in self._own))

    def paused(self) -> set[TopicPartition]:
        """What is paused."""
        return set(self._paused)

    def commit(self, offsets: dict[TopicPartition, Any], timeout_ms: int) -> None:
        """Tell those who watch the trainer's progress, of this rank's partitions."""
        own = {tp: offset for tp, offset in offsets.items() if tp in self._own}
        if own:
            self._consumer.commit(own, timeout_ms=timeout_ms)

    def close(self) -> None:
        """Leave the broker."""
        self._consumer.close()
