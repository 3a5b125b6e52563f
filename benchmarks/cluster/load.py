"""Users that ask `Recall` over both replicas and answer by feedback, by a seed; their time is simulated."""

import hashlib
import itertools
import threading
from collections.abc import Sequence

from contracts.config.settings import KafkaSettings
from contracts.config.store import Root
from contracts.kafka import bus
from contracts.messages.events import SCHEMA_VERSION
from contracts.runtime.clock import DAY_MS, MINUTE_MS, SystemClock
from contracts.wire.events_pb2 import ExposedItem, Exposure, Feedback, Item
from contracts.wire.recall_pb2 import RecallReply
from serving.calls import Ask
from serving.client import RecallClient, RecallError
from world.drive import VersionCheck

USERS, ITEMS, K = 200, 300, 5
WARM = 300  # requests of the log from which the first snapshot is learned
START_MS = 20 * DAY_MS
STEP_MS = MINUTE_MS  # from one request to the next
DEADLINE_S = 10.0
REPEATED, BROKEN = 41, 53  # every so many requests, feedback is sent twice, or is none
CLOCK = SystemClock()


class _Client(RecallClient):
    """Asks for the user vector too, by which a reply is held against its snapshot."""

    def explained(self, ask: Ask) -> RecallReply:
        message = ask.message()
        message.context.explain = True
        reply: RecallReply = self._call("Recall", message, self._start(ask.request_id, None))
        return reply


def chance(*of: object) -> float:
    """The same number in [0, 1) for the same things."""
    return int.from_bytes(hashlib.sha256(repr(of).encode()).digest()[:6], "big") / (1 << 48)


class Load:
    """Sends the log's beginning, then asks in a thread of its own until it is stopped."""

    def __init__(self, kafka: KafkaSettings, addresses: Sequence[str], root: Root, rate: float, seed: int) -> None:
        """`rate`: requests a second."""
        self._kafka = kafka
        self._producer = bus.producer(kafka)
        self._addresses = addresses
        self._check = VersionCheck(root)
        self._rate = rate
        self._seed = seed
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask_on, name="load")
        self._numbers = itertools.count()
        self.recalls = self.failed = self.mixed = self.feedback = 0
        self.latency_ms: list[float] = []
        self.answered: set[str] = set()
        self.errors: list[str] = []

    def begin(self) -> None:
        """Send the catalogue, and what was shown and watched before anybody asks."""
        for item_id in range(1, ITEMS + 1):
            value = Item(schema_version=SCHEMA_VERSION, item_id=item_id, category_ids=[1 + item_id % 10])
            self._producer.send(
                self._kafka.topic(bus.ITEMS),
                value.SerializeToString(),
                bus.key_of(item_id),
                partition=0,
                timestamp_ms=START_MS - WARM * STEP_MS,
            )
        self._producer.flush()
        for number in range(WARM):
            user, time_ms = 1 + number % USERS, START_MS - (WARM - number) * STEP_MS
            items = [1 + int(ITEMS * chance(self._seed, "shown", number, place)) for place in range(K)]
            self._show(f"w{number}", user, time_ms, items)
            for item in dict.fromkeys(items):
                self._send(_response(self._seed, f"w{number}", user, item, time_ms))
        self._producer.flush()

    def start(self) -> None:
        """Let users ask."""
        self._thread.start()

    def stop(self) -> None:
        """Let nobody ask any more; what was sent is with the broker."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        self._producer.flush()

    def end(self) -> None:
        """Send what comes weeks later, so that all that waits in the stream is given up by event time."""
        time_ms = START_MS + next(self._numbers) * STEP_MS + 30 * DAY_MS
        for user in range(1, self._kafka.partitions + 1):
            self._show(f"end-{user}", user, time_ms, [1, 2])
            self._send(_response(self._seed, f"end-{user}", user, 1, time_ms))
        self._producer.flush()

    def close(self) -> None:
        """Let nobody ask any more, and let go of the broker."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        self._producer.close()

    def _ask_on(self) -> None:
        with _Client(self._addresses, deadline_s=DEADLINE_S) as client:
            for number in self._numbers:
                if self._stop.wait(1 / self._rate):
                    return
                user, time_ms, name = 1 + number % USERS, START_MS + number * STEP_MS, f"r{number}"
                reply = self._reply(client, Ask(user, K, name, time_ms=time_ms, simulated=True))
                for item in reply.items if reply else ():
                    event = _response(self._seed, name, user, item.item_id, time_ms)
                    for _ in range(1 if number % REPEATED else 2):
                        self._send(event)
                if number % BROKEN == 0:
                    self._put(bus.FEEDBACK, b"no feedback", user, time_ms)

    def _reply(self, client: _Client, ask: Ask) -> RecallReply | None:
        self.recalls += 1
        began_s = CLOCK.elapsed_s()
        try:
            reply = client.explained(ask)
        except RecallError as error:
            self.failed += 1
            self.errors.append(str(error))
            return None
        self.latency_ms.append(1000 * (CLOCK.elapsed_s() - began_s))
        self.mixed += self._check.mixed(reply)
        self.answered.add(ask.request_id)
        return reply

    def _show(self, request: str, user: int, time_ms: int, items: Sequence[int]) -> None:
        shown = [ExposedItem(item_id=item) for item in dict.fromkeys(items)]
        event = Exposure(
            schema_version=SCHEMA_VERSION,
            event_id=request,
            request_id=request,
            user_id=user,
            time_ms=time_ms,
            items=shown,
        )
        value = event.SerializeToString()
        self._put(bus.EXPOSURES, value, user, time_ms)

    def _send(self, event: Feedback) -> None:
        self._put(bus.FEEDBACK, event.SerializeToString(), event.user_id, event.time_ms)

    def _put(self, topic: str, value: bytes, user: int, time_ms: int) -> None:
        """A record's timestamp is its event's time, as in a replay."""
        self.feedback += topic == bus.FEEDBACK
        self._producer.send(
            self._kafka.topic(topic),
            value,
            bus.key_of(user),
            headers=[(bus.SENT_AT, str(CLOCK.now_ms()).encode())],
            partition=bus.partition_of(user, self._kafka.partitions),
            timestamp_ms=time_ms,
        )


def _response(seed: int, request: str, user: int, item: int, time_ms: int) -> Feedback:
    return Feedback(
        schema_version=SCHEMA_VERSION,
        event_id=f"{request}-{item}",
        request_id=request,
        user_id=user,
        item_id=item,
        time_ms=time_ms + 1000,
        play_time_ms=int(60_000 * chance(seed, "play", user, item)),
        effective_view=chance(seed, "view", user, item) < (0.8 if user % 10 == item % 10 else 0.3),
    )
