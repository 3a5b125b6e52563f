"""Files that a crash leaves whole, and locks between processes. The only place that calls fsync and flock.

A file or directory is written under a hidden name, synced, renamed into place, and the directory that holds the name is
synced too: without the last step a power cut can take the name back.
"""

import fcntl
import os
from pathlib import Path
from typing import IO, TextIO


class StateError(Exception):
    """A file of state cannot be used: it is damaged, or belongs to another experiment or build."""


# What reading a file of JSON and arrays raises where these are not as they were written.
DAMAGED = (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)


class LockedError(Exception):
    """Another process holds the lock."""


def sync_file(file: IO[bytes]) -> None:
    """Bring what was written to an open file onto the disk."""
    file.flush()
    os.fsync(file.fileno())


def sync_directory(path: Path) -> None:
    """Bring the names in a directory onto the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_synced(path: Path, content: bytes | memoryview) -> None:
    """Write a file and sync it; its name lasts once its directory is synced."""
    with path.open("wb") as file:
        file.write(content)
        sync_file(file)


def replace_file(path: Path, content: bytes | memoryview) -> None:
    """Replace a file atomically and durably: a reader, or a crash, meets the old file or the new one, whole."""
    hidden = path.with_name(f".{path.name}.tmp")
    write_synced(hidden, content)
    hidden.replace(path)
    sync_directory(path.parent)


def write_private(path: Path, content: bytes) -> None:
    """Replace a file by one that its owner alone can read, from its first byte on: it may hold a secret."""
    hidden = path.with_name(f".{path.name}.tmp")
    hidden.unlink(missing_ok=True)  # a file that is there would keep its mode
    descriptor = os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        sync_file(file)
    hidden.replace(path)
    sync_directory(path.parent)


def place_directory(hidden: Path, target: Path) -> None:
    """Rename a directory whose files are synced to where it is read; whole or not there after a crash."""
    sync_directory(hidden)
    hidden.rename(target)
    sync_directory(target.parent)


def lock_file(path: Path, *, wait: bool = False) -> TextIO:
    """Hold a lock until the file that is returned is closed or this process has died.

    Args:
        path: of the lock; it is made if it is not there, and stays.
        wait: for whoever holds it, rather than to raise.

    Raises:
        LockedError: another process holds it.
        OSError: the file cannot be opened.

    """
    file = path.open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError as error:
        file.close()
        raise LockedError(f"Another process holds {path}.") from error
    return file
