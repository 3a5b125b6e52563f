"""Checkpoints: all that a trainer knows and the offsets up to which it knows it, in one atomic directory.

    <state>/trainer/<number>/state.pt        plain values and tensors (`torch.save`)
                             manifest.json   format, settings that must not change, examples, checksum

Commit order: (1) write into a hidden directory, (2) fsync, (3) rename it into place, (4) remove what is older than the
one before. A crash before (3) leaves a hidden directory that nobody reads; a damaged checkpoint gives way to the one
before it, and the trainer learns again what lies between. Where snapshots lie on a store, checkpoints do, too
(`trainer.shelf`).
"""

import hashlib
import json
import zipfile
from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import structlog
import torch

from contracts.config.settings import Settings, SettingsError
from contracts.runtime.durable import DAMAGED
from contracts.storage.objects import AwayError
from trainer.distributed.ranks import ALONE, Ranks
from trainer.shelf import shelf_of

log = structlog.get_logger()
FORMAT = 7
READ = (6, FORMAT)  # of 6 all but the drift detectors' windows, which were pickled
KEPT = 2
_ARRAY, _BYTES = "__array__", "__bytes__"  # tags of what `torch.load` would not take as plain


class DivergedError(Exception):
    """The ranks of a trainer are no longer in one state."""


class Checkpoints:
    """The checkpoints of one trainer; nobody else uses them as long as it lives. Of its ranks, the leader writes."""

    def __init__(
        self, settings: Settings, arrived: Callable[[str], None] = lambda _: None, ranks: Ranks = ALONE
    ) -> None:
        """Take possession of the directory.

        Args:
            settings: whose `state` says where, and whose models a checkpoint must fit.
            arrived: is told of each step of a commit; for tests that end there.
            ranks: the trainer's processes, which all must have one.

        Raises:
            SettingsError: another trainer has it.

        """
        self._shelf = shelf_of(settings, arrived)
        self.home = self._shelf.name
        self._fits = fingerprint(settings)
        self._ranks = ranks
        ranks.lead(self._shelf.take)

    def newest(self) -> dict[str, Any] | None:
        """The state in the newest checkpoint that is whole; None where there is no checkpoint.

        Raises:
            SettingsError: it was made with other settings, or none is whole.

        """
        return self._ranks.lead(self._newest)

    def _newest(self) -> dict[str, Any] | None:
        numbers = sorted(self._shelf.numbers(), reverse=True)
        for number in numbers:
            try:
                return self._read(number)
            except AwayError:  # it may be whole
                raise
            except DAMAGED as error:
                why = " ".join(str(error).split())
                log.warning("a checkpoint is damaged; one before it is looked for", checkpoint=number, why=why)
        if numbers:
            raise SettingsError(
                f"No checkpoint in {self.home} is whole; bring one back, or move {self.home} away to learn anew from "
                "the first record on."
            )
        return None

    def write(self, state: dict[str, Any], *, alone: bool = False) -> None:
        """Make a checkpoint, in the order given at the top.

        `alone`: none from before it is kept, as they have what has to be forgotten.

        Raises:
            DivergedError: the ranks' states differ, so there is none to keep.

        """
        if self._ranks.size > 1 and len(set(self._ranks.gather(digest(state)))) > 1:
            raise DivergedError("The trainer's processes have come to different states; the last checkpoint is whole.")
        self._ranks.lead(lambda: self._write(dumps(state), alone=alone))

    def _write(self, content: bytes, *, alone: bool) -> None:
        manifest = {"format": FORMAT, "settings": self._fits, "sha256": hashlib.sha256(content).hexdigest()}
        manifest |= {"alone": True} if alone else {}
        number = max(self._shelf.numbers(), default=0) + 1
        self._shelf.put(number, content, manifest, 1 if alone else KEPT)

    def require_mine(self) -> None:
        """See that nobody has taken over, before anything else is written.

        Raises:
            FencedError: another trainer has.

        """
        self._ranks.lead(self.require_mine_as_leader)

    def require_mine_as_leader(self) -> None:
        """`require_mine` for what the leader alone does.

        Raises:
            FencedError: another trainer has taken over.

        """
        self._shelf.require_mine()

    def close(self) -> None:
        """Let go of them."""
        if self._ranks.leads:
            self._shelf.close()

    def _read(self, number: int) -> dict[str, Any]:
        home = f"{self.home}/{number:08d}"
        manifest = self._shelf.manifest(number)
        if manifest["format"] not in READ:
            raise SettingsError(
                f"{home} has format {manifest['format']}, and this build reads {' and '.join(map(str, READ))}; go back "
                f"to the build that wrote it, or move {self.home} away to learn anew from the first record on."
            )
        changed = sorted(key for key in self._fits if manifest["settings"].get(key) != self._fits[key])
        if changed:
            raise SettingsError(
                f"{home} was made with other settings ({', '.join(changed)}); put them back, or move {self.home} away "
                "to learn anew from the first record on."
            )
        content = self._shelf.state(number)
        if hashlib.sha256(content).hexdigest() != manifest["sha256"]:
            raise ValueError("state.pt does not match its checksum")
        return loads(content)


def fingerprint(settings: Settings) -> dict[str, Any]:
    """The settings on which a checkpoint depends, as JSON has them: with others its weights would not fit.

    Which models there are is not among them: each has a state of its own.
    """
    trainer = settings.trainer.model_dump(mode="json")
    decisive = {name: trainer[name] for name in ("model", "learn_from", "objective", "replay", "average")}
    decisive["regimes"] = {name: trainer["regimes"][name] for name in ("variants", "share")}
    as_json: dict[str, Any] = json.loads(
        json.dumps({**decisive, "seed": settings.seed, "kafka": settings.kafka.topic("")})
    )
    return as_json


def dumps(state: dict[str, Any]) -> bytes:
    """Plain values, arrays, bytes and tensors as bytes."""
    buffer = BytesIO()
    torch.save(_plain(state), buffer)
    return buffer.getvalue()


def loads(content: bytes) -> dict[str, Any]:
    """What `dumps` was given; nothing but plain values is ever unpickled.

    >>> loads(dumps({"a": np.arange(2), "b": [b"x", (1, None)]}))
    {'a': array([0, 1]), 'b': [b'x', (1, None)]}

    Raises:
        ValueError: it is something else.

    """
    try:
        with zipfile.ZipFile(BytesIO(content)) as archive:
            # `torch.save` compresses nothing; torch would unpack what is, of whatever size.
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise ValueError("state.pt is compressed")
        state = _back(torch.load(BytesIO(content), map_location="cpu", weights_only=True))
    except Exception as error:  # torch's reader and unpickler raise whatever they meet
        raise ValueError(f"state.pt cannot be read: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(state, dict):
        raise ValueError("state.pt holds no state")  # noqa: TRY004  what is on the disk is no argument
    return state


def digest(state: dict[str, Any]) -> bytes:
    """The same for equal states; what `dumps` gives may differ even then.

    >>> digest({"a": np.arange(2)}) == digest({"a": np.arange(2)}), digest({"a": 1}) == digest({"a": 2})
    (True, False)
    """
    hasher = hashlib.sha256()

    def take(value: Any) -> None:
        if isinstance(value, torch.Tensor):
            hasher.update(f"{value.dtype} {tuple(value.shape)}".encode())
            hasher.update(value.cpu().contiguous().numpy().tobytes())
        elif isinstance(value, dict):
            for key, part in value.items():
                take(key)
                take(part)
        elif isinstance(value, list | tuple):
            hasher.update(str(len(value)).encode())
            for part in value:
                take(part)
        else:
            hasher.update(repr(value).encode())

    take(_plain(state))
    return hasher.digest()


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return {_ARRAY: torch.from_numpy(np.ascontiguousarray(value))}
    if isinstance(value, bytes):
        return {_BYTES: torch.frombuffer(bytearray(value), dtype=torch.uint8) if value else torch.empty(0)}
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_plain, value))
    return value


def _back(value: Any) -> Any:
    if isinstance(value, dict):
        if value.keys() == {_ARRAY}:
            return value[_ARRAY].numpy()
        if value.keys() == {_BYTES}:
            return value[_BYTES].numpy().tobytes()
        return {key: _back(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_back, value))
    return value
