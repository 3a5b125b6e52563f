"""Which code this is, for what is written down beside results."""

import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

HERE = Path(__file__).resolve().parents[2]


@cache
def commit(root: Path = HERE) -> str | None:
    """The commit that is checked out at `root`, "-dirty" where files differ from it; else the package's version.

    None where neither is known.
    """
    if (root / ".git").exists():
        command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
            return done.stdout.strip() or None
        except (OSError, subprocess.SubprocessError):
            return None
    return release()


def release() -> str | None:
    """The version of the package that is installed; None where none is."""
    try:
        return f"driftline {version('driftline')}"
    except PackageNotFoundError:
        return None
