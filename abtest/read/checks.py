"""Arrow batches of rows made checked records, and records the tables that aggregates are made of."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from abtest.aggregate.user_days import Ints, Table, arranged
from abtest.read.engines import DataError
from abtest.read.spill import USER, Records
from abtest.stats.moments import Floats
from contracts.config.experiment import Experiment
from contracts.runtime.clock import DAY_MS

ARM, DAY = "arm", "day"
REPEATED = "repeated users in the table of covariates"
REPEATED_DAYS = "rows of a user and day that another row has"


@dataclass
class Problems:
    """What makes the data unusable: by (what it is, column), how often, and the first place it was met."""

    found: Counter[tuple[str, str]] = field(default_factory=Counter)
    first: dict[tuple[str, str], str] = field(default_factory=dict)

    def add(self, what: str, column: str, count: int, where: str) -> None:
        self.found[what, column] += count
        self.first.setdefault((what, column), where)

    def take(self, other: "Problems") -> None:
        self.found.update(other.found)
        self.first = {**other.first, **self.first}

    def raise_any(self) -> None:
        """One sentence with all of them.

        Raises:
            DataError: there are any.

        """
        if self.found:
            sentences = [
                f"column '{column}' has {count} {what} (first: {self.first[what, column]})"
                for (what, column), count in self.found.items()
            ]
            raise DataError(f"The data cannot be used: {'; '.join(sentences)}.")


class Reader:
    """What is known of one reading: it turns Arrow batches into records, and records into tables, and counts."""

    def __init__(self, experiment: Experiment, columns: Sequence[str], covariates: Sequence[str]) -> None:
        self.experiment, self.columns, self.covariates = experiment, tuple(columns), tuple(covariates)
        self.arms = tuple(experiment.arms)
        self.first_day = first_day(experiment)
        self.testers = np.array(sorted(experiment.testers), np.int64)
        self.problems, self.counts = Problems(), Counter[str]()

    def another(self) -> "Reader":
        """One for the same data that has met nothing yet, such as for another thread."""
        return Reader(self.experiment, self.columns, self.covariates)

    def take(self, other: "Reader") -> None:
        """What another reader of the same data has met."""
        self.counts.update(other.counts)
        self.problems.take(other.problems)

    def days(self, batch: pa.RecordBatch, dtype: np.dtype[np.void]) -> Records:
        """Checked records of rows within the experiment."""
        self.counts["rows"] += batch.num_rows
        arm = batch.column(ARM)
        at = pc.index_in(arm, pa.array(self.arms, arm.type if not pa.types.is_dictionary(arm.type) else pa.string()))
        missing = arm.is_null()
        self._bad(batch, missing, "missing values", ARM)
        self._bad(batch, pc.and_(at.is_null(), pc.invert(missing)), _other_than(self.arms), ARM)
        self._bad(batch, batch.column(DAY).is_null(), "missing values", DAY)
        day = day_of(batch.column(DAY), self.first_day)
        records = self.values(batch, dtype)
        inside = (day >= 0) & (day < self.experiment.days)
        records[ARM] = pc.fill_null(at, 0).to_numpy()
        records[DAY] = np.where(inside, day, 0)
        self._count("rows_outside_days", ~inside)
        if len(self.testers):
            tester = np.isin(records[USER], self.testers) & inside
            self._count("rows_of_testers", tester)
            inside &= ~tester
        return records if inside.all() else records[inside]

    def values(self, batch: pa.RecordBatch, dtype: np.dtype[np.void]) -> Records:
        """Records of a batch's users and numbers, checked."""
        records = np.empty(batch.num_rows, dtype)
        for column in batch.schema.names:
            if column in {ARM, DAY}:
                continue
            values = batch.column(column)
            if values.null_count:
                self._bad(batch, values.is_null(), "missing values", column)
                values = pc.fill_null(values, 0)
            if pa.types.is_boolean(values.type) or pa.types.is_decimal(values.type):
                values = values.cast(pa.float64())
            numbers = values.to_numpy(zero_copy_only=False)
            if column != USER:
                self._check(batch, column, numbers)
            records[column] = numbers
        return records

    def _check(self, batch: pa.RecordBatch, column: str, values: Floats) -> None:
        if not len(values) or (values.min() >= 0 and values.max() < np.inf):  # NaN fails both
            return
        self._bad(batch, pa.array(np.isnan(values)), "values that are not a number", column)
        self._bad(batch, pa.array(np.isinf(values)), "infinite values", column)
        self._bad(batch, pa.array((values < 0) & np.isfinite(values)), "negative values", column)

    def _bad(self, batch: pa.RecordBatch, which: pa.Array, what: str, column: str) -> None:
        count = pc.sum(which).as_py() or 0
        if count:
            place = which.index(True).as_py()
            row = {name: batch.column(name)[place].as_py() for name in batch.schema.names}
            where = ", ".join(f"{name} {row[name]}" for name in dict.fromkeys((USER, DAY, column)) if name in row)
            self.problems.add(what, column, count, where)

    def _count(self, name: str, which: npt.NDArray[np.bool_]) -> None:
        if which.any():
            self.counts[name] += int(which.sum())

    def table(self, rows: Records, before: Records | None) -> Table:
        """The users of some pieces, all of whose rows these are, with what they did before."""
        user_id, day, arm = (rows[name].astype(np.int64) for name in (USER, DAY, ARM))
        order = np.argsort(user_id)
        by_id = user_id[order]
        starts = np.diff(by_id, prepend=by_id[:1] - 1) != 0
        firsts, user = order[starts], np.empty_like(order)
        user[order] = np.cumsum(starts) - 1
        ids, arm_of = user_id[firsts], arm[firsts]
        self._check_repeats(ids, user, day)
        mixed = np.zeros(len(ids), bool)
        mixed[user[arm != arm_of[user]]] = True
        if before is None:
            inside = [name for name in self.covariates if name in (rows.dtype.names or ())]
            pre = stacked(rows[firsts], inside)
            for place, name in enumerate(inside):
                self._check_constant(name, ids, user, rows[name], pre[:, place])
        else:
            pre = self._before(ids, before)
        values = stacked(rows, self.columns)
        if mixed.any():
            self.counts["users_in_two_arms"] += int(mixed.sum())
            places, staying = np.cumsum(~mixed) - 1, ~mixed[user]
            ids, arm_of, pre = ids[~mixed], arm_of[~mixed], pre[~mixed]
            user, day, values = places[user[staying]], day[staying], values[staying]
        return arranged(
            self.arms, self.columns, self.covariates, ids, arm_of, pre, day, user, values, in_two_arms=int(mixed.sum())
        )

    def day(self, rows: Records) -> Table:
        """As `table`, of rows of one day, so that each is a user: three times as fast."""
        if len(rows) == 0 or (rows[DAY] != rows[DAY][0]).any():
            return self.table(rows, None)
        user_id = rows[USER].astype(np.int64)
        order = np.argsort(user_id)
        by_id = user_id[order]
        twice = by_id[1:][by_id[1:] == by_id[:-1]]
        if len(twice):
            self.problems.add(REPEATED_DAYS, USER, len(twice), f"{twice[0]}, day {rows[DAY][0]}")
        order = order[np.argsort(rows[ARM][order], kind="stable")]
        rows = rows.take(order)
        day = np.full(len(rows), rows[DAY][0], np.int64)
        return Table(
            arms=self.arms,
            columns=self.columns,
            covariates=self.covariates,
            user_id=user_id[order],
            arm=rows[ARM].astype(np.int64),
            first=day,
            pre=stacked(rows, [name for name in self.covariates if name in (rows.dtype.names or ())]),
            day=day,
            user=np.arange(len(rows)),
            values=stacked(rows, self.columns),
        )

    def _check_repeats(self, ids: Ints, user: Ints, day: Ints) -> None:
        rows = np.bincount(user * self.experiment.days + day)
        if len(rows) and rows.max() > 1:
            at, on = divmod(int(np.argmax(rows > 1)), self.experiment.days)
            self.problems.add(REPEATED_DAYS, USER, int((rows - 1).clip(0).sum()), f"{ids[at]}, day {on}")

    def _check_constant(self, name: str, ids: Ints, user: Ints, values: Floats, first: Floats) -> None:
        other = values != first[user]
        if other.any():
            what = "rows that differ from another row of their user, but covariates belong to a user"
            self.problems.add(what, name, int(other.sum()), f"{USER} {ids[user[np.argmax(other)]]}")

    def _before(self, ids: Ints, before: Records) -> Floats:
        """(users, covariates); 0 for users who are not in the second table."""
        order = np.argsort(before[USER])
        ids_before = before[USER][order]
        repeated = ids_before[1:][ids_before[1:] == ids_before[:-1]]
        if len(repeated):
            self.problems.add(REPEATED, USER, len(repeated), str(repeated[0]))
        pre = np.zeros((len(ids), len(self.covariates)))
        place = np.searchsorted(ids_before, ids)
        met = np.zeros(len(ids), bool)
        met[place < len(ids_before)] = ids_before[place[place < len(ids_before)]] == ids[place < len(ids_before)]
        names = [name for name in before.dtype.names or () if name != USER]
        pre[met] = stacked(before.take(order[place[met]]), names)
        self._count("users_without_pre", ~met)
        self.counts["pre_users_without_rows"] += len(ids_before) - int(met.sum())
        return pre


def stacked(records: Records, names: Sequence[str]) -> Floats:
    """(rows, names) of doubles."""
    columns = np.empty((len(records), len(names)))
    for place, name in enumerate(names):
        columns[:, place] = records[name]
    return columns


def first_day(experiment: Experiment) -> int:
    """The date on which it starts by its own calendar, in days from 1970-01-01."""
    return (experiment.start_ms + experiment.day_offset_ms) // DAY_MS


def day_of(column: pa.Array, first: int) -> Ints:
    """Days of the experiment, counted from 0 at the date `first`; missing ones are 0."""
    filled: npt.NDArray[Any]
    if pa.types.is_date(column.type):
        filled = pc.fill_null(column.cast(pa.date32()).cast(pa.int32()), first).to_numpy()
        return filled.astype(np.int64) - first
    filled = pc.fill_null(column, 0).to_numpy()
    return filled.astype(np.int64)


def _other_than(arms: Sequence[str]) -> str:
    return f"values other than {', '.join(repr(arm) for arm in arms)}"
