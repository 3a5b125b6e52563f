"""Which arm a user belongs to: a pure function, the same in every process and on every machine.

Serving imports this module on its request path, so it needs nothing but NumPy and the settings' types.
It does not log exposures: being assigned is not being exposed.

Every decision compares one place of the user, `bucket`, with an edge. Four salts give four independent places:

    holdout   "holdout:{holdout.salt}"   in the holdout below its share
    layer     "layer:{layer}"            within the experiment's slots
    ramp      "ramp:{salt}"              in below the step's share: what is in at 1 % is in at 50 %
    arm       "{salt}"                   whatever the ramp says

So nobody changes arm when the experiment is ramped up or down, paused or resumed: who is in is in the same one.

The hash is version 1 of docs/experiments.md; changing it would move users, so it does not change.
"""

from bisect import bisect_right
from collections.abc import Callable
from functools import lru_cache
from hashlib import blake2b
from itertools import accumulate
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from contracts.config.changes import standing
from contracts.config.experiment import Experiment

_BITS = 53  # a float holds 53 bits exactly: more would round the largest hashes up to 1.0
_SHIFT = 64 - _BITS
_UNIT = 1 / (1 << _BITS)  # a power of two: multiplying by it is exact
_CHUNK = 65_536  # users whose digests assign_many holds at once

Why = Literal["assigned", "override", "holdout", "outside slots", "not ramped yet", "not running", "paused", "stopped"]


class Assignment(NamedTuple):
    """The arm, None where the user is not in the experiment, and why."""

    arm: str | None
    why: Why


NOT_RUNNING = Assignment(None, "not running")
HELD_OUT = Assignment(None, "holdout")
OUTSIDE_SLOTS = Assignment(None, "outside slots")
NOT_RAMPED = Assignment(None, "not ramped yet")


def bucket(salt: str, user_id: int) -> float:
    """The user's place in [0, 1): the top 53 bits of BLAKE2b-64 of ``"{salt}:{user_id}"``, big-endian, over 2**53.

    >>> bucket("spring", 7) == bucket("spring", 7), 0 <= bucket("spring", 7) < 1
    (True, True)
    """
    state = _begun(salt)()
    state.update(b"%d" % user_id)
    return (int.from_bytes(state.digest(), "big") >> _SHIFT) * _UNIT


def buckets(salt: str, user_ids: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """`bucket` of many users (N,), as (N,)."""
    places = np.empty(len(user_ids))
    begin = _begun(salt)
    for start in range(0, len(user_ids), _CHUNK):
        digests = []
        for user_id in user_ids[start : start + _CHUNK].tolist():
            state = begin()
            state.update(b"%d" % user_id)
            digests.append(state.digest())
        hashes = np.frombuffer(b"".join(digests), ">u8")
        places[start : start + _CHUNK] = (hashes >> _SHIFT) * _UNIT
    return places


def assign(experiment: Experiment, user_id: int, time_ms: int) -> Assignment:
    """The user's arm at `time_ms` (Unix milliseconds).

    [0, 1) is cut into one stretch per arm, in the arms' written order, each as long as the arm's share of the weights.
    Another salt shuffles every user anew, independently of this one. Testers come before everything but the period.

    >>> from contracts.config.experiment import Arm
    >>> arms = {"control": Arm(weight=1, model="two_tower"), "treatment": Arm(weight=1, model="t2diff")}
    >>> experiment = Experiment(name="e", salt="s", start_ms=0, end_ms=1, arms=arms, control="control")
    >>> [assign(experiment, user, 0).arm for user in (1, 2, 3, 4)]
    ['control', 'treatment', 'control', 'treatment']
    >>> assign(experiment, 1, 1)
    Assignment(arm=None, why='not running')
    """
    if not experiment.start_ms <= time_ms < experiment.end_ms:
        return NOT_RUNNING
    if experiment.changes and (state := state_of(experiment, time_ms)) != "running":
        return Assignment(None, state)
    if experiment.overrides:
        for arm, testers in experiment.overrides.items():
            if user_id in testers:
                return Assignment(arm, "override")
    left_out = _left_out(experiment, user_id, time_ms)
    if left_out is not None:
        return left_out
    total = 0.0
    for each in experiment.arms.values():
        total += each.weight
    place, edge = bucket(experiment.salt, user_id) * total, 0.0
    for arm, each in experiment.arms.items():
        edge += each.weight
        if place < edge:
            return Assignment(arm, "assigned")
    return Assignment(arm, "assigned")  # place can reach the last edge where the product rounds


def assign_many(experiment: Experiment, user_ids: npt.NDArray[np.int64], time_ms: int) -> npt.NDArray[np.int8]:
    """`assign` of many users (N,): the place of each one's arm among the arms (N,), -1 for no arm.

    >>> from contracts.config.experiment import Arm
    >>> arms = {"control": Arm(weight=1, model="two_tower"), "treatment": Arm(weight=1, model="t2diff")}
    >>> experiment = Experiment(name="e", salt="s", start_ms=0, end_ms=1, arms=arms, control="control")
    >>> assign_many(experiment, np.array([1, 2, 3, 4]), 0).tolist()
    [0, 1, 0, 1]
    """
    user_ids = np.asarray(user_ids, np.int64)
    arms = np.full(len(user_ids), -1, np.int8)
    if state_of(experiment, time_ms) != "running":
        return arms
    # Each step hashes only those whom the steps before it have left in.
    inside = np.arange(len(user_ids))
    holdout, (low, high), share = experiment.holdout, experiment.slots, ramp_share(experiment, time_ms)
    if holdout is not None:
        inside = inside[buckets("holdout:" + holdout.salt, user_ids) >= holdout.share]
    if low > 0 or high < 1:
        places = buckets("layer:" + experiment.layer, user_ids[inside])
        inside = inside[(low <= places) & (places < high)]
    if share < 1:
        inside = inside[buckets("ramp:" + experiment.salt, user_ids[inside]) < share]
    edges = list(accumulate(arm.weight for arm in experiment.arms.values()))
    places = buckets(experiment.salt, user_ids[inside]) * edges[-1]
    arms[inside] = np.minimum(np.searchsorted(edges, places, side="right"), len(edges) - 1)
    for number, arm in enumerate(experiment.arms):
        if testers := experiment.overrides.get(arm):
            arms[np.isin(user_ids, testers)] = number
    return arms


def ramp_share(experiment: Experiment, time_ms: int) -> float:
    """Share of the users of its slots that the experiment lets in at `time_ms`: before a ramp's first step none.

    A share by command (`Change`) holds instead of the ramp.

    >>> from contracts.config.experiment import Arm, RampStep
    >>> arms = {"a": Arm(weight=1, model="two_tower"), "b": Arm(weight=1, model="t2diff")}
    >>> ramp = (RampStep(from_ms=10, share=0.01), RampStep(from_ms=15, share=0.5))
    >>> experiment = Experiment(name="e", salt="s", start_ms=0, end_ms=20, arms=arms, control="a", ramp=ramp)
    >>> [ramp_share(experiment, time) for time in (9, 10, 14, 15)]
    [0.0, 0.01, 0.01, 0.5]
    """
    by_command = standing(experiment.changes, time_ms).share if experiment.changes else None
    if by_command is not None:
        return by_command
    if not experiment.ramp:
        return 1.0
    steps = bisect_right(experiment.ramp, time_ms, key=lambda step: step.from_ms)
    return experiment.ramp[steps - 1].share if steps else 0.0


def state_of(experiment: Experiment, time_ms: int) -> Literal["running", "not running", "paused", "stopped"]:
    """Whether anybody may be in the experiment at `time_ms`, and why not."""
    if not active(experiment, time_ms):
        return "not running"
    at = standing(experiment.changes, time_ms)
    return "stopped" if at.stopped else "paused" if at.paused else "running"


def _left_out(experiment: Experiment, user_id: int, time_ms: int) -> Assignment | None:
    holdout, (low, high) = experiment.holdout, experiment.slots
    if holdout is not None and bucket("holdout:" + holdout.salt, user_id) < holdout.share:
        return HELD_OUT
    if (low > 0 or high < 1) and not low <= bucket("layer:" + experiment.layer, user_id) < high:
        return OUTSIDE_SLOTS
    if experiment.ramp or experiment.changes:
        share = ramp_share(experiment, time_ms)
        if share < 1 and bucket("ramp:" + experiment.salt, user_id) >= share:
            return NOT_RAMPED
    return None


def active(experiment: Experiment, time_ms: int) -> bool:
    """Whether the experiment runs at `time_ms` (Unix milliseconds): from `start_ms` on, until just before `end_ms`.

    >>> from contracts.config.experiment import Arm
    >>> arms = {"a": Arm(weight=1, model="two_tower"), "b": Arm(weight=1, model="t2diff")}
    >>> experiment = Experiment(name="e", salt="s", start_ms=10, end_ms=20, arms=arms, control="a")
    >>> [active(experiment, time) for time in (9, 10, 19, 20)]
    [False, True, True, False]
    """
    return experiment.start_ms <= time_ms < experiment.end_ms


@lru_cache(maxsize=1024)
def _begun(salt: str) -> Callable[[], "blake2b"]:
    """Copies of the hash with the salt already in it: a third of the time of a hash from its beginning is saved."""
    return blake2b(f"{salt}:".encode(), digest_size=8).copy
