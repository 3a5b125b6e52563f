"""A trainer worker with everything around it in memory."""

import threading
from types import SimpleNamespace
from typing import Any

from kafka import TopicPartition
from kafka.errors import KafkaTimeoutError
from kafka.structs import OffsetAndMetadata

from contracts.config.settings import Settings
from contracts.kafka.bus import LARGEST_LETTER_BYTES
from contracts.kafka.consumers import LogReader
from contracts.messages.placement import key_of
from contracts.runtime.clock import ManualClock
from contracts.wire.events_pb2 import Example
from tests.trainer.trainer_cases import START_MS, make_item
from trainer.checkpoint import Checkpoints
from trainer.distributed.ranks import ALONE, Ranks
from trainer.distributed.ranks_consumer import RanksConsumer
from trainer.engine import Engine
from trainer.meters import Meters
from trainer.worker import TrainerWorker

ITEMS = TopicPartition("driftline.items", 0)
EXAMPLES = [TopicPartition("driftline.examples", n) for n in range(2)]
EXPOSURES = [TopicPartition("driftline.exposures", n) for n in range(2)]


class MemoryLog(LogReader):
    """A consumer over records in memory that hands out at most `per_poll` records, from one partition at a time."""

    def __init__(self, per_poll: int, clock: ManualClock) -> None:
        self._per_poll = per_poll
        self.clock = clock
        self._records: dict[TopicPartition, list[tuple[bytes | None, int, bytes]]] = {
            tp: [] for tp in (ITEMS, *EXPOSURES, *EXAMPLES)
        }
        self._position = dict.fromkeys(self._records, 0)
        self._assigned = [*self._records]
        self._paused: set[TopicPartition] = set()
        self._hanging: TopicPartition | None = None
        self._turn = 0
        self.commits: list[dict[TopicPartition, OffsetAndMetadata]] = []
        self.first = 0
        self.away = False

    def append(
        self, partition: TopicPartition, value: bytes | None, logged_ms: int = START_MS, key: bytes = b"k"
    ) -> None:
        self._records[partition].append((value, logged_ms, key))

    def append_item(self, item_id: int, logged_ms: int = START_MS) -> None:
        self.append(ITEMS, make_item(item_id).SerializeToString(), logged_ms, key_of(item_id))

    def poll(self, timeout_ms: int, max_records: int) -> dict[TopicPartition, list[Any]]:
        partitions = self._assigned
        for _ in partitions:
            tp = partitions[self._turn % len(partitions)]
            self._turn += 1
            start = self._position[tp]
            values = self._records[tp][start : start + min(self._per_poll, max_records)]
            if values and tp not in self._paused and tp != self._hanging:
                self._position[tp] += len(values)
                return {tp: [_record(tp, start + i, *value) for i, value in enumerate(values)]}
        self.clock.advance(timeout_ms)
        return {}

    def assign(self, partitions: list[TopicPartition]) -> None:
        self._assigned = partitions

    def seek_to_beginning(self) -> None:
        self._position = dict.fromkeys(self._records, 0)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self._position[partition] = offset

    def beginning_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(partitions, self.first)

    def rewind(self) -> None:
        """Be read from the first records on, by someone new."""
        self._position = dict.fromkeys(self._records, 0)
        self._paused = set()

    def hang(self, partition: TopicPartition | None) -> None:
        """Let one partition's fetches come to nothing."""
        self._hanging = partition

    def position(self, partition: TopicPartition) -> int:
        return self._position[partition]

    def end(self, partition: TopicPartition) -> int:
        return len(self._records[partition])

    def pause(self, *partitions: TopicPartition) -> None:
        self._paused.update(partitions)

    def resume(self, *partitions: TopicPartition) -> None:
        self._paused.difference_update(partitions)

    def paused(self) -> set[TopicPartition]:
        return set(self._paused)

    def commit(self, offsets: dict[TopicPartition, OffsetAndMetadata], timeout_ms: int) -> None:
        if self.away:
            self.clock.advance(timeout_ms)
            raise KafkaTimeoutError
        self.commits.append(offsets)


def _record(tp: TopicPartition, offset: int, value: bytes | None, logged_ms: int, key: bytes) -> SimpleNamespace:
    return SimpleNamespace(
        topic=tp.topic, partition=tp.partition, offset=offset, key=key, value=value, timestamp=logged_ms, headers=()
    )


class Outbox:
    """A producer that keeps what it is given, unless its broker is away."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes]] = []
        self.away = False

    def send(self, topic: str, *, key: bytes, value: bytes, timestamp_ms: int) -> SimpleNamespace:
        away = self.away
        if not away:
            self.sent.append((topic, value))
        return SimpleNamespace(failed=lambda: away)

    def flush(self, timeout: float) -> None: ...


class Rig:
    """A worker with everything around it in memory."""

    def __init__(
        self,
        settings: Settings,
        per_poll: int = 50,
        log: MemoryLog | None = None,
        ranks: Ranks = ALONE,
        letter_bytes: int = LARGEST_LETTER_BYTES,
    ) -> None:
        self.settings = settings
        self.clock, self.stop = log.clock if log else ManualClock(START_MS), threading.Event()
        self.log = log or MemoryLog(per_poll, self.clock)
        self.outbox, self.meters = Outbox(), Meters()
        self.engine, self.checkpoints = Engine(settings, self.meters, ranks), Checkpoints(settings, ranks=ranks)
        consumer = self.log if ranks is ALONE else RanksConsumer(self.log, [ITEMS, *EXPOSURES, *EXAMPLES], ranks)
        stop = ranks.heard(self.stop)
        parts: Any = (
            consumer,
            self.outbox,
            self.engine,
            self.checkpoints,
            self.meters,
            self.clock,
            stop,
            ranks,
            letter_bytes,
        )
        self.worker = TrainerWorker(settings, *parts)

    def add_items(self, count: int) -> None:
        for item_id in range(1, count + 1):
            self.log.append_item(item_id)

    def add_examples(self, examples: list[Example]) -> None:
        for example in examples:
            self.log.append(EXAMPLES[example.user_id % 2], example.SerializeToString())

    def steps(self, count: int) -> None:
        for _ in range(count):
            self.worker.step()

    def value(self, name: str, **labels: str) -> float:
        return self.meters.registry.get_sample_value(name, labels) or 0.0

    def close(self) -> None:
        self.checkpoints.close()
