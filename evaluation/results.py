"""What a run gave: one JSON file each, with every query's rank, so that all tables follow from the files alone."""

import base64
import binascii
import json
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from contracts.features import Ints
from contracts.runtime.durable import replace_file
from evaluation.metrics import Values, mrr, ndcg, recall
from evaluation.tasks import Task, TaskError, from_json, to_json

MEASURES = {"recall": recall, "mrr": mrr, "ndcg": ndcg}
METRICS = (
    "recall@2", "recall@10", "recall@20", "recall@100", "mrr@2", "mrr@10", "mrr@20", "ndcg@10", "ndcg@20",
)  # fmt: skip
COVERED = 20  # length of the lists whose coverage is told


class ResultError(Exception):
    """A result file cannot be read; one sentence says why."""


@dataclass(frozen=True)
class Result:
    """A task, what came of it, and where it was run."""

    task: Task
    ranks: Ints  # (Q,) of the test queries' targets, from 1
    user_ids: Ints  # (Q,)
    items: int  # that competed
    coverage: float | None  # share of the items in at least one list of `COVERED`; None where lists were not kept
    parameter_bytes: int
    training_s: float
    best_epoch: int  # 0 where there are no epochs
    epochs: int
    inference_ms: dict[int, float]  # per user, by batch
    device: str
    threads: int
    versions: dict[str, str]
    history: list[dict[str, float]] = field(default_factory=list)  # an entry an epoch
    study: dict[str, list[float]] = field(default_factory=dict)

    def values(self, metric: str) -> Values:
        """(Q,) of a metric such as `recall@20`."""
        return measure(self.ranks, metric)


def measure(ranks: Ints, metric: str) -> Values:
    """A metric by its name.

    >>> measure(np.array([1, 30]), "recall@20").tolist()
    [1.0, 0.0]
    """
    name, _, k = metric.partition("@")
    return MEASURES[name](ranks, int(k))


def path_of(folder: Path, task: Task) -> Path:
    """Where a task's result is kept."""
    return folder / f"{task.name}.json"


def write(folder: Path, result: Result) -> Path:
    """Keep a result; a file is whole or not there."""
    path = path_of(folder, result.task)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, f"{json.dumps(_as_json(result), indent=1)}\n".encode())
    return path


def read(path: Path) -> Result:
    """Read a result back.

    Raises:
        ResultError: the file is absent, or not a result.

    """
    try:
        content = json.loads(path.read_text())
        fields = {name: content[name] for name in Result.__dataclass_fields__}
        fields |= {
            "task": from_json(content["task"]),
            "ranks": _unpacked(content["ranks"]),
            "user_ids": _unpacked(content["user_ids"]),
            "inference_ms": {int(batch): ms for batch, ms in content["inference_ms"].items()},
        }
        result = Result(**fields)
    except OSError as error:
        raise ResultError(f"{path} can't be read: {error.strerror}.") from error
    except (ValueError, KeyError, TypeError, AttributeError, zlib.error, binascii.Error, TaskError) as error:
        raise ResultError(f"{path} is not a result: {' '.join(str(error).split())}.") from error
    if result.ranks.shape != result.user_ids.shape or not result.ranks.size:
        raise ResultError(f"{path} is not a result: it has {result.ranks.size} ranks of {result.user_ids.size} users.")
    return result


def read_all(folder: Path) -> list[Result]:
    """All results in a folder, by name.

    Raises:
        ResultError: a file is not a result.

    """
    return [read(path) for path in sorted(folder.glob("*/*.json"))]


def _as_json(result: Result) -> dict[str, Any]:
    values = {name: getattr(result, name) for name in Result.__dataclass_fields__}
    return values | {
        "task": to_json(result.task),
        "metrics": {name: round(float(result.values(name).mean()), 6) for name in METRICS},  # for readers
        "ranks": _packed(result.ranks),
        "user_ids": _packed(result.user_ids),
    }


def _packed(numbers: Ints) -> dict[str, str]:
    dtype = "<u2" if numbers.max(initial=0) < 2**16 else "<u4"
    raw = zlib.compress(numbers.astype(dtype).tobytes(), 9)
    return {"dtype": dtype, "zlib_base64": base64.b64encode(raw).decode()}


def _unpacked(packed: dict[str, str]) -> Ints:
    raw = zlib.decompress(base64.b64decode(packed["zlib_base64"], validate=True))
    return np.frombuffer(raw, np.dtype(packed["dtype"])).astype(np.int64)
