"""The one interface to where snapshots lie; a directory of a disk and an object store have it alike."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

from contracts.config.store import Location, Root
from contracts.snapshots.pointers import Canary, Changes, Hold, Pointers
from contracts.snapshots.version import Version


class Glance(NamedTuple):
    """What a replica has to know of a model's pointers; of each what it says, or why it cannot be read."""

    live: str | None = None
    live_problem: str = ""
    trial: Canary | None = None
    trial_problem: str = ""
    moved_s: float | None = None  # when LIVE moved last, in s since 1970; None: not known


class Room(Protocol):
    """The snapshots of all models. Every method may raise OSError where disk or store is away."""

    def models(self) -> list[str]:
        """The models that have a home here, sorted."""

    def versions(self, model: str) -> list[Version]:
        """What lies here for a model, oldest first; whether it is sound is not looked at."""

    def has(self, model: str, version: str) -> bool:
        """Whether a version is here."""

    def complete(self, model: str, version: str) -> bool:
        """Whether it is here with its manifest."""

    def manifest(self, model: str, version: str) -> bytes:
        """The manifest of a version as it was written. Raises OSError where there is none."""

    def directory(self, model: str, version: str, checksums: Mapping[str, str]) -> Path:
        """Where its files can be read from; raises SnapshotError where one is missing or is another one."""

    def discard(self, model: str, version: str) -> None:
        """Keep no copy of a version that turned out damaged."""

    def seal(self, model: str, version: str, files: Mapping[str, bytes], manifest: bytes) -> Path:
        """Write a version, whole or not at all, and return its directory's name. Written again, it stays as it is.

        Raises:
            SnapshotExistsError: another one of that name is here.

        """

    def size(self, model: str, version: str) -> tuple[int, int]:
        """Its bytes, and when it was written, in ms since 1970. Raises FileNotFoundError where it is not here."""

    def note(self, model: str, version: str, content: bytes) -> None:
        """Write how its trial has ended."""

    def noted(self, model: str, version: str) -> bytes | None:
        """How its trial has ended; None where it had none."""

    def live(self, model: str) -> str | None:
        """The version that replicas should serve."""

    def held(self, model: str) -> Hold | None:
        """Why publications do not go live."""

    def trial(self, model: str) -> Canary | None:
        """What is on trial. Raises SnapshotError where that cannot be read."""

    def pinned(self, model: str) -> list[str]:
        """The versions that are never removed."""

    def glance(self, model: str) -> Glance:
        """The pointers that a replica follows, by as little as can be read; raises nothing."""

    def change(self, model: str, decide: Callable[[Pointers], Changes | None]) -> bool:
        """Move pointers, with nobody else in between; False where `decide` gives None, and nothing moves.

        `decide` may be asked several times, and may raise, which moves nothing.
        """

    def remove(self, model: str, choose: Callable[[Pointers], list[str]]) -> list[str]:
        """Remove the versions that are chosen and what crashes have left; nothing moves to them meanwhile."""


def open_room(root: Root) -> Room:
    """The room at a place.

    Raises:
        SettingsError: the store's client is not installed or does not take the settings.

    """
    if isinstance(root, Location):
        from contracts.snapshots.stored import room_of

        return room_of(root)
    from contracts.snapshots.disk import Disk

    return Disk(root)
