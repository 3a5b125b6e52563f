"""What a collector has seen beside users and their sums."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from abtest.collect.activity import Interval
from abtest.collect.records import EventSums


@dataclass(frozen=True)
class Observed:
    """Data that did not come through the stream has none of it.

    `recalls`: by arm, model and snapshot. `counts`: events by what became of them. `spans`: first and last answer of
    the tracked full snapshots, by arm and version. `newest_ms`: of all events read, 0 where none was.
    `changed`: parts of the plan that are no longer what they were when the collector began. `arms`: sums of each arm,
    users in two arms and what was served and not shown included.
    """

    recalls: Mapping[tuple[str, str, str], int] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    spans: Mapping[tuple[str, str], Interval] = field(default_factory=dict)
    newest_ms: int = 0
    changed: tuple[str, ...] = ()
    arms: Mapping[str, EventSums] = field(default_factory=dict)
