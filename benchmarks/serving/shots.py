"""Loads, from the side of whoever measures: what to send, and what came of it. `serving_load` sends."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from benchmarks.serving.figures import percentiles
from contracts.features import Floats, Ints

OK = 0
OVERLAY = Path(".bench-serving")  # what `make bench-serving` lays over driftline's environment


def text_of(which: int) -> str:
    """The text id of a user, or of an item."""
    return f"{which:024x}"


@dataclass(frozen=True)
class Shot:
    """A constant load for a while.

    Attributes:
        addresses: HOST:PORT of each server; they take turns.
        rate: requests a second, on average.
        seconds: that count; `warm_s` more come before them.
        users: who may ask; each asks once before one asks a second time.
        time_ms: of every request; 0: the server's clock.
        explained: share of the requests that ask for the user vector too; their replies are kept in `out`.
        kind: how the servers are asked. "recall": a channel to each. "balanced": one channel, on which gRPC balances
            and retries. "client": `serving.client`. "http": POST {"user_ids": [u]} to /recall.
        out: a directory for what came of each request; "" for none.
        text_ids: users are named by text ids, and by no number; kinds "recall" and "balanced".

    """

    addresses: tuple[str, ...]
    rate: float
    seconds: float
    users: int
    warm_s: float = 1.0
    k: int = 100
    seed: int = 0
    deadline_s: float = 1.0
    time_ms: int = 0
    explained: float = 0.0
    kind: Literal["recall", "balanced", "client", "http"] = "recall"
    out: str = ""
    text_ids: bool = False


class Requests(NamedTuple):
    """What came of each request, (R,) each; times in seconds of the machine's monotonic clock."""

    due_s: Floats
    sent_s: Floats
    done_s: Floats
    code: Ints  # gRPC's; whatever goes wrong over HTTP is UNAVAILABLE, but for a deadline
    version: Ints  # 1000 · number + sequence of the snapshot that answered; 0 where none is named
    user: Ints
    server: Ints  # place among the addresses; -1 where somebody else chose
    counts: Ints  # 0 for those that only warm up
    explained: Ints


class Generator:
    """The load generator, from the side of whoever measures."""

    def __init__(self, child: "subprocess.Popen[str]") -> None:
        self._child = child

    def fire(self, shot: Shot) -> dict[str, Any]:
        """Send a load and wait for its end."""
        self.begin(shot)
        return self.finish()

    def begin(self, shot: Shot) -> None:
        """Send a load, and don't wait; `finish` must follow."""
        assert self._child.stdin
        self._child.stdin.write(json.dumps(asdict(shot)) + "\n")
        self._child.stdin.flush()

    def finish(self) -> dict[str, Any]:
        """Figures of the load: how many were sent and answered, codes, latencies, what it cost to generate."""
        assert self._child.stdout
        line = self._child.stdout.readline()
        if not line:
            raise RuntimeError("the load generator ended; standard error has its reason")
        figures: dict[str, Any] = json.loads(line)
        return figures


@contextmanager
def generator() -> Iterator[Generator]:
    """A load generator for as long as the context lasts."""
    path = f"PYTHONPATH={Path.cwd()}:{OVERLAY.resolve()}"  # driftline's own packages come first
    command = ["env", path, sys.executable, "-W", "ignore", "-m", "benchmarks.serving.load"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        try:
            yield Generator(child)
        finally:
            assert child.stdin
            child.stdin.close()  # which ends it
            child.wait()


def requests_of(shot: Shot) -> Requests:
    """What came of each request of a shot that had an `out`."""
    with np.load(Path(shot.out) / "requests.npz", allow_pickle=False) as columns:
        return Requests(**columns)


def replies_of(shot: Shot) -> Iterator[tuple[int, bytes]]:
    """The kept replies: the place of the request, and what was answered."""
    with (Path(shot.out) / "replies.bin").open("rb") as file:
        while head := file.read(12):
            place, size = int.from_bytes(head[:8], "big"), int.from_bytes(head[8:], "big")
            yield place, file.read(size)


def figures(shot: Shot, table: Requests) -> dict[str, Any]:
    """What a shot came to, without the requests that only warmed up."""
    due, sent, done, code = (each[table.counts.astype(bool)] for each in table[:4])
    ok = code == OK
    lasted = max(float(done.max() - due.min()), shot.seconds) if len(due) else shot.seconds
    return {
        "asked_rate": shot.rate,
        "offered_rate": round(len(due) / shot.seconds, 1),
        "achieved_rate": round(int(ok.sum()) / lasted, 1),
        "sent": len(due),
        "ok": int(ok.sum()),
        "codes": {str(value): count for value, count in Counter(code.tolist()).items() if value != OK},
        **percentiles((done - due)[ok]),
        "late_p99_ms": percentiles(sent - due)["p99_ms"],
    }
