"""The interface to an object store, and its errors: each one sentence.

A write whose answer is lost may have been done all the same: `AwayError` says that nobody knows. Whoever writes
therefore marks what he writes and looks whether it is there.
"""

from collections.abc import Iterable
from typing import NamedTuple, Protocol


class StoreError(OSError):
    """The store cannot be used; one sentence says why."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
        self.strerror = sentence

    def __str__(self) -> str:
        return self.strerror or ""


class AwayError(StoreError):
    """The store does not answer. A write may or may not have been done."""


class MissingError(StoreError):
    """There is no such object."""


class ChangedError(StoreError):
    """The object is there already, or is another one than the one to be replaced."""


class Blob(NamedTuple):
    """An object and its ETag, which is another one whenever the content is."""

    content: bytes
    etag: str


class Stat(NamedTuple):
    """An object without its content."""

    key: str  # below the prefix of the store
    size: int  # bytes
    written_ms: int  # by the store's clock


class Objects(Protocol):
    """Objects below one prefix. Every method may raise `StoreError`, and `AwayError` where the store is away."""

    def get(self, key: str, known: str | None = None) -> Blob | None:
        """An object; None where its ETag still is `known`. Raises MissingError."""

    def create(self, key: str, content: bytes) -> str:
        """Write an object that is not there, and return its ETag. Raises ChangedError where it is."""

    def swap(self, key: str, content: bytes, etag: str) -> str:
        """Replace an object that still has this ETag, and return the new one. Raises ChangedError where it has not."""

    def put(self, key: str, content: bytes) -> None:
        """Write an object, whatever is there."""

    def under(self, prefix: str) -> list[Stat]:
        """All objects whose keys begin with `prefix`, in the order of the keys."""

    def folders(self) -> list[str]:
        """The first parts of all keys, sorted."""

    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects; those that are gone already are no error."""
