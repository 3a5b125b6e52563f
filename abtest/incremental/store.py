"""What is kept of an experiment to which days are added, and its folder (see `abtest.incremental.add_day`)."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from abtest.aggregate.aggregate import BUCKETS, SEGMENTS, Aggregate, layout
from abtest.aggregate.archive import fingerprint, read_archive, write_archive
from abtest.aggregate.user_days import Ints
from abtest.stats.histogram import Histogram
from abtest.stats.jackknife import Buckets
from abtest.stats.moments import Floats, Moments
from contracts.config.experiment import Experiment
from contracts.runtime.durable import StateError

MANIFEST = "kept.npz"
COVARIATES = "pre.npy"  # where they are given once for all users
ROSTER = ("ids", "places", "gone", "totals")


@dataclass(frozen=True)
class Day:
    """A kept day: where each run of users begins and ends among its rows, and what products are taken about.

    `about` (kinds, q): of each kind the means of the day's columns, 0, 0, and those of the covariates of who is new.
    `sums` (kinds, q): of columns, exposed, first and covariates, about those, over the users who are still there.
    """

    day: int
    bounds: tuple[int, ...]
    about: Floats
    sums: Floats
    rows: int = 0  # that its table had, whatever became of them


@dataclass(frozen=True)
class Kept:
    """An experiment so far. `starts`: where each run of users begins, and where the last ends.

    `moments`: by segment and arm, of all days' columns jointly. `days`: those added, in order.
    """

    folder: Path
    experiment: Experiment
    columns: tuple[str, ...]
    covariates: tuple[str, ...]
    spread: tuple[str, ...]
    moments: dict[str, dict[str, Moments]]
    buckets: dict[str, Buckets]
    histograms: dict[str, dict[str, Histogram]]
    starts: tuple[int, ...] = (0,)
    days: tuple[Day, ...] = ()
    in_two_arms: int = 0
    counts: dict[str, int] = field(default_factory=dict)  # of the days' rows, see `abtest.aggregate.archive.Counted`

    @property
    def aggregate(self) -> Aggregate:
        """Of all days added."""
        days = self.days[-1].day + 1 if self.days else 1
        names = (*self.columns, *self.covariates)
        totals = [(name, [f"{name}@{day}" for day in range(days)]) for name in names]
        known, new = (self.moments[segment] for segment in SEGMENTS)
        return Aggregate(
            tuple(self.experiment.arms),
            self.columns,
            self.covariates,
            days,
            {arm: known[arm] + new[arm] for arm in known},
            self.buckets,
            {segment: {arm: of.sums(totals) for arm, of in self.moments[segment].items()} for segment in SEGMENTS},
            in_two_arms=self.in_two_arms,
            histograms=self.histograms,
        )

    @property
    def kinds(self) -> list[tuple[str, str]]:
        """Arm and segment of each run of a day."""
        return [(arm, segment) for arm in self.experiment.arms for segment in SEGMENTS]


def begun(
    folder: Path,
    experiment: Experiment,
    columns: Sequence[str],
    covariates: Sequence[str] = (),
    pre: tuple[Ints, Floats] | None = None,
    spread: Sequence[str] = (),
) -> Kept:
    """An experiment without days, in a folder of its own.

    Args:
        folder: where it is kept.
        experiment: its file.
        columns: of its metrics.
        covariates: from before.
        pre: ids and covariates (users, P), where a day's table does not have them.
        spread: columns whose histograms are kept.

    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / COVARIATES).unlink(missing_ok=True)  # of a beginning that did not get far
    if pre is not None:
        order = np.argsort(pre[0])
        np.save(folder / "pre-ids.npy", pre[0][order])
        np.save(folder / COVARIATES, pre[1][order])
    arms, wide, k = tuple(experiment.arms), layout(columns, covariates, 1), len(columns)
    nobody = Moments.of(wide, np.zeros((0, len(wide))))
    found = Kept(
        folder,
        experiment,
        tuple(columns),
        tuple(covariates),
        tuple(spread),
        {segment: dict.fromkeys(arms, nobody) for segment in SEGMENTS},
        {arm: Buckets(tuple(columns), np.zeros((BUCKETS, k)), np.zeros(BUCKETS, np.int64)) for arm in arms},
        {column: {arm: Histogram.of(np.zeros(0)) for arm in arms} for column in spread},
        counts={} if pre is None else {"pre_users_without_rows": len(pre[0])},
    )
    none = np.zeros(0, np.int64)
    write(folder, "none", ids=none, places=none, gone=np.zeros(0, bool), totals=np.zeros((0, len(spread))))
    commit(found)
    return found


def opened(folder: Path, experiment: Experiment) -> Kept:
    """What was kept.

    Raises:
        StateError: there is nothing, it is damaged, or it is of another experiment.

    """
    values, told = read_archive(folder / MANIFEST, experiment)
    kept = values["days"]
    days = tuple(
        Day(day, tuple(bounds), kept[str(day)]["about"], kept[str(day)]["sums"], rows)
        for day, bounds, rows in told["days"]
    )
    found = Kept(
        folder,
        experiment,
        tuple(told["columns"]),
        tuple(told["covariates"]),
        tuple(told["spread"]),
        values["moments"],
        values["buckets"],
        values["histograms"],
        tuple(told["starts"]),
        days,
        told["in_two_arms"],
        told["counts"],
    )
    _verify(found)
    return found


def _verify(kept: Kept) -> None:
    """That all files are there and as long as they say."""
    names = [f"{what}-{day.day}" for day in kept.days for what in ("rows", "values", "pre")]
    names += [f"{what}-{kept.days[-1].day if kept.days else 'none'}" for what in ROSTER]
    for name in names:
        path = kept.folder / f"{name}.npy"
        try:
            np.load(path, mmap_mode="r")
        except (OSError, ValueError, EOFError) as error:
            why = "is missing" if not path.exists() else "is damaged"
            raise StateError(f"{path} {why}; begin another folder.") from error


def roster(kept: Kept) -> dict[str, Any]:
    name = str(kept.days[-1].day) if kept.days else "none"
    return {what: np.load(kept.folder / f"{what}-{name}.npy") for what in ROSTER}


def write(folder: Path, name: str, **arrays: Any) -> None:
    for what, array in arrays.items():
        np.save(folder / f"{what}-{name}.npy", array)


def commit(kept: Kept) -> None:
    values = {
        "moments": kept.moments,
        "buckets": kept.buckets,
        "histograms": kept.histograms,
        "days": {str(of.day): {"about": of.about, "sums": of.sums} for of in kept.days},
    }
    told = {
        "experiment": fingerprint(kept.experiment),
        "columns": kept.columns,
        "covariates": kept.covariates,
        "spread": kept.spread,
        "starts": kept.starts,
        "days": [(of.day, of.bounds, of.rows) for of in kept.days],
        "in_two_arms": kept.in_two_arms,
        "counts": kept.counts,
    }
    write_archive(values, told, kept.folder / MANIFEST)
    now = {f"{what}-{kept.days[-1].day if kept.days else 'none'}.npy" for what in ROSTER}
    for what in ROSTER:
        for path in kept.folder.glob(f"{what}-*.npy"):
            if path.name not in now:
                path.unlink()
