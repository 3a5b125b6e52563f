"""Records scattered over temporary files by a hash of their user, so that all of a user's come together again.

Memory holds a few batches and one group of files at a time, however many users there are.
"""

import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from abtest.aggregate.user_days import Ints

Item = TypeVar("Item")
Result = TypeVar("Result")
Records: TypeAlias = npt.NDArray[np.void]

PIECES = 128
USER = "user_id"


class Pieces:
    """Records in `PIECES` temporary files; a context manager, after which they are gone."""

    def __init__(self, dtype: np.dtype[np.void]) -> None:
        self.dtype = dtype
        self._folder = tempfile.TemporaryDirectory(prefix="driftline-")
        self._files: list[BinaryIO] = []
        self._sizes = np.zeros(PIECES, np.int64)

    def __enter__(self) -> Self:
        self._files = [self._path(i).open("w+b", buffering=0) for i in range(PIECES)]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for file in self._files:
            file.close()
        self._folder.cleanup()

    def write(self, ordered: Records, sizes: Ints) -> None:
        """What `by_piece` gives."""
        ends = sizes.cumsum().tolist()
        for file, begin, end in zip(self._files, [0, *ends[:-1]], ends, strict=True):
            if begin < end:
                file.write(ordered[begin:end].data)
        self._sizes += sizes

    def groups(self, rows: int) -> Iterator[range]:
        """Runs of pieces with about `rows` records, at least one piece each."""
        begin = 0
        for end in range(1, PIECES + 1):
            if end == PIECES or self._sizes[begin : end + 1].sum() > rows:
                yield range(begin, end)
                begin = end

    def piece(self, group: range) -> Records:
        """All records of some pieces."""
        records = np.empty(self._sizes[group.start : group.stop].sum(), self.dtype)
        left = records.view(np.uint8).data
        for i in group:
            with self._path(i).open("rb", buffering=0) as file:
                left = left[file.readinto(left) :]
        return records

    def _path(self, i: int) -> Path:
        return Path(self._folder.name) / str(i)


def by_piece(records: Records) -> tuple[Records, Ints]:
    """Records ordered by their users' pieces, and how many each piece has (PIECES,)."""
    piece = piece_of(records[USER])
    return records.take(np.argsort(piece, kind="stable")), np.bincount(piece, minlength=PIECES)


def piece_of(user_id: Ints) -> npt.NDArray[np.uint8]:
    """A user's piece: the top bits of a product with 2^64 over the golden ratio.

    >>> piece_of(np.array([1, 2, 3, -1])).tolist()
    [79, 30, 109, 48]
    """
    shift = np.uint64(64 - (PIECES - 1).bit_length())
    return ((user_id.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) >> shift).astype(np.uint8)


def in_order(pool: Executor, work: Callable[[Item], Result], items: Iterable[Item], ahead: int) -> Iterator[Result]:
    """`work` of each item in their order, at most `ahead` of them begun and not yet taken; `pool.map` takes all first.

    >>> from concurrent.futures import ThreadPoolExecutor
    >>> with ThreadPoolExecutor(2) as pool:
    ...     list(in_order(pool, str, range(5), 2))
    ['0', '1', '2', '3', '4']
    """
    begun: deque[Future[Result]] = deque()
    for item in items:
        begun.append(pool.submit(work, item))
        if len(begun) >= ahead:
            yield begun.popleft().result()
    while begun:
        yield begun.popleft().result()
