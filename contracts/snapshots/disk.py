"""Snapshots in a directory: the layout of `snapshot.py`, a file for each pointer, a lock for a model's home."""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from contracts.runtime.durable import lock_file, place_directory, replace_file, sync_directory, write_synced
from contracts.snapshots.pointers import Canary, Changes, Hold, Pointers, canary_of
from contracts.snapshots.room import Glance
from contracts.snapshots.version import MANIFEST, SnapshotError, SnapshotExistsError, Version

LIVE = "LIVE"
HELD = "HELD"
CANARY = "CANARY"
PINNED = "PINNED"
TRIAL = "TRIAL"
GONE = ".gone"  # ends the hidden name of what is being removed


class Disk:
    """A `Room` in a directory."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def models(self) -> list[str]:
        root = self._root
        return sorted(home.name for home in root.iterdir() if home.is_dir()) if root.is_dir() else []

    def versions(self, model: str) -> list[Version]:
        home = self._root / model
        parsed = (Version.parse(entry.name) for entry in home.iterdir()) if home.is_dir() else iter(())
        return sorted(version for version in parsed if version is not None)

    def has(self, model: str, version: str) -> bool:
        return (self._root / model / version).is_dir()

    def complete(self, model: str, version: str) -> bool:
        return (self._root / model / version / MANIFEST).is_file()

    def manifest(self, model: str, version: str) -> bytes:
        return (self._root / model / version / MANIFEST).read_bytes()

    def directory(self, model: str, version: str, checksums: Mapping[str, str]) -> Path:  # noqa: ARG002  the reader's
        return self._root / model / version

    def discard(self, model: str, version: str) -> None:
        """It is the original: it stays, for people to look at."""

    def seal(self, model: str, version: str, files: Mapping[str, bytes], manifest: bytes) -> Path:
        home = self._root / model
        target = home / version
        if target.exists():
            manifest_file = target / MANIFEST
            if manifest_file.is_file() and manifest_file.read_bytes() == manifest:
                return target
            raise SnapshotExistsError(f"Snapshot {model}/{version} exists already, and is another one.")
        hidden = home / f".{version}.tmp"
        shutil.rmtree(hidden, ignore_errors=True)
        hidden.mkdir(parents=True)
        for name, content in {**files, MANIFEST: manifest}.items():
            write_synced(hidden / name, content)
        place_directory(hidden, target)
        return target

    def size(self, model: str, version: str) -> tuple[int, int]:
        home = self._root / model / version
        files = [path.stat() for path in home.iterdir()]
        written = home / MANIFEST if (home / MANIFEST).is_file() else home
        return sum(file.st_size for file in files), int(written.stat().st_mtime * 1000)

    def note(self, model: str, version: str, content: bytes) -> None:
        replace_file(self._root / model / version / TRIAL, content)

    def noted(self, model: str, version: str) -> bytes | None:
        try:
            return (self._root / model / version / TRIAL).read_bytes()
        except FileNotFoundError:
            return None

    def live(self, model: str) -> str | None:
        try:
            return (self._root / model / LIVE).read_bytes().decode(errors="replace").strip()
        except FileNotFoundError:
            return None

    def held(self, model: str) -> Hold | None:
        try:
            data = json.loads((self._root / model / HELD).read_bytes())
            return Hold(str(data["version"]), str(data["reason"]))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return Hold("", f"{HELD} cannot be read")  # it is there, so it holds

    def trial(self, model: str) -> Canary | None:
        try:
            content = (self._root / model / CANARY).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise SnapshotError(f"{model}/{CANARY} cannot be read.") from error
        return canary_of(content, f"{model}/{CANARY}")

    def pinned(self, model: str) -> list[str]:
        try:
            return (self._root / model / PINNED).read_bytes().decode(errors="replace").split()
        except FileNotFoundError:
            return []

    def glance(self, model: str) -> Glance:
        found = Glance()
        try:  # trials come first: one that ends well is gone only once LIVE has moved
            found = found._replace(trial=self.trial(model))
        except SnapshotError as error:
            found = found._replace(trial_problem=str(error))
        try:
            found = found._replace(live=self.live(model))
        except OSError as error:
            found = found._replace(live_problem=f"the pointer cannot be read: {error.strerror}")
        with suppress(OSError):  # there is none yet, or the disk is away
            found = found._replace(moved_s=(self._root / model / LIVE).stat().st_mtime)
        return found

    def change(self, model: str, decide: Callable[[Pointers], Changes | None]) -> bool:
        with self._exclusive(model):
            changes = decide(self._pointers(model))
            for name, value in changes or ():
                self._write(model, name, value)
        return changes is not None

    def remove(self, model: str, choose: Callable[[Pointers], list[str]]) -> list[str]:
        home = self._root / model
        with self._exclusive(model):
            on_disk = self.versions(model)
            names = choose(self._pointers(model))
            for name in names:
                _remove(home, name)
            for path in home.glob(".v*"):
                if path.suffix == GONE or _left_over(path, on_disk):
                    shutil.rmtree(path)
        return names

    @contextmanager
    def _exclusive(self, model: str) -> Iterator[None]:
        """Have a model's home for oneself, whichever process wants it too."""
        home = self._root / model
        home.mkdir(parents=True, exist_ok=True)
        with lock_file(home / ".lock", wait=True):
            yield

    def _pointers(self, model: str) -> Pointers:
        """From a pointer to what is on trial that cannot be read nobody is answered."""
        trial = None
        with suppress(SnapshotError):
            trial = self.trial(model)
        return Pointers(self.live(model), self.held(model), trial, tuple(self.pinned(model)))

    def _write(self, model: str, name: str, value: Any) -> None:
        path = self._root / model / {"live": LIVE, "held": HELD, "trial": CANARY, "pinned": PINNED}[name]
        if value is None:
            if path.is_file():  # a pointer that is no file stays, and `driftline snapshots verify` tells of it
                path.unlink(missing_ok=True)
                sync_directory(path.parent)
        elif name == "live":
            replace_file(path, value.encode())
        elif name == "held":
            replace_file(path, json.dumps(asdict(value)).encode())
        elif name == "trial":
            replace_file(path, json.dumps(value._asdict()).encode())
        else:
            replace_file(path, "".join(f"{each}\n" for each in value).encode())


def _remove(home: Path, name: str) -> None:
    """Hide a snapshot, then delete it: a crash in between leaves nothing that looks like one."""
    hidden = home / f".{name}{GONE}"
    shutil.rmtree(hidden, ignore_errors=True)
    (home / name).rename(hidden)
    shutil.rmtree(hidden)


def _left_over(path: Path, on_disk: list[Version]) -> bool:
    """Whether this is a snapshot that was never finished: newer ones are there, and they are written in turn."""
    version = Version.parse(path.stem[1:])
    return path.suffix == ".tmp" and version is not None and bool(on_disk) and version < on_disk[-1]
