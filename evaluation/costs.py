"""What a model weighs and how long a request takes."""

import dataclasses
import platform
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from contracts.config.settings import ModelSettings
from evaluation.baselines.base import Fitted as FittedBaseline
from evaluation.data import Query
from evaluation.fit import asked
from trainer.learn.model import Model
from trainer.models.base import Inputs

BATCHES = (1, 64)
ROUNDS = 21
ROUNDS_S = 2.0  # rounds end after so long, but there are three at least


def parameter_bytes(model: Model) -> int:
    """Bytes of all that is learned."""
    return sum(p.numel() * p.element_size() for p in model.parameters())


def counted_bytes(fitted: Any) -> int:
    """Bytes of the arrays that a baseline has counted."""
    if isinstance(fitted, np.ndarray):
        return int(fitted.nbytes)
    if isinstance(fitted, sparse.csr_array):
        return sum(counted_bytes(part) for part in (fitted.data, fitted.indices, fitted.indptr))
    if isinstance(fitted, tuple):
        return sum(counted_bytes(part) for part in fitted)
    if dataclasses.is_dataclass(fitted):
        return sum(counted_bytes(getattr(fitted, f.name)) for f in dataclasses.fields(fitted))
    return 0


def inference_ms(model: Model, settings: ModelSettings, queries: list[Query], device: torch.device) -> dict[int, float]:
    """Milliseconds per user, by batch: user vector and the score of every item, item vectors being ready.

    The median of `ROUNDS` rounds after one that does not count.
    """
    model.eval()
    out = {}
    with torch.inference_mode():
        vectors = model.vectors()
        for batch in BATCHES:
            part = (queries * (batch // len(queries) + 1))[:batch]
            inputs, noise = asked(model, settings, part, device)

            def once(inputs: Inputs = inputs, noise: Tensor = noise) -> None:
                float((model.users(inputs, vectors, noise) @ vectors.T)[0, 0])  # waits for the device

            out[batch] = _median_ms(once) / batch
    return out


def counted_ms(fitted: FittedBaseline, queries: list[Query]) -> dict[int, float]:
    """The same of a baseline."""
    out = {}
    for batch in BATCHES:
        histories = [q.history for q in (queries * (batch // len(queries) + 1))[:batch]]
        out[batch] = _median_ms(lambda histories=histories: fitted.scores(histories)) / batch  # type: ignore[misc]
    return out


def device_name(device: torch.device) -> str:
    """What the device is called by its maker."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Of what the numbers depend on."""
    return {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}


def _median_ms(once: Callable[[], object]) -> float:
    once()
    taken: list[float] = []
    while len(taken) < 3 or (len(taken) < ROUNDS and sum(taken) < ROUNDS_S):
        begun = time.perf_counter()
        once()
        taken.append(time.perf_counter() - begun)
    return round(1000 * median(taken), 4)
