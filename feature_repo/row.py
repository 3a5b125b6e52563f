"""One user's row: what the rooms hand over and get back, and what its features are called. Needs no Feast."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from contracts.features import Ints
from contracts.wire.events_pb2 import History

VIEW = "user_sequence"
CONFIG = "feature_store.yaml"
SEQUENCES = ("item_ids", "times_ms", "play_times_ms", "effective_views", "follows", "sessions")
VERSION = "written_us"
NUMBERS = ("session_start", "last_event_ms", "feedback_offset", VERSION)


class FeaturesUnavailable(Exception):
    """The online store did not answer, or not with rows; one sentence says why. Asking again later may help."""


@dataclass(frozen=True)
class UserRow:
    """One user's features. The six sequences (m,) run in parallel, oldest behaviour first."""

    user_id: int
    item_ids: Sequence[int] | Ints
    times_ms: Sequence[int] | Ints
    play_times_ms: Sequence[int] | Ints
    effective_views: Sequence[int] | Ints
    follows: Sequence[int] | Ints
    sessions: Sequence[int] | Ints
    last_event_ms: int
    feedback_offset: int
    session_start: int = 0  # position of the first behaviour of the open session; m where none is open
    # Version of the row and its event time in Feast; 0: that of `last_event_ms`. A late event does not move
    # `last_event_ms`, but it makes a newer row.
    written_us: int = field(default=0, compare=False)

    @classmethod
    def of(
        cls,
        user_id: int,
        history: History,
        *,
        session_start: int,
        last_event_ms: int,
        feedback_offset: int,
        written_us: int,
    ) -> "UserRow":
        """The row of a history, which is not copied: write the row before the history changes."""
        return cls(
            user_id,
            history.item_ids,
            history.times_ms,
            history.play_times_ms,
            bytes(history.effective_views),  # a sequence of 0 and 1, which protobuf takes as numbers
            bytes(history.follows),
            history.sessions,
            last_event_ms=last_event_ms,
            feedback_offset=feedback_offset,
            session_start=session_start,
            written_us=written_us,
        )
