"""Several collectors, each with its share of the partitions, and what they have saved read as one state.

A user's events lie on one partition, so the parts are of different users and merge by union and sums
(`abtest.collect.state.merge`). A part is a file that says which of how many it is:

    <state>/abtest.npz              of the one collector
    <state>/abtest-2-of-4.npz       of the second of four
"""

import re
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

from abtest.collect.rules import Rules
from abtest.collect.state import CollectorState, merge
from abtest.collect.store import Saved, load
from contracts.config.settings import Settings, SettingsError
from contracts.kafka.bus import EXPOSURES, FEEDBACK
from contracts.runtime.durable import StateError

_FILE = re.compile(r"abtest-(\d{1,4})-of-(\d{1,4})\.npz")


@dataclass(frozen=True)
class Share:
    """A collector's share: it is the `number`th (from 1) of `of`."""

    number: int = 1
    of: int = 1

    @classmethod
    def parse(cls, text: str) -> "Share":
        """The share that is written as NUMBER/OF.

        Raises:
            SettingsError: it is not.

        >>> Share.parse("2/4")
        Share(number=2, of=4)

        """
        match = re.fullmatch(r"(\d{1,4})/(\d{1,4})", text)
        share = cls(*map(int, match.groups())) if match else cls(0, 0)
        if not 1 <= share.number <= share.of:
            raise SettingsError(f"--share is {text!r}; the second of four collectors has --share 2/4.")
        return share

    def has(self, partition: int) -> bool:
        """Whether a partition is its own.

        >>> [number for number in range(8) if Share(2, 3).has(number)]
        [1, 4, 7]
        """
        return partition % self.of == self.number - 1

    def path(self, settings: Settings) -> Path:
        """Where its collector keeps its state."""
        return settings.state / ("abtest.npz" if self.of == 1 else f"abtest-{self.number}-of-{self.of}.npz")

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


def saved_parts(settings: Settings) -> list[Path]:
    """The files of all collectors, in their order; empty where none has saved anything.

    Raises:
        StateError: they are not those of one division, or one is missing.

    """
    found = files(settings)
    if not found:
        return []
    (of, *others) = sorted({share.of for share in found})
    if others:
        names = ", ".join(path.name for path in found.values())
        raise StateError(
            f"{settings.state} has {names}, of collectors that were divided in different ways; move away what is no "
            "longer kept."
        )
    missing = [Share(number, of) for number in range(1, of + 1) if Share(number, of) not in found]
    if missing:
        raise StateError(
            f"{missing[0].path(settings)} is not there, the part of collector {missing[0]}: a report needs all {of}. "
            "Copy those that other hosts have into one folder, and name it by DRIFTLINE_STATE."
        )
    return [found[share] for share in sorted(found, key=lambda share: share.number)]


def load_state(settings: Settings) -> CollectorState:
    """What all collectors have saved, as one; an empty state where none has saved anything.

    Raises:
        StateError: a file is damaged, missing, or belongs to another experiment, build or division.

    """
    parts = saved_parts(settings)
    shares = {path: share for share, path in files(settings).items()}
    states = [load_part(path, shares[path], settings).state for path in parts]
    if not states:
        return CollectorState(Rules.of(settings))
    # What operators did is one log, which one collector may have read further than another.
    newest = max((state.rules for state in states), key=lambda rules: len(rules.experiment.changes))
    for state in states:
        state.rules = newest
    return reduce(merge, states)


def load_part(path: Path, share: Share, settings: Settings) -> Saved:
    """What the collector of a share has saved; empty where it has saved nothing.

    Raises:
        StateError: the file is damaged, or belongs to another experiment, build or collector.

    """
    saved = load(path, Rules.of(settings))
    topics = {settings.kafka.topic(name) for name in (EXPOSURES, FEEDBACK)}
    for key in saved.offsets:
        topic, _, number = key.rpartition(":")
        if topic in topics and not share.has(int(number)):
            raise StateError(
                f"{path} has partition {number}, which collector {share} does not read: it is another collector's file "
                "under this name, and its users would count twice. Copy the right one here, or move it away."
            )
    return saved


def require_division(settings: Settings, share: Share) -> None:
    """See that the share is of something, and that what lies in the folder was collected in the same division.

    Raises:
        SettingsError: it is not, or was not.

    """
    partitions = settings.kafka.partitions
    if share.of > partitions:
        raise SettingsError(
            f"--share {share}: there are {partitions} partitions (kafka.partitions), so at most as many collectors."
        )
    for other, path in files(settings).items():
        if other.of != share.of:
            raise SettingsError(
                f"{path} was collected as {other}, and this is collector {share}: users would be in two parts. Move it "
                "away to collect anew from the log."
            )


def files(settings: Settings) -> dict[Share, Path]:
    """The parts that lie in the folder, whether all are there or not."""
    one = Share().path(settings)
    found = {Share(): one} if one.exists() else {}
    for path in sorted(settings.state.glob("abtest-*-of-*.npz")):
        match = _FILE.fullmatch(path.name)
        share = Share(*map(int, match.groups())) if match else None
        if share and 1 <= share.number <= share.of and share.path(settings) == path:  # else no collector has written it
            found[share] = path
    return found
