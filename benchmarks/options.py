"""What the options of several benchmarks are."""

import argparse
from pathlib import Path


def folder(path: str) -> Path:
    """A folder that is there, for argparse.

    Raises:
        argparse.ArgumentTypeError: it is not; argparse says so and ends.

    """
    if not Path(path).is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {path}")
    return Path(path)
