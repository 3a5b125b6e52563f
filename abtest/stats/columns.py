"""Columns of moments as values: a user's sum of something on one day, up to a day, or of one part."""

from collections.abc import Iterable
from typing import NamedTuple, TypeAlias


class Column(NamedTuple):
    """A user's sum of `name`: on `day`, `through` a day (all days up to it), or of one `part`, such as a source.

    >>> str(Column("views", day=2)), str(Column("views", through=2)), str(Column("views", part="t2diff"))
    ('views@2', 'views<=2', 'views@t2diff')
    """

    name: str
    day: int | None = None
    part: str | None = None
    through: int | None = None

    def __str__(self) -> str:
        if self.through is not None:
            return f"{self.name}<={self.through}"
        return f"{self.name}@{self.part if self.day is None else self.day}"

    def __repr__(self) -> str:
        return f"<{self}>"


AnyColumn: TypeAlias = str | Column  # a plain name: a sum over all that the moments are of


def on_days(name: str, days: range) -> list[Column]:
    """The columns whose sum is that over `days`.

    >>> on_days("views", range(2))
    [<views@0>, <views@1>]
    """
    return [Column(name, day) for day in days]


def parts_of(columns: Iterable[AnyColumn]) -> list[str]:
    """The parts that columns are of, once each, in order.

    >>> parts_of([Column("views", part="new"), Column("shown", part="new"), Column("views", part="old"), "views"])
    ['new', 'old']
    """
    return list(dict.fromkeys(c.part for c in columns if isinstance(c, Column) and c.part is not None))
