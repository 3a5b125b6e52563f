"""Thin wrappers around a worker's real sinks, which fail or hang at chosen calls."""

import queue
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from kafka import KafkaProducer
from kafka.errors import KafkaConnectionError, KafkaTimeoutError

from feature_repo.store import UserRow, UserSequences

FAILURES = 3  # of each kind
PATIENCE_S = 60


class Fault(Exception):
    """What was made to fail here."""


class FailsAt:
    """The hook of a worker, failing some of the times that it is told of `step`."""

    def __init__(self, step: str) -> None:
        self._step = step
        self._told = 0
        self.failed = 0

    def __call__(self, step: str) -> None:
        if step == self._step:
            self._told += 1
            if self._told % 3 == 2 and self.failed < FAILURES:
                self.failed += 1
                raise Fault(step)


class FailingFeatures:
    """Feast, where writes fail at first: before they begin, half-way, and when all is written."""

    def __init__(self, real: UserSequences) -> None:
        self._real = real
        self.failed = 0
        self.calls = 0

    def write(self, rows: Sequence[UserRow]) -> int:
        self.calls += 1
        stage = self.calls % 4 if self.failed < 3 * FAILURES else 0
        done = self._real.write(rows[: (0, 0, len(rows) // 2, len(rows))[stage] if stage else len(rows)])
        if stage:
            self.failed += 1
            raise Fault
        return done


class Interrupted:
    """Feast, of which `interrupt` takes the server away just before the `number`-th write that has rows."""

    def __init__(self, real: UserSequences, number: int, interrupt: Callable[[], None]) -> None:
        self._real = real
        self._number = number
        self._interrupt = interrupt
        self._writes = 0

    def write(self, rows: Sequence[UserRow]) -> int:
        self._writes += bool(rows)
        if rows and self._writes == self._number:
            self._interrupt()
        return self._real.write(rows)


class Answer:
    """What a client says of a record that it took: at `looks` looks nothing yet, and then what `get` gives."""

    def __init__(self, get: Callable[[], Any], looks: int = 0) -> None:
        self._get = get
        self._looks = looks

    @property
    def is_done(self) -> bool:
        return self._looks <= 0

    def get(self, timeout: float) -> Any:
        self._looks -= 1
        if self._looks >= 0:
            raise KafkaTimeoutError
        return self._get()


class FailingProducer:
    """A Kafka client that refuses records, says that it is full, loses them, and answers late or wrongly.

    As a real client it keeps order: until it has been asked, what comes after a record that it lost is lost too.
    """

    def __init__(self, real: KafkaProducer) -> None:
        self._real = real
        self._calls = 0
        self._lost = False
        self.failures: Counter[str] = Counter()

    def send(self, topic: str, **record: Any) -> Any:
        kind = "lost"
        if not self._lost:  # how many records share a loss depends on the polls; what else befalls does not
            self._calls += 1
            kind = {2: "refused", 7: "full", 12: "late", 18: "lost", 25: "unacknowledged"}.get(self._calls % 31, "")
        self.failures[kind] += 1
        match kind:
            case "refused":
                raise Fault
            case "full":
                raise KafkaTimeoutError
            case "lost":
                self._lost = True
                return Answer(self._tell_of_the_loss, looks=1)
        sent = self._real.send(topic, **record)
        if kind == "late":
            return Answer(lambda: sent.get(timeout=PATIENCE_S), looks=2)
        if kind == "unacknowledged":
            sent.get(timeout=PATIENCE_S)
            return Answer(self._tell_of_the_loss)
        return sent

    def _tell_of_the_loss(self) -> None:
        self._lost = False
        raise KafkaConnectionError


class Dead:
    """A store or a client that never works again; at its third failure the worker is asked to stop."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop
        self._calls = 0

    def write(self, rows: Sequence[UserRow]) -> int:
        self._calls += 1
        if self._calls == 3:
            self._stop.set()
        raise Fault

    def send(self, topic: str, **record: Any) -> "Dead":
        return self

    is_done = False

    def get(self, timeout: float) -> Any:
        self._calls += 1
        if self._calls == 3:
            self._stop.set()
        raise KafkaTimeoutError


class HangsAt:
    """The hook of a worker, hanging at the third time of each step until the test lets it go on."""

    def __init__(self) -> None:
        self._told: Counter[str] = Counter()
        self.hangs: queue.Queue[str] = queue.Queue()
        self.let_go = threading.Semaphore(0)

    def __call__(self, step: str) -> None:
        self._told[step] += 1
        if self._told[step] == 3:
            self.hangs.put(step)
            assert self.let_go.acquire(timeout=PATIENCE_S)
