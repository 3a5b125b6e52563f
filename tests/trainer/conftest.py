"""One thread, as the worker is set up: on a shared machine, threads that wait for each other cost most of the time."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

import trainer.model_line
from contracts.config.settings import Settings
from tests.trainer.trainer_rig import MemoryLog, Rig
from trainer.models.base import UserEncoder
from trainer.publish.onnx_export import TowerTemplate


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def _traced() -> dict[tuple[type, int, int, bool], TowerTemplate]:
    return {}


@pytest.fixture
def trace_once(_traced: dict[tuple[type, int, int, bool], TowerTemplate], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let all engines share a trace per architecture: tracing takes seconds, and `fill` replaces every weight."""

    def template(encoder: UserEncoder, dim: int, window: int) -> TowerTemplate:
        key = (type(encoder), dim, window, encoder.left_out)
        if key not in _traced:
            _traced[key] = TowerTemplate(encoder, dim, window)
        return _traced[key]

    monkeypatch.setattr(trainer.model_line, "TowerTemplate", template)


MakeRig = Callable[..., Rig]


@pytest.fixture
def make_rig() -> Iterator[MakeRig]:
    """Make workers around logs in memory; what they hold is let go of at the end."""
    made: list[Rig] = []

    def make(settings: Settings, per_poll: int = 50, log: MemoryLog | None = None, **options: Any) -> Rig:
        made.append(Rig(settings, per_poll, log, **options))
        return made[-1]

    yield make
    for rig in made:
        rig.close()
