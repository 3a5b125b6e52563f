"""Whether a process lives and does its work: decided here from what its main loop says; `endpoint` tells it by HTTP.

live   the main loop makes steps: one that has stood still for longer than its bound is stuck
ready  it is live, and at its last step it lacked nothing that its work needs
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from contracts.runtime.clock import Clock

BEGINS = "its work has not begun"


@dataclass(frozen=True)
class Answer:
    """What is told over HTTP: a status code and a short JSON object."""

    code: int
    body: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Beat:
    """What the main loop said last."""

    at_s: float  # on the process's clock
    missing: tuple[str, ...]  # that its work needs; empty: it does its work


class Pulse:
    """The main loop's word to all who ask, from whichever thread: one reference, which is replaced whole."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last = Beat(clock.elapsed_s(), (BEGINS,))

    def beat(self, missing: Sequence[str] = ()) -> None:
        """Say that a step was made, and what the work lacks."""
        self._last = Beat(self._clock.elapsed_s(), tuple(missing))

    @property
    def missing(self) -> tuple[str, ...]:
        """What the work lacked at the last step."""
        return self._last.missing

    @property
    def age_s(self) -> float:
        """Seconds since the last step, or since the start."""
        return max(self._clock.elapsed_s() - self._last.at_s, 0.0)


def is_stuck(age_s: float, bound_s: float) -> bool:
    """Whether a main loop that has made no step for `age_s` counts as stuck.

    >>> is_stuck(120.0, 120.0), is_stuck(120.1, 120.0)
    (False, True)
    """
    return age_s > bound_s


def health(process: str, age_s: float, bound_s: float, at: str = "") -> Answer:
    """What /healthz answers. `at`: where the main thread is, told where it is stuck.

    >>> health("trainer", 3.0, 120.0)
    Answer(code=200, body={'process': 'trainer', 'status': 'ok'})
    >>> health("trainer", 130.2, 120.0, "engine.py:90 take").body["missing"]
    ['the main loop has made no step for 130 s, and may take 120 s']
    """
    if not is_stuck(age_s, bound_s):
        return Answer(200, {"process": process, "status": "ok"})
    missing = [f"the main loop has made no step for {age_s:.0f} s, and may take {bound_s:g} s"]
    return Answer(503, {"process": process, "status": "stuck", "missing": missing, "at": at})


def readiness(process: str, age_s: float, bound_s: float, missing: Sequence[str], at: str = "") -> Answer:
    """What /readyz answers.

    >>> readiness("stream", 0.1, 120.0, ["no partition is assigned to it"]).body
    {'process': 'stream', 'status': 'not ready', 'missing': ['no partition is assigned to it']}
    >>> readiness("stream", 0.1, 120.0, []).code, readiness("stream", 121, 120.0, []).code
    (200, 503)
    """
    if is_stuck(age_s, bound_s):
        return health(process, age_s, bound_s, at)
    if missing:
        return Answer(503, {"process": process, "status": "not ready", "missing": [*missing]})
    return Answer(200, {"process": process, "status": "ready"})
