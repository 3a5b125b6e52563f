"""What to load next: a pure function over what is live or on trial, what is loaded and what has failed.

absent ──whole──► loaded ──LIVE names a later delta of the same base──► + missing deltas
                  │   └──── LIVE names anything else ──whole──► loaded
                  └──────── the deltas cannot be applied ──whole──► loaded
└───────────── a load that has failed is tried again while LIVE names its version, after `wait_s`; the old one serves on

What is on trial is loaded beside it by the same rules, with CANARY in LIVE's place. Its trial ends

well   ── LIVE names it, or a later delta of it ──► it serves in the place of what was live; nothing is loaded again
badly  ── CANARY is gone, or names another base ──► it is dropped
"""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from contracts.snapshots.snapshot import Version

FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 60.0


class Load(NamedTuple):
    """Something to load: a version from the disk, or onto what is loaded the deltas that lead to it."""

    model: str
    version: str
    deltas: tuple[str, ...] = ()  # in their order; (): the version with all that it is based on
    trial: bool = False  # beside what is live


class Plan(NamedTuple):
    """What to do, in this order, before the pointers are looked at again."""

    promote: list[str]  # models of which what is on trial takes the place of what serves
    drop: list[str]  # models of which it goes
    load: list[Load]  # what is live before what is on trial


class Failure(NamedTuple):
    """A load that could not be done, and when it is tried again."""

    why: str
    attempts: int
    due_s: float  # by the clock that measures durations


def wait_s(attempts: int, throw: float) -> float:
    """How long after a load has failed so many times it is tried again: twice as long each time, up to a minute.

    What is damaged for good costs little so, and what is repaired serves within a minute.

    >>> [wait_s(attempts, 1.0) for attempts in (1, 2, 3, 7, 1000)], wait_s(1, 0.0)
    ([1.0, 2.0, 4.0, 60.0, 60.0], 0.5)

    Args:
        attempts: up to now, > 0.
        throw: from 0 to 1, of each replica its own: the wait is shortened by up to a half of it, lest all replicas read
            a large snapshot in the same moment.

    """
    longest = min(FIRST_WAIT_S * 2.0 ** min(attempts - 1, 10), LONGEST_WAIT_S)
    return longest * (0.5 + throw / 2)


def plan(
    live: Mapping[str, str | None],
    trials: Mapping[str, str],
    loaded: Mapping[str, str],
    tried: Mapping[str, str],
    failed: AbstractSet[Load],
) -> Plan:
    """What follows from where the pointers are.

    Args:
        live: what each model's LIVE names; None before its first snapshot.
        trials: what its CANARY names, of models with something on trial.
        loaded: the version of each model that serves now.
        tried: the version of each model that is loaded beside it for its trial.
        failed: loads that could not be done and are not to be tried again yet.

    >>> plan({"a": "v000001"}, {"a": "v000002"}, {"a": "v000001"}, {}, set()).load
    [Load(model='a', version='v000002', deltas=(), trial=True)]
    >>> plan({"a": "v000002"}, {}, {"a": "v000001"}, {"a": "v000002"}, set())
    Plan(promote=['a'], drop=[], load=[])
    >>> plan({"a": "v000001"}, {}, {"a": "v000001"}, {"a": "v000002"}, set())
    Plan(promote=[], drop=['a'], load=[])

    """
    promoted = [model for model in sorted(tried) if _nearer(tried[model], loaded.get(model), live.get(model))]
    loaded = {**loaded, **{model: tried[model] for model in promoted}}
    # Where nothing serves there is nothing to try it beside; what is live already is on trial no more.
    wanted = {
        model: version
        for model, version in trials.items()
        if model in loaded and _missing(version, live.get(model)) is None
    }
    beside = {model: version for model, version in tried.items() if model not in promoted}
    dropped = [model for model in sorted(beside) if not _same_base(beside[model], wanted.get(model))]
    kept = {model: version for model, version in beside.items() if model not in dropped}
    return Plan(promoted, dropped, to_load(live, loaded, failed) + to_load(wanted, kept, failed, trial=True))


def to_load(
    named: Mapping[str, str | None], loaded: Mapping[str, str], failed: AbstractSet[Load], *, trial: bool = False
) -> list[Load]:
    """What to load now, at most one thing a model, in the order of the models' names.

    Args:
        named: what each model's pointer names; None before its first snapshot.
        loaded: the version of each model that is loaded for that pointer.
        failed: loads that could not be done and are not to be tried again yet.
        trial: whether the pointer is CANARY.

    >>> to_load({"a": "v000002", "b": None, "c": "v000001"}, {"a": "v000001", "c": "v000001"}, set())
    [Load(model='a', version='v000002', deltas=(), trial=False)]
    >>> [load.deltas for load in to_load({"a": "v000002+003"}, {"a": "v000002+001"}, set())]
    [('v000002+002', 'v000002+003')]

    """
    wanted = (
        _ways(model, version, loaded.get(model), trial=trial)
        for model, version in sorted(named.items())
        if version is not None and loaded.get(model) != version
    )
    return [untried[0] for ways in wanted if (untried := [load for load in ways if load not in failed])]


def _ways(model: str, version: str, loaded: str | None, *, trial: bool) -> list[Load]:
    """How a version can be brought in, the cheapest first."""
    whole = Load(model, version, trial=trial)
    missing = _missing(loaded, version)
    return [whole] if missing is None else [Load(model, version, missing, trial), whole]


def _missing(held: str | None, wanted: str | None) -> tuple[str, ...] | None:
    """The deltas that lead from what is held to what is wanted, () where that is it; None where none do.

    >>> _missing("v000002+001", "v000002+003"), _missing("v000002", "v000002"), _missing("v000002", "v000003")
    (('v000002+002', 'v000002+003'), (), None)
    """
    start, end = Version.parse(held or ""), Version.parse(wanted or "")
    if start is None or end is None or start.base != end.base or start > end:
        return None
    return tuple(str(each) for each in end.chain()[start.sequence + 1 :])


def _nearer(tried: str, loaded: str | None, live: str | None) -> bool:
    """Whether what is on trial is what is live, or nearer to it than what serves."""
    from_trial, from_loaded = _missing(tried, live), _missing(loaded, live)
    return from_trial is not None and (from_loaded is None or len(from_trial) < len(from_loaded))


def _same_base(version: str, other: str | None) -> bool:
    one, two = Version.parse(version), Version.parse(other or "")
    return one is not None and two is not None and one.base == two.base
