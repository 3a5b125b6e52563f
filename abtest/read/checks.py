"""Arrow batches of rows made checked records, and records the tables that aggregates are made of."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from abtest.aggregate.user_days import UNKNOWN, Ints, Table, arranged
from abtest.read.days import days_of, shown
from abtest.read.engines import DataError
from abtest.read.spill import USER, Records
from abtest.read.users import are_whole, keys_of
from abtest.stats.moments import Floats
from contracts.config.experiment import Experiment

ARM, DAY = "arm", "day"
LARGEST = 1e150  # the square of a larger one, or the sum of such squares, is more than a double holds
REPEATED = "repeated users in the table of covariates"
REPEATED_DAYS = "rows of a user and day that another row has"


@dataclass
class Problems:
    """What makes the data unusable: by (what it is, column), how often, and the first place it was met."""

    found: Counter[tuple[str, str]] = field(default_factory=Counter)
    first: dict[tuple[str, str], tuple[str, int | None]] = field(default_factory=dict)

    def add(self, what: str, column: str, count: int, where: str, user: int | None = None) -> None:
        """`user`: the key of one whom `where` calls ``{user}``, as the table's own name of it is not at hand."""
        self.found[what, column] += count
        self.first.setdefault((what, column), (where, user))

    def take(self, other: "Problems") -> None:
        self.found.update(other.found)
        self.first = {**other.first, **self.first}

    def raise_any(self, name_of: Callable[[int], str] = str) -> None:
        """One sentence with all of them; `name_of`: what the table calls a user, by the key.

        Raises:
            DataError: there are any.

        """
        if self.found:
            sentences = []
            for (what, column), count in self.found.items():
                where, user = self.first[what, column]
                first = where if user is None else where.replace("{user}", name_of(user))
                sentences.append(f"column '{column}' has {count} {what} (first: {first})")
            raise DataError(f"The data cannot be used: {'; '.join(sentences)}.")


class Reader:
    """What is known of one reading: it turns Arrow batches into records, and records into tables, and counts."""

    def __init__(
        self, experiment: Experiment, columns: Sequence[str], covariates: Sequence[str], counted: Sequence[str] = ()
    ) -> None:
        """`counted`: those of the columns that must not be negative."""
        self.experiment, self.columns, self.covariates = experiment, tuple(columns), tuple(covariates)
        self.counted = frozenset(counted)
        self.arms = tuple(experiment.arms)
        testers = sorted(experiment.testers)
        as_text = keys_of(pa.array([str(tester) for tester in testers], pa.string()))
        self.testers = np.array(testers, np.int64), as_text
        self.problems, self.counts = Problems(), Counter[str]()

    def another(self) -> "Reader":
        """One for the same data that has met nothing yet, such as for another thread."""
        return Reader(self.experiment, self.columns, self.covariates, sorted(self.counted))

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
        """Records of a batch's users and numbers, checked; `ARM` and `DAY`, which are neither, are 0."""
        records = np.zeros(batch.num_rows, dtype)
        for column in dtype.names or ():
            if column in {ARM, DAY}:
                continue
            values = batch.column(column)
            if values.null_count:
                self._bad(batch, values.is_null(), "missing values", column)
            if column == USER:
                records[USER] = self._users(batch, values)
                continue
            values = pc.fill_null(values, 0) if values.null_count else values
            if pa.types.is_boolean(values.type) or pa.types.is_decimal(values.type):
                values = values.cast(pa.float64())
            numbers = values.to_numpy(zero_copy_only=False)
            self._check(batch, column, numbers)
            records[column] = numbers
        return records

    def _users(self, batch: pa.RecordBatch, values: pa.Array) -> Ints:
        if pa.types.is_floating(values.type):
            numbers = pc.fill_null(values, 0.0).to_numpy(zero_copy_only=False)
            self._bad(batch, pa.array(np.isnan(numbers)), "missing values", USER)
            unsure = ~are_whole(numbers) & ~np.isnan(numbers)
            self._bad(
                batch, pa.array(unsure), "values that are no whole number below 2⁵³, so not surely one user", USER
            )
        return keys_of(values)

    def _check(self, batch: pa.RecordBatch, column: str, values: Floats) -> None:
        if not len(values) or (values.min() >= 0 and values.max() <= LARGEST):  # NaN fails both
            return
        self._bad(batch, pa.array(np.isnan(values)), "values that are not a number", column)
        self._bad(batch, pa.array(np.isinf(values)), "infinite values", column)
        too_large = (np.abs(values, dtype=np.float64) > LARGEST) & np.isfinite(values)
        self._bad(batch, pa.array(too_large), "values beyond ±1e150, whose squares no double holds", column)
        if column in self.counted:
            what = "negative values, though it counts something or is what a ratio or a quantile is taken of"
            self._bad(batch, pa.array((values < 0) & np.isfinite(values)), what, column)

    def _bad(self, batch: pa.RecordBatch, which: pa.Array, what: str, column: str) -> None:
        count = pc.sum(which).as_py() or 0
        if count:
            place = which.index(True).as_py()
            row = {name: batch.column(name)[place].as_py() for name in batch.schema.names}
            where = ", ".join(
                f"{name} {shown(row[name])}" for name in dict.fromkeys((USER, DAY, column)) if name in row
            )
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
            self.problems.add(REPEATED_DAYS, USER, int((rows - 1).clip(0).sum()), f"{{user}}, day {on}", int(ids[at]))

    def _check_constant(self, name: str, ids: Ints, user: Ints, values: Floats, first: Floats) -> None:
        other = values != first[user]
        if other.any():
            what = "rows that differ from another row of their user, but covariates belong to a user"
            self.problems.add(what, name, int(other.sum()), f"{USER} {{user}}", int(ids[user[np.argmax(other)]]))

    def _before(self, ids: Ints, before: Records) -> Floats:
        """(users, covariates), the last of them `UNKNOWN`: 1 for users who are not in the second table, 0 otherwise."""
        order = np.argsort(before[USER])
        ids_before = before[USER][order]
        repeated = ids_before[1:][ids_before[1:] == ids_before[:-1]]
        if len(repeated):
            self.problems.add(REPEATED, USER, len(repeated), "{user}", int(repeated[0]))
        pre = np.zeros((len(ids), len(self.covariates)))
        place = np.searchsorted(ids_before, ids)
        met = np.zeros(len(ids), bool)
        met[place < len(ids_before)] = ids_before[place[place < len(ids_before)]] == ids[place < len(ids_before)]
        names = [name for name in before.dtype.names or () if name != USER]
        pre[met, : len(names)] = stacked(before.take(order[place[met]]), names)
        pre[~met, self.covariates.index(UNKNOWN)] = 1.0
        self._count("users_without_pre", ~met)
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


def _other_than(arms: Sequence[str]) -> str:
    return f"values other than {', '.join(repr(arm) for arm in arms)}"
