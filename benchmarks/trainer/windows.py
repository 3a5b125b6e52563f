"""What the trainer and its peer learn from when they are timed, apart from either: windows, a round, its figures."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Shape:
    """The same for everyone: an example is one user's window of behaviours and the item that followed it."""

    window: int = 50  # behaviours, all there: no padding
    dim: int = 64
    batch: int = 128
    depth: int = 2  # layers of a transformer
    heads: int = 2
    items: int = 7_583  # as many as KuaiRand-Pure has
    windows: int = 2_560  # 20 batches
    seed: int = 0

    def to_json(self) -> str:
        return json.dumps(asdict(self))


def windows(shape: Shape) -> npt.NDArray[np.int64]:
    """(W, window + 1) item ids from 1, oldest first; each item occurs, so every softmax is over all of them."""
    rng = np.random.default_rng(shape.seed)
    drawn = rng.integers(1, shape.items + 1, (shape.windows, shape.window + 1))
    drawn.flat[: shape.items] = np.arange(1, shape.items + 1)
    return drawn


@dataclass
class Stopwatch:
    """Time from the end of the first batches, which warm up, until there is enough of it.

    The CPU time is that of all threads of this process; on a device it says nothing.
    """

    seconds: float  # of CPU or wall time, whichever is there first, and at least so many
    batches: int
    wait: Callable[[], None] = lambda: None  # for a device to have done what it was told
    seen: int = -1  # the first one warms up
    began: tuple[float, float] = (0.0, 0.0)

    def enough(self) -> bool:
        """Count another batch; whether it was the last."""
        self.seen += 1
        self.wait()
        if not self.seen:
            self.began = _now()
        wall_s, cpu_s = self._spent()
        self.wall_s, self.cpu_s = wall_s, cpu_s
        return self.seen >= self.batches and max(wall_s / 10, cpu_s) >= self.seconds

    def figures(self, shape: Shape) -> dict[str, float]:
        """Windows a second, by wall and by CPU time."""
        learned = self.seen * shape.batch
        return {"windows_per_s": learned / self.wall_s, "windows_per_cpu_s": learned / self.cpu_s}

    def _spent(self) -> tuple[float, float]:
        wall, cpu = _now()
        return wall - self.began[0], cpu - self.began[1]


def _now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()
