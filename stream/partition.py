"""One partition's state on disk: what the steps remember, the offsets that it includes, and what is still to be sent.

RocksDB holds it, and `commit` writes everything that a batch changed in one atomic, synced write: state, offsets and
outbox are never apart. Memory holds no more than the caches' limits and one batch. Whoever has the directory open owns
the partition: a lock keeps every other worker out until the owner has closed it or died.
"""

from collections.abc import Container, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TextIO, TypeVar, cast

from google.protobuf.message import DecodeError, Message
from rocksdict import (
    BlockBasedOptions,
    BottommostLevelCompaction,
    Cache,
    CompactOptions,
    Options,
    Rdict,
    ReadOptions,
    WriteBatch,
    WriteOptions,
)

from contracts.config.settings import StreamSettings
from contracts.runtime.durable import LockedError, StateError, lock_file
from contracts.wire.stream_state_pb2 import (
    ForgottenUser,
    ForgottenUsers,
    Outbox,
    PartitionPosition,
    RequestState,
    UserState,
)
from stream.cached import Cached, number_of, sortable
from stream.join import OpenRequest
from stream.kept import marks_of, request_bytes, request_of, user_bytes, user_of
from stream.rocksdb_logs import damaged_log
from stream.sessions import UserSessions
from stream.state import is_of

POSITION, OUTBOX, FORGOTTEN = b"p", b"o", b"f"
REQUEST, USER, REQUEST_TIMER, USER_TIMER = b"r", b"u", b"R", b"U"
TIMERS_AT_ONCE = 2000  # those left fire with the next batch
MEMTABLE_BYTES = 16 << 20
BLOCK_CACHE_BYTES = 16 << 20
_CANNOT = "The state in {} cannot be opened: {}. Move it away, and begin anew with --rebuild."

M = TypeVar("M", bound=Message)


class PartitionBusy(Exception):
    """Another worker owns the partition."""


class PartitionStore:
    """A `stream.state.JoinState` that lasts."""

    def __init__(self, directory: Path, feedback_topic: str, partition: int, settings: StreamSettings) -> None:
        """Open, or begin, the state of `partition` in `directory`.

        Raises:
            PartitionBusy: another process has it open.
            StateError: it is damaged.

        """
        self.partition = partition
        self._directory = directory
        self._topic = feedback_topic
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._lock = _claimed(directory)
        try:
            self._db = _open(directory)
            self.position = self._parsed(PartitionPosition, self._get(POSITION) or b"")
        except StateError:
            self._lock.close()
            raise
        self.newest_exposure_ms = self.position.newest_exposure_ms
        self.newest_feedback_ms = self.position.newest_feedback_ms
        self._requests: Cached[str, OpenRequest] = Cached(settings.cached_requests)
        self._users: Cached[int, UserSessions] = Cached(settings.cached_users)
        self._batch = WriteBatch(raw_mode=True)
        # Before which time no timer is left, committed or set since: it spares a scan the timers that were deleted.
        self._scan_from = {REQUEST_TIMER: 0, USER_TIMER: 0}
        self._set_since: dict[bytes, int] = {}
        self._woken: list[bytes] = []  # keys of the timers in the batch
        self.marks = marks_of(self._parsed(ForgottenUsers, self._get(FORGOTTEN) or b""))

    def close(self) -> None:
        """Let another worker have the partition."""
        self._db.close()
        self._lock.close()

    @property
    def is_new(self) -> bool:
        """Whether nothing has been committed yet."""
        return self._get(POSITION) is None

    @property
    def timers_changed(self) -> bool:
        """Whether timers were set or have fired since the last commit."""
        return not self._batch.is_empty()

    @property
    def outbox(self) -> Outbox:
        """What the last committed batch put out."""
        return self._parsed(Outbox, self._get(OUTBOX) or b"")

    def commit(self, outbox: Outbox) -> None:
        """Write what the batch changed, `position` and the outbox, all or nothing, and wait until the disk has it."""
        for request_id, request in self._requests.changes():
            key = REQUEST + request_id.encode()
            if request is None:
                self._batch.delete(key)
            else:
                self._batch.put(key, request_bytes(request))
        for user_id, user in self._users.changes():
            if user is None:
                self._batch.delete(USER + sortable(user_id))
            else:
                self._batch.put(USER + sortable(user_id), user_bytes(user))
        self.position.newest_exposure_ms = self.newest_exposure_ms
        self.position.newest_feedback_ms = self.newest_feedback_ms
        self._batch.put(POSITION, self.position.SerializeToString())
        self._batch.put(OUTBOX, outbox.SerializeToString())
        synced = WriteOptions()
        synced.sync = True
        self._db.write(self._batch, synced)
        self._batch = WriteBatch(raw_mode=True)
        self._woken.clear()
        self._requests.settle()
        self._users.settle()
        for kind, at_ms in self._set_since.items():
            self._scan_from[kind] = min(self._scan_from[kind], at_ms)
        self._set_since.clear()

    def erase(self) -> None:
        """Rewrite the files, so that nothing is in them any more that was deleted or replaced.

        What RocksDB deletes stays in older tables until they are compacted, in its log until that is dropped, and in
        its manifest, which names the first and the last key of each table, until the store is opened again. Nothing may
        have changed since the last commit.
        """
        forced = CompactOptions()
        forced.set_bottommost_level_compaction(BottommostLevelCompaction.force())
        self._db.flush(wait=True)
        self._db.compact_range(None, None, forced)
        self._db.close()
        self._db = _open(self._directory)

    def request(self, request_id: str) -> OpenRequest | None:
        if request_id in self._requests:
            return self._requests[request_id]
        request = self._stored_request(request_id)
        self._requests.learn(request_id, request)
        return request

    def put_request(self, request_id: str, request: OpenRequest) -> None:
        self._requests.change(request_id, request)

    def drop_request(self, request_id: str) -> None:
        self._requests.change(request_id, None)

    def wake_request(self, request_id: str, at_ms: int) -> None:
        self._wake(REQUEST_TIMER, at_ms, request_id.encode())

    def requests_due(self, before_ms: int) -> Iterator[str]:
        for name in self._due(REQUEST_TIMER, before_ms):
            yield name.decode()

    def user(self, user_id: int) -> UserSessions | None:
        if user_id in self._users:
            return self._users[user_id]
        stored = self._get(USER + sortable(user_id))
        user = None if stored is None else user_of(self._parsed(UserState, stored))
        self._users.learn(user_id, user)
        return user

    def put_user(self, user_id: int, user: UserSessions) -> None:
        self._users.change(user_id, user)

    def drop_user(self, user_id: int, requests: Sequence[str] = ()) -> None:
        self._users.change(user_id, None)
        self._drop_timers(USER_TIMER, {sortable(user_id)})
        if requests:
            self._drop_timers(REQUEST_TIMER, {name.encode() for name in requests})

    def _drop_timers(self, kind: bytes, names: Container[bytes]) -> None:
        limits = ReadOptions()
        limits.set_iterate_upper_bound(bytes([kind[0] + 1]))
        stored = (cast(bytes, key) for key in self._db.keys(from_key=kind, read_opt=limits))
        for key in [*stored, *self._woken]:
            if key[:1] == kind and key[9:] in names:
                self._batch.delete(key)

    def requests_of(self, user_id: int) -> list[tuple[str, OpenRequest]]:
        """Looks at every request that is open: some microseconds for each."""
        limits = ReadOptions()
        limits.set_iterate_upper_bound(bytes([REQUEST[0] + 1]))
        keys = self._db.keys(from_key=REQUEST, read_opt=limits)
        names = dict.fromkeys(cast(bytes, key)[1:].decode() for key in keys)
        names.update(dict.fromkeys(self._requests.names()))
        found = []
        for name in names:
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
        self._batch.put(FORGOTTEN, marks.SerializeToString(deterministic=True))

    def user_ids(self) -> Iterator[int]:
        """Everyone who has been committed, in ascending order."""
        limits = ReadOptions()
        limits.set_iterate_upper_bound(USER + b"\xff" * 9)
        for key in self._db.keys(from_key=USER, read_opt=limits):
            yield number_of(cast(bytes, key)[1:])

    def wake_user(self, user_id: int, at_ms: int) -> None:
        self._wake(USER_TIMER, at_ms, sortable(user_id))

    def users_due(self, before_ms: int) -> Iterator[int]:
        for name in self._due(USER_TIMER, before_ms):
            yield number_of(name)

    def _get(self, key: bytes) -> bytes | None:
        try:
            return cast(bytes | None, self._db.get(key))
        except Exception as error:  # RocksDB has no type of its own
            raise self._damaged(error) from error

    def _parsed(self, kind: type[M], stored: bytes) -> M:
        try:
            return kind.FromString(stored)
        except DecodeError as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> StateError:
        why = " ".join(str(error).split())
        return StateError(
            f"The state in {self._directory} is damaged: {why}. Move it away, and begin anew with --rebuild."
        )

    def _wake(self, kind: bytes, at_ms: int, name: bytes) -> None:
        self._woken.append(kind + sortable(at_ms) + name)
        self._batch.put(self._woken[-1], b"")
        self._set_since[kind] = min(self._set_since.get(kind, at_ms), at_ms)

    def _due(self, kind: bytes, before_ms: int) -> Iterator[bytes]:
        """Names of committed timers before `before_ms`; those that this batch set fire with a later one."""
        limits = ReadOptions()
        limits.set_iterate_upper_bound(kind + sortable(before_ms))
        keys = self._db.keys(from_key=kind + sortable(self._scan_from[kind]), read_opt=limits)
        due = [cast(bytes, key) for key in islice(keys, TIMERS_AT_ONCE)]
        self._scan_from[kind] = number_of(due[-1][1:9]) if len(due) == TIMERS_AT_ONCE else before_ms
        for key in due:
            self._batch.delete(key)
            yield key[9:]

    def _stored_request(self, request_id: str) -> OpenRequest | None:
        stored = self._get(REQUEST + request_id.encode())
        return None if stored is None else request_of(self._parsed(RequestState, stored), self._topic, self.partition)


def _claimed(directory: Path) -> TextIO:
    """Hold the directory until the file that is returned is closed or its process has died.

    RocksDB has a lock too, but whoever finds it taken has set the owner's log file aside before: one that waits would
    leave a file behind with each look.

    Raises:
        PartitionBusy: somebody else holds it.

    """
    try:
        return lock_file(directory / "owner.lock")
    except LockedError as error:
        raise PartitionBusy(f"{directory} is open in another process") from error


def _open(directory: Path) -> Rdict:
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_write_buffer_size(MEMTABLE_BYTES)
    options.set_max_write_buffer_number(2)
    options.set_keep_log_file_num(2)
    blocks = BlockBasedOptions()
    blocks.set_block_cache(Cache(BLOCK_CACHE_BYTES))
    blocks.set_bloom_filter(10, block_based=False)
    options.set_block_based_table_factory(blocks)
    try:
        damage = damaged_log(directory)
        if not damage:
            return Rdict(str(directory), options)
    except Exception as error:  # RocksDB has no type of its own
        raise StateError(_CANNOT.format(directory, " ".join(str(error).split()))) from error
    raise StateError(_CANNOT.format(directory, damage))
