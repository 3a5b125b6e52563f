"""One partition's memory in Flink's keyed state: a `stream.state.JoinState` over four maps of bytes.

Which requests and users there are is kept in memory beside the values that were used last, and so are the timers:
asking Flink for a key that it does not have costs as much as for one that it has, and it has no scan by range. After a
restart all of that is read from the maps once. `commit` writes what a batch has changed; Flink's checkpoint makes it
one with the offsets and with what was sent.
"""

import heapq
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

from contracts.config.settings import StreamSettings
from contracts.wire.stream_state_pb2 import (
    ForgottenUser,
    ForgottenUsers,
    PartitionPosition,
    RequestState,
    UserState,
)
from stream.cached import Cached, number_of, sortable
from stream.join import OpenRequest
from stream.kept import marks_of, request_bytes, request_of, user_bytes, user_of
from stream.sessions import UserSessions
from stream.state import is_of

POSITION, FORGOTTEN = b"p", b"f"
REQUEST_TIMER, USER_TIMER = b"R", b"U"


class Table(Protocol):
    """A map of bytes in keyed state, as PyFlink's MapState has it."""

    def get(self, key: bytes, /) -> bytes | None:
        """The value; None where there is none."""

    def put(self, key: bytes, value: bytes, /) -> None:
        """Set a value."""

    def remove(self, key: bytes, /) -> None:
        """Delete a key, which need not be there."""

    def keys(self) -> Iterable[bytes]:
        """All keys."""

    def items(self) -> Iterable[tuple[bytes, bytes]]:
        """All keys and values."""


class Tables(NamedTuple):
    """Where a partition's memory lies."""

    requests: Table
    users: Table
    timers: Table
    waiting: Table  # records that have come and were not stepped through
    meta: Table


class FlinkState:
    """A partition's memory. It is made anew after each restart, and then reads what it keeps in memory."""

    def __init__(self, tables: Tables, feedback_topic: str, partition: int, settings: StreamSettings) -> None:
        self._tables = tables
        self._topic = feedback_topic
        self.partition = partition
        self.position = PartitionPosition.FromString(tables.meta.get(POSITION) or b"")
        self.newest_exposure_ms = self.position.newest_exposure_ms
        self.newest_feedback_ms = self.position.newest_feedback_ms
        self.marks = marks_of(ForgottenUsers.FromString(tables.meta.get(FORGOTTEN) or b""))
        self._requests: Cached[str, OpenRequest] = Cached(settings.cached_requests)
        self._users: Cached[int, UserSessions] = Cached(settings.cached_users)
        self._request_ids = set(map(bytes.decode, tables.requests.keys()))
        self._user_ids = set(map(number_of, tables.users.keys()))
        self._timers: dict[bytes, list[tuple[int, bytes]]] = {REQUEST_TIMER: [], USER_TIMER: []}
        for key in list(tables.timers.keys()):
            self._timers[key[:1]].append((number_of(key[1:9]), key[9:]))
        for timers in self._timers.values():
            heapq.heapify(timers)

    @property
    def changed(self) -> bool:
        """Whether requests or users have changed since the last commit."""
        return any(True for cached in (self._requests, self._users) for _ in cached.changes())

    def commit(self) -> None:
        """Hand to Flink what has changed since the last time."""
        for request_id, request in self._requests.changes():
            if request is None:
                self._tables.requests.remove(request_id.encode())
            else:
                self._tables.requests.put(request_id.encode(), request_bytes(request))
        for user_id, user in self._users.changes():
            if user is None:
                self._tables.users.remove(sortable(user_id))
            else:
                self._tables.users.put(sortable(user_id), user_bytes(user))
        self.position.newest_exposure_ms = self.newest_exposure_ms
        self.position.newest_feedback_ms = self.newest_feedback_ms
        self._tables.meta.put(POSITION, self.position.SerializeToString())
        self._requests.settle()
        self._users.settle()

    def request(self, request_id: str) -> OpenRequest | None:
        if request_id in self._requests:
            return self._requests[request_id]
        request = self._stored_request(request_id) if request_id in self._request_ids else None
        self._requests.learn(request_id, request)
        return request

    def put_request(self, request_id: str, request: OpenRequest) -> None:
        self._request_ids.add(request_id)
        self._requests.change(request_id, request)

    def drop_request(self, request_id: str) -> None:
        self._request_ids.discard(request_id)
        self._requests.change(request_id, None)

    def wake_request(self, request_id: str, at_ms: int) -> None:
        self._wake(REQUEST_TIMER, at_ms, request_id.encode())

    def requests_due(self, before_ms: int) -> Iterator[str]:
        for name in self._due(REQUEST_TIMER, before_ms):
            yield name.decode()

    def user(self, user_id: int) -> UserSessions | None:
        if user_id in self._users:
            return self._users[user_id]
        stored = self._tables.users.get(sortable(user_id)) if user_id in self._user_ids else None
        user = None if stored is None else user_of(UserState.FromString(stored))
        self._users.learn(user_id, user)
        return user

    def put_user(self, user_id: int, user: UserSessions) -> None:
        self._user_ids.add(user_id)
        self._users.change(user_id, user)

    def wake_user(self, user_id: int, at_ms: int) -> None:
        self._wake(USER_TIMER, at_ms, sortable(user_id))

    def users_due(self, before_ms: int) -> Iterator[int]:
        for name in self._due(USER_TIMER, before_ms):
            yield number_of(name)

    def drop_user(self, user_id: int, requests: Sequence[str] = ()) -> None:
        self._user_ids.discard(user_id)
        self._users.change(user_id, None)
        self._drop_timers(USER_TIMER, {sortable(user_id)})
        if requests:
            self._drop_timers(REQUEST_TIMER, {name.encode() for name in requests})

    def requests_of(self, user_id: int) -> list[tuple[str, OpenRequest]]:
        """Looks at every request that is open."""
        found = []
        for name in sorted(self._request_ids):
            request = self._requests[name] if name in self._requests else self._stored_request(name)
            if request is not None and is_of(user_id, request):
                found.append((name, request))
        return found

    def put_marks(self) -> None:
        users = [
            ForgottenUser(hash=name, exposures_end=mark.exposures_end, until_ms=mark.until_ms)
            for name, mark in self.marks.entries()
        ]
        marks = ForgottenUsers(salt=self.marks.salt, users=users)
        self._tables.meta.put(FORGOTTEN, marks.SerializeToString(deterministic=True))

    def _wake(self, kind: bytes, at_ms: int, name: bytes) -> None:
        heapq.heappush(self._timers[kind], (at_ms, name))
        self._tables.timers.put(kind + sortable(at_ms) + name, b"")

    def _due(self, kind: bytes, before_ms: int) -> Iterator[bytes]:
        timers = self._timers[kind]
        while timers and timers[0][0] < before_ms:
            at_ms, name = heapq.heappop(timers)
            self._tables.timers.remove(kind + sortable(at_ms) + name)
            yield name

    def _drop_timers(self, kind: bytes, names: set[bytes]) -> None:
        for at_ms, name in self._timers[kind]:
            if name in names:
                self._tables.timers.remove(kind + sortable(at_ms) + name)
        self._timers[kind] = [timer for timer in self._timers[kind] if timer[1] not in names]
        heapq.heapify(self._timers[kind])

    def _stored_request(self, request_id: str) -> OpenRequest | None:
        stored = self._tables.requests.get(request_id.encode())
        return None if stored is None else request_of(RequestState.FromString(stored), self._topic, self.partition)
