"""One user's behaviours in event-time order, cut into sessions by an inactivity gap. Pure.

Not here: where behaviours come from (`step`) and where they are stored (`feature_repo.store`).
"""

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field
from typing import NamedTuple


class Behaviour(NamedTuple):
    """What a user did with one shown item."""

    item_id: int
    time_ms: int
    play_time_ms: int
    effective_view: bool
    follow: bool


@dataclass
class UserHistory:
    """Behaviours oldest first, with the session index of each; `sessions` counts up from 0 per user."""

    behaviours: list[Behaviour] = field(default_factory=list)
    sessions: list[int] = field(default_factory=list)
    dropped: int = 0  # behaviours that the limit cut off at the old end
    next_offset: int = 0  # first feedback offset that is not in it

    def before(self, time_ms: int) -> int:
        """How many behaviours lie strictly before `time_ms`: the features as they were then."""
        return bisect_left(self.behaviours, time_ms, key=lambda behaviour: behaviour.time_ms)


def insert(history: UserHistory, behaviour: Behaviour, *, gap_ms: int, limit: int) -> int:
    """Put a behaviour at its place in event time and renumber the sessions from there on.

    Returns:
        How many sessions this began: 1 or 0, and -1 where a late behaviour joined two sessions into one.

    >>> history = UserHistory()
    >>> [insert(history, Behaviour(1, t, 0, True, False), gap_ms=10, limit=9) for t in (0, 20, 10)]
    [1, 1, -1]
    >>> history.sessions
    [0, 0, 0]

    """
    behaviours, sessions = history.behaviours, history.sessions
    last = sessions[-1] if sessions else -1
    at = bisect_right(behaviours, behaviour.time_ms, key=lambda known: known.time_ms)
    behaviours.insert(at, behaviour)
    sessions.insert(at, 0)
    for i in range(at, len(behaviours)):
        if i == 0:
            # The oldest keeps its number where the limit has cut; its predecessors cannot be asked any more.
            sessions[0] = sessions[1] if len(sessions) > 1 else 0
        else:
            apart = behaviours[i].time_ms - behaviours[i - 1].time_ms > gap_ms
            sessions[i] = sessions[i - 1] + apart
    began = sessions[-1] - last
    if len(behaviours) > limit:
        del behaviours[0], sessions[0]
        history.dropped += 1
    return began
