"""What one exposure and its feedback add up to. Which feedback counts, `contracts.messages.attribution` decides."""

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from abtest.collect.records import EventSums, ExposureRecord, Response, Unused
from contracts.messages.attribution import ExposureSummary, Outcome, Unattributed, attribute

REASONS = {
    Unattributed.DUPLICATE: Unused.DUPLICATE_FEEDBACK,
    Unattributed.OTHER_USER: Unused.OTHER_USER,
    Unattributed.NOT_SHOWN: Unused.NOT_SHOWN,
    Unattributed.BEFORE_EXPOSURE: Unused.BEFORE_EXPOSURE,
    Unattributed.AFTER_WINDOW: Unused.TOO_LATE,
}


class Attributed(NamedTuple):
    """What the feedback on one exposure comes to. A view is the outcome of one shown item."""

    views: list[Outcome]
    counted: list[Response]  # those that the views are made of
    unused: list[tuple[Unused, Response]]


def attributed(window_ms: int, exposure: ExposureRecord, responses: Iterable[Response]) -> Attributed:
    """The views of an exposure that counts, and the responses that do not count with the reason.

    `responses`: all that came for the exposure's request, in the order of the log.
    """
    shown = ExposureSummary(
        exposure.user_id, exposure.time_ms, exposure.arm, frozenset(item for item, _ in exposure.items)
    )
    outcomes: dict[int, Outcome] = {}
    event_ids: set[str] = set()
    counted: list[Response] = []
    unused: list[tuple[Unused, Response]] = []
    for response in responses:
        reason = attribute(shown, outcomes, event_ids, response, window_ms)
        if reason is None:
            counted.append(response)
        else:
            unused.append((REASONS[reason], response))
    return Attributed(list(outcomes.values()), counted, unused)


def sums_of(exposure: ExposureRecord, views: list[Outcome]) -> EventSums:
    """One recall with the views it got."""
    timed = exposure.answer_us >= 0
    recall = EventSums(
        1,
        len(exposure.items),
        timed=int(timed),
        answer_us=exposure.answer_us if timed else 0,
        age_ms=max(exposure.age_ms, 0),
    )
    return recall.plus(_of_views(views))


def _of_views(views: list[Outcome]) -> EventSums:
    return EventSums(
        views=len(views),
        effective_views=sum(view.effective_view for view in views),
        follows=sum(view.follow for view in views),
        play_ms=sum(view.play_time_ms for view in views),
    )


def sums_by_source(exposure: ExposureRecord, views: list[Outcome]) -> dict[str, EventSums]:
    """Sums per source; a request counts as one recall of each source that it shows an item of."""
    source_of = dict(reversed(exposure.items))  # an item shown twice belongs to its first place
    sources: dict[str, list[Outcome]] = {source: [] for _, source in exposure.items}
    for view in views:
        sources[source_of[view.item_id]].append(view)
    slots = Counter(source for _, source in exposure.items)
    return {source: EventSums(1, slots[source]).plus(_of_views(seen)) for source, seen in sources.items()}
