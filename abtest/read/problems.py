"""What makes data unusable, said in one sentence: what it is, in which column, how often, and where first."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from abtest.format import counted
from contracts.config.experiment import SettingsError

ARM, DAY = "arm", "day"


class DataError(SettingsError):
    """Data that cannot be used; one sentence says what, how often and where."""


class Fault(NamedTuple):
    """A kind of value that cannot be used, as one of them and as several are called."""

    one: str
    many: str


MISSING = Fault("missing value", "missing values")


class Met(NamedTuple):
    """Where a fault was met first. `user`: the key of one whom `where` calls ``{user}``, as the table's own name of it
    is not at hand. `row`: some columns of the row, as the table has them.
    """

    where: str
    user: int | None = None
    row: Mapping[str, Any] | None = None


@dataclass
class Problems:
    """What was met, by (fault, column): how often, and where first."""

    found: Counter[tuple[Fault, str]] = field(default_factory=Counter)
    first: dict[tuple[Fault, str], Met] = field(default_factory=dict)

    def add(self, fault: Fault, column: str, count: int, met: Met) -> None:
        """So many more of them."""
        self.found[fault, column] += count
        self.first.setdefault((fault, column), met)

    def take(self, other: "Problems") -> None:
        """What another has met as well; what either met first stays where it was met."""
        self.found.update(other.found)
        self.first = {**other.first, **self.first}

    def sentence(
        self,
        name_of: Callable[[int], str] = str,
        place_of: Callable[[Mapping[str, Any]], str | None] = lambda _: None,
        called: Mapping[str, str] | None = None,
    ) -> str | None:
        """All of them in one sentence; None where there are none.

        Args:
            name_of: what the table calls a user, by the key.
            place_of: in which line of which file a row is; None where that is not known.
            called: what the user calls columns that have other names here.

        """
        clauses = []
        for (fault, column), count in self.found.items():
            met = self.first[fault, column]
            where = met.where if met.user is None else met.where.replace("{user}", name_of(met.user))
            place = place_of(met.row) if met.row is not None else None
            where += f", {place}" if place else ""
            name = (called or {}).get(column, column)
            clauses.append(f"column '{name}' has {counted(count, *fault)} (first: {where})")
            if fault is MISSING and place and column not in {"user_id", ARM, DAY}:
                clauses[-1] += ", and a row needs 0 where nothing happened"
        return f"The data cannot be used: {'; '.join(clauses)}." if clauses else None
