"""Reading a file that a person has named: no more of it than is wanted, and nothing that is no file."""

import errno
import os
import stat
from pathlib import Path


def read_regular(path: Path, most_bytes: int) -> bytes:
    """The beginning of a regular file. A device may never end, and a FIFO that nobody writes to is waited for.

    Raises:
        OSError: it cannot be read, or is something else.
        ValueError: the path is none.

    """
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        return file.read(most_bytes)
