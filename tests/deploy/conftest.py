"""One thread, as workers are set up, and traced towers that all engines share."""

from tests.trainer.conftest import _one_thread, _traced, make_rig, trace_once

__all__ = ["_one_thread", "_traced", "make_rig", "trace_once"]
