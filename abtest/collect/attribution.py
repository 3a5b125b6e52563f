"""Which feedback counts for an exposure, and what one exposure and its feedback add up to."""

from collections import Counter
from collections.abc import Iterable

from abtest.collect.records import EventSums, ExposureRecord, Response, Unused


def attributed(
    window_ms: int, exposure: ExposureRecord, responses: Iterable[Response]
) -> tuple[list[Response], list[tuple[Unused, Response]]]:
    """The responses that count for an exposure that counts, and the others with the reason."""
    items = {item for item, _ in exposure.items}
    views: list[Response] = []
    unused: list[tuple[Unused, Response]] = []
    for response in responses:
        if response.user_id != exposure.user_id:
            unused.append((Unused.OTHER_USER, response))
        elif response.item_id not in items:
            unused.append((Unused.NOT_SHOWN, response))
        elif response.time_ms < exposure.time_ms:
            unused.append((Unused.BEFORE_EXPOSURE, response))
        elif response.time_ms > exposure.time_ms + window_ms:
            unused.append((Unused.TOO_LATE, response))
        else:
            views.append(response)
    return views, unused


def sums_of(exposure: ExposureRecord, views: list[Response]) -> EventSums:
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


def _of_views(views: list[Response]) -> EventSums:
    return EventSums(
        views=len(views),
        effective_views=sum(view.effective_view for view in views),
        follows=sum(view.follow for view in views),
        play_ms=sum(view.play_ms for view in views),
    )


def sums_by_source(exposure: ExposureRecord, views: list[Response]) -> dict[str, EventSums]:
    """Sums per source; a request counts as one recall of each source that it shows an item of."""
    source_of = dict(reversed(exposure.items))  # an item shown twice belongs to its first place
    sources: dict[str, list[Response]] = {source: [] for _, source in exposure.items}
    for view in views:
        sources[source_of[view.item_id]].append(view)
    slots = Counter(source for _, source in exposure.items)
    return {source: EventSums(1, slots[source]).plus(_of_views(responses)) for source, responses in sources.items()}
