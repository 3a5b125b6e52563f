"""When to warn of a service that tells of what was watched alone. Pure: the worker tells the time."""

from contracts.messages.attribution import only_positives

WARN_EVERY_S = 300.0
ONLY_POSITIVES = (
    "nearly all items that were shown are effective views: if the service sends nothing of items that were shown and"
    " not watched, it should send impressions (shown_item_ids), as rates say nothing without them"
)


class PositivesWatch:
    """When to warn.

    >>> watch = PositivesWatch()
    >>> [watch.look(99, 99, 0.0), watch.look(200, 200, 1.0), watch.look(300, 300, 300.0), watch.look(301, 301, 301.0)]
    [False, True, False, True]
    >>> watch.look(900, 500, 700.0)
    False
    """

    def __init__(self) -> None:
        self._warned_s: float | None = None

    def look(self, views: int, effective_views: int, now_s: float) -> bool:
        """Take in how many items were shown and watched so far; whether a warning is due.

        `now_s`: on the worker's clock.
        """
        if not only_positives(views, effective_views):
            return False
        due = self._warned_s is None or now_s - self._warned_s >= WARN_EVERY_S
        if due:
            self._warned_s = now_s
        return due
