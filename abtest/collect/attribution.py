"""What one exposure and its feedback add up to. Which feedback counts, `contracts.messages.attribution` decides."""

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from abtest.collect.records import EventSums, ExposureRecord, Response, Unused
from contracts.messages.attribution import (
    ExposureSummary,
    Outcome,
    Told,
    Unattributed,
    attribute,
    is_impression,
    not_served,
    shown_items,
)

REASONS = {
    Unattributed.DUPLICATE: Unused.DUPLICATE_FEEDBACK,
    Unattributed.OTHER_USER: Unused.OTHER_USER,
    Unattributed.NOT_SHOWN: Unused.NOT_SHOWN,
    Unattributed.BEFORE_EXPOSURE: Unused.BEFORE_EXPOSURE,
    Unattributed.AFTER_WINDOW: Unused.TOO_LATE,
}


class Attributed(NamedTuple):
    """What the feedback on one exposure comes to."""

    shown: frozenset[int]  # items
    behaviours: list[Outcome]  # what came of those that feedback tells of
    counted: list[Response]  # the outcomes and impressions that these are made of
    unused: list[tuple[Unused, Response]]
    not_served: int = 0  # items that impressions name and the exposure does not have

    @property
    def folded(self) -> int:
        """Events that told of no item for the first time."""
        outcomes = [response for response in self.counted if not is_impression(response)]
        return len(outcomes) - len({response.item_id for response in outcomes})


def attributed(window_ms: int, exposure: ExposureRecord, responses: Iterable[Response]) -> Attributed:
    """What an exposure has shown and what came of it, and the responses that do not count with the reason.

    `responses`: all that came for the exposure's request, in the order of the log.
    """
    summary = ExposureSummary(
        exposure.user_id,
        exposure.time_ms,
        exposure.arm,
        frozenset(item for item, _ in exposure.items),
        served_only=exposure.served_only,
    )
    told, strangers = Told(), 0
    counted: list[Response] = []
    unused: list[tuple[Unused, Response]] = []
    for response in responses:
        reason = attribute(summary, told, response, window_ms)
        if reason is None:
            counted.append(response)
            strangers += not_served(summary, response)
        else:
            unused.append((REASONS[reason], response))
    return Attributed(shown_items(summary, told), told.behaviours(), counted, unused, strangers)


def sums_of(exposure: ExposureRecord, joined: Attributed) -> EventSums:
    """One recall with its views; where nothing was shown, none: only what was served counts."""
    served = len(dict(exposure.items))
    if not joined.shown:
        return EventSums(served=served)
    timed = exposure.answer_us >= 0
    recall = EventSums(
        1,
        len(joined.shown),
        timed=int(timed),
        answer_us=exposure.answer_us if timed else 0,
        age_ms=max(exposure.age_ms, 0),
        served=served,
    )
    return recall.plus(_of_behaviours(joined.behaviours))


def _of_behaviours(behaviours: list[Outcome]) -> EventSums:
    return EventSums(
        told=len(behaviours),
        effective_views=sum(each.effective_view for each in behaviours),
        follows=sum(each.follow for each in behaviours),
        play_ms=sum(each.play_time_ms for each in behaviours),
    )


def sums_by_source(exposure: ExposureRecord, joined: Attributed) -> dict[str, EventSums]:
    """Sums per source; a request counts as one recall of each source that it has shown an item of."""
    source_of = dict(reversed(exposure.items))  # an item shown twice belongs to its first place
    sources: dict[str, list[Outcome]] = {source: [] for _, source in exposure.items}
    for behaviour in joined.behaviours:
        sources[source_of[behaviour.item_id]].append(behaviour)
    served = Counter(source_of.values())
    views = Counter(source_of[item_id] for item_id in joined.shown)
    return {
        source: EventSums(int(views[source] > 0), views[source], served=served[source]).plus(_of_behaviours(seen))
        for source, seen in sources.items()
    }
