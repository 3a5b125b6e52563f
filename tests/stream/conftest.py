"""The two forms of a partition's state: whatever holds of the steps holds on both."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from stream.partition import PartitionStore
from stream.state import JoinState, MemoryState
from tests.stream.step_cases import SETTINGS


@pytest.fixture(params=["memory", "disk"])
def state(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[JoinState]:
    if request.param == "memory":
        yield MemoryState()
        return
    store = PartitionStore(tmp_path / "state", "feedback", 0, SETTINGS)
    yield store
    store.close()
