"""Requests to forget a user: what they are, and what is remembered of them for a while. Pure; see docs/forget.md.

A request is a `Feedback` with `forget`, so it lies in the user's own log. What was read before it of the user is
dropped where it is read. Exposures lie in another log, which may be read later, so the request says where that log
ended when it was made; and feedback on a page that was shown before it may still come. Until nothing more can come, a
`Mark` tells such events from those of a user who has come back, and has no more of the user's id than a salted hash.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import NamedTuple

from contracts.messages.bad_event import BadEvent, Reason
from contracts.wire.events_pb2 import Example, Feedback

HASH_BYTES = 16
SALT_BYTES = 16


class Mark(NamedTuple):
    """Of a forgotten user, without the id."""

    exposures_end: int  # exposures before this offset have no effect
    until_ms: int  # event time from which on nothing more can come of what was shown before, as far as that was read
    partition: int = -1  # of these exposures, where marks of several partitions lie together; below 0: not known


@dataclass
class Marks:
    """Who was forgotten of late.

    >>> marks = Marks()
    >>> marks.add(7, Mark(exposures_end=10, until_ms=500), b"salt")
    >>> marks.get(7), marks.get(8)
    (Mark(exposures_end=10, until_ms=500, partition=-1), None)
    >>> marks.expire(500), marks.expire(501, lambda mark: False), marks.expire(501), marks.get(7)
    (False, False, True, None)
    """

    salt: bytes = b""  # of the first request that came
    by_hash: dict[bytes, Mark] = field(default_factory=dict)

    def add(self, user_id: int, mark: Mark, salt: bytes) -> None:
        """Take a request in; of two for one user the later end of each counts."""
        self.salt = self.salt or salt[:SALT_BYTES]
        name = self._hash(user_id)
        known = self.by_hash.get(name, mark)
        self.by_hash[name] = Mark(*map(max, known, mark))

    def get(self, user_id: int) -> Mark | None:
        """The mark of a user; None for one who was not forgotten, or so long ago that nothing more can come."""
        return self.by_hash.get(self._hash(user_id)) if self.by_hash else None

    def extend(self, user_id: int, until_ms: int) -> bool:
        """Keep a user's mark until then at least, as something shown before the request was read; whether it changed.

        What was read when the request came may be far older: in a catch-up one log is read ahead of the other.
        """
        mark = self.get(user_id)
        if mark is None or mark.until_ms >= until_ms:
            return False
        self.by_hash[self._hash(user_id)] = mark._replace(until_ms=until_ms)
        return True

    def expire(self, before_ms: int, is_read: Callable[[Mark], bool] = lambda _: True) -> bool:
        """Drop the marks that event time has passed; whether there were any.

        `is_read`: whether all exposures before a mark's `exposures_end` have been read; until then it stays.
        """
        gone = [name for name, mark in self.by_hash.items() if mark.until_ms < before_ms and is_read(mark)]
        for name in gone:
            del self.by_hash[name]
        return bool(gone)

    def union(self, other: "Marks") -> "Marks":
        """Those of both. Of other hashes than this one's, where both have any, those of the other are left out."""
        both = Marks(self.salt or other.salt)
        for each in (self, other):
            if each.salt == both.salt:
                both.by_hash.update(each.by_hash)
        return both

    def entries(self) -> Iterator[tuple[bytes, Mark]]:
        """Hash and mark of each."""
        yield from self.by_hash.items()

    def _hash(self, user_id: int) -> bytes:
        return blake2b(user_id.to_bytes(8, "big", signed=True), digest_size=HASH_BYTES, salt=self.salt).digest()


def is_forget(event: Feedback | Example) -> bool:
    """Whether it is a request to forget its user and nothing else."""
    return event.HasField("forget")


def require_forget(feedback: Feedback) -> None:
    """See that a request to forget is nothing else besides.

    Raises:
        BadEvent: it is, or it names no place.

    """
    fields = ("item_id", "play_time_ms", "effective_view", "follow")
    told = [name for name in fields if feedback.HasField(name)]
    told += [name for name in ("request_id", "shown_item_ids") if getattr(feedback, name)]
    if told:
        raise BadEvent(Reason.MIXED, f"forget makes it a request to forget the user, which has no {told[0]}")
    if feedback.forget.exposures_end < 0:
        raise BadEvent(Reason.OUT_OF_RANGE, f"forget.exposures_end is {feedback.forget.exposures_end}, below 0")
