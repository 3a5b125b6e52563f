"""The benchmark's job in Bytewax, from Kafka or from memory.

Keyed by user from the decoding on, so that one exchange serves the join and the windows. `operators.join` keeps one
value a side and key, and cannot join five feedback events to one exposure; a `StatefulBatchLogic` does, which is what
its documentation offers below its ready-made operators. Sessions are its own `SessionWindower` and `collect_window`.

What is fast here: whole batches are decoded in one call (`flat_map_batch`), windows take values as they come
(`ordered=False`; the encoder sorts the few at hand), event time alone closes windows (a clock that stands still, and
no wake-ups, as the documentation has it for data of the past). No recovery store.

    python -m benchmarks.stream.peer_bytewax --bootstrap 127.0.0.1:9092 --prefix bench. --json
    python -m benchmarks.stream.peer_bytewax --memory --events 200000 --json
"""

import argparse
import gc
import sys
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from typing import Any, TypeAlias

import bytewax.operators as op
import bytewax.operators.windowing as win
from bytewax.connectors.kafka import KafkaSinkMessage, KafkaSource
from bytewax.connectors.kafka import operators as kop
from bytewax.dataflow import Dataflow, Stream
from bytewax.operators import KeyedStream, StatefulBatchLogic
from bytewax.testing import TestingSink, TestingSource, run_main

from benchmarks.stream import events as stream_events
from benchmarks.stream.peers import (
    GAP_MS,
    LATENESS_MS,
    Open,
    Result,
    Row,
    Sessions,
    Stopwatch,
    add_peer_arguments,
    encode_session,
    insert,
    output_topic,
    put_out,
    report,
    result_of,
    row_of,
    set_up,
    summed,
)
from contracts.config.settings import KafkaSettings
from contracts.kafka import bus
from contracts.wire.events_pb2 import Exposure, Feedback

# A request_id, and the items that it showed or what one of them led to.
Event: TypeAlias = tuple[str, frozenset[int] | tuple[str, int, int, int, bool, bool]]


class Join(StatefulBatchLogic[Event, Row, None]):  # type: ignore[misc]  # bytewax is not where mypy runs
    """One user's requests. Feedback that comes before its exposure waits for it."""

    def __init__(self) -> None:
        self._shown: dict[str, frozenset[int]] = {}
        self._waiting: dict[str, list[Row]] = {}

    def on_batch(self, values: list[Event]) -> tuple[Iterable[Row], bool]:
        """Feedback whose exposure is known."""
        joined: list[Row] = []
        for request_id, what in values:
            if isinstance(what, frozenset):
                self._shown[request_id] = what
                joined += [row for row in self._waiting.pop(request_id, ()) if row[1] in what]
            elif request_id not in self._shown:
                self._waiting.setdefault(request_id, []).append(what)
            elif what[1] in self._shown[request_id]:
                joined.append(what)
        return joined, StatefulBatchLogic.RETAIN

    def snapshot(self) -> None:
        """Nothing: there is no recovery store."""


class JoinAndCut(StatefulBatchLogic[Event, list[Row], None]):  # type: ignore[misc]  # as above
    """The join and the sessions in one state, by our own hand."""

    def __init__(self) -> None:
        self._join = Join()
        self._sessions: Open = []

    def on_batch(self, values: list[Event]) -> tuple[Iterable[list[Row]], bool]:
        """The sessions that have closed."""
        joined, _ = self._join.on_batch(values)
        closed = [session for row in joined for session in insert(self._sessions, row)]
        return closed, StatefulBatchLogic.RETAIN

    def on_eof(self) -> tuple[Iterable[list[Row]], bool]:
        """The sessions that are left."""
        return [rows for _, _, rows in self._sessions], StatefulBatchLogic.DISCARD

    def snapshot(self) -> None:
        """Nothing, as above."""


def _decode(topic: str, value: bytes) -> tuple[str, Event]:
    if topic == bus.EXPOSURES:
        exposure = Exposure.FromString(value)
        return str(exposure.user_id), (exposure.request_id, frozenset([item.item_id for item in exposure.items]))
    feedback = Feedback.FromString(value)
    return str(feedback.user_id), (feedback.request_id, row_of(feedback))


def _encode(session: tuple[str, list[Row]]) -> tuple[bytes, bytes]:
    user, rows = session
    return user.encode(), encode_session(rows)


def sessions_of(events: KeyedStream[Event], way: str) -> Stream[tuple[bytes, bytes]]:
    """Join, sessionise, encode."""
    if way == "stateful":
        return op.map("encode", op.stateful_batch("cut", events, lambda _: JoinAndCut()), _encode)
    joined = op.stateful_batch("join", events, lambda _: Join())
    standing_still = datetime(2000, 1, 1, tzinfo=UTC)
    clock = win.EventClock(
        ts_getter=lambda row: datetime.fromtimestamp(row[2] / 1000, UTC),
        wait_for_system_duration=timedelta(milliseconds=LATENESS_MS),
        now_getter=lambda: standing_still,
        to_system_utc=lambda _: None,
    )
    windower = win.SessionWindower(gap=timedelta(milliseconds=GAP_MS))
    windows = win.collect_window("sessions", joined, clock, windower, into=list, ordered=False)
    return op.map("encode", windows.down, lambda window: _encode((window[0], window[1][1])))


def from_kafka(settings: KafkaSettings, warmup: int, way: str, batch: int) -> tuple[Stopwatch, Sessions]:
    """Every record of both topics, up to where they end now; the sessions to a topic."""
    watch = Stopwatch(warmup)
    names = {settings.topic(name): name for name in (bus.EXPOSURES, bus.FEEDBACK)}
    output = output_topic(settings, "bytewax")

    def decoded(messages: list[Any]) -> list[tuple[str, Event]]:
        watch.count(len(messages))
        return [_decode(names[message.topic], message.value) for message in messages]

    flow = Dataflow("sessions")
    source = KafkaSource([settings.bootstrap_servers], list(names), tail=False, batch_size=batch)
    messages: Stream[Any] = op.input("kafka", flow, source)
    sessions = sessions_of(op.flat_map_batch("decode", messages, decoded), way)
    outgoing = op.map("message", sessions, lambda session: KafkaSinkMessage(*session))
    kop.output("out", outgoing, brokers=[settings.bootstrap_servers], topic=settings.topic(output))
    run_main(flow)
    watch.stop()
    return watch, put_out(settings, output)


def from_memory(load: stream_events.Load, warmup: int, way: str, batch: int) -> tuple[Stopwatch, Sessions]:
    """Records that are made before the clock starts, in log order; the sessions to a list."""
    watch = Stopwatch(warmup)
    events = [(record.topic, record.value) for record in stream_events.records(load)]
    gc.freeze()  # the input is the benchmark's: where the collector is on, it need not go through that again and again
    sink: list[tuple[bytes, bytes]] = []

    def decoded(batch: list[tuple[str, bytes]]) -> list[tuple[str, Event]]:
        watch.count(len(batch))
        return [_decode(topic, value) for topic, value in batch]

    flow = Dataflow("sessions")
    batches = op.input("memory", flow, TestingSource(events, batch_size=batch))
    sessions = sessions_of(op.flat_map_batch("decode", batches, decoded), way)
    op.output("out", sessions, TestingSink(sink))
    run_main(flow)
    watch.stop()
    return watch, summed(sink)


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    add_peer_arguments(parser)
    parser.add_argument("--memory", action="store_true", help="make the events in memory; no broker")
    parser.add_argument("--batch", type=int, default=10_000, help="records that its source hands over at once")
    stream_events.add_load_arguments(parser)
    arguments = parser.parse_args()
    load = stream_events.load_of(arguments)
    set_up(arguments)
    if arguments.memory:
        watch, sessions = from_memory(load, arguments.warmup, arguments.way, arguments.batch)
    else:
        settings = KafkaSettings(bootstrap_servers=arguments.bootstrap, topic_prefix=arguments.prefix)
        watch, sessions = from_kafka(settings, arguments.warmup, arguments.way, arguments.batch)
    source = "memory" if arguments.memory else "kafka"
    result: Result = result_of("bytewax", version("bytewax"), arguments.way, source, watch, sessions)
    sys.stdout.write(report(result, as_json=arguments.json) + "\n")


if __name__ == "__main__":
    _main()
