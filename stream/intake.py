"""In what order a partition's records are stepped through, and how many wait in memory. Pure.

Exposures and feedback of one partition number are two logs. They are merged by record timestamp, exposures first where
two are equal, as Kafka Streams does it (KIP-353, KIP-695): while one log has nothing waiting here, the other goes on
only if the broker has nothing of it either. Where both logs are written, the order is theirs alone, not that of polls.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

SILENT_AFTER_S = 5.0  # while a log that was read to its end is silent for longer, its event time goes on by the clock

Record = Any  # a record as the client fetched it; kafka-python has no types


@dataclass(slots=True)
class Waiting:
    """Records of one log that have been fetched and not been stepped through; oldest first."""

    end: int  # offset after the last one fetched
    heard_s: float  # when the last one came, on the worker's clock
    records: deque[Record] = field(default_factory=deque)
    size_bytes: int = 0

    def add(self, records: Sequence[Record], now_s: float) -> None:
        """Append what was fetched, but for what was fetched before."""
        fresh = [record for record in records if record.offset >= self.end]
        if fresh:
            self.records.extend(fresh)
            self.size_bytes += sum(map(_size, fresh))
            self.end = fresh[-1].offset + 1
            self.heard_s = now_s

    def pop(self) -> Record:
        """Take the oldest."""
        record = self.records.popleft()
        self.size_bytes -= _size(record)
        return record

    def full(self, max_records: int, max_bytes: int) -> bool:
        """Whether fetching should pause: a slow sink must not fill the memory."""
        return len(self.records) >= max_records or self.size_bytes >= max_bytes


def merged(
    exposures: Waiting, feedback: Waiting, *, exposures_end: bool, feedback_end: bool, limit: int
) -> list[Record]:
    """Take the next records, in order, up to `limit`.

    `exposures_end`, `feedback_end`: the broker has no more of that log than what waits here.

    >>> from types import SimpleNamespace
    >>> def log(name, *times):
    ...     records = (SimpleNamespace(name=name, timestamp=t, key=b"", value=b"") for t in times)
    ...     return Waiting(0, 0.0, deque(records))
    >>> def names(**ends):
    ...     return [f"{r.name}{r.timestamp}" for r in merged(e, f, **ends, limit=9)]
    >>> e, f = log("e", 1, 3), log("f", 1, 2, 9)
    >>> names(exposures_end=False, feedback_end=True)
    ['e1', 'f1', 'f2', 'e3']
    >>> names(exposures_end=True, feedback_end=True)
    ['f9']
    """
    taken: list[Record] = []
    while len(taken) < limit:
        if exposures.records and feedback.records:
            first = exposures if exposures.records[0].timestamp <= feedback.records[0].timestamp else feedback
        elif exposures.records and feedback_end:
            first = exposures
        elif feedback.records and exposures_end:
            first = feedback
        else:
            break
        taken.append(first.pop())
    return taken


def _size(record: Record) -> int:
    return len(record.value or b"") + len(record.key or b"")
