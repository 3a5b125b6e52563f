"""Snapshots in an object store.

    <prefix>/<model>/STATE.json                     all pointers, replaced by ETag (`state.py`)
                     <version>/manifest.json        as on a disk
                               <file>.<sha256>      its files, by the hash of their content
                               TRIAL                how its trial has ended

Commit order: (1) files, (2) manifest, created if absent, (3) STATE.json. A version without a manifest is not there.
Removal: (1) STATE.json says so in `removing`, after which no pointer moves to it, (2) manifest, (3) files, (4) it is
taken off `removing`. What a crash leaves, files without a manifest, is removed in the same way once it is ORPHAN_MS old
by the store's clock. A remover that stood still for so long between two deletions is not provided for.

A reader fetches a version into a cache, verifies it on the way, and reads it there.
"""

import contextlib
import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from pathlib import Path

from contracts.config.store import Location
from contracts.runtime.clock import Clock, SystemClock
from contracts.snapshots.pointers import Canary, Changes, Hold, Pointers, changed
from contracts.snapshots.room import Glance
from contracts.snapshots.state import STATE, State, dumps, loads
from contracts.snapshots.version import MANIFEST, SnapshotError, SnapshotExistsError, SnapshotGoneError, Version
from contracts.storage.objects import AwayError, ChangedError, MissingError, Objects, Stat, StoreError
from contracts.storage.remote import connect
from contracts.storage.writes import ATTEMPTS, change, create_same

TRIAL = "TRIAL"
ORPHAN_MS = 3_600_000
UNUSED_S = 3600.0  # a version in the cache that nobody has read for so long goes when another is fetched
TRANSFERS = 8  # requests at once


@lru_cache(maxsize=32)
def room_of(location: Location) -> "Stored":
    """The room of a location, the same for all in this process: it remembers what it has read."""
    return Stored(connect(location), str(location), location.cache)


class Stored:
    """A `Room` in an object store."""

    def __init__(self, objects: Objects, name: str, cache: Path, clock: Clock | None = None) -> None:
        self._objects = objects
        self._name = name
        # Two stores may have models of one name.
        self._cache = cache / hashlib.sha256(name.encode()).hexdigest()[:12]
        self._clock = clock or SystemClock()
        self._read: dict[str, tuple[str, State]] = {}  # ETag and state, of each model

    def models(self) -> list[str]:
        return [name for name in self._objects.folders() if not name.startswith(".")]

    def versions(self, model: str) -> list[Version]:
        return sorted(_sealed(self._objects.under(f"{model}/"), model))

    def has(self, model: str, version: str) -> bool:
        return self.complete(model, version)

    def complete(self, model: str, version: str) -> bool:
        try:
            return self._objects.get(f"{model}/{version}/{MANIFEST}") is not None
        except MissingError:
            return False

    def manifest(self, model: str, version: str) -> bytes:
        blob = self._objects.get(f"{model}/{version}/{MANIFEST}")
        if blob is None:  # not asked for conditionally
            raise StoreError(f"{self._name} says that an object that was not known has not changed.")
        return blob.content

    def directory(self, model: str, version: str, checksums: Mapping[str, str]) -> Path:
        target = self._cache / model / version
        if all((target / name).is_file() for name in checksums):
            with contextlib.suppress(OSError):  # it is another's, or goes just now: then a file of it is missing
                os.utime(target)
            return target
        hidden = target.with_name(f".{version}.{os.getpid()}.{secrets.token_hex(4)}")
        try:
            hidden.mkdir(parents=True)
            self._each(lambda name: self._fetch(hidden, model, version, name, checksums[name]), checksums)
            self.discard(model, version)
            hidden.rename(target)
        except OSError as error:
            if isinstance(error, StoreError) or not target.is_dir():  # else another replica here was faster
                raise SnapshotError(f"Snapshot {model}/{version} cannot be fetched: {error}") from error
        finally:
            shutil.rmtree(hidden, ignore_errors=True)
        self._clear(target)
        return target

    def discard(self, model: str, version: str) -> None:
        shutil.rmtree(self._cache / model / version, ignore_errors=True)

    def seal(self, model: str, version: str, files: Mapping[str, bytes], manifest: bytes) -> Path:
        home, hashes = f"{model}/{version}", {name: hashlib.sha256(each).hexdigest() for name, each in files.items()}
        key = f"{home}/{MANIFEST}"
        for _ in range(ATTEMPTS):
            self._same_or_absent(key, manifest)
            self._each(lambda name: create_same(self._objects, f"{home}/{name}.{hashes[name]}", files[name]), files)
            try:
                self._objects.create(key, manifest)
            except (ChangedError, AwayError):  # it is there, of whoever; or nobody knows
                if not self._same_or_absent(key, manifest):
                    continue
            # A remover may have been at an older version of this name: then it has taken files away.
            if version in self._state(model)[1].removing:
                raise SnapshotExistsError(f"Snapshot {home} is being removed.")
            there = {stat.key for stat in self._objects.under(f"{home}/")}
            if {key, *(f"{home}/{name}.{sha}" for name, sha in hashes.items())} <= there:
                return Path(home)
        raise AwayError(f"{self._name}/{home} could not be written in {ATTEMPTS} attempts.")

    def size(self, model: str, version: str) -> tuple[int, int]:
        stats = self._objects.under(f"{model}/{version}/")
        written = [stat.written_ms for stat in stats if stat.key.endswith(f"/{MANIFEST}")]
        if not written:
            raise FileNotFoundError(f"{model}/{version}")
        return sum(stat.size for stat in stats), written[0]

    def note(self, model: str, version: str, content: bytes) -> None:
        self._objects.put(f"{model}/{version}/{TRIAL}", content)

    def noted(self, model: str, version: str) -> bytes | None:
        try:
            blob = self._objects.get(f"{model}/{version}/{TRIAL}")
        except MissingError:
            return None
        return blob.content if blob else None

    def live(self, model: str) -> str | None:
        return self._state(model)[1].pointers.live

    def held(self, model: str) -> Hold | None:
        return self._state(model)[1].pointers.held

    def trial(self, model: str) -> Canary | None:
        return self._state(model)[1].pointers.trial

    def pinned(self, model: str) -> list[str]:
        return list(self._state(model)[1].pointers.pinned)

    def glance(self, model: str) -> Glance:
        try:
            _, state = self._state(model)
        except (OSError, SnapshotError) as error:
            return Glance(live_problem=f"the pointer cannot be read: {error}")
        return Glance(
            live=state.pointers.live,
            trial=state.pointers.trial,
            moved_s=state.moved_ms / 1000 if state.moved_ms else None,
        )

    def change(self, model: str, decide: Callable[[Pointers], Changes | None]) -> bool:
        def after(state: State) -> tuple[Pointers, tuple[str, ...]] | None:
            changes = decide(state.pointers)
            if changes is None:
                return None
            pointers = changed(state.pointers, changes)
            named = {name for _, name in _named(pointers)} - {name for _, name in _named(state.pointers)}
            for name in sorted(named):
                place = Version.parse(name)
                if place and {str(each) for each in place.chain()} & {*state.removing}:
                    raise SnapshotGoneError(f"There is no snapshot {model}/{name}: it is being removed.")
            return pointers, state.removing

        return self._swap(model, after)

    def remove(self, model: str, choose: Callable[[Pointers], list[str]]) -> list[str]:
        chosen: list[str] = []
        orphans = _orphans(self._objects.under(f"{model}/"), model)

        def mark(state: State) -> tuple[Pointers, tuple[str, ...]] | None:
            chosen[:] = choose(state.pointers)
            # Whoever writes the same version again takes the files that are there for his own.
            left = [name for name in orphans if not self.complete(model, name)]
            removing = tuple(sorted({*state.removing, *chosen, *left}))
            return (state.pointers, removing) if removing != state.removing else None

        self._swap(model, mark)
        marked = self._state(model)[1].removing  # those of a remover that has died, too
        for name in sorted(marked, reverse=True):  # what is based on others first
            home = f"{model}/{name}/"
            self._objects.delete([f"{home}{MANIFEST}"])
            self._objects.delete(stat.key for stat in self._objects.under(home) if stat.key.startswith(home))
        if marked:
            self._swap(model, lambda state: (state.pointers, tuple(sorted({*state.removing} - {*marked}))))
        return chosen

    def _state(self, model: str) -> tuple[str | None, State]:
        """STATE.json and its ETag; it is not sent again while it has not changed."""
        known = self._read.get(model)
        try:
            blob = self._objects.get(f"{model}/{STATE}", known[0] if known else None)
        except MissingError:
            self._read.pop(model, None)
            return None, State()
        if blob is None and known is not None:
            return known
        if blob is None:
            raise StoreError(f"{self._name} says that an object that was not known has not changed.")
        self._read[model] = blob.etag, loads(blob.content, f"{self._name}/{model}/{STATE}")
        return self._read[model]

    def _swap(self, model: str, after: Callable[[State], tuple[Pointers, tuple[str, ...]] | None]) -> bool:
        """Change the state once, whatever the store's answers are lost, and whoever else changes it."""
        mark = secrets.token_hex(8)

        def changed_by(state: State) -> State | None:
            wanted = after(state)
            return state.after(*wanted, mark, self._clock.now_ms()) if wanted else None

        read, done = partial(self._state, model), lambda state: mark in state.writes
        return change(self._objects, f"{model}/{STATE}", read, changed_by, dumps, done) is not None

    def _each(self, act: Callable[[str], None], names: Iterable[str]) -> None:
        """Act on each name, several at once; the first error is raised."""
        if TRANSFERS == 1:
            for name in names:
                act(name)
            return
        with ThreadPoolExecutor(TRANSFERS) as pool:
            list(pool.map(act, names))

    def _same_or_absent(self, key: str, manifest: bytes) -> bool:
        """Whether this manifest is there; False where none is.

        Raises:
            SnapshotExistsError: another one is.

        """
        try:
            blob = self._objects.get(key)
        except MissingError:
            return False
        if blob is None or blob.content != manifest:
            name = key.removesuffix(f"/{MANIFEST}")
            raise SnapshotExistsError(f"Snapshot {name} exists already, and is another one.")
        return True

    def _fetch(self, hidden: Path, model: str, version: str, name: str, checksum: str) -> None:
        blob = self._objects.get(f"{model}/{version}/{name}.{checksum}")
        if blob is None or hashlib.sha256(blob.content).hexdigest() != checksum:
            raise SnapshotError(f"Snapshot {model}/{version}: {name} does not match its checksum.")
        (hidden / name).write_bytes(blob.content)

    def _clear(self, fetched: Path) -> None:
        """Remove from the cache what nobody has read for a while."""
        for path in fetched.parent.iterdir():
            try:
                if path != fetched and self._clock.now_ms() / 1000 - path.stat().st_mtime > UNUSED_S:
                    shutil.rmtree(path, ignore_errors=True)
            except FileNotFoundError:  # another replica here was faster
                continue


def _named(pointers: Pointers) -> list[tuple[str, str]]:
    """The versions that pointers name, each with the pointer's name."""
    found = [("live", pointers.live), ("trial", pointers.trial.version if pointers.trial else None)]
    found += [("pinned", each) for each in pointers.pinned]
    return [(name, version) for name, version in found if version]


def _sealed(stats: list[Stat], model: str) -> set[Version]:
    """The versions that have a manifest."""
    parts = (stat.key.removeprefix(f"{model}/").split("/") for stat in stats)
    found = (Version.parse(part[0]) for part in parts if len(part) == 2 and part[1] == MANIFEST)
    return {version for version in found if version is not None}


def _orphans(stats: list[Stat], model: str) -> list[str]:
    """Versions without a manifest of which no object is younger than ORPHAN_MS, by the newest object of all.

    >>> old, new = Stat("m/v000001/a.0", 1, 0), Stat("m/STATE.json", 1, ORPHAN_MS + 1)
    >>> _orphans([old, new], "m"), _orphans([old, Stat("m/v000001/manifest.json", 1, 0), new], "m")
    (['v000001'], [])
    >>> _orphans([old, Stat("m/v000001/b.0", 1, ORPHAN_MS + 1)], "m")
    []
    """
    sealed, newest_ms = _sealed(stats, model), max((stat.written_ms for stat in stats), default=0)
    written_ms: dict[Version, int] = {}
    for stat in stats:
        version = Version.parse(stat.key.removeprefix(f"{model}/").partition("/")[0])
        if version is not None and version not in sealed:
            written_ms[version] = max(stat.written_ms, written_ms.get(version, 0))
    return [str(version) for version in sorted(written_ms) if newest_ms - written_ms[version] > ORPHAN_MS]
