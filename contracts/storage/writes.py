"""Writes that are done once, whether or not the store's answers arrive and whoever else writes."""

from collections.abc import Callable
from typing import TypeVar

from contracts.storage.objects import AwayError, ChangedError, MissingError, Objects

ATTEMPTS = 20  # at one write while others write the same, or answers are lost

T = TypeVar("T")


def create_same(objects: Objects, key: str, content: bytes) -> None:
    """Write an object whose key holds the hash of its content: whoever wrote it, it is the same.

    Raises:
        StoreError: it could not be written.

    """
    for attempt in range(ATTEMPTS):
        try:
            objects.create(key, content)
        except ChangedError:
            return
        except AwayError:
            if attempt == ATTEMPTS - 1:
                raise
        else:
            return


def change(
    objects: Objects,
    key: str,
    read: Callable[[], tuple[str | None, T]],
    after: Callable[[T], T | None],
    dumps: Callable[[T], bytes],
    done: Callable[[T], bool],
) -> T | None:
    """Replace an object by what comes after it.

    Args:
        objects: of the store.
        key: of the object.
        read: its ETag, None where it is not there, and what it says.
        after: what it shall say, None where nothing is to be changed; asked again where another changed it meanwhile.
        dumps: the bytes of that. They hold a mark of this write, by which `done` knows it.
        done: whether this write is done, where its answer was lost.

    Returns:
        What it says now; None where nothing was to be changed.

    Raises:
        StoreError: it could not be changed; of an AwayError nobody knows.

    """
    lost: AwayError | None = None
    for _ in range(ATTEMPTS):
        etag, found = read()
        if done(found):
            return found
        wanted = after(found)
        if wanted is None:
            return None
        try:
            if etag is None:
                objects.create(key, dumps(wanted))
            else:
                objects.swap(key, dumps(wanted), etag)
        except (ChangedError, MissingError):
            continue
        except AwayError as error:  # whether it was done, the next look says, where the store is there again
            lost = error
            continue
        return wanted
    raise lost or AwayError(f"{key} was changed by others {ATTEMPTS} times; nothing was written.")
