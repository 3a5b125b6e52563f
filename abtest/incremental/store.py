"""What is kept of an experiment to which days are added, and the folder that holds it (see `add_day`).

Users stand in the order in which they came, in runs of users who came alike (`RunKey`); a user's place in that order is
its number in every file. The folder has

    kept.npz                the manifest: the aggregate's parts, and which places and rows each run has
    ids-D, places-D, gone-D, totals-D    the roster after day D, sorted by id: only the last day's is there
    rows-D, values-D        the places of the users who came on day D, sorted, and their columns, capped ones too
    pre-D                   the covariates of those of them who were new
    pre-ids, pre            ids and covariates of all users, where they are given once and not with the days

A file counts only once the manifest names its day. Every file, and then the folder, is synced before the manifest is
replaced, so a crash or a power cut leaves the days before.
"""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from abtest.aggregate.aggregate import BUCKETS, SEGMENTS, Aggregate, layout
from abtest.aggregate.archive import read_archive, write_archive
from abtest.aggregate.user_days import Ints
from abtest.stats.columns import on_days
from abtest.stats.histogram import Histogram
from abtest.stats.jackknife import Buckets
from abtest.stats.moments import Floats, Moments
from abtest.stats.winsorize import Cap
from contracts.config.experiment import Experiment
from contracts.runtime import arrays
from contracts.runtime.durable import DAMAGED, StateError, sync_directory, sync_file

MANIFEST = "kept.npz"
COVARIATES = "pre.npy"  # where they are given once for all users
PRE_IDS = "pre-ids.npy"
PIECE = 1 << 20  # bytes that are read at once
ROSTER = ("ids", "places", "gone", "totals")
DAY_FILES = ("rows", "values", "pre")


class Group(NamedTuple):
    """Users of one arm and one of `SEGMENTS`."""

    arm: str
    segment: str


class RunKey(NamedTuple):
    """Users who came alike: first seen on one day, in one arm, of one of `SEGMENTS`. They stand side by side."""

    day: int
    arm: str
    segment: str

    @property
    def group(self) -> Group:
        return Group(self.arm, self.segment)


@dataclass(frozen=True)
class KeptDay:
    """A day that was added.

    `runs`: which of the day's rows are of which run; runs without a row are left out. `newcomers`: the places of those
    whose first day it is. `about` (q,): by group the means of the day's columns, 0, 0, and the means of the newcomers'
    covariates; products are taken about them. `sums` (q,): by group the sums of columns, exposed, first and covariates
    about those, over the users who are still there. `row_count`: rows of the day's table, whatever became of them.
    """

    day: int
    runs: Mapping[RunKey, slice]
    newcomers: slice
    about: Mapping[Group, Floats]
    sums: Mapping[Group, Floats]
    row_count: int = 0


@dataclass(frozen=True)
class Kept:
    """An experiment so far.

    `moments`: by segment and arm, of all days' columns jointly. `runs`: the places of each run that has users, in
    order. `days`: those added, in order. `buckets_through`: by each of these but the last, the buckets as they were
    after it. `counts`: see `abtest.aggregate.archive.Counted`. `caps`: by those of the columns that are others capped;
    how many users that caps is told by the roster alone.
    """

    folder: Path
    experiment: Experiment
    columns: tuple[str, ...]
    covariates: tuple[str, ...]
    spread: tuple[str, ...]
    moments: dict[str, dict[str, Moments]]
    buckets: dict[str, Buckets]
    histograms: dict[str, dict[str, Histogram]]
    runs: Mapping[RunKey, slice] = field(default_factory=dict)
    days: tuple[KeptDay, ...] = ()
    in_two_arms: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    buckets_through: dict[int, dict[str, Buckets]] = field(default_factory=dict)
    caps: Mapping[str, Cap] = field(default_factory=dict)
    checksums: Mapping[str, int] = field(default_factory=dict)  # of the files beside the manifest

    @property
    def own_columns(self) -> tuple[str, ...]:
        """Those that a day's table has."""
        return tuple(column for column in self.columns if column not in self.caps)

    @property
    def summed(self) -> tuple[str, ...]:
        """Columns whose sums over all days the roster has: those of histograms, and those that are capped."""
        return tuple(dict.fromkeys((*self.spread, *(cap.column for cap in self.caps.values()))))

    @property
    def aggregate(self) -> Aggregate:
        """Of all days added, without the caps."""
        days = self.days[-1].day + 1 if self.days else 1
        names = (*self.columns, *self.covariates)
        totals = [(name, on_days(name, range(days))) for name in names]
        known, new = (self.moments[segment] for segment in SEGMENTS)
        return Aggregate(
            tuple(self.experiment.arms),
            self.columns,
            self.covariates,
            days,
            {arm: known[arm] + new[arm] for arm in known},
            self.buckets,
            {
                segment: {arm: moments.sums(totals) for arm, moments in self.moments[segment].items()}
                for segment in SEGMENTS
            },
            in_two_arms=self.in_two_arms,
            histograms=self.histograms,
            buckets_through={day: self._buckets_after(day) for day in range(days - 1)},
        )

    def _buckets_after(self, day: int) -> dict[str, Buckets]:
        """As they were when a day had ended, one perhaps on which nobody came."""
        known = max((kept for kept in self.buckets_through if kept <= day), default=None)
        if known is not None:
            return self.buckets_through[known]
        return {
            arm: Buckets(sums.columns, np.zeros_like(sums.sums), np.zeros_like(sums.counts))
            for arm, sums in self.buckets.items()
        }

    @property
    def groups(self) -> list[Group]:
        return [Group(arm, segment) for arm in self.experiment.arms for segment in SEGMENTS]

    @property
    def places(self) -> int:
        """How many users have a place, those who left among them."""
        return max((places.stop for places in self.runs.values()), default=0)

    @property
    def has_covariates_of_their_own(self) -> bool:
        """Whether covariates were given once for all users, not with the days."""
        return (self.folder / COVARIATES).exists()

    def array(self, what: str, day: int) -> Any:
        """One of `DAY_FILES`, mapped into memory."""
        return self.checked(f"{what}-{day}.npy")

    def checked(self, name: str) -> Any:
        """An array of the folder, mapped into memory, that is as it was written.

        Raises:
            StateError: it is not.

        """
        path = self.folder / name
        try:
            if _checksum(path) == self.checksums.get(name):
                return arrays.mapped(path)
        except (OSError, ValueError) as error:
            raise StateError(f"{path} cannot be read: {' '.join(str(error).split())}; begin another folder.") from error
        raise StateError(f"{path} is damaged; begin another folder.")


def create(
    folder: Path,
    experiment: Experiment,
    columns: Sequence[str],
    covariates: Sequence[str] = (),
    pre: tuple[Ints, Floats] | None = None,
    spread: Sequence[str] = (),
    caps: Mapping[str, Cap] | None = None,
) -> Kept:
    """An experiment without days, in a folder of its own.

    Args:
        folder: where it is kept.
        experiment: its file.
        columns: of its metrics.
        covariates: from before.
        pre: ids and covariates (users, P), where a day's table does not have them.
        spread: columns whose histograms are kept.
        caps: by those of the columns that are others capped.

    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / COVARIATES).unlink(missing_ok=True)  # of a beginning that did not get far
    if pre is not None:
        order = np.argsort(pre[0])
        _save(folder / PRE_IDS, pre[0][order])
        _save(folder / COVARIATES, pre[1][order])
    arms, wide, k = tuple(experiment.arms), layout(columns, covariates, 1), len(columns)
    nobody = Moments.of(wide, np.zeros((0, len(wide))))
    kept = Kept(
        folder,
        experiment,
        tuple(columns),
        tuple(covariates),
        tuple(spread),
        {segment: dict.fromkeys(arms, nobody) for segment in SEGMENTS},
        {arm: Buckets(tuple(columns), np.zeros((BUCKETS, k)), np.zeros(BUCKETS, np.int64)) for arm in arms},
        {column: {arm: Histogram.of(np.zeros(0)) for arm in arms} for column in spread},
        counts={} if pre is None else {"pre_users_without_rows": len(pre[0])},
        caps=caps or {},
    )
    empty = np.zeros(0, np.int64)
    write_roster(kept, ids=empty, places=empty, gone=np.zeros(0, bool), totals=np.zeros((0, len(kept.summed))))
    return commit(kept)


def load(folder: Path, experiment: Experiment) -> Kept:
    """What was kept.

    Raises:
        StateError: there is nothing, it is damaged, or it is of another experiment or build.

    """
    values, facts = read_archive(folder / MANIFEST, experiment)
    if "checksums" not in facts and "groups" in facts:
        raise StateError(
            f"{folder} was kept by an earlier build, without checksums of its files; begin another folder."
        )
    try:
        kept = _put_together(folder, experiment, values, facts)
        _ = kept.aggregate, kept.places  # what does not fit together is found here and not in the middle of a day
    except DAMAGED as error:
        raise StateError(f"{folder / MANIFEST} is damaged: {' '.join(str(error).split())}.") from error
    _verify(kept)
    return kept


def _put_together(folder: Path, experiment: Experiment, values: Mapping[str, Any], facts: Mapping[str, Any]) -> Kept:
    groups = [Group(*names) for names in facts["groups"]]
    days = tuple(
        KeptDay(
            day["day"],
            _runs(day["runs"]),
            slice(*day["newcomers"]),
            dict(zip(groups, values["about"][str(day["day"])], strict=True)),
            dict(zip(groups, values["sums"][str(day["day"])], strict=True)),
            day["row_count"],
        )
        for day in facts["days"]
    )
    return Kept(
        folder,
        experiment,
        tuple(facts["columns"]),
        tuple(facts["covariates"]),
        tuple(facts["spread"]),
        values["moments"],
        values["buckets"],
        values["histograms"],
        _runs(facts["runs"]),
        days,
        facts["in_two_arms"],
        facts["counts"],
        values["buckets_through"],
        {name: Cap(**cap) for name, cap in facts.get("caps", {}).items()},
        {name: int(checksum) for name, checksum in facts["checksums"].items()},
    )


def forget_users(folder: Path, user_ids: Sequence[int]) -> bool:
    """Empty a folder that has any of these users; whether it had.

    What it keeps was read from a table elsewhere, and the next report reads it from there again. The manifest goes
    first: without it the other files count for nothing.
    """
    rosters = [*folder.glob("ids-*.npy"), *folder.glob("pre-ids.npy")]
    if not any(np.isin(np.load(path, allow_pickle=False), user_ids).any() for path in rosters):
        return False
    (folder / MANIFEST).unlink(missing_ok=True)
    sync_directory(folder)
    for path in folder.glob("*.npy"):
        path.unlink()
    return True


def load_roster(kept: Kept) -> dict[str, Any]:
    """`ids` of all users who ever came, sorted; their `places`; and by place, whether `gone`, and `totals` of
    `Kept.summed`.
    """
    return {what: np.array(kept.checked(f"{what}-{_last(kept)}.npy")) for what in ROSTER}


def write_roster(kept: Kept, **arrays: Any) -> None:
    """The roster after the last day; see `load_roster`."""
    for what, array in arrays.items():
        _save(kept.folder / f"{what}-{_last(kept)}.npy", array)


def write_day(folder: Path, day: int, **arrays: Any) -> None:
    """The day's rows; `arrays` are named as in `DAY_FILES`."""
    for what, array in arrays.items():
        _save(folder / f"{what}-{day}.npy", array)


def commit(kept: Kept) -> Kept:
    """From here on the folder holds `kept`, whose files are written; the roster before is removed.

    Returns it with the checksums of its files.
    """
    names = [path.name for path in kept.folder.glob("pre*.npy") if path.name in (COVARIATES, PRE_IDS)]
    names += [f"{what}-{_last(kept)}.npy" for what in (*ROSTER, *(DAY_FILES if kept.days else ()))]
    days = [f"{what}-{day.day}.npy" for day in kept.days[:-1] for what in DAY_FILES]
    before = {name: kept.checksums[name] for name in days}
    kept = replace(kept, checksums=before | {name: _checksum(kept.folder / name) for name in names})
    sync_directory(kept.folder)  # the names of files that the manifest speaks of have to last before it does
    groups = kept.groups
    values = {
        "moments": kept.moments,
        "buckets": kept.buckets,
        "buckets_through": kept.buckets_through,
        "histograms": kept.histograms,
        "about": {str(day.day): np.stack([day.about[group] for group in groups]) for day in kept.days},
        "sums": {str(day.day): np.stack([day.sums[group] for group in groups]) for day in kept.days},
    }
    facts = {
        "experiment": kept.experiment.definition,
        "columns": kept.columns,
        "covariates": kept.covariates,
        "spread": kept.spread,
        "groups": groups,
        "runs": _listed(kept.runs),
        "days": [
            {
                "day": day.day,
                "runs": _listed(day.runs),
                "newcomers": [day.newcomers.start, day.newcomers.stop],
                "row_count": day.row_count,
            }
            for day in kept.days
        ],
        "in_two_arms": kept.in_two_arms,
        "counts": kept.counts,
        "caps": {name: asdict(cap) for name, cap in kept.caps.items()},
        "checksums": kept.checksums,
    }
    write_archive(values, facts, kept.folder / MANIFEST)
    for what in ROSTER:
        for path in kept.folder.glob(f"{what}-*.npy"):
            if path.name != f"{what}-{_last(kept)}.npy":
                path.unlink()
    return kept


def _checksum(path: Path) -> int:
    """CRC-32: it tells what a disk has done to a file."""
    checksum = 0
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            checksum = zlib.crc32(piece, checksum)
    return checksum


def _verify(kept: Kept) -> None:
    """That all files are there and as long as they say."""
    names = [f"{what}-{day.day}" for day in kept.days for what in DAY_FILES]
    names += [f"{what}-{_last(kept)}" for what in ROSTER]
    for name in names:
        path = kept.folder / f"{name}.npy"
        try:
            arrays.mapped(path)
        except (OSError, ValueError, EOFError) as error:
            why = "is missing" if not path.exists() else "is damaged"
            raise StateError(f"{path} {why}; begin another folder.") from error


def _last(kept: Kept) -> str:
    return str(kept.days[-1].day) if kept.days else "none"


def _save(path: Path, array: Any) -> None:
    with path.open("wb") as file:
        np.save(file, array)
        sync_file(file)


def _listed(runs: Mapping[RunKey, slice]) -> list[list[Any]]:
    return [[*key, where.start, where.stop] for key, where in runs.items()]


def _runs(listed: Sequence[Sequence[Any]]) -> dict[RunKey, slice]:
    return {RunKey(day, arm, segment): slice(begin, end) for day, arm, segment, begin, end in listed}
