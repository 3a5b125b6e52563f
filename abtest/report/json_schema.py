"""The shape of `report.json`: read back into values, and published as a JSON Schema that only grows within a version.

`python -m abtest.report.json_schema docs/report.schema.json` publishes it again after a field was added. It refuses
what would break a reader of the same `SCHEMA_VERSION`: a field that goes away, changes its type, or has no default.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from abtest.analyse.context import ReportContext
from abtest.analyse.results import SCHEMA_VERSION, Report


class ReportFileError(Exception):
    """A `report.json` that cannot be used; one sentence says why."""


@dataclass(frozen=True)
class Document(Report):
    """What `report.json` holds: the report, and what it was given beside the data."""

    simulated: bool = False
    context: ReportContext = field(default_factory=ReportContext)


def read(path: Path) -> Document:
    """The report in a file.

    Raises:
        ReportFileError: it is absent, damaged, no report, or of another version.

    """
    try:
        text = path.read_bytes()
        data = json.loads(text)
    except OSError as error:
        raise ReportFileError(f"Cannot read {path}: {error.strerror}.") from error
    except ValueError as error:
        raise ReportFileError(f"{path} is not JSON: {error}.") from error
    version = data.get("schema_version") if isinstance(data, dict) else None
    if version is None:
        raise ReportFileError(f"{path} is not a report: it has no schema_version.")
    if version != SCHEMA_VERSION:
        raise ReportFileError(f"{path} has report format {version}; this build reads {SCHEMA_VERSION}.")
    try:
        return _adapter().validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ReportFileError(f"{path} is not a whole report: {where}: {first['msg']}.") from error


def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of `report.json`."""
    published = _adapter().json_schema()
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **published,
        "title": "driftline A/B report",
        "properties": {**published["properties"], "schema_version": {"const": SCHEMA_VERSION, "type": "integer"}},
    }


def broken(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What would break a reader or a file of the schema `before` under `after`; nothing where only fields were added.

    >>> was = {"properties": {"a": {"type": "integer"}, "b": {"type": "string"}}, "required": ["a"]}
    >>> broken(was, {"properties": {"a": {"type": "number"}, "c": {}}, "required": ["a", "c"]})
    ['a: changed', 'b: gone', 'c: has no default']
    >>> broken(was, {**was, "properties": {**was["properties"], "c": {"type": "string"}}})
    []
    """
    breaks = []
    for name, old, new in _objects(before, after):
        shapes, now = old.get("properties", {}), new.get("properties", {})
        for key in sorted({*shapes, *now}):
            if key not in now:
                breaks.append(f"{name}{key}: gone")
            elif key in shapes and _bare(shapes[key]) != _bare(now[key]):
                breaks.append(f"{name}{key}: changed")
            elif (key in new.get("required", ())) and key not in old.get("required", ()):
                breaks.append(f"{name}{key}: has no default")
    return breaks


def version_of(published: Mapping[str, Any]) -> int:
    """The version of the reports that a schema describes."""
    return int(published["properties"]["schema_version"]["const"])


def publish(path: Path) -> None:
    """Write the schema, unless it breaks what was published there for the same version.

    Raises:
        ReportFileError: it does; the message says what.

    """
    now = schema()
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        faults = broken(before, now) if version_of(before) == version_of(now) else []
        if faults:
            raise ReportFileError(f"Report format {SCHEMA_VERSION} may only grow; raise SCHEMA_VERSION: {faults}.")
    path.write_text(json.dumps(now, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def _objects(
    before: Mapping[str, Any], after: Mapping[str, Any]
) -> list[tuple[str, Mapping[str, Any], Mapping[str, Any]]]:
    """The whole, and every definition that was there before; one that went away has nothing."""
    old, new = before.get("$defs", {}), after.get("$defs", {})
    return [("", before, after), *((f"{name}.", old[name], new.get(name, {})) for name in sorted(old))]


def _bare(shape: Any) -> Any:
    """A shape without what only people read."""
    if isinstance(shape, Mapping):
        return {key: _bare(value) for key, value in shape.items() if key not in {"title", "description", "default"}}
    return [_bare(item) for item in shape] if isinstance(shape, list) else shape


@cache
def _adapter() -> TypeAdapter[Document]:
    return TypeAdapter(Document)


if __name__ == "__main__":
    try:
        publish(Path(sys.argv[1]))
    except ReportFileError as error:
        raise SystemExit(str(error)) from None
