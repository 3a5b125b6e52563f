"""RecTools' SASRec as the trainer's peer: windows learned per second.

RecTools and not RecBole: both resolve on Python 3.11, but RecBole comes to 73 packages (Ray and TensorBoard among them)
and had its last release in February 2025, while what RecTools' SASRec needs beside driftline's own environment is
small, so it runs on the very torch that the trainer runs on. It asks for an older numpy and attrs than driftline's,
hence benchmarks/trainer/requirements.txt in a folder of its own, which the child's PYTHONPATH puts first.

It runs (`benchmarks/trainer/peer_rectools.py`) in a process of its own that answers one line of JSON with another, so
that rounds of both sides take turns:

    {"loss": "softmax", "way": "fit"} → {"windows_per_s": …, "windows_per_cpu_s": …}

`fit` is the training loop as its users run it: `SASRecModel.fit` with its default trainer (PyTorch Lightning), from a
batch's collation by the data loader to the optimizer's step. What comes before the first batch (a data frame to its
Dataset, ids to rows, making the model) is not timed. `step` is the least that its model can do: forward, loss, backward
and optimizer on batches that are collated beforehand, without Lightning.

`softmax` is its default loss, over the whole catalogue at every place; `BCE` is the original paper's, one negative a
place, which is cheaper. Readings, each the kindest to the peer: no dropout, no item features, its own smaller
feed-forward (d → d → d; ours d → 4d → d), no padding.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.trainer.windows import Shape

PEER = Path(".bench-trainer")  # what `make bench-trainer` lays over driftline's environment


class Peer:
    """The child, from our side."""

    def __init__(self, child: "subprocess.Popen[str]") -> None:
        self._child = child
        self.about = self._read()

    def round(self, loss: str, way: str) -> dict[str, float]:
        """Let it learn for a while."""
        if self._child.stdin is None:
            raise RuntimeError("the peer has no input")
        self._child.stdin.write(json.dumps({"loss": loss, "way": way}) + "\n")
        self._child.stdin.flush()
        return self._read()

    def _read(self) -> Any:
        line = self._child.stdout.readline() if self._child.stdout else ""
        if not line:
            raise RuntimeError("the peer ended; standard error has its reason")
        return json.loads(line)


@contextmanager
def start(shape: Shape, seconds: float, batches: int, threads: int, device: str) -> Iterator[Peer]:
    """A peer for as long as the context lasts."""
    arguments = ["--seconds", str(seconds), "--batches", str(batches), "--threads", str(threads), "--device", device]
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "benchmarks.trainer.peer_rectools",
        "--shape",
        shape.to_json(),
        *arguments,
    ]
    # `env` puts the peer's packages first for the child alone.
    env = ["env", f"PYTHONPATH={PEER.resolve()}:{Path.cwd()}"]
    with subprocess.Popen([*env, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        yield Peer(child)
        if child.stdin is not None:
            child.stdin.close()  # which ends it
