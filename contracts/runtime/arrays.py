"""Arrays in files, read without trust: .npy and .npz as `numpy.save` and `numpy.savez` write plain numbers.

`numpy.load` takes memory for what a header claims before it sees whether that is there, unpacks whatever an archive
claims to hold, and parses the header as Python. Here a header is matched against the one form that NumPy writes for
numbers, a size is believed once the bytes are there, and all that is wrong is a `ValueError`.
"""

import math
import re
import zipfile
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

MAGIC = b"\x93NUMPY\x01\x00"
LONGEST_HEADER = 1 << 12
LARGEST_UNPACKED = 1 << 30  # bytes of a compressed archive
_HEADER = re.compile(
    rb"\{'descr': '([<|][bifu](?:1|2|4|8)|[<]U\d{1,6})', 'fortran_order': (False|True), 'shape': \(([\d, ]*)\), \} *\n"
)


class Header(NamedTuple):
    """What an .npy file holds, and where it begins."""

    dtype: np.dtype[Any]
    by_column: bool
    shape: tuple[int, ...]
    offset: int

    @property
    def size(self) -> int:
        """Of the numbers, in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


def header(begin: bytes | memoryview, length: int) -> Header:
    """The header of an .npy file that begins so and is `length` bytes long.

    >>> buffer = BytesIO()
    >>> np.save(buffer, np.zeros((2, 3), np.float32))
    >>> header(buffer.getvalue(), len(buffer.getvalue())).shape
    (2, 3)

    Raises:
        ValueError: it is none, or claims another size than that of the file.

    """
    text = bytes(begin[: LONGEST_HEADER + len(MAGIC) + 2])
    if not text.startswith(MAGIC) or len(text) < len(MAGIC) + 2:
        raise ValueError("it does not begin as an array of numbers")
    end = len(MAGIC) + 2 + int.from_bytes(text[len(MAGIC) : len(MAGIC) + 2], "little")
    match = _HEADER.fullmatch(text[len(MAGIC) + 2 : end])
    sides = [side.strip() for side in match[3].split(b",")] if match else []
    if match is None or any(len(side) > 15 or not side for side in sides[:-1]) or len(sides[-1]) > 15:
        raise ValueError("its description is not that of an array of numbers")
    try:
        shape = tuple(int(side) for side in sides if side)
    except ValueError as error:
        raise ValueError("its description is not that of an array of numbers") from error
    parsed = Header(np.dtype(match[1].decode()), match[2] == b"True", shape, end)
    if len(shape) > 8 or parsed.offset + parsed.size != length:
        raise ValueError("it is not as long as its description says")
    return parsed


def view(content: bytes | memoryview) -> npt.NDArray[Any]:
    """The array in the bytes of an .npy file: a view of them, not a copy.

    Raises:
        ValueError: they are no array of numbers.

    """
    found = header(content, len(content))
    values = np.frombuffer(content, found.dtype, math.prod(found.shape), found.offset)
    return values.reshape(found.shape, order="F" if found.by_column else "C")


def mapped(path: Path) -> npt.NDArray[Any]:
    """The array in an .npy file, mapped into memory.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no array of numbers.

    """
    with path.open("rb") as file:
        found = header(file.read(LONGEST_HEADER + len(MAGIC) + 2), path.stat().st_size)
    if not found.size:  # nothing can be mapped of no bytes
        return np.empty(found.shape, found.dtype)
    order = "F" if found.by_column else "C"
    return np.memmap(path, found.dtype, "r", found.offset, found.shape, order)  # type: ignore[call-overload,no-any-return]


def unzip(content: bytes | memoryview, largest: int = LARGEST_UNPACKED) -> dict[str, npt.NDArray[Any]]:
    """The arrays of an .npz archive by their names.

    Args:
        content: of the file.
        largest: bytes that what is compressed in it may have.

    Raises:
        ValueError: it is no whole archive of arrays of numbers, or has more in it than it may.

    """
    try:
        with zipfile.ZipFile(BytesIO(content)) as archive:
            entries = archive.infolist()
            _check(entries, len(content), largest)
            packed = {entry.filename: archive.read(entry) for entry in entries}
    # NotImplementedError, RuntimeError: of a kind of compression or encryption that is not known.
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        OSError,
        NotImplementedError,
        RuntimeError,
        OverflowError,
    ) as error:
        raise ValueError(f"it is not a whole archive: {' '.join(str(error).split())}") from error
    except (IndexError, KeyError, TypeError) as error:  # zipfile does not see to all that a directory may say
        raise ValueError("it is not a whole archive") from error
    return {name.removesuffix(".npy"): view(each) for name, each in packed.items()}


def _check(entries: list[zipfile.ZipInfo], length: int, largest: int) -> None:
    names = {entry.filename for entry in entries}
    if len(names) < len(entries) or not all(name.endswith(".npy") for name in names):
        raise ValueError("its entries are not arrays of different names")
    if any(entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for entry in entries):
        raise ValueError("an entry is compressed in a way that NumPy does not use")
    plain = sum(entry.file_size for entry in entries if entry.compress_type == zipfile.ZIP_STORED)
    unpacked = sum(entry.file_size for entry in entries if entry.compress_type == zipfile.ZIP_DEFLATED)
    if plain > length or unpacked > largest:
        raise ValueError(f"it claims to hold {plain + unpacked} bytes, which is more than it may")
