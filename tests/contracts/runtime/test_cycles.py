"""What is loaded is left out of searches for cycles, and what comes after is still searched."""

import gc
import subprocess
import sys
import weakref
from collections.abc import Iterator

import pytest

from contracts.runtime.cycles import THRESHOLDS, look_seldom, looked_for_seldom


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


class Ring:
    """An object that holds itself."""

    def __init__(self) -> None:
        self.self = self


def test_what_is_loaded_is_left_out_and_garbage_of_later_goes() -> None:
    look_seldom()
    assert gc.get_threshold() == THRESHOLDS
    assert gc.get_freeze_count() > 1000
    ring = weakref.ref(Ring())
    gc.collect()
    assert ring() is None


def test_cycles_go_without_being_asked_for() -> None:
    """In a process of its own: nothing else there makes or frees objects."""
    code = (
        "import gc, weakref; from contracts.runtime.cycles import look_seldom; look_seldom()\n"
        "class Ring:\n  def __init__(self): self.self = self\n"
        "first = weakref.ref(Ring()); kept = [[] for _ in range(300_000)]; print(first() is None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


def test_for_a_while_and_then_as_before() -> None:
    before = gc.get_threshold()
    with looked_for_seldom():
        assert gc.get_threshold() == THRESHOLDS
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == 0
