"""Asking to forget, and what is left afterwards.

A log of the requests lies beside the state (`forget.jsonl`): when, where in `feedback`, and when all was gone. It has
no id in it, and none can be computed from it.
"""

import json
import secrets
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from contracts.config.settings import Settings
from contracts.kafka import bus
from contracts.messages.events import SCHEMA_VERSION
from contracts.messages.forget import SALT_BYTES
from contracts.runtime.clock import Clock
from contracts.runtime.durable import sync_file
from contracts.wire.events_pb2 import Feedback, Forget
from driftline.forget import stores, topics
from driftline.forget.stores import Found
from driftline.forget.topics import InTopic, Waiting
from driftline.forget.user import User

LOG = "forget.jsonl"


@dataclass(frozen=True)
class Left:
    """What there is of a user: in stores, in topics, and who has yet to read a request."""

    user: User
    stores: tuple[Found, ...]
    topics: tuple[InTopic, ...]
    waiting: tuple[Waiting, ...]

    @property
    def letters(self) -> InTopic | None:
        """In the dead-letter topic."""
        return next((each for each in self.topics if each.topic == bus.DEAD_LETTERS), None)

    @property
    def events(self) -> tuple[InTopic, ...]:
        """In the topics of events, which go by age."""
        return tuple(each for each in self.topics if each.topic in topics.EVENTS)

    @property
    def settled(self) -> bool:
        """Whether nothing is left but what goes by age."""
        return not (self.stores or self.waiting) and len(self.events) == len(self.topics)


def ask(settings: Settings, users: Sequence[User], clock: Clock) -> list[str]:
    """Send a request to forget each user, and return their ids once the broker has them."""
    kafka, asked = settings.kafka, {}
    partition = {user: bus.partition_of(user.number, kafka.partitions) for user in users}
    ends = topics.exposures_end(kafka, sorted(set(partition.values())))
    producer = bus.producer(kafka)
    try:
        for user in users:
            request = Feedback(
                schema_version=SCHEMA_VERSION,
                event_id=f"forget-{uuid.uuid4()}",
                user_id=user.number,
                time_ms=clock.now_ms(),
                forget=Forget(exposures_end=ends[partition[user]], salt=secrets.token_bytes(SALT_BYTES)),
            )
            asked[request.event_id] = producer.send(
                kafka.topic(bus.FEEDBACK),
                key=user.digits,
                value=request.SerializeToString(),
                partition=partition[user],
                timestamp_ms=request.time_ms,
            )
        producer.flush()
        places = {name: future.get(timeout=0) for name, future in asked.items()}
    finally:
        producer.close()
    for name, place in places.items():
        note(settings, {"request": name, "at_ms": clock.now_ms(), "partition": place.partition, "offset": place.offset})
    return [*places]


def look(settings: Settings, users: Sequence[User]) -> list[Left]:
    """Search everything for users."""
    in_topics = topics.search(settings.kafka, users)
    return [
        Left(
            user,
            tuple(stores.search(settings, user)),
            tuple(in_topics[user]),
            tuple(topics.waiting(settings.kafka, in_topics[user])),
        )
        for user in users
    ]


def note(settings: Settings, facts: dict[str, Any]) -> None:
    """Add a line to the log of requests."""
    settings.state.mkdir(parents=True, exist_ok=True)
    with (settings.state / LOG).open("ab") as file:
        file.write(json.dumps(facts).encode() + b"\n")
        sync_file(file)
