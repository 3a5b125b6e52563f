"""When an example was sent and when it was first served: the two ends of `benchmarks.trainer.latency`."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import numpy as np

from abtest.assignment.assign import assign
from benchmarks.crowd import Crowd, dated, examples
from contracts.config.settings import Experiment, KafkaSettings
from contracts.features import Floats, Ints
from contracts.kafka import bus
from contracts.runtime.clock import Clock
from contracts.snapshots.snapshot import Version, read_manifest
from contracts.wire.recall_pb2 import RecallBatchRequest, RecallRequest, StatusRequest
from contracts.wire.recall_pb2_grpc import RecallServiceStub

TICK_S = 0.01  # of the sender
ASK_S = 0.06  # between two rounds of asking
LONGEST_S = 10.0  # that an answer may take
BATCH_S = 0.2  # of visitors whose pages are asked for together
PAGE = 4  # items


class Sent(NamedTuple):
    """What one partition received."""

    offsets: Ints  # (E,) rising
    at_s: Floats  # (E,) when each was sent


@dataclass(frozen=True)
class Live:
    """A version that a replica was first seen to answer from."""

    at_s: float
    version: str
    vectors: dict[int, int]  # partition -> first offset that its item vectors do not include
    tower: dict[int, int]  # the same of its user tower


def waits(
    sent: Mapping[int, Sent], served: Sequence[tuple[float, Mapping[int, int]]], since_s: float, until_s: float
) -> Floats:
    """Seconds from sending to serving, of each example sent in `since_s` <= t < `until_s`; infinity: not served.

    Args:
        sent: by partition.
        served: when a version was first served, and by partition the first offset that it does not include; in order.
        since_s: on the clock of both.
        until_s: the same.

    >>> sent = {0: Sent(np.array([0, 1, 2]), np.array([1.0, 2.0, 3.0]))}
    >>> waits(sent, [(4.0, {0: 2})], 1.5, 9.0).tolist()
    [2.0, inf]

    """
    at_s = np.array([at for at, _ in served] + [np.inf])
    waited_s = [np.empty(0)]
    for partition, (offsets, sent_s) in sent.items():
        in_time = (since_s <= sent_s) & (sent_s < until_s)
        # What was served once counts, even if an older version is put back later.
        reached = np.maximum.accumulate(np.array([offset.get(partition, 0) for _, offset in served] or [0]))
        first = np.searchsorted(reached[: len(served)], offsets[in_time], side="right")
        waited_s.append(at_s[first] - sent_s[in_time])
    out: Floats = np.concatenate(waited_s)
    return out


def quantiles(seconds: Floats) -> dict[str, float | None]:
    """The median and the 99th percentile; None where that many were not served.

    >>> quantiles(np.array([1.0, 2.0, np.inf]))
    {'p50': 2.0, 'p99': None}
    """
    if not seconds.size:
        return {"p50": None, "p99": None}
    values = {name: float(np.quantile(seconds, q, method="higher")) for name, q in (("p50", 0.5), ("p99", 0.99))}
    return {name: round(value, 2) if np.isfinite(value) else None for name, value in values.items()}


class Sender:
    """Sends examples at a rate, and waits for nobody; `run` is for a thread of its own."""

    def __init__(
        self, kafka: KafkaSettings, crowd: Crowd, rate: float, experiment: Experiment | None, clock: Clock
    ) -> None:
        """Open a sender.

        Args:
            kafka: where to.
            crowd: whose examples.
            rate: examples a second.
            experiment: whose arms the users are in; None: they are in none.
            clock: of the notes.

        """
        self._kafka = kafka
        self._crowd = crowd
        self._rate = rate
        self._experiment = experiment
        self._clock = clock
        self._sends: list[tuple[int, str, float, Any]] = []  # partition, arm, when, what the producer says of it
        self.counts = dict.fromkeys(range(kafka.partitions), 0)  # by partition
        self.stop = threading.Event()

    def run(self) -> None:
        """Send until told to stop."""
        producer = bus.producer(self._kafka, batch_size=64 << 10)
        rows = examples(self._crowd)
        rows = chain([next(rows)], rows)  # the first one takes its time
        began_s, topic = self._clock.elapsed_s(), self._kafka.topic(bus.EXAMPLES)
        while not self.stop.is_set():
            due = int((self._clock.elapsed_s() - began_s) * self._rate) + 1
            for example in islice(rows, due - len(self._sends)):
                now_ms, at_s = self._clock.now_ms(), self._clock.elapsed_s()
                partition = bus.partition_of(example.user_id, self._kafka.partitions)
                if self._experiment:
                    example.arm = assign(self._experiment, example.user_id, now_ms).arm or ""
                value, key = dated(example, now_ms).SerializeToString(), bus.key_of(example.user_id)
                acknowledgement = producer.send(topic, value, key, partition=partition, timestamp_ms=now_ms)
                self._sends.append((partition, example.arm, at_s, acknowledgement))
                self.counts[partition] += 1
            self.stop.wait(TICK_S)
        producer.flush()
        producer.close()

    def log(self, model: str) -> dict[int, Sent]:
        """All that was sent for this model to learn from, by partition, once `run` has returned."""
        arms = {""}
        if self._experiment:
            arms = {arm for arm, of_arm in self._experiment.arms.items() if of_arm.model == model}
        out = {}
        for number in self.counts:
            mine = (s for s in self._sends if s[0] == number and s[1] in arms)
            pairs = sorted((acknowledgement.get().offset, at_s) for _, _, at_s, acknowledgement in mine)
            out[number] = Sent(np.array([o for o, _ in pairs], np.int64), np.array([at for _, at in pairs], np.float64))
        return out


class Visitors:
    """Asks a replica for pages at a pace, in batches, for users who are drawn anew; `run` is for a thread of its own.

    A trial of a snapshot ends by what was shown, so how soon one goes live depends on how many pages are asked for.
    """

    def __init__(self, address: str, crowd: Crowd, rate: int) -> None:
        """`rate`: pages a second."""
        self._address, self._users, self._rate = address, crowd.users, rate
        self.asked = 0
        self.stop = threading.Event()

    def run(self) -> None:
        """Ask until told to stop."""
        draw = np.random.default_rng(0)
        size = max(1, min(100, int(self._rate * BATCH_S)))
        with grpc.insecure_channel(self._address) as channel:
            stub = RecallServiceStub(channel)
            while self._rate and not self.stop.wait(size / self._rate):
                users = draw.integers(1, self._users + 1, size).tolist()
                stub.RecallBatch(
                    RecallBatchRequest(requests=[RecallRequest(user_id=user, k=PAGE) for user in users]),
                    timeout=LONGEST_S,
                )
                self.asked += size


class Watch:
    """Asks a replica for each model what answers, all the time; `run` is for a thread of its own."""

    def __init__(self, address: str, users: Mapping[str, int], snapshots: Path, clock: Clock) -> None:
        """Watch a replica.

        Args:
            address: of the replica.
            users: one that each model answers.
            snapshots: where the versions are that it serves.
            clock: the sender's.

        """
        self._address = address
        self._users = users
        self._snapshots = snapshots
        self._clock = clock
        self.seen: dict[str, list[Live]] = {model: [] for model in users}  # what answered
        self.live: dict[str, list[Live]] = {model: [] for model in users}  # what answers all, trials aside
        self.gaps_s: list[float] = []  # between two answers of one model
        self.stop = threading.Event()

    def run(self) -> None:
        """Ask until told to stop."""
        before: dict[str, float] = {}
        with grpc.insecure_channel(self._address) as channel:
            stub = RecallServiceStub(channel)
            while not self.stop.wait(ASK_S):
                for model, user_id in self._users.items():
                    version = self._ask(stub, model, user_id)
                    if version is None:
                        continue
                    at_s = self._clock.elapsed_s()
                    self.gaps_s += [at_s - before[model]] if model in before else []
                    before[model] = at_s
                    self._note(self.seen[model], model, version, at_s)
                for status in stub.Status(StatusRequest(), timeout=LONGEST_S).models:
                    if status.snapshot_version:
                        at_s = self._clock.elapsed_s()
                        self._note(self.live[status.model], status.model, status.snapshot_version, at_s)

    def _note(self, notes: list[Live], model: str, version: str, at_s: float) -> None:
        if not notes or notes[-1].version != version:
            notes.append(self._live(model, version, at_s))

    def includes(self, model: str, counts: Mapping[int, int]) -> bool:
        """Whether the tower that was seen last has learned from as many examples of each partition."""
        seen = self.live[model]
        return bool(seen) and all(seen[-1].tower.get(number, 0) >= count for number, count in counts.items())

    def _ask(self, stub: RecallServiceStub, model: str, user_id: int) -> str | None:
        try:
            reply = stub.Recall(RecallRequest(user_id=user_id, k=10), timeout=LONGEST_S)
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.UNAVAILABLE:  # nothing is live yet
                return None
            raise
        version: str = reply.snapshot_version
        return version if reply.model == model else None

    def _live(self, model: str, version: str, at_s: float) -> Live:
        place = Version.parse(version)
        assert place
        vectors, tower = (
            {
                int(number): offset
                for (topic, _, number), offset in ((name.rpartition(":"), o) for name, o in manifest.offsets.items())
                if topic.endswith(bus.EXAMPLES)
            }
            for manifest in (read_manifest(self._snapshots, model, str(each)) for each in (place, place.base))
        )
        return Live(at_s, version, vectors, tower)
