"""From the topic `rows` to Feast: what a job on Flink makes of users reaches the store by this process.

Feast and PyFlink cannot share an environment. The topic is read as committed, so a row is written once the checkpoint
that it belongs to has succeeded. Writing is idempotent: both stores refuse a row that is not newer than theirs, and the
group's offset is committed after the rows are in the store. One process writes the rows of all partitions.
"""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import structlog
from kafka import TopicPartition
from kafka.structs import OffsetAndMetadata

from contracts.config.settings import KafkaSettings, Settings, SettingsError
from contracts.kafka import bus, consumers
from contracts.runtime.worker import announce, configure_logs, stop_on_signal
from contracts.wire.stream_state_pb2 import UserState
from feature_repo.store import UserRow, UserSequences
from stream.deliver import row_of
from stream.kept import user_of

log = structlog.get_logger()
GROUP = "rows"
BATCH = 2000
POLL_MS = 100
FETCH_WAIT_MS = 20


class RowWriter:
    """Reads the topic from where the group has come to, and writes."""

    def __init__(self, kafka: KafkaSettings, features: UserSequences) -> None:
        """Begin where the last one has ended.

        Raises:
            SettingsError: no broker answers, or the topic is not there.

        """
        self._features = features
        self._client = consumers.consumer(kafka, [], kafka.topic_prefix + GROUP, wait_ms=FETCH_WAIT_MS)
        places = bus.partitions_of(kafka, [bus.ROWS])
        if kafka.topic(bus.ROWS) not in self._client.topics():
            self._client.close()
            raise SettingsError(
                f"{kafka.bootstrap_servers} has no topic {kafka.topic(bus.ROWS)}; `driftline flink submit` creates it."
            )
        self._client.assign(places)
        for place in places:
            self._client.seek(place, self._client.committed(place) or 0)

    def step(self) -> int:
        """Write what there is, and commit; how many records that was."""
        polled = self._client.poll(POLL_MS, max_records=BATCH)
        records = [record for found in polled.values() for record in found]
        if records:
            self._write(records)
            ends = {where: found[-1].offset + 1 for where, found in polled.items() if found}
            self._client.commit({where: OffsetAndMetadata(end, "", -1) for where, end in ends.items()})
        return len(records)

    def at_end(self, places: Sequence[TopicPartition]) -> bool:
        """Whether the broker had no more of these when it was last asked."""
        return all(self._client.at_end(place) for place in places)

    def close(self) -> None:
        """Let go of the broker and the store."""
        self._client.close()
        self._features.close()

    def _write(self, records: Sequence[Any]) -> None:
        newest: dict[int, UserRow | None] = {}  # a user's records lie in one partition, so in order
        gone: dict[int, None] = {}
        for record in records:
            user_id = int(record.key)
            if record.value is None:
                gone[user_id] = newest[user_id] = None
            else:
                newest[user_id] = row_of(user_id, user_of(UserState.FromString(record.value)))
        if gone:
            self._features.forget(list(gone), erase=True)
        self._features.write([row for row in newest.values() if row is not None])


def run(settings: Settings, ready_file: Path | None) -> None:
    """Write rows until a signal stops it."""
    configure_logs()
    stop: threading.Event = stop_on_signal(settings.stop_within_s)
    writer = RowWriter(settings.kafka, UserSequences(settings.feature_repo))
    log.info("row writer ready")
    announce(ready_file, {})
    while not stop.is_set():
        writer.step()
    writer.close()
    log.info("row writer stopped")
