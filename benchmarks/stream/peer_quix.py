"""The benchmark's job in Quix Streams, from Kafka: it reads nothing else (its own sources write to Kafka first).

Exposures and feedback are concatenated, which makes it read both topics in the order of their timestamps, so feedback
never comes before its exposure. Its joins go by key and time, and the key is the user: neither can ask for the
request. So the join is a stateful function over the user's state, under the request's name, as its documentation does
whatever has no operator. Sessions are its own `session_window` with `Collect`, which keeps each value under a key of
its own, closed by key: closing by partition looks at every user's windows whenever one is due.

What is fast here: buffers of 100,000 records (with the default of 10,000 it pauses one topic, waits for the other and
stands still most of the time), state on a memory file system, no changelog topics, no compression, no fsync; protobuf
decoded by a deserializer of ours, instead of its own, which makes dictionaries. `--commit-s` is its `commit_interval`:
between commits it works on a dictionary before RocksDB, so the longer the faster, for memory and for work to repeat.

    python -m benchmarks.stream.peer_quix --bootstrap 127.0.0.1:9092 --prefix bench. --events 200000 --json
"""

import argparse
import sys
import tempfile
import uuid
from collections.abc import Iterable
from importlib.metadata import version
from typing import Any

from quixstreams import Application, State
from quixstreams.dataframe.windows.aggregations import Collect
from quixstreams.models import Deserializer, SerializationContext
from quixstreams.state.rocksdb import RocksDBOptions

from benchmarks.stream.peers import (
    GAP_MS,
    LATENESS_MS,
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
)
from contracts.config.settings import KafkaSettings
from contracts.kafka import bus
from contracts.wire.events_pb2 import Exposure, Feedback

BUFFER = 100_000  # records of a partition
IDLE_S = 3.0  # without a record: the run has ended


class Decode(Deserializer):  # type: ignore[misc]  # quixstreams is not where mypy runs
    """Bytes to a message."""

    def __init__(self, kind: type[Exposure | Feedback]) -> None:
        super().__init__()
        self._parse = kind.FromString

    def __call__(self, value: bytes, ctx: SerializationContext) -> Exposure | Feedback:  # noqa: ARG002
        """The message that `value` holds."""
        return self._parse(value)


def event_time(value: Exposure | Feedback, *_: Any) -> int:
    """When it happened."""
    return value.time_ms


def run(settings: KafkaSettings, events: int, warmup: int, *, way: str, commit_s: float) -> tuple[Stopwatch, Sessions]:
    """The first `events` records of both topics; the sessions that they close to a topic."""
    watch = Stopwatch(warmup)
    output = output_topic(settings, "quix")

    def joined(value: Exposure | Feedback, state: State) -> Iterable[Row]:
        watch.count(1)
        if watch.seen == events:
            watch.stop()
        if isinstance(value, Exposure):
            state.set(value.request_id, [item.item_id for item in value.items])
            return ()
        shown = state.get(value.request_id)
        return (row_of(value),) if shown and value.item_id in shown else ()

    def cut(row: Row, state: State) -> Iterable[bytes]:
        sessions = state.get("sessions", [])
        closed = insert(sessions, row)
        state.set("sessions", sessions)
        return [encode_session(rows) for rows in closed]

    with tempfile.TemporaryDirectory(dir="/dev/shm") as state_dir:
        app = Application(
            settings.bootstrap_servers,
            consumer_group=f"bench-{uuid.uuid4().hex}",
            auto_offset_reset="earliest",
            commit_interval=commit_s,
            state_dir=state_dir,
            rocksdb_options=RocksDBOptions(compression_type="none", use_fsync=False),
            use_changelog_topics=False,
            max_partition_buffer_size=BUFFER,
            loglevel="ERROR",
        )
        exposures, feedback = (
            app.dataframe(
                app.topic(
                    settings.topic(name),
                    key_deserializer="bytes",
                    value_deserializer=Decode(kind),
                    timestamp_extractor=event_time,
                )
            )
            for name, kind in ((bus.EXPOSURES, Exposure), (bus.FEEDBACK, Feedback))
        )
        rows = exposures.concat(feedback).apply(joined, stateful=True, expand=True)
        if way == "stateful":
            sessions = rows.apply(cut, stateful=True, expand=True)
        else:
            windows = rows.session_window(GAP_MS, grace_ms=LATENESS_MS).agg(rows=Collect())
            sessions = windows.final(closing_strategy="key").apply(lambda window: encode_session(window["rows"]))
        sessions.to_topic(app.topic(settings.topic(output), key_serializer="bytes", value_serializer="bytes"))
        app.run(timeout=IDLE_S, collect=False)
    if watch.seen != events:
        raise ValueError(f"{watch.seen} events came, not {events}")
    return watch, put_out(settings, output)


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    add_peer_arguments(parser)
    parser.add_argument("--events", type=int, required=True, help="how many records the two topics hold")
    parser.add_argument("--commit-s", type=float, default=5.0, help="its commit_interval")
    arguments = parser.parse_args()
    set_up(arguments)
    settings = KafkaSettings(bootstrap_servers=arguments.bootstrap, topic_prefix=arguments.prefix)
    watch, sessions = run(settings, arguments.events, arguments.warmup, way=arguments.way, commit_s=arguments.commit_s)
    result = result_of("quixstreams", version("quixstreams"), arguments.way, "kafka", watch, sessions)
    sys.stdout.write(report(result, as_json=arguments.json) + "\n")


if __name__ == "__main__":
    _main()
