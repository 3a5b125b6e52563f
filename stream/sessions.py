"""One user's behaviours in event-time order, cut into sessions by an inactivity gap. Pure.

The columns of a `History` message hold them, so that a row, an example and the stored state are copies made at C speed.
Not here: where behaviours come from (`join`) and where they are stored (`partition`, `feature_repo.store`).
"""

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import TypeAlias

from contracts.messages.attribution import Outcome
from contracts.wire.events_pb2 import History

COLUMNS = ("item_ids", "times_ms", "play_times_ms", "effective_views", "follows", "sessions")


Behaviour: TypeAlias = Outcome  # what came of one shown item is what its user did, be it nothing


@dataclass(slots=True)
class UserSessions:
    """A user's behaviours, oldest first, with the session index of each; sessions count up from 0 per user."""

    history: History = field(default_factory=History)
    dropped: int = 0  # behaviours that the limit cut off at the old end
    next_offset: int = 0  # first feedback offset that is not in it
    row_us: int = 0  # event time of the user's row in Feast: moves with every change, so a row replaces older ones
    open: bool = False  # whether the last session may still grow

    @property
    def last_ms(self) -> int:
        """Event time of the newest behaviour; the user has one."""
        return self.history.times_ms[-1]

    @property
    def session_start(self) -> int:
        """Position of the first behaviour of the open session; the number of behaviours where none is open.

        >>> user = UserSessions()
        >>> _ = [insert(user, Behaviour(t, 1, 0, True, False), gap_ms=10, limit=9) for t in (0, 20, 25)]
        >>> user.session_start, close(user), user.session_start
        (1, None, 3)
        """
        sessions = self.history.sessions
        return bisect_left(sessions, sessions[-1]) if self.open and sessions else len(sessions)

    def before(self, time_ms: int) -> int:
        """How many behaviours lie strictly before `time_ms`: the features as they were then."""
        times = self.history.times_ms
        return len(times) if not times or times[-1] < time_ms else bisect_left(times, time_ms)


def insert(user: UserSessions, behaviour: Behaviour, *, gap_ms: int, limit: int) -> int:
    """Put a behaviour at its place in event time, open the last session, and keep the newest `limit` behaviours.

    Returns:
        How many sessions this began: 1 or 0, and -1 where a late behaviour joined two sessions into one.

    >>> user = UserSessions()
    >>> [insert(user, Behaviour(t, 1, 0, True, False), gap_ms=10, limit=9) for t in (0, 20, 10)]
    [1, 1, -1]
    >>> list(user.history.sessions)
    [0, 0, 0]

    """
    history = user.history
    last = history.sessions[-1] if history.sessions else -1
    newest_ms = history.times_ms[-1] if last >= 0 else -1
    if behaviour.time_ms > newest_ms or behaviour >= _behaviour(history, -1):
        apart = last < 0 or behaviour.time_ms - newest_ms > gap_ms
        _append(history, behaviour, last + apart)
    else:
        _rebuild(user, sorted([*_behaviours(history), behaviour]), gap_ms)
    began: int = history.sessions[-1] - last
    if len(history.times_ms) > limit:
        for name in COLUMNS:
            del getattr(history, name)[0]
        user.dropped += 1
    user.open = True
    _touch(user)
    return began


def replace(user: UserSessions, old: Behaviour, new: Behaviour, *, gap_ms: int) -> int:
    """Put `new` where `old` was; returns how many sessions this began, as `insert` does.

    Where the limit has cut `old` off already there is nothing to replace.
    """
    behaviours = _behaviours(user.history)
    if old not in behaviours:
        return 0
    behaviours.remove(old)
    last = user.history.sessions[-1]
    _rebuild(user, sorted([*behaviours, new]), gap_ms)
    _touch(user)
    began: int = user.history.sessions[-1] - last
    return began


def remove(user: UserSessions, behaviour: Behaviour, *, gap_ms: int) -> int:
    """Take a behaviour out, for another one that takes its place to be inserted; how many sessions this began: <= 0.

    Where the limit has cut it off already, and where it is all that a cut has left, nothing changes: the number of the
    oldest behaviour's session would be lost.

    >>> user = UserSessions()
    >>> _ = [insert(user, Behaviour(t, t, 0, False, False), gap_ms=10, limit=9) for t in (0, 20)]
    >>> remove(user, Behaviour(0, 0, 0, False, False), gap_ms=10), list(user.history.sessions)
    (-1, [0])
    """
    behaviours = _behaviours(user.history)
    if behaviour not in behaviours or (user.dropped and len(behaviours) == 1):
        return 0
    last = user.history.sessions[-1]
    behaviours.remove(behaviour)
    if not behaviours:
        user.history.Clear()
        return -1
    _rebuild(user, behaviours, gap_ms)
    began: int = user.history.sessions[-1] - last
    return began


def close(user: UserSessions) -> None:
    """End the open session: nothing that is in time can join it any more."""
    user.open = False
    _touch(user)


def _touch(user: UserSessions) -> None:
    user.row_us = max(user.row_us + 1, user.history.times_ms[-1] * 1000)


def _behaviour(history: History, at: int) -> Behaviour:
    return Behaviour(
        history.times_ms[at],
        history.item_ids[at],
        history.play_times_ms[at],
        history.effective_views[at],
        history.follows[at],
    )


def _behaviours(history: History) -> list[Behaviour]:
    columns = (
        history.times_ms,
        history.item_ids,
        history.play_times_ms,
        history.effective_views,
        history.follows,
    )
    return list(map(Behaviour, *columns))


def _append(history: History, behaviour: Behaviour, session: int) -> None:
    history.times_ms.append(behaviour.time_ms)
    history.item_ids.append(behaviour.item_id)
    history.play_times_ms.append(behaviour.play_time_ms)
    history.effective_views.append(behaviour.effective_view)
    history.follows.append(behaviour.follow)
    history.sessions.append(session)


def _rebuild(user: UserSessions, behaviours: list[Behaviour], gap_ms: int) -> None:
    # Where the limit has cut, the oldest keeps its number: its predecessors cannot be asked any more.
    session = user.history.sessions[0] if user.dropped else 0
    user.history.Clear()
    before_ms = behaviours[0].time_ms
    for behaviour in behaviours:
        session += behaviour.time_ms - before_ms > gap_ms
        before_ms = behaviour.time_ms
        _append(user.history, behaviour, session)
