"""A snapshot on trial: the pointer that names it, and which requests it answers.

    <root>/<model>/CANARY             a JSON object, `version`, `share` and `group`: what some are answered from
                   <version>/TRIAL    a JSON object, `promoted` and `reason`: how a full snapshot's trial has ended

The trainer moves it, replicas read it. Which requests it answers is a function of the user, the minute and the group,
which is the first version on trial: every replica decides alike, and who asks again at once gets the same. Requests are
divided, not users, so that a user who comes back is compared with himself.
"""

import json
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from contracts.runtime.clock import MINUTE_MS
from contracts.runtime.durable import replace_file, sync_directory
from contracts.snapshots.snapshot import HELD, MANIFEST, Manifest, SnapshotError, Version, exclusive, publish

CANARY = "CANARY"
TRIAL = "TRIAL"
_SPACE = 1 << 64


class Canary(NamedTuple):
    """What is on trial, with which share of the requests, and the first version of this trial."""

    version: str
    share: float
    group: str


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


def on_trial(root: Path, model: str) -> Canary | None:
    """What is on trial, or None.

    Raises:
        SnapshotError: the pointer cannot be read.

    """
    try:
        data = json.loads((root / model / CANARY).read_bytes())
        canary = Canary(str(data["version"]), float(data["share"]), str(data["group"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise SnapshotError(f"{model}/{CANARY} cannot be read.") from error
    if Version.parse(canary.version) is None or not 0 < canary.share < 1:
        raise SnapshotError(f"{model}/{CANARY} names {canary.version!r} with a share of {canary.share:g}.")
    return canary


def try_out(root: Path, model: str, canary: Canary) -> bool:
    """Put a version on trial, in the place of any other; False, and nothing moves, while the model is held.

    Raises:
        SnapshotError: there is no such snapshot.

    """
    home = root / model
    with exclusive(home):
        if (home / HELD).exists():
            return False
        if not (home / canary.version / MANIFEST).is_file():
            raise SnapshotError(f"There is no snapshot {model}/{canary.version}.")
        replace_file(home / CANARY, json.dumps(canary._asdict()).encode())
    return True


def promote(root: Path, model: str, version: str) -> bool:
    """End the trial well: the version goes live for everybody; False, and it does not, while the model is held.

    Raises:
        SnapshotError: there is no such snapshot, or one that it is based on is gone.

    """
    went_live = publish(root, model, version)  # first: after a crash between the two all users have the version
    withdraw(root, model)
    return went_live


def withdraw(root: Path, model: str) -> None:
    """End any trial: all users are answered from what is live.

    A pointer that is no file stays: nobody is answered from it, and `driftline snapshots verify` tells of it.
    """
    home = root / model
    if (home / CANARY).is_file():
        (home / CANARY).unlink(missing_ok=True)
        sync_directory(home)


def note(root: Path, model: str, version: str, promoted: bool, reason: str) -> None:
    """Write down how a trial has ended, beside the snapshot's own files; of a delta's trial, beside those of its base.

    Raises:
        SnapshotError: there is no such snapshot.

    """
    home = root / model / _base(version)
    if not (home / MANIFEST).is_file():
        raise SnapshotError(f"There is no snapshot {model}/{home.name}.")
    replace_file(home / TRIAL, json.dumps(Trial(promoted, reason)._asdict()).encode())


def noted(root: Path, model: str, version: str) -> Trial | None:
    """How the trial of a version, or of the one that it is based on, has ended; None where it had none.

    What cannot be read is no promotion.
    """
    try:
        data = json.loads((root / model / _base(version) / TRIAL).read_bytes())
        return Trial(data["promoted"] is True, str(data["reason"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return Trial(promoted=False, reason=f"{TRIAL} cannot be read")


def _base(version: str) -> str:
    place = Version.parse(version)
    return str(place.base) if place else version
