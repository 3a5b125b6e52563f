"""Arrow batches of rows made checked records, and records the tables that aggregates are made of."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from abtest.aggregate.user_days import UNKNOWN, Ints, Table, arranged
from abtest.read.days import days_of, shown
from abtest.read.problems import ARM, DAY, MISSING, Fault, Met, Problems
from abtest.read.spill import USER, Records
from abtest.read.users import are_whole, keys_of
from abtest.stats.moments import Floats
from contracts.config.experiment import Experiment

# Statistics raise values to the fourth power (Fieller's interval) and add these up, and a double holds 1e±308.
LARGEST, SMALLEST = 1e60, 1e-60
REPEATED = Fault("repeated user in the table of covariates", "repeated users in the table of covariates")
REPEATED_DAYS = Fault("row of a user and day that another row has", "rows of a user and day that another row has")
_SEVERAL = "though a row is a user; of a day or an event each, name the column (columns: {day: …}, row: event)"
REPEATED_USERS = Fault(
    f"row of a user that another row has, {_SEVERAL}", f"rows of a user that another row has, {_SEVERAL}"
)
UNSURE = Fault(
    "value that is no whole number below 2⁵³, so not surely one user",
    "values that are no whole number below 2⁵³, so not surely one user",
)
NOT_A_NUMBER = Fault("value that is not a number", "values that are not a number")
INFINITE = Fault("infinite value", "infinite values")
TOO_LARGE = Fault(
    "value beyond ±1e60, whose powers no double holds", "values beyond ±1e60, whose powers no double holds"
)
_COUNTED = "though it counts something or is what a ratio or a quantile is taken of"
NEGATIVE = Fault(f"negative value, {_COUNTED}", f"negative values, {_COUNTED}")
CHANGING = Fault(
    "row that differs from another row of its user, but covariates belong to a user",
    "rows that differ from another row of their user, but covariates belong to a user",
)


class Reader:
    """What is known of one reading: it turns Arrow batches into records, and records into tables, and counts."""

    def __init__(
        self,
        experiment: Experiment,
        columns: Sequence[str],
        covariates: Sequence[str],
        counted: Sequence[str] = (),
        called: Mapping[str, str] | None = None,
    ) -> None:
        """`counted`: those of the columns that must not be negative; `called`: what the user calls columns."""
        self.experiment, self.columns, self.covariates = experiment, tuple(columns), tuple(covariates)
        self.counted, self.called = frozenset(counted), called or {}
        self.dayless = bool(self.called) and DAY not in self.called  # the user's table has no day
        self.arms = tuple(experiment.arms)
        testers = sorted(experiment.testers)
        as_text = keys_of(pa.array([str(tester) for tester in testers], pa.string()))
        self.testers = np.array(testers, np.int64), as_text
        self.problems, self.counts = Problems(), Counter[str]()
        self.largest: dict[str, float] = {}  # by column, the value furthest from 0

    def another(self) -> "Reader":
        """One for the same data that has met nothing yet, such as for another thread."""
        return Reader(self.experiment, self.columns, self.covariates, sorted(self.counted), self.called)

    def take(self, other: "Reader") -> None:
        """What another reader of the same data has met."""
        self.counts.update(other.counts)
        self.problems.take(other.problems)
        self.largest = {
            column: max(self.largest.get(column, 0.0), other.largest.get(column, 0.0))
            for column in {**self.largest, **other.largest}
        }

    def too_small(self) -> str | None:
        """A sentence on a column whose values are all too near 0, so that their squares vanish; None where none is."""
        for column, largest in self.largest.items():
            if 0 < largest < SMALLEST:
                name = self.called.get(column, column)
                return (
                    f"The data cannot be used: column '{name}' has no value further from 0 than {largest:.3g}, and "
                    "no double holds the powers of values below 1e-60; give it in a smaller unit."
                )
        return None

    def days(self, batch: pa.RecordBatch, dtype: np.dtype[np.void]) -> Records:
        """Checked records of rows within the experiment."""
        self.counts["rows"] += batch.num_rows
        arm = batch.column(ARM)
        at = pc.index_in(arm, pa.array(self.arms, arm.type if not pa.types.is_dictionary(arm.type) else pa.string()))
        missing = arm.is_null()
        self._bad(batch, missing, MISSING, ARM)
        self._bad(batch, pc.and_(at.is_null(), pc.invert(missing)), _other_than(self.arms), ARM)
        self._bad(batch, batch.column(DAY).is_null(), MISSING, DAY)
        day, unusable, what = days_of(batch.column(DAY), self.experiment)
        if unusable.any():
            self._bad(batch, pa.array(unusable), what, DAY)
        records = self.values(batch, dtype)
        inside = (day >= 0) & (day < self.experiment.days)
        records[ARM] = pc.fill_null(at, 0).to_numpy()
        records[DAY] = np.where(inside, day, 0)
        self._count("rows_outside_days", ~inside)
        if len(self.testers[0]):
            by_number, as_text = self.testers
            tester = np.isin(records[USER], as_text if _are_text(batch.column(USER).type) else by_number) & inside
            self._count("rows_of_testers", tester)
            inside &= ~tester
        return records if inside.all() else records[inside]

    def values(self, batch: pa.RecordBatch, dtype: np.dtype[np.void]) -> Records:
        """Records of a batch's users and numbers, checked; `ARM` and `DAY`, which are neither, are 0.

        Where `dtype` has `UNKNOWN`, a covariate may be missing: it is 0 then, and `UNKNOWN` 1.
        """
        records = np.zeros(batch.num_rows, dtype)
        names = dtype.names or ()
        unknown = np.zeros(batch.num_rows, bool)
        needed = {USER, *(self.columns if ARM in names else ())} if UNKNOWN in names else {*names}
        for column in names:
            if column in {ARM, DAY} or column not in batch.schema.names:
                continue
            values = batch.column(column)
            if values.null_count and column not in needed:
                unknown |= values.is_null().to_numpy(zero_copy_only=False)
            elif values.null_count:
                self._bad(batch, values.is_null(), MISSING, column)
            if column == USER:
                records[USER] = self._users(batch, values)
                continue
            values = pc.fill_null(values, 0) if values.null_count else values
            if pa.types.is_boolean(values.type) or pa.types.is_decimal(values.type):
                values = values.cast(pa.float64())
            numbers = values.to_numpy(zero_copy_only=False)
            self._check(batch, column, numbers)
            records[column] = numbers
        if unknown.any():
            records[UNKNOWN] = np.maximum(records[UNKNOWN], unknown)
        return records

    def _users(self, batch: pa.RecordBatch, values: pa.Array) -> Ints:
        if pa.types.is_floating(values.type):
            numbers = pc.fill_null(values, 0.0).to_numpy(zero_copy_only=False)
            self._bad(batch, pa.array(np.isnan(numbers)), MISSING, USER)
            unsure = ~are_whole(numbers) & ~np.isnan(numbers)
            self._bad(batch, pa.array(unsure), UNSURE, USER)
        return keys_of(values)

    def _check(self, batch: pa.RecordBatch, column: str, values: Floats) -> None:
        if not len(values):
            return
        least, most = float(values.min()), float(values.max())
        if least >= 0 and most <= LARGEST:  # NaN fails both
            self.largest[column] = max(self.largest.get(column, 0.0), most)
            return
        finite = np.abs(values[np.isfinite(values)], dtype=np.float64)
        self.largest[column] = max(self.largest.get(column, 0.0), float(finite.max(initial=0.0)))
        self._bad(batch, pa.array(np.isnan(values)), NOT_A_NUMBER, column)
        self._bad(batch, pa.array(np.isinf(values)), INFINITE, column)
        too_large = (np.abs(values, dtype=np.float64) > LARGEST) & np.isfinite(values)
        self._bad(batch, pa.array(too_large), TOO_LARGE, column)
        if column in self.counted:
            self._bad(batch, pa.array((values < 0) & np.isfinite(values)), NEGATIVE, column)

    def _bad(self, batch: pa.RecordBatch, which: pa.Array, fault: Fault, column: str) -> None:
        count = pc.sum(which).as_py() or 0
        if count:
            place = which.index(True).as_py()
            known = [USER, column] if self.dayless else [USER, DAY, column]
            names = [name for name in dict.fromkeys(known) if name in batch.schema.names]
            row = {self.called.get(name, name): batch.column(name)[place].as_py() for name in names}
            where = ", ".join(f"{name} {shown(value)}" for name, value in row.items())
            self.problems.add(fault, column, count, Met(where, row=row))

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
        mixed = np.zeros(len(ids), bool)
        mixed[user[arm != arm_of[user]]] = True
        self._check_repeats(ids, user, day, mixed)
        if before is None:
            inside = [name for name in self.covariates if name in (rows.dtype.names or ())]
            pre = stacked(rows[firsts], inside)
            for place, name in enumerate(inside):
                self._check_constant(name, ids, user, rows[name], pre[:, place])
        else:
            pre = self._before(ids, before)
        values, left_out = stacked(rows, self.columns), ids[mixed]
        if before is None and UNKNOWN in self.covariates:
            self._count("users_without_pre", (pre[:, self.covariates.index(UNKNOWN)] == 1) & ~mixed)
        if mixed.any():
            self.counts["users_in_two_arms"] += int(mixed.sum())
            places, staying = np.cumsum(~mixed) - 1, ~mixed[user]
            ids, arm_of, pre = ids[~mixed], arm_of[~mixed], pre[~mixed]
            user, day, values = places[user[staying]], day[staying], values[staying]
        users = arranged(self.arms, self.columns, self.covariates, ids, arm_of, pre, day, user, values)
        return replace(users, in_two_arms=len(left_out), left_out=left_out)

    def day(self, rows: Records) -> Table:
        """As `table`, of rows of one day, so that each is a user: three times as fast."""
        if len(rows) == 0 or (rows[DAY] != rows[DAY][0]).any():
            return self.table(rows, None)
        user_id = rows[USER].astype(np.int64)
        order = np.argsort(user_id)
        by_id = user_id[order]
        if (by_id[1:] == by_id[:-1]).any():  # twice in one arm, or once in two
            return self.table(rows, None)
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

    def _check_repeats(self, ids: Ints, user: Ints, day: Ints, mixed: npt.NDArray[np.bool_]) -> None:
        """Two rows of a day are one too many; but of a user in two arms none counts."""
        if mixed.any():
            one_arm = ~mixed[user]
            user, day = user[one_arm], day[one_arm]
        rows = np.bincount(user * self.experiment.days + day)
        if len(rows) and rows.max() > 1:
            at, on = divmod(int(np.argmax(rows > 1)), self.experiment.days)
            met = Met("{user}" if self.dayless else f"{{user}}, day {on}", int(ids[at]))
            fault = REPEATED_USERS if self.dayless else REPEATED_DAYS
            self.problems.add(fault, USER, int((rows - 1).clip(0).sum()), met)

    def _check_constant(self, name: str, ids: Ints, user: Ints, values: Floats, first: Floats) -> None:
        other = values != first[user]
        if other.any():
            met = Met(f"{self.called.get(USER, USER)} {{user}}", int(ids[user[np.argmax(other)]]))
            self.problems.add(CHANGING, name, int(other.sum()), met)

    def _before(self, ids: Ints, before: Records) -> Floats:
        """(users, covariates), the last of them `UNKNOWN`: 1 for users who are not in the second table, or lack a value
        there, 0 otherwise.
        """
        order = np.argsort(before[USER])
        ids_before = before[USER][order]
        repeated = ids_before[1:][ids_before[1:] == ids_before[:-1]]
        if len(repeated):
            self.problems.add(REPEATED, USER, len(repeated), Met("{user}", int(repeated[0])))
        pre = np.zeros((len(ids), len(self.covariates)))
        place = np.searchsorted(ids_before, ids)
        met = np.zeros(len(ids), bool)
        met[place < len(ids_before)] = ids_before[place[place < len(ids_before)]] == ids[place < len(ids_before)]
        names = [name for name in before.dtype.names or () if name not in {USER, UNKNOWN}]
        pre[met] = stacked(before.take(order[place[met]]), [*names, UNKNOWN])
        unknown = self.covariates.index(UNKNOWN)
        pre[~met, unknown] = 1.0
        self._count("users_without_pre", pre[:, unknown] == 1)
        self.counts["pre_users_without_rows"] += len(ids_before) - int(met.sum())
        return pre


def stacked(records: Records, names: Sequence[str]) -> Floats:
    """(rows, names) of doubles."""
    columns = np.empty((len(records), len(names)))
    for place, name in enumerate(names):
        columns[:, place] = records[name]
    return columns


def _are_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_dictionary(kind))


def _other_than(arms: Sequence[str]) -> Fault:
    names = ", ".join(repr(arm) for arm in arms)
    return Fault(f"value other than {names}", f"values other than {names}")
