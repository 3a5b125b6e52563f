"""What became of each arm's snapshots, and whether the arm went stale. Pure functions of manifests and of answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from contracts.runtime.clock import HOUR_MS
from contracts.snapshots.snapshot import Manifest
from contracts.snapshots.staleness import Publication, longest_without, stale_ms

HALF_DAY_MS = 12 * HOUR_MS

Span = tuple[int, int]  # event times of a version's first and last answer


@dataclass(frozen=True)
class Counts:
    """What became of an arm's snapshots, the warm-up's included."""

    made: int
    promoted: int  # after a trial
    rolled_back: int  # trials that ended so; one may have had several snapshots, one in the place of the other
    held: int  # before any trial, for a flaw


def publications(live: Sequence[Manifest], spans: Mapping[str, Span]) -> list[Publication]:
    """When each snapshot went live, in event time, as users saw it: with the last answer of the one before.

    Its own first answer tells only when its trial began.

    Args:
        live: those that went live, oldest first.
        spans: of the versions that answered.

    """
    found: list[Publication] = []
    before: Span | None = None
    for manifest in live:
        own = spans.get(manifest.version)
        known_ms = (before[1],) if before is not None else own[:1] if own is not None else ()
        at_ms = max([manifest.event_time_ms, *known_ms, *(each.at_ms for each in found[-1:])])
        found.append(Publication(at_ms, manifest.event_time_ms))
        before = own
    return found


def of_arm(
    model: str, counts: Counts, live: Sequence[Manifest], spans: Mapping[str, Span], begin_ms: int, end_ms: int
) -> dict[str, Any]:
    """An arm in `summary.json`. Hours are of event time, in the experiment from `begin_ms` to `end_ms`."""
    went_live = publications(live, spans)
    by_half_day = [0] * -(-(end_ms - begin_ms) // HALF_DAY_MS)
    for each in went_live:
        if begin_ms <= each.at_ms < end_ms:
            by_half_day[(each.at_ms - begin_ms) // HALF_DAY_MS] += 1
    return {
        "model": model,
        "made": counts.made,
        "live": len(live),
        "promoted": counts.promoted,
        "rolled_back": counts.rolled_back,
        "held": counts.held,
        "live_by_half_day": by_half_day,
        "longest_without_live_h": _hours(longest_without((each.at_ms for each in went_live), begin_ms, end_ms)),
        "stale_h": _hours(stale_ms(went_live, begin_ms, end_ms)),
    }


def warnings(arms: Mapping[str, Mapping[str, Any]], hours: float) -> list[str]:
    """A sentence on each arm that a reader must not take for one that learned all the time.

    >>> warnings({"a": {"stale_h": 0.0}, "b": {"stale_h": 112.0}}, 168)
    ['b was stale for 112 of 168 h: what was live had learned nothing for more than a day.']
    """
    why = "what was live had learned nothing for more than a day"
    return [
        f"{name} was stale for {arm['stale_h']:.3g} of {hours:.4g} h: {why}."
        for name, arm in arms.items()
        if arm["stale_h"]
    ]


def _hours(ms: int) -> float:
    return round(ms / HOUR_MS, 2)
