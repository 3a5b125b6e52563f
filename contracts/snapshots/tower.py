"""A snapshot's user tower, ready to run: one way to open it and to feed it, for replicas, the gate and benchmarks."""

from collections.abc import Iterable

import numpy as np
import onnxruntime

from contracts.features import Floats, sampling_noise
from contracts.snapshots.snapshot import Snapshot


def open_session(tower: bytes, threads: int) -> onnxruntime.InferenceSession:
    """Load a graph, to run on this many threads of the CPU.

    Raises:
        RuntimeError: it cannot be loaded.

    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(tower, options, providers=["CPUExecutionProvider"])


class Tower:
    """A user tower and the noise that its snapshot gives each user."""

    def __init__(self, tower: bytes, sampling_seed: int, noise_shape: tuple[int, ...], threads: int) -> None:
        """Load the graph; the other arguments are those of the manifest and of `open_session`.

        Raises:
            RuntimeError: the graph cannot be loaded.

        """
        self._session = open_session(tower, threads)
        self._inputs = {entry.name for entry in self._session.get_inputs()}
        self._sampling_seed, self._noise_shape = sampling_seed, noise_shape

    @classmethod
    def of(cls, snapshot: Snapshot, threads: int = 1) -> "Tower":
        """The tower of a snapshot.

        One thread unless told otherwise: replicas scale by processes, and two threads are slower on a small tower.
        """
        return cls(snapshot.tower, snapshot.manifest.sampling_seed, snapshot.manifest.noise_shape, threads)

    def users(self, sequence: Floats, mask: Floats, lag: Floats, user_ids: Iterable[int]) -> Floats:
        """The user vectors (B, d).

        Args:
            sequence: (B, n, d) item vectors of the behaviours, 0 where there is none.
            mask: (B, n), as `contracts.features.TowerInputs` has it.
            lag: (B, n), likewise, counted back from `moment_of` the request.
            user_ids: B ids, on which the noise depends.

        """
        feed = {"sequence": sequence, "mask": mask, "lag": lag}
        if "noise" in self._inputs:
            draws = [sampling_noise(int(user), self._sampling_seed, self._noise_shape) for user in user_ids]
            feed["noise"] = np.stack(draws)
        vectors: Floats
        (vectors,) = self._session.run(["user"], {name: feed[name] for name in feed if name in self._inputs})
        return vectors
