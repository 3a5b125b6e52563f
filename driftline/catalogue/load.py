"""A file into the topic `items`: every row judged first, and nothing sent while one of them is bad."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from contracts.runtime.clock import Clock
from driftline.catalogue.files import Row
from driftline.catalogue.rows import WANTED, BadRow, item_of, sentence
from driftline.catalogue.topic import Record

SHOWN_FAULTS = 20
PROGRESS_EVERY_S = 5.0


@dataclass
class Tally:
    """What the rows of a file came to."""

    rows: int = 0
    bad: int = 0
    faults: list[str] = field(default_factory=list)  # the first SHOWN_FAULTS, one sentence each
    unused: dict[str, None] = field(default_factory=dict)  # columns that say nothing about items, in their order

    def refuse(self, place: str, why: str) -> None:
        """Count a bad row."""
        self.bad += 1
        if len(self.faults) < SHOWN_FAULTS:
            self.faults.append(f"{place}: {sentence(why)}")


class Progress:
    """Says every few seconds how far it is; nothing about what is done sooner."""

    def __init__(self, clock: Clock, say: Callable[[str], None]) -> None:
        self._clock = clock
        self._say = say
        self._said_s = clock.elapsed_s()

    def at(self, state: str) -> None:
        """`state`: a sentence."""
        now_s = self._clock.elapsed_s()
        if now_s - self._said_s >= PROGRESS_EVERY_S:
            self._said_s = now_s
            self._say(state)


def judged(
    rows: Iterable[Row], columns: Mapping[str, str], max_bytes: int, tally: Tally, progress: Progress, doing: str
) -> Iterator[Record]:
    """The items of those rows that are some; `tally` has the others.

    Args:
        rows: of a file.
        columns: by field of `Item`, where the file calls it something else.
        max_bytes: of a record.
        tally: counts as the rows go by.
        progress: hears of every thousandth row.
        doing: what becomes of the rows, for it: "judged".

    """
    known = {columns.get(each, each) for each in WANTED}
    for row in rows:
        tally.rows += 1
        if tally.rows % 1000 == 0:
            progress.at(f"{tally.rows:,} rows {doing}, {tally.bad:,} of them bad.")
        if row.fault:
            tally.refuse(row.place, row.fault)
            continue
        if not row.cells.keys() <= known:
            tally.unused.update(dict.fromkeys(each for each in row.cells if each not in known))
        try:
            item = item_of(row.cells, columns, max_bytes=max_bytes)
        except BadRow as error:
            tally.refuse(row.place, str(error))
        else:
            yield Record(item.item_id, item)
