"""Small snapshots and deltas, and damage done to them."""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from contracts.config.store import Root
from contracts.snapshots import delta, snapshot
from contracts.snapshots.delta import Changes, Delta
from contracts.snapshots.index import EXACT
from contracts.snapshots.snapshot import Manifest, Snapshot, Version


def make_manifest(version: str) -> Manifest:
    return Manifest(
        model="two_tower",
        version=version,
        dim=2,
        window=4,
        sampling_seed=9,
        noise_shape=(4, 2),
        examples=10,
        shares={"": 4, "control": 6},
        offsets={"examples:0": 10},
        event_time_ms=5,
        metrics={"recall@20": 0.5},
        sent_at_ms=(1, 2),
        learn_from="own",
        gate={"passed": True, "reason": "no worse than v000001", "bound": -0.01},
    )


def make(version: str = "v000001", rows: int = 3) -> Snapshot:
    """Items 1..rows, all in one place."""
    vectors = np.ones((rows, 2), np.float32)
    counts = np.zeros(rows, np.float32)
    return Snapshot(make_manifest(version), b"tower", np.arange(1, rows + 1), vectors, counts, EXACT)


def make_delta(version: str, items: list[int], removed: list[int] | None = None) -> Delta:
    """Items move to where the delta's sequence number is."""
    place = Version.parse(version)
    assert place is not None
    vectors = np.full((len(items), 2), place.sequence + 1, np.float32)
    counts = np.full(len(items), place.sequence, np.float32)
    changes = Changes(np.array(items, np.int64), vectors, counts, np.array(removed or [], np.int64))
    return Delta(make_manifest(version), changes)


def write_line(root: Root, number: int = 1, deltas: int = 3) -> list[Path]:
    """A full snapshot of items 1, 2, 3 and deltas on it, of which each moves item 1 and brings an item."""
    made = (
        make_delta(snapshot.version_name(number, sequence), [1, 10 + sequence]) for sequence in range(1, deltas + 1)
    )
    return [snapshot.write(root, make(snapshot.version_name(number))), *(delta.write(root, each) for each in made)]


def with_gate(made: Snapshot, *, passed: bool) -> Snapshot:
    gate: dict[str, bool | float | str] = {"passed": passed, "reason": "worse than v000001"}
    return replace(made, manifest=replace(made.manifest, gate=gate))


def damage(path: Path, how: str) -> None:
    """Flip a bit in the middle of a file, cut its last byte off, or remove it."""
    content = bytearray(path.read_bytes())
    if how == "flip":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif how == "truncate":
        path.write_bytes(content[:-1])
    else:
        path.unlink()


class Crash(BaseException):
    """The process has died."""


def dies_at_each_step(before: Path, action: Callable[[Path], object]) -> Iterator[Path]:
    """Copies of a directory in which an action died at its first call that touches the disk, the second, and so on.

    The last one is that in which it did not die.
    """
    for step in count(1):
        root = before.with_name(f"{before.name}-{step}")
        shutil.copytree(before, root)
        died = dies_at(step, lambda root=root: action(root))  # type: ignore[misc]
        yield root
        if not died:
            return


def dies_at(step: int, action: Callable[[], object]) -> bool:
    """Run an action of which the step-th call that touches the disk never happens; whether it came to that."""
    left = [step]

    def mortal(real: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **options: object) -> object:
            left[0] -= 1
            if left[0] == 0:
                raise Crash
            return real(*arguments, **options)

        return call

    with pytest.MonkeyPatch.context() as patched:
        for name in ("mkdir", "rename", "replace", "unlink", "open"):
            patched.setattr(Path, name, mortal(getattr(Path, name)))
        patched.setattr(os, "fsync", mortal(lambda _descriptor: None))
        patched.setattr(shutil, "rmtree", mortal(shutil.rmtree))
        try:
            action()
        except Crash:
            return True
    return False
