"""What the steps remember, as they see it, and the plain form of it. The durable form is `partition.PartitionStore`."""

import heapq
from collections.abc import Iterator, Sequence
from typing import Protocol

from contracts.messages.forget import Marks
from stream.join import OpenRequest
from stream.sessions import UserSessions


class JoinState(Protocol):
    """One partition's memory.

    A timer says when to look at a request or a user again, in event time. It fires once, and may fire early or for
    something that is gone: whoever is woken looks for himself, and sets another one if he has to.
    """

    newest_exposure_ms: int
    newest_feedback_ms: int

    def request(self, request_id: str) -> OpenRequest | None: ...
    def put_request(self, request_id: str, request: OpenRequest) -> None: ...
    def drop_request(self, request_id: str) -> None: ...
    def wake_request(self, request_id: str, at_ms: int) -> None: ...
    def requests_due(self, before_ms: int) -> Iterator[str]: ...

    def user(self, user_id: int) -> UserSessions | None: ...
    def put_user(self, user_id: int, user: UserSessions) -> None: ...
    def wake_user(self, user_id: int, at_ms: int) -> None: ...
    def users_due(self, before_ms: int) -> Iterator[int]: ...

    def drop_user(self, user_id: int, requests: Sequence[str] = ()) -> None:
        """Forget a user's behaviours and timers, and the timers of requests that are gone: ids may name the user."""

    def requests_of(self, user_id: int) -> list[tuple[str, OpenRequest]]:
        """The requests that a user was answered, and those that a user's feedback waits in."""

    @property
    def marks(self) -> Marks:
        """Who was forgotten of late. Whoever changes them calls `put_marks`."""

    def put_marks(self) -> None: ...


def is_of(user_id: int, request: OpenRequest) -> bool:
    """Whether a request was this user's, or has feedback of this user waiting."""
    return (request.shown is not None and request.shown.user_id == user_id) or any(
        feedback.user_id == user_id for feedback, _ in request.held
    )


class MemoryState:
    """A state in memory, without bounds and without durability.

    >>> state = MemoryState()
    >>> state.wake_user(7, 20); state.wake_user(8, 10); state.wake_user(9, 30)
    >>> list(state.users_due(30)), list(state.users_due(30))
    ([8, 7], [])
    """

    def __init__(self) -> None:
        self.newest_exposure_ms = 0
        self.newest_feedback_ms = 0
        self.requests: dict[str, OpenRequest] = {}
        self.users: dict[int, UserSessions] = {}
        self._request_timers: list[tuple[int, str]] = []
        self._user_timers: list[tuple[int, int]] = []
        self.marks = Marks()

    def request(self, request_id: str) -> OpenRequest | None:
        return self.requests.get(request_id)

    def put_request(self, request_id: str, request: OpenRequest) -> None:
        self.requests[request_id] = request

    def drop_request(self, request_id: str) -> None:
        self.requests.pop(request_id, None)

    def wake_request(self, request_id: str, at_ms: int) -> None:
        heapq.heappush(self._request_timers, (at_ms, request_id))

    def requests_due(self, before_ms: int) -> Iterator[str]:
        while self._request_timers and self._request_timers[0][0] < before_ms:
            yield heapq.heappop(self._request_timers)[1]

    def user(self, user_id: int) -> UserSessions | None:
        return self.users.get(user_id)

    def put_user(self, user_id: int, user: UserSessions) -> None:
        self.users[user_id] = user

    def wake_user(self, user_id: int, at_ms: int) -> None:
        heapq.heappush(self._user_timers, (at_ms, user_id))

    def users_due(self, before_ms: int) -> Iterator[int]:
        while self._user_timers and self._user_timers[0][0] < before_ms:
            yield heapq.heappop(self._user_timers)[1]

    def drop_user(self, user_id: int, requests: Sequence[str] = ()) -> None:
        self.users.pop(user_id, None)
        self._user_timers = [timer for timer in self._user_timers if timer[1] != user_id]
        self._request_timers = [timer for timer in self._request_timers if timer[1] not in requests]
        heapq.heapify(self._user_timers)
        heapq.heapify(self._request_timers)

    def requests_of(self, user_id: int) -> list[tuple[str, OpenRequest]]:
        return [(name, request) for name, request in self.requests.items() if is_of(user_id, request)]

    def put_marks(self) -> None:
        """They are where they belong."""
