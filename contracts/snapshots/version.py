"""Names of snapshots: what a version is called, and what is raised where one cannot be served."""

import re
from typing import NamedTuple

MANIFEST = "manifest.json"
_NAME = re.compile(r"v(\d{6,})(?:\+(\d{3,}))?")


class SnapshotError(Exception):
    """A snapshot that must not be served; one sentence says why."""


class SnapshotExistsError(SnapshotError):
    """Another snapshot has that version."""


class SnapshotGoneError(SnapshotError):
    """There is no such snapshot, or retention removes it now."""


class Version(NamedTuple):
    """A place in a model's line of snapshots; places sort as they were made.

    >>> Version.parse("v000010+003"), str(Version(10)), str(Version(10, 3)), Version.parse("LIVE")
    (Version(number=10, sequence=3), 'v000010', 'v000010+003', None)
    """

    number: int
    sequence: int = 0  # of a delta, from 1; 0: the full snapshot that deltas are based on

    @classmethod
    def parse(cls, name: str) -> "Version | None":
        """The place that a directory's name says, or None where it is none."""
        match = _NAME.fullmatch(name)
        place = cls(int(match[1]), int(match[2] or 0)) if match else None
        return place if str(place) == name else None

    def __str__(self) -> str:
        return f"v{self.number:06d}" + (f"+{self.sequence:03d}" if self.sequence else "")

    @property
    def base(self) -> "Version":
        """The full snapshot of this line."""
        return Version(self.number)

    def chain(self) -> "list[Version]":
        """All that is needed to serve this one: the full snapshot, then each delta up to it.

        >>> [str(each) for each in Version(10, 2).chain()]
        ['v000010', 'v000010+001', 'v000010+002']
        """
        return [Version(self.number, sequence) for sequence in range(self.sequence + 1)]
