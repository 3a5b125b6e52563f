"""Who sees which arm, and what came of it: assignment, mergeable state, statistics, report.

Reads exposures and feedback, never model code. The unit of every statistic is the user; there is no way to ask for an
event-level test.

`__all__` is what is public: it changes in no release without a word before. All of it is loaded when it is first used,
so that a replica, which needs the assignment alone, loads nothing else.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

import abtest.analyse as _wing  # a docstring

if TYPE_CHECKING:
    from abtest.api.assigning import assign
    from abtest.api.planning import PowerPlan, plan_power
    from abtest.api.reporting import Report, analyse
    from abtest.api.shuffling import AA, aa
    from abtest.read.problems import DataError
    from contracts.config.experiment import SettingsError

__all__ = ["AA", "DataError", "PowerPlan", "Report", "SettingsError", "aa", "analyse", "assign", "plan_power"]

_FROM = {
    "AA": "abtest.api.shuffling",
    "DataError": "abtest.read.problems",
    "PowerPlan": "abtest.api.planning",
    "Report": "abtest.api.reporting",
    "SettingsError": "contracts.config.experiment",
    "aa": "abtest.api.shuffling",
    "assign": "abtest.api.assigning",
    "plan_power": "abtest.api.planning",
}


class _Callable(ModuleType):
    """`abtest.analyse` is a wing of this package as well as its main function; called, it is that function."""

    def __call__(self, *given: Any, **named: Any) -> Any:
        return import_module("abtest.api.reporting").analyse(*given, **named)

    @property
    def __signature__(self) -> Any:
        from inspect import signature

        return signature(import_module("abtest.api.reporting").analyse)


sys.modules[_wing.__name__].__class__ = _Callable


def __getattr__(name: str) -> Any:
    if name not in _FROM:
        raise AttributeError(f"module 'abtest' has no attribute '{name}'")
    return getattr(import_module(_FROM[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
