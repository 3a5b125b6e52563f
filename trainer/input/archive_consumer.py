"""The archive read as if it were the `examples` topic: records with offsets, their features from Feast.

A backfill is the trainer's own work on this consumer instead of the broker's: one way to learn, to checkpoint and to
hand over. Items still come from the broker.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from kafka import TopicPartition

from contracts.config.settings import Settings, SettingsError
from contracts.kafka.consumers import Consumer, LogReader
from contracts.messages.events import SCHEMA_VERSION
from contracts.wire.events_pb2 import Example, History
from feature_repo.offline import Piece, directory, examples_directory, parse
from feature_repo.store import HistoricalSequences, UserRow

CHUNK = 5_000  # examples that Feast is asked about at once: each time it reads the whole offline store
BEFORE_MS = 1  # features are asked for as of so long before an example: see `stream.archive`


@dataclass(frozen=True)
class Record:
    """An archived example as a consumer hands it out."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    value: bytes
    key: bytes = b""
    headers: tuple[tuple[str, bytes], ...] = ()


class Shelf:
    """The archived examples of one partition, in the order of offsets."""

    def __init__(self, home: Path, pieces: Iterable[Piece], start_ms: int | None, end_ms: int | None) -> None:
        """Find where to begin and to end.

        Args:
            home: directory of the files.
            pieces: the files of this partition.
            start_ms: event time; the first example at or after it is where reading begins.
            end_ms: the first example at or after it is where the stream takes over.

        Raises:
            SettingsError: a file between others is missing.

        """
        self._home = home
        self._pieces = sorted(pieces, key=lambda piece: piece.start)
        for before, after in zip(self._pieces, self._pieces[1:], strict=False):
            if before.end != after.start:
                raise SettingsError(f"{home} lacks what comes between {before.name} and {after.name}.")
        first, last = (self._pieces[0].start, self._pieces[-1].end) if self._pieces else (0, 0)
        self.start = first if start_ms is None else self._at(start_ms, last)
        self.end = last if end_ms is None else max(self.start, self._at(end_ms, last))
        self.position = self.start

    def read(self, count: int) -> pa.Table:
        """Up to `count` of the next examples, none at the end; the position follows."""
        tables, missing = [], count
        for piece in self._pieces:
            if missing <= 0 or piece.end <= self.position or piece.start >= self.end:
                continue
            table = pq.read_table(self._home / piece.name)
            offsets = table["offset"].to_numpy()
            table = table.filter((offsets >= self.position) & (offsets < self.end)).slice(0, missing)
            missing -= len(table)
            tables.append(table)
            self.position = min(piece.end, self.end) if missing else int(table["offset"][-1].as_py()) + 1
        return pa.concat_tables(tables) if tables else pa.table({})

    def _at(self, time_ms: int, last: int) -> int:
        """The first offset whose example is of this event time or later."""
        for piece in self._pieces:
            table = pq.read_table(self._home / piece.name, columns=["offset", "time_ms"])
            late = table["offset"].to_numpy()[table["time_ms"].to_numpy() >= time_ms]
            if late.size:
                return int(late[0])
        return last


class ArchivedExamples(LogReader):
    """A consumer of items from the broker and of examples from the archive."""

    def __init__(
        self,
        settings: Settings,
        items: Consumer,
        start_ms: int | None,
        end_ms: int | None,
        *,
        with_features: bool = True,
    ) -> None:
        """Look at the files.

        Args:
            settings: of the trainer.
            items: a consumer of items alone.
            start_ms: see `Shelf`.
            end_ms: see `Shelf`.
            with_features: whether examples come with their features; else `histories` has them.

        Raises:
            SettingsError: there are none, some are missing, or the feature repository was not applied.

        """
        self._topic = settings.kafka.topic("examples")
        self._items = items
        self._features = HistoricalSequences(settings.feature_repo)
        self._with_features = with_features
        home = examples_directory(settings.feature_repo)
        rows = directory(settings.feature_repo)  # whose listing is the archive's state
        pieces = [piece for path in sorted(rows.glob("*.parquet")) if (piece := parse(path.name))]
        if not pieces:
            raise SettingsError(f"Nothing is archived in {rows}; `driftline archive` does that.")
        for piece in pieces:
            if not (home / piece.name).exists():
                raise SettingsError(f"{home} lacks {piece.name}, though its features are there.")
        self.shelves = {
            TopicPartition(self._topic, number): Shelf(
                home, [piece for piece in pieces if piece.partition == number], start_ms, end_ms
            )
            for number in range(settings.kafka.partitions)
        }
        self._paused: set[TopicPartition] = set()

    @property
    def left(self) -> int:
        """Offsets that are still to be read."""
        return sum(shelf.end - shelf.position for shelf in self.shelves.values())

    def poll(self, timeout_ms: int, max_records: int) -> dict[TopicPartition, list[Any]]:
        """A chunk of every partition that is not paused, and what items there are. `max_records` is for items."""
        running = {tp: shelf for tp, shelf in self.shelves.items() if tp not in self._paused}
        tables = {tp: shelf.read(CHUNK // len(running)) for tp, shelf in running.items()}
        polled = self._records({tp: table for tp, table in tables.items() if len(table)})
        polled |= self._items.poll(0 if polled else timeout_ms, max_records=max_records)
        return polled

    def position(self, partition: TopicPartition) -> int:
        """The next offset."""
        shelf = self.shelves.get(partition)
        return shelf.position if shelf else self._items.position(partition)

    def end(self, partition: TopicPartition) -> int | None:
        """The offset at which the stream takes over."""
        shelf = self.shelves.get(partition)
        return shelf.end if shelf else self._items.end(partition)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Go on from an offset."""
        if shelf := self.shelves.get(partition):
            shelf.position = max(offset, shelf.start)
        else:
            self._items.seek(partition, offset)

    def beginning_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """The first offsets that can be read."""
        wanted = [*partitions]
        here = {tp: self.shelves[tp].start for tp in wanted if tp in self.shelves}
        rest = [tp for tp in wanted if tp not in here]
        return here | (self._items.beginning_offsets(rest) if rest else {})

    def pause(self, *partitions: TopicPartition) -> None:
        """Hand out nothing of these."""
        self._paused.update(partitions)
        self._items.pause(*(tp for tp in partitions if tp not in self.shelves))

    def resume(self, *partitions: TopicPartition) -> None:
        """Hand out these again."""
        self._paused.difference_update(partitions)
        self._items.resume(*(tp for tp in partitions if tp not in self.shelves))

    def paused(self) -> set[TopicPartition]:
        """What is paused."""
        return set(self._paused)

    def commit(self, offsets: dict[TopicPartition, Any], timeout_ms: int) -> None:
        """Tell those who watch the trainer's progress."""
        self._items.commit(offsets, timeout_ms=timeout_ms)

    def histories(self, examples: Sequence[Example]) -> list[History | None]:
        """What the users of these examples had done just before each; None for one who had done nothing."""
        users, times_ms = [e.user_id for e in examples], [e.time_ms - BEFORE_MS for e in examples]
        found: list[History | None] = []
        for at in range(0, len(users), CHUNK):
            found += map(_history, self._features.read(users[at : at + CHUNK], times_ms[at : at + CHUNK]))
        return found

    def _records(self, tables: Mapping[TopicPartition, pa.Table]) -> dict[TopicPartition, list[Any]]:
        rows = {tp: table.to_pylist() for tp, table in tables.items()}
        examples = {tp: [_example(row) for row in of_partition] for tp, of_partition in rows.items()}
        flat = [example for of_partition in examples.values() for example in of_partition]
        if self._with_features:
            for example, history in zip(flat, self.histories(flat), strict=True):
                if history is not None:
                    example.history.CopyFrom(history)
        return {
            tp: [
                Record(self._topic, tp.partition, row["offset"], row["logged_ms"], example.SerializeToString())
                for row, example in zip(of_partition, examples[tp], strict=True)
            ]
            for tp, of_partition in rows.items()
        }


def _example(row: dict[str, Any]) -> Example:
    """The example as the stream sent it, but for the features."""
    label = {name: value for name, value in row.items() if name not in ("offset", "logged_ms")}
    return Example(schema_version=SCHEMA_VERSION, **label)


def _history(features: UserRow | None) -> History | None:
    if features is None:
        return None
    return History(
        item_ids=features.item_ids,
        times_ms=features.times_ms,
        play_times_ms=features.play_times_ms,
        effective_views=map(bool, features.effective_views),
        follows=map(bool, features.follows),
        sessions=features.sessions,
    )
