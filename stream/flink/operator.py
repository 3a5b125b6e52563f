"""The function that Flink runs: one `Partition` for each key, and a timer that ticks. It needs PyFlink."""

from collections.abc import Iterator
from typing import Any

from pyflink.common import Types
from pyflink.datastream import KeyedProcessFunction, RuntimeContext
from pyflink.datastream.state import MapStateDescriptor

from contracts.config.settings import Settings, parse
from contracts.kafka import bus
from contracts.kafka.batches import ReadCounts
from contracts.runtime.clock import SystemClock
from contracts.runtime.cycles import look_seldom
from stream.catalogue import KnownItems
from stream.flink.ends import LogEnds
from stream.flink.partition import Partition
from stream.flink.state import Tables
from stream.metrics import StreamMetrics

STEP_RECORDS = 256  # at hand of both logs: then they are stepped through without waiting for the next tick


class StreamFunction(KeyedProcessFunction):  # type: ignore[misc]  # PyFlink has an environment of its own
    """Kafka records of exposures and feedback in, records for the stream's topics out."""

    def __init__(self, settings: dict[str, Any], keys: list[int], tick_ms: int) -> None:
        """`settings`: as `Settings` are read. `keys`: the key that stands for each partition."""
        self._plain = settings
        self._partition_of = {key: partition for partition, key in enumerate(keys)}
        self._tick_ms = tick_ms

    def open(self, runtime_context: RuntimeContext) -> None:
        """Begin with empty hands: what was in memory is read from the state of each key as it comes."""
        look_seldom()  # this process has nothing but these steps
        settings: Settings = parse(self._plain)
        self._settings = settings
        as_bytes = Types.PRIMITIVE_ARRAY(Types.BYTE())
        self._tables = Tables(
            *(runtime_context.get_map_state(MapStateDescriptor(name, as_bytes, as_bytes)) for name in Tables._fields)
        )
        self._clock = SystemClock()
        self._metrics = StreamMetrics()
        self._catalogue = KnownItems(settings.kafka, settings.stream.max_event_bytes, ReadCounts())
        self._catalogue.read()
        self._ends = LogEnds(settings.kafka, self._clock)
        self._largest_letter_bytes = bus.largest_letter_bytes(settings.kafka)
        self._partitions: dict[int, Partition] = {}

    def close(self) -> None:
        """Let go of the broker."""
        self._ends.close()

    def process_element(self, value: bytes, ctx: Any) -> Iterator[bytes]:
        """A record has come."""
        partition = self._of(ctx)
        partition.take(value)
        if partition.waiting >= STEP_RECORDS:
            yield from partition.step()

    def on_timer(self, timestamp: int, ctx: Any) -> Iterator[bytes]:  # noqa: ARG002  (Flink's signature)
        """A moment has passed."""
        yield from self._of(ctx).tick()
        self._tick(ctx)

    def _of(self, ctx: Any) -> Partition:
        key = ctx.get_current_key()
        found = self._partitions.get(key)
        if found is None:
            found = self._partitions[key] = Partition(
                self._settings,
                self._partition_of[key],
                self._tables,
                self._catalogue,
                self._ends,
                self._clock,
                self._metrics,
                self._largest_letter_bytes,
            )
            self._tick(ctx)
        return found

    def _tick(self, ctx: Any) -> None:
        """Have the next moment come; at round times, so that a timer from before a restart makes no second row."""
        timers = ctx.timer_service()
        timers.register_processing_time_timer((timers.current_processing_time() // self._tick_ms + 1) * self._tick_ms)
