"""Sees what a piece of code does that reading a file must not do: run something, or open what is not its own."""

import codecs
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MEGABYTE = 1 << 20
ROOT = Path(__file__).parents[2]
RUNS = {
    "compile", "exec", "import", "marshal.loads", "marshal.load", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn",
    "os.spawn", "os.startfile", "os.system", "pickle.find_class", "pty.spawn", "subprocess.Popen", "ctypes.dlopen",
    "socket.connect", "shutil.rmtree",
}  # fmt: skip


# What `json.loads` may take bytes for, and names in archives; Python imports a codec when it is first used.
for codec in ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be", "cp437"):
    codecs.lookup(codec)


class Watch:
    """What happened, while it is on; Python takes no hook away, so there is one for the process."""

    def __init__(self) -> None:
        self.on = False
        self.allowed: tuple[str, ...] = ()
        self.seen: list[str] = []

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Called by Python for each event."""
        if not self.on:
            return
        if event in RUNS:
            self.seen.append(f"{event}{arguments!r}"[:300])
        elif event == "open" and isinstance(arguments[0], str | bytes | Path):
            path = str(arguments[0] if not isinstance(arguments[0], bytes) else arguments[0].decode(errors="replace"))
            if not path.startswith(self.allowed):
                self.seen.append(f"open {path}")


_WATCH = Watch()
sys.addaudithook(_WATCH)


@contextmanager
def watched(*allowed: Path) -> Iterator[list[str]]:
    """What was run and opened meanwhile but files below `allowed`; Python's own are fine."""
    python = (sys.prefix, sys.base_prefix, str(ROOT), "/proc/", "/sys/", "/dev/null")  # a warning shows its source
    _WATCH.seen, _WATCH.allowed = [], (*map(str, allowed), *python)
    _WATCH.on = True
    try:
        yield _WATCH.seen
    finally:
        _WATCH.on = False


def peak_megabytes() -> float:
    """The most memory that this process has held, so far."""
    unit = 1024 if sys.platform == "linux" else 1
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MEGABYTE
