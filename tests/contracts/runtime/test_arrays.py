"""Arrays that were written come back; what claims to be one and is not is refused before it costs anything."""

import io
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contracts.runtime import arrays


def npy(values: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


def with_header(text: str, content: bytes = b"\0" * 24) -> bytes:
    padded = text.encode() + b"\n"
    return arrays.MAGIC + len(padded).to_bytes(2, "little") + padded + content


@pytest.mark.parametrize(
    "values",
    [
        np.arange(6, dtype=np.int64).reshape(2, 3),
        np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
        np.zeros((0, 4), np.float64),
        np.array(0.5),
        np.array([True, False]),
        np.array(["a", "bc"]),
    ],
)
def test_what_numpy_saved_comes_back(values: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(npy(values))
    buffer = io.BytesIO()
    np.savez_compressed(buffer, a=values)
    for read in (arrays.view(npy(values)), arrays.mapped(path), arrays.unzip(buffer.getvalue())["a"]):
        np.testing.assert_array_equal(read, values)
        assert read.dtype == values.dtype


@pytest.mark.parametrize(
    "content",
    [
        b"",
        arrays.MAGIC,
        npy(np.arange(3))[:-1],
        npy(np.arange(3)) + b"\0",
        with_header("{'descr': '<i8', 'fortran_order': False, 'shape': (1000000000000,), }"),
        with_header("{'descr': '<i8', 'fortran_order': False, 'shape': (" + "9" * 2000 + ",), }"),
        with_header("{'descr': '<i8', 'fortran_order': False, 'shape': (-1,), }"),
        with_header("{'descr': '<i8', 'fortran_order': False, 'shape': (3 3,), }"),
        with_header("{'descr': '|O', 'fortran_order': False, 'shape': (3,), }"),
        with_header("{'descr': [('a', '<i8')], 'fortran_order': False, 'shape': (3,), }"),
        with_header("__import__('os').system('exit')"),
        with_header("(" * 4000),
    ],
)
def test_what_is_no_array_of_numbers_is_refused(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="it"):
        arrays.view(content)
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(ValueError, match="it"):
        arrays.mapped(tmp_path / "a.npy")


def test_an_archive_is_not_unpacked_beyond_what_it_may_hold() -> None:
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.npy", "w") as entry:
        for _ in range(64):
            entry.write(bytes(1 << 20))
    tracemalloc.start()
    with pytest.raises(ValueError, match="claims to hold 67108864 bytes"):
        arrays.unzip(bomb.getvalue(), largest=1 << 20)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_entries_that_are_no_arrays_or_stand_twice_are_refused() -> None:
    for names in (["a.pkl"], ["../../a"]):
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            for name in names:
                archive.writestr(name, npy(np.arange(3)))
        with pytest.raises(ValueError, match="its entries are not arrays"):
            arrays.unzip(packed.getvalue())
