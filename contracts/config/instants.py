"""Moments as a file of settings gives them: ISO 8601 with a zone, or Unix milliseconds."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

from contracts.config import calendar


def instant_ms(value: Any, name: str) -> int:
    """A moment that a file gives as ISO 8601 with a zone, in Unix milliseconds.

    >>> instant_ms("2026-03-01T00:00:00+08:00", "start")
    1772294400000

    Raises:
        ValueError: it is no such moment; `name` is the field that gives it.

    """
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        moment = None
    if isinstance(moment, datetime) and moment.tzinfo is not None:
        return (moment - datetime.fromtimestamp(0, UTC)) // timedelta(milliseconds=1)
    shown = value.isoformat() if isinstance(value, date) else value
    hint = calendar.unit_hint(value) if isinstance(value, int) else ""
    wanted = f"{name} '{shown}' is not a time with a zone, such as 2026-03-01T00:00:00+08:00"
    raise ValueError(f"{wanted}; as milliseconds {hint}" if hint else wanted)


def spelled(data: Any, **fields: str) -> Any:
    """`data` with each moment of `fields` (as a person writes it=the field that it becomes) in milliseconds."""
    if not isinstance(data, dict):
        return data
    data = dict(data)
    for name, field in fields.items():
        if name in data:
            if field in data:
                raise ValueError(f"{name} and {field} say the same; leave one out")
            data[field] = instant_ms(data.pop(name), name)
    return data


def with_calendar(data: Any) -> Any:
    """`data` of a file with ``start``, ``end`` and ``day_offset``, as a person writes them, in milliseconds.

    Raises:
        ValueError: one is none, or two fields say the same.

    """
    data = spelled(data, start="start_ms", end="end_ms")
    if isinstance(data, dict) and "day_offset" in data:
        if "day_offset_ms" in data:
            raise ValueError("day_offset and day_offset_ms say the same; leave one out")
        data["day_offset_ms"] = calendar.offset_ms(data.pop("day_offset"))
        if data.get("zone") is not None:
            raise ValueError("zone and day_offset both say where days are cut; leave one out")
    return data
