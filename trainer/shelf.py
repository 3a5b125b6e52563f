"""Where checkpoints lie: a directory of this machine, or an object store, on which a trainer fences itself.

    <prefix>/.checkpoints/<group>/HEAD.json           whose it is, a beat, and the checkpoints; replaced by ETag
                                  <number>.<sha256>   the state of one

A trainer writes its mark into HEAD.json and beats every BEAT_S. Another one of the same group waits for LEASE_S, by its
own clock alone: if the beat moves meanwhile, it stops; else the owner is dead or cut off, and it takes over. Whoever
was taken over from finds another mark at his next write, and stops: his write is not done.
"""

import contextlib
import hashlib
import json
import secrets
import shutil
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TextIO

import structlog

from contracts.config.settings import Settings, SettingsError
from contracts.runtime.durable import LockedError, lock_file, place_directory, write_synced
from contracts.storage.objects import MissingError, Objects, StoreError
from contracts.storage.writes import change, create_same
from trainer.shelf_head import Entry, Head, loads

log = structlog.get_logger()
HEAD = "HEAD.json"
BEAT_S, LEASE_S, LOOK_S = 3.0, 15.0, 1.0


class FencedError(SettingsError):
    """Another trainer has taken over; this one must not write any more."""


class Shelf(Protocol):
    """Checkpoints by number, each a manifest and a state."""

    @property
    def name(self) -> str:
        """Where it is, for messages."""

    def take(self) -> None:
        """Take possession of it. Raises SettingsError where another trainer has it."""

    def require_mine(self) -> None:
        """Raise FencedError where another trainer has taken over."""

    def numbers(self) -> list[int]:
        """What lies there."""

    def manifest(self, number: int) -> dict[str, Any]:
        """The manifest of one."""

    def state(self, number: int) -> bytes:
        """The state of one."""

    def put(self, number: int, state: bytes, manifest: dict[str, Any], keep: int) -> None:
        """Write one, whole or not at all, and remove all but the newest `keep`."""

    def close(self) -> None:
        """Let go of it."""


class Directory:
    """A `Shelf` in a directory; a lock keeps others out."""

    def __init__(self, home: Path, arrived: Callable[[str], None]) -> None:
        self._home = home
        self._arrived = arrived
        self._lock: TextIO | None = None

    @property
    def name(self) -> str:
        return str(self._home)

    def take(self) -> None:
        self._home.mkdir(parents=True, exist_ok=True)
        try:
            self._lock = lock_file(self._home / "lock")
        except LockedError as error:
            raise SettingsError(f"Another trainer runs with the state in {self._home}.") from error
        self._clear()

    def require_mine(self) -> None:
        """The lock sees to it."""

    def numbers(self) -> list[int]:
        return [int(entry.name) for entry in self._home.iterdir() if entry.name.isdecimal()]

    def manifest(self, number: int) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self._home / f"{number:08d}" / "manifest.json").read_text())
        return found

    def state(self, number: int) -> bytes:
        return (self._home / f"{number:08d}" / "state.pt").read_bytes()

    def put(self, number: int, state: bytes, manifest: dict[str, Any], keep: int) -> None:
        target, hidden = self._home / f"{number:08d}", self._home / f".{number:08d}.tmp"
        shutil.rmtree(hidden, ignore_errors=True)
        hidden.mkdir()
        write_synced(hidden / "state.pt", state)
        write_synced(hidden / "manifest.json", json.dumps(manifest, indent=1).encode())
        self._arrived("written")
        place_directory(hidden, target)
        self._arrived("renamed")
        self._remove(sorted(self.numbers())[:-keep])
        self._arrived("pruned")

    def close(self) -> None:
        if self._lock:
            self._lock.close()

    def _remove(self, numbers: Sequence[int]) -> None:
        for old in numbers:
            gone = self._home / f".{old:08d}.gone"
            (self._home / f"{old:08d}").rename(gone)
            shutil.rmtree(gone)

    def _clear(self) -> None:
        """Finish what a crash has interrupted: remove what nobody reads, and what a checkpoint alone does without."""
        for leftover in self._home.glob(".*"):
            shutil.rmtree(leftover, ignore_errors=True)
        numbers = sorted(self.numbers())
        for place, number in enumerate(numbers):
            with contextlib.suppress(OSError, ValueError):
                if self.manifest(number).get("alone"):
                    self._remove([each for each in numbers[:place] if each in self.numbers()])


class Stored:
    """A `Shelf` in an object store."""

    def __init__(
        self,
        objects: Objects,
        name: str,
        group: str,
        wait: Callable[[float], object] | None = None,
        *,
        beats: bool = True,
    ) -> None:
        """Args:
        objects: of the store.
        name: of the store, for messages.
        group: whose checkpoints these are; one trainer of a group runs at a time.
        wait: for so many seconds; None: real ones.
        beats: whether a thread shows that the owner lives; without, `beat` is called by hand.

        """
        self._objects = objects
        self._prefix = f".checkpoints/{group}/"
        self._name = f"{name}/{self._prefix}".rstrip("/")
        self._group = group
        self._mark = secrets.token_hex(8)
        self._ended = threading.Event()
        self._wait = wait or self._ended.wait
        self._beats = beats
        self._one = threading.Lock()  # the beat and a checkpoint are written in turn
        self._fenced = False
        self._thread: threading.Thread | None = None

    @property
    def name(self) -> str:
        return self._name

    def take(self) -> None:
        _, first = self._read()
        waited = 0.0
        while first.owner and waited < LEASE_S:
            self._wait(LOOK_S)
            waited += LOOK_S
            _, now = self._read()
            if now.owner and (now.owner, now.beat) != (first.owner, first.beat):
                raise SettingsError(
                    f"Another trainer of the group {self._group} runs with the checkpoints in {self._name}; stop it "
                    "first, or give this one another kafka.topic_prefix."
                )
            first = first if now.owner else now
        dead = first.owner, first.beat

        def take_over(head: Head) -> Head:
            if head.owner not in (None, self._mark) and (head.owner, head.beat) != dead:
                raise SettingsError(f"Another trainer of the group {self._group} has just taken {self._name}.")
            return head.changed(owner=self._mark)

        self._require_head()
        self._change(take_over)
        if dead[0]:
            log.warning("a trainer that gave no sign of life was taken over from", group=self._group)
        named = {each.object for each in self._read()[1].checkpoints}
        stats = self._objects.under(self._prefix)
        self._objects.delete(s.key for s in stats if s.key != self._prefix + HEAD and s.key not in named)
        if self._beats:
            self._thread = threading.Thread(target=self._beat_on, name="trainer-beat", daemon=True)
            self._thread.start()

    def _require_head(self) -> None:
        """See that no states lie there without a head, which is written before the first of them: they would go."""
        states = [each for each in self._objects.under(self._prefix) if each.key != self._prefix + HEAD]
        if states and self._read()[0] is None:
            raise SettingsError(
                f"{self._name} has states of checkpoints and no {HEAD} that names them; bring it back, or move all of "
                "them away."
            )

    def require_mine(self) -> None:
        if self._fenced or self._read()[1].owner != self._mark:
            self._refuse()

    def numbers(self) -> list[int]:
        return [each.number for each in self._read()[1].checkpoints]

    def manifest(self, number: int) -> dict[str, Any]:
        return self._entry(number).manifest

    def state(self, number: int) -> bytes:
        blob = self._objects.get(self._entry(number).object)
        return blob.content if blob else b""

    def put(self, number: int, state: bytes, manifest: dict[str, Any], keep: int) -> None:
        self.require_mine()
        key = f"{self._prefix}{number:08d}.{hashlib.sha256(state).hexdigest()}"
        create_same(self._objects, key, state)
        entry = Entry(number=number, object=key, manifest=manifest)

        def add(head: Head) -> Head:
            if head.owner != self._mark:
                self._refuse()
            others = [each for each in head.checkpoints if each.number != number]
            gone[:] = [each.object for each in others[: max(len(others) + 1 - keep, 0)]]
            return head.changed(checkpoints=[*others, entry][-keep:])

        gone: list[str] = []
        self._change(add)
        self._objects.delete(each for each in gone if each != key)

    def beat(self) -> None:
        """Show that the owner lives; where the store is away, the next one does."""

        def beaten(head: Head) -> Head:
            if head.owner != self._mark:
                self._refuse()
            return head.changed(beat=head.beat + 1)

        try:
            self._change(beaten)
        except SettingsError as error:  # it was taken over from, or the head is damaged: its next write stops it
            log.error("no checkpoint can be written any more", why=str(error))  # noqa: TRY400
        except OSError as error:
            log.warning("no sign of life could be given", why=str(error))

    def close(self) -> None:
        self._ended.set()
        if self._thread:
            self._thread.join()
        with contextlib.suppress(SettingsError, OSError):  # else the next one waits for the lease
            self._change(lambda head: head.changed(owner=None) if head.owner == self._mark else None)

    def _beat_on(self) -> None:
        while not self._ended.wait(BEAT_S) and not self._fenced:
            self.beat()

    def _refuse(self) -> None:
        self._fenced = True
        raise FencedError(
            f"Another trainer of the group {self._group} has taken over {self._name}; this one stops, and what it "
            "learned since its last checkpoint is learned by the other."
        )

    def _entry(self, number: int) -> Entry:
        for found in self._read()[1].checkpoints:
            if found.number == number:
                return found
        raise MissingError(f"{self._name}/{number:08d} is not there.")

    def _read(self) -> tuple[str | None, Head]:
        try:
            blob = self._objects.get(self._prefix + HEAD)
        except MissingError:
            return None, Head()
        if blob is None:  # not asked for conditionally
            raise StoreError(f"{self._name} says that an object that was not known has not changed.")
        return blob.etag, loads(blob.content, f"{self._name}/{HEAD}", self._prefix)

    def _change(self, after: Callable[[Head], Head | None]) -> Head | None:
        """Change HEAD.json once, whether or not the store's answer arrives; what it says, None: it is left alone."""
        mark = secrets.token_hex(8)

        def marked(head: Head) -> Head | None:
            wanted = after(head)
            return wanted.changed(write=mark) if wanted else None

        with self._one:
            return change(
                self._objects, self._prefix + HEAD, self._read, marked, Head.dumps, lambda head: head.write == mark
            )


def shelf_of(settings: Settings, arrived: Callable[[str], None]) -> Shelf:
    """Where a trainer's checkpoints lie: beside its snapshots on a store, else in `state`."""
    root = settings.snapshot_root
    if isinstance(root, Path):
        return Directory(settings.state / "trainer", arrived)
    from contracts.storage.remote import connect

    return Stored(connect(root), str(root), settings.kafka.topic_prefix + "trainer")
