"""Which partitions this worker owns, with the state of each, and from where their logs are read.

The group says who should own what. A partition is taken once its state could be opened, so nobody touches it before its
last owner has let go of it or died; and it is read from the offsets in that state, whatever the group has committed.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import structlog
from kafka import TopicPartition
from kafka.consumer.subscription_state import ConsumerRebalanceListener

from contracts.config.settings import Settings, SettingsError
from contracts.kafka import bus
from contracts.kafka.consumers import Consumer
from stream.intake import Waiting
from stream.metrics import StreamMetrics
from stream.partition import PartitionBusy, PartitionStore

log = structlog.get_logger()
LOGS = (bus.EXPOSURES, bus.FEEDBACK)
USERS_AT_ONCE = 1000


@dataclass(slots=True)
class Owned:
    """A partition that this worker owns, and what has been fetched of its two logs."""

    store: PartitionStore
    exposures: Waiting
    feedback: Waiting
    timers_s: float  # when its timers were last looked at, on the worker's clock

    @property
    def ready(self) -> bool:
        """Whether anything waits to be stepped through."""
        return bool(self.exposures.records or self.feedback.records)

    def waiting(self, name: str) -> Waiting:
        """What waits of the log called `name`."""
        return self.exposures if name == bus.EXPOSURES else self.feedback


class Assignment(ConsumerRebalanceListener):  # type: ignore[misc]  # kafka-python has no types
    """Notes what the group gives to this worker and takes from it; on the client's thread, so it does no more.

    What is new is paused at once: it must not be read before its state says from where. Until then its position is 0:
    while a partition has none, the client looks for the group's own, and where that has none either it reads nothing
    at all. So a new partition whose last owner hangs would hold up every other one.
    """

    def __init__(self) -> None:
        self.wanted: frozenset[int] = frozenset()
        self.changes = 0
        self.consumer: Consumer  # set once there is one; nothing is assigned before

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Let go of them at the next step."""
        self.wanted -= {where.partition for where in revoked}
        self.changes += 1

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Take them at the next step."""
        for where in assigned:
            self.consumer.pause(where)
            self.consumer.seek(where, 0)
        self.wanted |= {where.partition for where in assigned}
        self.changes += 1


def missing_of(reading: Sequence[str], busy: Collection[int], sink_fails: bool) -> list[str]:
    """What a stream worker lacks for its work.

    >>> missing_of(["no broker is connected"], {3}, True)
    ['no broker is connected', 'the last owner of partition 3 holds on to its state', 'a sink fails (see the log)']
    >>> missing_of([], (), False)
    []

    Args:
        reading: what its consumer lacks.
        busy: partitions that the group has given to it and whose last owners have not let go of them.
        sink_fails: Feast or the broker does not take what the worker puts out.

    """
    held = [f"the last owner of partition {partition} holds on to its state" for partition in sorted(busy)]
    return [*reading, *held, *(["a sink fails (see the log)"] if sink_fails else [])]


class Ownership:
    """The partitions that are this worker's."""

    def __init__(
        self, settings: Settings, consumer: Consumer, assignment: Assignment, metrics: StreamMetrics, *, rebuild: bool
    ) -> None:
        self.owned: dict[int, Owned] = {}
        self._settings = settings
        self._consumer = consumer
        self._assignment = assignment
        self._metrics = metrics
        self._rebuild = rebuild
        self._seen = 0  # changes of the assignment that have been followed
        self._busy: set[int] = set()  # partitions whose last owners have not let go of them yet

    @property
    def changed(self) -> bool:
        """Whether the group has changed what is this worker's since `follow` was called."""
        return self._assignment.changes != self._seen

    def follow(self, now_s: float) -> list[PartitionStore]:
        """Do what the group says; returns the states that were opened, whose outboxes may not have been delivered.

        Raises:
            SettingsError: a state does not belong to the broker's logs.

        """
        wanted = self._assignment.wanted
        if self.changed:
            self._seen = self._assignment.changes
            self._busy &= wanted
            for partition in [partition for partition in self.owned if partition not in wanted]:
                log.info("partition given up", partition=partition)
                self.owned.pop(partition).store.close()
            for owned in self.owned.values():
                self._read_from_state(owned, now_s)  # the client has forgotten where it was
        opened = []
        for partition in sorted(wanted - self.owned.keys()):
            store = self._open(partition)
            if store is not None:
                owned = Owned(store, Waiting(0, now_s), Waiting(0, now_s), now_s)
                self.owned[partition] = owned
                self._read_from_state(owned, now_s)
                opened.append(store)
        self._metrics.partitions.set(len(self.owned))
        return opened

    def missing(self, sink_fails: bool) -> list[str]:
        """What the worker lacks for its work (`missing_of`)."""
        return missing_of(self._consumer.missing(), self._busy, sink_fails)

    def close(self) -> None:
        """Leave the group, and let others have the partitions."""
        for owned in self.owned.values():
            owned.store.close()
        self.owned.clear()
        self._consumer.close()

    def logs(self) -> Iterator[tuple[Owned, str, TopicPartition]]:
        """Both logs of each partition."""
        for partition, owned in self.owned.items():
            for name in LOGS:
                yield owned, name, TopicPartition(self._settings.kafka.topic(name), partition)

    def skip_deleted(self, positions: dict[TopicPartition, int]) -> None:
        """The broker does not have these offsets: go on where its logs begin, if they begin later.

        Raises:
            SettingsError: the state is ahead of the log, so it belongs to another one.

        """
        beginnings = self._consumer.beginning_offsets(list(positions))
        for where, offset in positions.items():
            begins = beginnings[where]
            owned = self.owned.get(where.partition)
            if begins < offset:
                raise SettingsError(self._foreign(where, offset))
            if owned is None:
                continue
            if not owned.store.is_new:
                log.error("the broker deleted records before they were read", topic=where.topic, count=begins - offset)
                self._metrics.lost.inc(begins - offset)
            _set_position(owned, where.topic == self._settings.kafka.topic(bus.EXPOSURES), begins)
            self._consumer.seek(where, begins)

    def check_not_ahead(self) -> None:
        """See that no state is ahead of its log, where the broker itself raises nothing.

        Raises:
            SettingsError: a state is ahead of its log, so it belongs to another one.

        """
        for owned, name, where in self.logs():
            offset = owned.waiting(name).end
            if self._settings.kafka.gapless and self._consumer.is_another_log(where, offset):
                raise SettingsError(self._foreign(where, offset))

    def _open(self, partition: int) -> PartitionStore | None:
        settings = self._settings
        directory = self._directory(partition)
        try:
            directory.mkdir(parents=True, exist_ok=True)
            store = PartitionStore(directory, settings.kafka.topic(bus.FEEDBACK), partition, settings.stream)
        except OSError as error:
            raise SettingsError(f"The stream's state cannot be kept in {directory}: {error.strerror}.") from error
        except PartitionBusy:
            if partition not in self._busy:
                log.info("waiting for the partition's last owner to let go of its state", partition=partition)
                self._busy.add(partition)
            return None
        self._busy.discard(partition)
        if store.is_new and not self._rebuild:
            done = [self._consumer.committed(TopicPartition(settings.kafka.topic(name), partition)) for name in LOGS]
            if any(done):
                store.close()
                raise SettingsError(
                    f"The stream has been through {max(filter(None, done))} records of partition {partition}, but its "
                    f"state is not in {directory}: bring it back, or read everything again with --rebuild."
                )
        log.info("partition taken", partition=partition, new=store.is_new)
        return store

    def _read_from_state(self, owned: Owned, now_s: float) -> None:
        position = owned.store.position
        owned.exposures = Waiting(position.exposures, now_s)
        owned.feedback = Waiting(position.feedback, now_s)
        for name in LOGS:
            where = TopicPartition(self._settings.kafka.topic(name), owned.store.partition)
            self._consumer.seek(where, owned.waiting(name).end)
            self._consumer.resume(where)

    def _directory(self, partition: int) -> Path:
        return self._settings.state / "stream" / f"{partition:05d}"

    def _foreign(self, where: TopicPartition, offset: int) -> str:
        return (
            f"The state in {self._directory(where.partition)} includes {where.topic} up to offset {offset}, which "
            "the broker does not have: they belong to different logs; move that directory away to begin anew."
        )


def _set_position(owned: Owned, exposures: bool, offset: int) -> None:
    position = owned.store.position
    if exposures:
        position.exposures = owned.exposures.end = offset
    else:
        position.feedback = owned.feedback.end = offset


def set_expiry(store: PartitionStore, keep_users_ms: int | None) -> None:
    """Give every user a timer by which the state lets go of those who stay away, where the setting is new.

    A user whose session is open has one by it.
    """
    if store.position.keep_users_ms == (keep_users_ms or 0):
        return
    outbox = store.outbox
    everyone = store.user_ids() if keep_users_ms is not None else iter(())
    while user_ids := list(islice(everyone, USERS_AT_ONCE)):
        for user_id in user_ids:
            user = store.user(user_id)
            if user is not None and not user.open:
                store.wake_user(user_id, user.last_ms + (keep_users_ms or 0))
        store.commit(outbox)
    store.position.keep_users_ms = keep_users_ms or 0
    store.commit(outbox)
