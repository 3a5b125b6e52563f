"""Versions of one model that go live in turn, and whether a reply is all of one of them."""

import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import NamedTuple

import grpc
import numpy as np

from benchmarks.serving.rig import Replica, Rig
from benchmarks.serving.shots import Requests, Shot, replies_of
from benchmarks.serving.world import SnapshotTower, full, moved
from contracts.features import rows_of
from contracts.snapshots import canary, delta, snapshot
from contracts.snapshots.canary import Canary
from contracts.snapshots.snapshot import Snapshot, Version
from contracts.wire.recall_pb2 import ModelStatus, RecallReply, StatusRequest
from contracts.wire.recall_pb2_grpc import RecallServiceStub

MODEL = "t2diff"
BASES = 4  # full snapshots; each differs from the others in tower and in all item vectors
POLL_S = 0.15  # a question costs a replica about as much as a request does; seldom, lest it be the load
LONGEST_S = 60.0  # that a swap may take
VECTOR_TOLERANCE = 0.02  # of a vector's length: a replica may round the time since the last behaviour


class Swap(NamedTuple):
    """One swap, in seconds of the machine's monotonic clock."""

    version: int  # as in `serving_load.Requests`
    moved_s: float  # when the pointer moved
    done_s: float  # when the last replica was seen to serve the version


class Checker:
    """Holds replies against the versions that they name.

    Two things must agree with the named version: each score with the user vector times the item's vector, and the user
    vector with what the tower makes of the user's features. All item vectors and the tower differ between two full
    snapshots, so neither another version's index nor another's tower passes.
    """

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._named = lru_cache(2 * BASES)(self._load)

    def mixed(self, reply: RecallReply, user_id: int) -> bool:
        """Whether something in the reply is not of the version that it names."""
        named, tower = self._named(reply.model, reply.snapshot_version)
        vector = np.array(reply.user_vector, np.float32)
        rows = rows_of(np.array([item.item_id for item in reply.items], np.int64), named.item_ids)
        if not vector.size or not rows.size or (rows < 0).any():
            return True
        scores = np.array([item.score for item in reply.items], np.float32)
        if not np.allclose(scores, named.item_vectors[rows] @ vector, rtol=1e-4, atol=1e-4):
            return True
        (expected,) = tower([user_id], [self._rig.world.watched(user_id)])
        return bool(np.linalg.norm(vector - expected) > VECTOR_TOLERANCE * np.linalg.norm(expected))

    def count(self, shot: Shot, table: Requests) -> tuple[int, int]:
        """How many kept replies of a shot were held against their versions, and how many were mixed."""
        checked = mixed = 0
        for place, content in replies_of(shot):
            checked += 1
            mixed += self.mixed(RecallReply.FromString(content), int(table.user[place]))
        return checked, mixed

    def _load(self, model: str, version: str) -> tuple[Snapshot, SnapshotTower]:
        named = delta.read(self._rig.snapshots, model, version)
        return named, SnapshotTower(named)


class Line:
    """Versions in the order in which they go live: full snapshots and deltas in turns, round and round.

    They are written once, and after the last one comes the first again. To a replica that is the same work as a version
    that was never live: it holds one version at a time, and whatever else the pointer names it reads, verifies and
    loads. What this leaves out is the writing.

    With a share, each version is on trial for so many users first: a full snapshot, then its delta onto it, and then
    the trial ends, well or badly in turns.
    """

    def __init__(self, rig: Rig, touched: float, share: float = 0.0) -> None:
        """Write the versions; the first one goes live."""
        self._rig = rig
        self._share = share
        self._ends_well = itertools.cycle((False, True))
        names = []
        for number in range(1, BASES + 1):
            base = full(rig.world, MODEL, number)
            names.append(snapshot.write(rig.snapshots, base).name)
            names.append(delta.write(rig.snapshots, moved(base, touched, 1)).name)
        snapshot.publish(rig.snapshots, MODEL, names[0])
        self._next: Iterator[str] = itertools.islice(itertools.cycle(names), 1, None)

    def swap(self, replicas: Iterable[Replica]) -> Swap:
        """Let the next version go live, and wait until every replica serves it.

        Replicas are asked for their `Status`, which costs them little; to read all their metrics so often would not.
        """
        version = next(self._next)
        place = Version.parse(version)
        assert place
        began_s = time.perf_counter()
        if self._share:
            self._try_out(version, replicas, began_s + LONGEST_S)
        else:
            snapshot.publish(self._rig.snapshots, MODEL, version)
            wait_for(replicas, lambda says: says.snapshot_version == version, began_s + LONGEST_S)
        return Swap(1000 * place.number + place.sequence, began_s, time.perf_counter())

    def _try_out(self, version: str, replicas: Iterable[Replica], deadline_s: float) -> None:
        """Put a version on trial; with a delta the trial ends."""
        root = self._rig.snapshots
        canary.try_out(root, MODEL, Canary(version, self._share, version))
        wait_for(replicas, lambda says: says.canary_version == version, deadline_s)
        if "+" not in version:
            return
        if next(self._ends_well):
            canary.promote(root, MODEL, version)
        else:
            canary.withdraw(root, MODEL)
        wait_for(replicas, lambda says: not says.canary_version, deadline_s)


def wait_for(replicas: Iterable[Replica], holds: Callable[[ModelStatus], bool], deadline_s: float) -> None:
    """Wait until every replica says of its model what it should.

    Raises:
        TimeoutError: one did not in time.

    """
    for replica in replicas:
        _wait_for(replica.address, holds, deadline_s)


def _wait_for(address: str, holds: Callable[[ModelStatus], bool], deadline_s: float) -> None:
    pause = threading.Event()
    with grpc.insecure_channel(address, [("grpc.enable_http_proxy", 0)]) as channel:
        stub = RecallServiceStub(channel)
        while time.perf_counter() < deadline_s:
            status = stub.Status(StatusRequest(), timeout=LONGEST_S)
            if any(holds(each) for each in status.models if each.model == MODEL):
                return
            pause.wait(POLL_S)
    raise TimeoutError(f"{address} does not serve what it should after {LONGEST_S:.0f} s")
