"""HEAD.json of the checkpoints on a store: whose they are, a beat, and which there are."""

import json
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from contracts.config.settings import SettingsError

FORMAT = 1
TO_DO = "bring it back, or move it and all beside it away"  # without it the states beside it are nobody's
STRICT = ConfigDict(frozen=True, strict=True, extra="forbid")


class Entry(BaseModel):
    """One checkpoint."""

    model_config = STRICT
    number: int
    object: str  # key of its state
    manifest: dict[str, Any]


class Head(BaseModel):
    """What HEAD.json says."""

    model_config = STRICT
    format: int = FORMAT
    owner: str | None = None  # mark of the trainer that has it
    beat: int = 0  # how often owners have shown that they live
    write: str = ""  # mark of the newest change
    checkpoints: list[Entry] = []

    def changed(self, **values: Any) -> "Head":
        """Give the head with other values.

        >>> Head().changed(beat=1).beat
        1
        """
        return self.model_copy(update=values)

    def dumps(self) -> bytes:
        """Its bytes."""
        return json.dumps(self.model_dump(), indent=1).encode()


def loads(content: bytes, name: str, prefix: str) -> Head:
    """The head in these bytes.

    Args:
        content: of the object.
        name: of the object, for errors.
        prefix: of the keys of all states; others are not driftline's to read or delete.

    Raises:
        SettingsError: it is none of driftline's, or of another format.

    """
    try:
        data = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"{name} is not JSON; {TO_DO}.") from error
    written = data.get("format") if isinstance(data, dict) else None
    if written != FORMAT or isinstance(written, bool):
        raise SettingsError(f"{name} has format {written!r}; this build reads {FORMAT}.")
    missing = sorted(Head.model_fields.keys() - data.keys())
    if missing:
        raise SettingsError(f"{name} has no {', '.join(missing)}; {TO_DO}.")
    try:
        head = Head.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise SettingsError(f"{name}: {where}: {first['msg']}; {TO_DO}.") from error
    strange = [each.object for each in head.checkpoints if not each.object.startswith(prefix)]
    if strange:
        raise SettingsError(f"{name} names {strange[0]!r}, which is no checkpoint; {TO_DO}.")
    return head
