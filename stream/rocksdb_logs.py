"""What RocksDB does not notice in its own logs: it never returns from opening them. Pure.

Its log reader (RocksDB 9.8) loops for ever, holding Python's lock, over a record that is longer than the file and says
that it is of a recycled log. So one bit of a damaged MANIFEST would stop a worker without a word. Logs are recycled
only where `recycle_log_file_num` is set, and nowhere here.

Format: <https://github.com/facebook/rocksdb/wiki/Write-Ahead-Log-File-Format>. Blocks of 32 KiB, in each records of
checksum (4 bytes), length (2, little-endian), kind (1) and content; what is left of a block under 7 bytes is padding.
"""

from pathlib import Path
from typing import BinaryIO

BLOCK, HEADER = 32 * 1024, 7
RECYCLED = frozenset({5, 6, 7, 8, 11})  # kinds of record


def damaged_log(directory: Path) -> str | None:
    """The first record in a state's directory that is of a recycled log, as words; None where there is none."""
    for path in sorted(filter(Path.is_file, [*directory.glob("MANIFEST-*"), *directory.glob("*.log")])):
        with path.open("rb") as file:
            offset = recycled_record(file)
        if offset is not None:
            return f"{path.name} is damaged at byte {offset}"
    return None


def recycled_record(file: BinaryIO) -> int | None:
    """Where the first record of a recycled log lies; None where there is none.

    >>> import io
    >>> recycled_record(io.BytesIO(bytes([0, 0, 0, 0, 2, 0, 1, 7, 7])))
    >>> recycled_record(io.BytesIO(bytes([0, 0, 0, 0, 2, 0, 1, 7, 7, 0, 0, 0, 0, 0, 3, 6])))
    9
    """
    at = 0
    while True:
        left = BLOCK - at % BLOCK
        if left < HEADER:
            at += left
            continue
        file.seek(at)
        header = file.read(HEADER)
        if len(header) < HEADER:
            return None
        length, kind = int.from_bytes(header[4:6], "little"), header[6]
        if kind in RECYCLED:
            return at
        # Zeros, and what does not fit, are passed over up to the next block, as RocksDB does.
        at += left if (kind == 0 and length == 0) or HEADER + length > left else HEADER + length
