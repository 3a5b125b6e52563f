"""What comes of an event: what the steps put out, and whoever acts on it takes in. Pure."""

from typing import NamedTuple, TypeAlias

from contracts.messages.events import BadEvent
from contracts.wire.events_pb2 import Example, Forget
from stream.join import Origin


class Learned(NamedTuple):
    """An outcome was taken in. `example` where it made its item an effective view."""

    origin: Origin
    user_id: int
    example: Example | None
    folded: bool  # into an outcome that was known already
    sessions_begun: int
    dropped: int  # behaviours that the history limit cut off
    views: int = 0  # of an exposure that was served only: 1 where nothing had told of its item before
    effective_views: int = 0  # of such an exposure: 1 where there is an example


class Impressed(NamedTuple):
    """An impression was taken in."""

    origin: Origin
    user_id: int
    changed: bool  # whether it told of an item that was not known, or of an earlier time
    not_served: int  # items that it names and its exposure does not have
    sessions_begun: int
    dropped: int
    views: int = 0  # of an exposure that was served only: items that nothing had told of before


class Remembered(NamedTuple):
    """An exposure was accepted; feedback can join it."""

    origin: Origin


class Duplicate(NamedTuple):
    """An event that was seen before; dropped."""

    origin: Origin


class Rejected(NamedTuple):
    """An event that goes to the dead-letter topic."""

    origin: Origin
    error: BadEvent


class Dropped(NamedTuple):
    """An event of a user who has been forgotten since; it has no effect and is kept nowhere."""

    origin: Origin


class Forgotten(NamedTuple):
    """A user was forgotten."""

    origin: Origin
    event_id: str
    user_id: int
    time_ms: int  # event time that the partition has come to
    forget: Forget


class Closed(NamedTuple):
    """A user has been idle for so long that nothing can join the last session any more."""

    user_id: int


class Expired(NamedTuple):
    """A user has been away for longer than users are kept."""

    user_id: int


Output: TypeAlias = Learned | Impressed | Remembered | Duplicate | Rejected | Dropped | Forgotten | Closed | Expired
