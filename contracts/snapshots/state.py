"""STATE.json: all pointers of a model in one object of a store, which is replaced as a whole by its ETag.

`removing` names versions that retention deletes now, so that no pointer moves to them. `writes` names the newest
changes, each by a random mark: whoever did not hear whether his write was done finds his mark there if it was.
"""

import json
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from contracts.snapshots.pointers import Canary, Hold, Pointers, canary_of
from contracts.snapshots.version import SnapshotError, Version

STATE = "STATE.json"
FORMAT = 1
REMEMBERED = 64  # changes


@dataclass(frozen=True)
class State:
    """What STATE.json says."""

    pointers: Pointers = field(default_factory=Pointers)
    removing: tuple[str, ...] = ()  # sorted
    moved_ms: int = 0  # when `live` moved last
    serial: int = 0  # changes so far
    writes: tuple[str, ...] = ()  # marks of the newest changes, the newest last

    def after(self, pointers: Pointers, removing: tuple[str, ...], mark: str, now_ms: int) -> "State":
        """The state after one more change.

        >>> State().after(Pointers(live="v000001"), (), "m", 5).serial
        1
        """
        moved_ms = now_ms if pointers.live != self.pointers.live else self.moved_ms
        writes = (*self.writes, mark)[-REMEMBERED:]
        return replace(
            self, pointers=pointers, removing=removing, moved_ms=moved_ms, serial=self.serial + 1, writes=writes
        )


def dumps(state: State) -> bytes:
    """The bytes of a state."""
    now = state.pointers
    data = {
        "format": FORMAT,
        "live": now.live,
        "held": asdict(now.held) if now.held else None,
        "trial": now.trial._asdict() if now.trial else None,
        "pinned": list(now.pinned),
        "removing": list(state.removing),
        "moved_ms": state.moved_ms,
        "serial": state.serial,
        "writes": list(state.writes),
    }
    return json.dumps(data, indent=1).encode()


def loads(content: bytes, name: str) -> State:
    """The state in these bytes; `name` of the object is for errors.

    Raises:
        SnapshotError: it is none of driftline's, or of another format.

    """
    try:
        data = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise SnapshotError(f"{name} is not JSON; nothing is changed until it is brought back or removed.") from error
    written = data.get("format") if isinstance(data, dict) else None
    if written != FORMAT or isinstance(written, bool):
        raise SnapshotError(f"{name} has format {written!r}; this build reads {FORMAT}, and changes nothing.")
    try:
        return _state(data, name)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SnapshotError(f"{name} is none of driftline's: {' '.join(str(error).split())}.") from error


def _state(data: dict[str, Any], name: str) -> State:
    held, trial = data["held"], data["trial"]
    pointers = Pointers(
        live=None if data["live"] is None else _version(data["live"]),
        held=None if held is None else Hold(str(held["version"]), str(held["reason"])),
        trial=None if trial is None else _canary(trial, name),
        pinned=tuple(sorted(map(_version, data["pinned"]))),
    )
    removing, writes = tuple(map(_version, data["removing"])), tuple(map(str, data["writes"]))
    return State(pointers, removing, int(data["moved_ms"]), int(data["serial"]), writes)


def _canary(data: dict[str, Any], name: str) -> Canary:
    return canary_of(json.dumps(data).encode(), f"the trial in {name}")


def _version(name: object) -> str:
    if not isinstance(name, str) or Version.parse(name) is None:
        raise ValueError(f"{name!r} is no version")
    return name
