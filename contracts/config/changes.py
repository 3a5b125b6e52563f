"""What operators did to an experiment while it ran, and what that makes of it at a moment. Pure.

Changes are data: a list that only grows, in the order in which they were made. Each concerns event times from its own
`from_ms` on, so whoever has the list agrees on who is in the experiment at any moment, however late it was heard.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

from contracts.runtime.clock import SECOND_MS

Kind = Literal["pause", "resume", "ramp", "stop"]


class Change(NamedTuple):
    """One command. `share`: of the users of the experiment's slots, with "ramp" alone; None: as its file has it."""

    kind: Kind
    from_ms: int  # event time, Unix milliseconds
    share: float | None = None
    by: str = ""
    why: str = ""


class Standing(NamedTuple):
    """What the changes make of an experiment at a moment. `share`: by command; None: as its file has it."""

    paused: bool = False
    stopped: bool = False
    share: float | None = None


AS_PLANNED = Standing()
LEAD_MS = 5_000  # before a change holds: by then every replica that runs has heard of it, so all go by it at one moment


def standing(changes: Sequence[Change], time_ms: int) -> Standing:
    """Where an experiment stands at `time_ms` (event time, Unix milliseconds).

    A pause and a share are undone by the change of their kind that begins latest; of two that begin together the one
    that was made later holds. A stop is for ever.

    >>> changes = [Change("ramp", 10, 0.2), Change("pause", 20), Change("resume", 30), Change("stop", 40)]
    >>> [standing(changes, time_ms) for time_ms in (9, 10)]
    [Standing(paused=False, stopped=False, share=None), Standing(paused=False, stopped=False, share=0.2)]
    >>> [standing(changes, time_ms)[:2] for time_ms in (20, 30, 40)]
    [(True, False), (False, False), (False, True)]
    """
    paused, stopped, share = AS_PLANNED
    for change in in_force_order(changes):
        if change.from_ms > time_ms:
            break
        if change.kind == "stop":
            stopped = True
        elif change.kind == "ramp":
            share = change.share
        else:
            paused = change.kind == "pause"
    return Standing(paused, stopped, share)


def in_force_order(changes: Sequence[Change]) -> list[Change]:
    """The changes by the time from which they hold; of one time in the order in which they were made."""
    return sorted(changes, key=lambda change: change.from_ms)


def pauses(changes: Sequence[Change], end_ms: int) -> list[tuple[int, int]]:
    """The stretches of event time before `end_ms` in which nobody was assigned, each from its first moment to its end.

    >>> pauses([Change("pause", 10), Change("resume", 20), Change("stop", 50)], 90)
    [(10, 20), (50, 90)]
    """
    edges = sorted({change.from_ms for change in changes if change.from_ms < end_ms} | {end_ms})
    found: list[tuple[int, int]] = []
    for begin, end in pairwise(edges):
        at = standing(changes, begin)
        if at.paused or at.stopped or at.share == 0:
            goes_on = bool(found) and found[-1][1] == begin
            found.append((found.pop()[0] if goes_on else begin, end))
    return found


def refusal(changes: Sequence[Change], change: Change, period_ms: tuple[int, int], now_ms: int | None) -> str:
    """Why an operator's change cannot be made; the empty string where it can.

    Args:
        changes: those made before.
        change: the one that is asked for.
        period_ms: the experiment's start and end.
        now_ms: the present moment; what has been answered by then cannot be undone. None: the experiment's time is not
            the clock's, as in a simulation.

    >>> refusal([], Change("resume", 5), (0, 9), None)
    'the experiment is not paused then'
    >>> refusal([Change("stop", 3)], Change("pause", 5), (0, 9), None)
    'the experiment has been stopped'

    """
    start_ms, end_ms = period_ms
    if not start_ms <= change.from_ms < end_ms:
        return "that is outside the experiment's period"
    if now_ms is not None and end_ms <= now_ms:
        return "the experiment is over"
    if now_ms is not None and change.from_ms < now_ms + LEAD_MS:
        return f"that is less than {LEAD_MS // SECOND_MS} s ahead, and replicas would not go by it at one moment"
    at = standing(changes, change.from_ms)
    if at.stopped:
        return "the experiment has been stopped"
    share = "as its file has it" if at.share is None else f"{at.share:g}"
    so_already = {
        "pause": "the experiment is paused then already" if at.paused else "",
        "resume": "" if at.paused else "the experiment is not paused then",
        "ramp": f"its share is {share} then already" if change.share == at.share else "",
    }
    return so_already.get(change.kind, "")
