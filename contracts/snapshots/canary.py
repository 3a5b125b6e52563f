"""A snapshot on trial: the pointer that names it, and which requests it answers.

    <root>/<model>/CANARY             a JSON object, `version`, `share` and `group`: what some are answered from
                   <version>/TRIAL    a JSON object, `promoted` and `reason`: how a full snapshot's trial has ended

The trainer moves it, replicas read it. Which requests it answers is a function of the user, the minute and the group,
which is the first version on trial: every replica decides alike, and who asks again at once gets the same. Requests are
divided, not users, so that a user who comes back is compared with himself.
"""

import json
from collections.abc import Callable
from hashlib import blake2b
from typing import NamedTuple

from contracts.config.store import Root
from contracts.runtime.clock import MINUTE_MS
from contracts.snapshots.disk import CANARY, TRIAL
from contracts.snapshots.pointers import Canary, Changes, Pointers
from contracts.snapshots.room import open_room
from contracts.snapshots.snapshot import Manifest, SnapshotGoneError, Version, require

__all__ = ["CANARY", "TRIAL", "Canary", "Trial"]

_SPACE = 1 << 64


def _anybody() -> None:
    """Whoever asks may move pointers."""


class Trial(NamedTuple):
    """How a trial has ended."""

    promoted: bool
    reason: str


def answers(model: str, canary: Canary, user_id: int, time_ms: int) -> bool:
    """Whether a request is answered from what is on trial: other requests in each trial.

    >>> tried = Canary("v000007", 0.5, "v000007")
    >>> sum(answers("two_tower", tried, user, 0) for user in range(1000))
    496
    >>> answers("two_tower", tried, 3, 0) == answers("two_tower", Canary("v000007+002", 0.5, "v000007"), 3, 0)
    True
    """
    digest = blake2b(f"canary:{model}:{canary.group}:{user_id}:{time_ms // MINUTE_MS}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < canary.share * _SPACE


def trial_of(manifest: Manifest) -> Canary | None:
    """How a snapshot was published: on trial with a group of users, or (None) for all."""
    share, group = manifest.gate.get("trial_share"), manifest.gate.get("trial_group")
    return Canary(manifest.version, float(share), str(group)) if share and group else None


def on_trial(root: Root, model: str) -> Canary | None:
    """What is on trial, or None.

    Raises:
        SnapshotError: the pointer cannot be read.

    """
    return open_room(root).trial(model)


def try_out(root: Root, model: str, canary: Canary, require_mine: Callable[[], None] = _anybody) -> bool:
    """Put a version on trial, in the place of any other; False, and nothing moves, while the model is held.

    `require_mine` raises where another trainer has taken over. It is asked after the pointers were read and before they
    are swapped, so a swap that it has allowed fails where the other one has moved them since.

    Raises:
        SnapshotGoneError: there is no such snapshot.

    """
    room = open_room(root)

    def decide(now: Pointers) -> Changes | None:
        require_mine()
        if now.held:
            return None
        if not room.complete(model, canary.version):
            raise SnapshotGoneError(f"There is no snapshot {model}/{canary.version}.")
        return [("trial", canary)]

    return room.change(model, decide)


def promote(root: Root, model: str, version: str, require_mine: Callable[[], None] = _anybody) -> bool:
    """End the trial well: the version goes live for everybody; False, and it does not, while the model is held.

    `require_mine`: as of `try_out`.

    Raises:
        SnapshotGoneError: there is no such snapshot, or one that it is based on is gone.

    """

    def decide(now: Pointers) -> Changes:
        went_live.clear()  # it may be asked again
        require_mine()
        if now.held:
            return [("trial", None)]
        require(root, model, version)
        went_live.append(True)
        return [("live", version), ("trial", None)]  # live first: after a crash between the two all have the version

    went_live: list[bool] = []
    open_room(root).change(model, decide)
    return bool(went_live)


def withdraw(root: Root, model: str, require_mine: Callable[[], None] = _anybody) -> None:
    """End any trial: all users are answered from what is live.

    `require_mine`: as of `try_out`.

    A pointer that is no file stays: nobody is answered from it, and `driftline snapshots verify` tells of it.
    """

    def decide(_: Pointers) -> Changes:
        require_mine()
        return [("trial", None)]

    open_room(root).change(model, decide)


def note(root: Root, model: str, version: str, promoted: bool, reason: str) -> None:
    """Write down how a trial has ended, beside the snapshot's own files; of a delta's trial, beside those of its base.

    Raises:
        SnapshotGoneError: there is no such snapshot.

    """
    room, base = open_room(root), _base(version)
    if not room.complete(model, base):
        raise SnapshotGoneError(f"There is no snapshot {model}/{base}.")
    room.note(model, base, json.dumps(Trial(promoted, reason)._asdict()).encode())


def noted(root: Root, model: str, version: str) -> Trial | None:
    """How the trial of a version, or of the one that it is based on, has ended; None where it had none.

    What cannot be read is no promotion.
    """
    try:
        content = open_room(root).noted(model, _base(version))
        if content is None:
            return None
        data = json.loads(content)
        return Trial(data["promoted"] is True, str(data["reason"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return Trial(promoted=False, reason=f"{TRIAL} cannot be read")


def _base(version: str) -> str:
    place = Version.parse(version)
    return str(place.base) if place else version
