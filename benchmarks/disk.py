"""What files weigh."""

from pathlib import Path


def directory_bytes(path: Path) -> int:
    """Bytes of the files in a directory."""
    return sum(file.stat().st_size for file in path.iterdir())
