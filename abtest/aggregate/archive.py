"""An aggregate on disk: one compressed NumPy archive. It does not grow with users, so a report from it takes no time.

The header says of which class every part is and which array of the archive holds its numbers; of a symmetric matrix
only the upper triangle is kept.
"""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from abtest.aggregate.aggregate import Aggregate
from abtest.aggregate.sources import Votes
from abtest.stats.columns import AnyColumn, Column
from abtest.stats.histogram import Histogram
from abtest.stats.jackknife import Buckets
from abtest.stats.largest import Largest
from abtest.stats.moments import Moments
from abtest.stats.winsorize import Cap
from contracts.config.experiment import Experiment
from contracts.runtime import arrays
from contracts.runtime.durable import DAMAGED, StateError, replace_file

FORMAT = 4
ZIP = b"PK\x03\x04"  # how every archive begins, a damaged one too unless it was the beginning that was hit
KINDS: dict[str, type] = {kind.__name__: kind for kind in (Aggregate, Buckets, Cap, Histogram, Largest, Moments, Votes)}


@dataclass(frozen=True)
class Counted:
    """An aggregate, and by name how much of the data is not in it or is missing. No name stands for 0.

    ``rows``: all that were read. ``rows_outside_days``: on a day that the experiment does not have, left out.
    ``rows_late``: of days that were kept before they came, left out.
    ``rows_of_testers``: of users in `overrides`, left out. ``users_in_two_arms``: left out with all their rows.
    ``users_without_pre``: whose covariates are taken as 0, nothing being known of them from before.
    ``pre_users_without_rows``: of the second table, left out. ``days_without_rows``: before the last day seen.
    ``arms_without_users``. ``pre_arm_left_out``, ``pre_day_left_out``: 1 where the second table has such a column.
    """

    aggregate: Aggregate
    counts: dict[str, int] = field(default_factory=dict)


def save(counted: Counted, experiment: Experiment, path: Path) -> None:
    """Write atomically: a reader, or a crash, meets the old file or the new one, whole."""
    facts = {"experiment": experiment.definition, "counts": counted.counts}
    write_archive({"aggregate": counted.aggregate}, facts, path)


def load(path: Path, experiment: Experiment) -> Counted:
    """Read what `save` wrote.

    Raises:
        StateError: there is no such file, it is something else or damaged, or it is of another experiment or build.

    """
    values, facts = read_archive(path, experiment)
    if "aggregate" not in values:
        raise _no_aggregate(path)
    counts = facts.get("counts")
    numbers = counts.values() if isinstance(counts, dict) else [counts]
    if not isinstance(values["aggregate"], Aggregate) or not all(type(number) is int for number in numbers):
        raise StateError(f"{path} is damaged: what is in it is no aggregate.")
    return Counted(values["aggregate"], facts["counts"])


def write_archive(values: Mapping[str, Any], facts: Mapping[str, Any], path: Path) -> None:
    """`values`, made of `KINDS`, dictionaries, tuples and numbers, and `facts`, plain JSON; written atomically."""
    kept: list[npt.NDArray[Any]] = []
    header = {"format": FORMAT, "told": facts, "values": _taken_apart(values, kept)}
    buffer = io.BytesIO()
    named: dict[str, Any] = {str(place): array for place, array in enumerate(kept)}
    np.savez_compressed(buffer, header=np.frombuffer(json.dumps(header).encode(), np.uint8), **named)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, buffer.getbuffer())


def read_archive(path: Path, experiment: Experiment) -> tuple[dict[str, Any], dict[str, Any]]:
    """What `write_archive` was given, of an experiment whose definition was told as ``experiment``.

    Raises:
        StateError: there is no such file, it is damaged, or it is of another experiment or build.

    """
    try:
        with path.open("rb") as file:
            if file.read(len(ZIP)) != ZIP:
                raise _no_aggregate(path)
            file.seek(0)
            stored = arrays.unzip(file.read())
        header = json.loads(stored["header"].tobytes()) if "header" in stored else {}
        if (
            not isinstance(header, dict) or "told" not in header
        ):  # an archive of something else, such as a collector's state
            raise _no_aggregate(path)
        if header["format"] != FORMAT:
            raise StateError(f"{path} has format {header['format']}; this build reads {FORMAT}.")
        if not experiment.is_defined_by(header["told"]["experiment"]):
            raise StateError(
                f"{path} was made of another experiment than '{experiment.name}', or of other arms or days."
            )
        values, told = _put_together(header["values"], stored), header["told"]
        if not isinstance(values, dict):
            raise ValueError("its values have no names")  # noqa: TRY004  what is on the disk is no argument
    except FileNotFoundError as error:
        raise StateError(f"There is no saved aggregate at {path}.") from error
    except IsADirectoryError as error:
        raise _no_aggregate(path) from error
    except DAMAGED as error:
        raise StateError(f"{path} is damaged: {' '.join(str(error).split())}.") from error
    return values, told


def _no_aggregate(path: Path) -> StateError:
    return StateError(f"{path} is not an aggregate; `driftline experiment report --save-state` writes one.")


def _taken_apart(value: Any, stored: list[npt.NDArray[Any]]) -> Any:
    """`value` as JSON; its arrays go into `stored`."""
    if isinstance(value, Moments):
        upper = value.products[np.triu_indices(len(value.columns))]
        return {"Moments": [value.columns, value.n, _kept(value.means, stored), _kept(upper, stored)]}
    if is_dataclass(value):
        return {type(value).__name__: [_taken_apart(getattr(value, each.name), stored) for each in fields(value)]}
    if isinstance(value, np.ndarray):
        return {"array": _kept(value, stored)}
    if isinstance(value, Mapping):
        return {"dict": [[key, _taken_apart(each, stored)] for key, each in value.items()]}
    return list(value) if isinstance(value, tuple) else value


def _put_together(value: Any, stored: Mapping[str, npt.NDArray[Any]]) -> Any:
    if isinstance(value, list):
        return tuple(value)
    if not isinstance(value, dict):
        return value
    ((kind, parts),) = value.items()
    if kind == "array":
        return stored[str(parts)]
    if kind == "dict":
        return {key: _put_together(each, stored) for key, each in parts}
    if kind == "Moments":
        columns, n, means, upper = parts
        if stored[str(upper)].shape != (len(columns) * (len(columns) + 1) // 2,):
            raise ValueError("sums of products do not fit their columns")
        products = np.zeros((len(columns), len(columns)))
        products[np.triu_indices(len(columns))] = stored[str(upper)]
        return Moments(tuple(map(_column, columns)), n, stored[str(means)], products + np.triu(products, 1).T)
    return KINDS[kind](*(_put_together(part, stored) for part in parts))


def _column(saved: str | list[Any]) -> AnyColumn:
    return saved if isinstance(saved, str) else Column(*saved)


def _kept(array: npt.NDArray[Any], stored: list[npt.NDArray[Any]]) -> int:
    stored.append(array)
    return len(stored) - 1
