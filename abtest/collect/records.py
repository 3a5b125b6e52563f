"""What is known of one exposure and of one feedback, what is summed of them, and why some do not count."""

from bisect import bisect_right
from collections.abc import Iterable
from enum import StrEnum
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple

from contracts.snapshots.staleness import STALE_MS

AGES_MS = (300_000, 1_800_000, 7_200_000, 43_200_000, STALE_MS)  # upper ends of classes of model age
VERSIONS = 20  # snapshots of an arm that are tracked by user; the others are in no figure by version
NOTHING_SHOWN = "exposures_of_nothing_shown"  # served, and nothing has told that any of it was shown
NOT_SERVED = "impressed_items_not_served"  # that an impression names beside those of its exposure
IMPRESSIONS = "impressions"  # that count
USERS_FORGOTTEN = "users_forgotten"  # who were in the experiment
OF_FORGOTTEN = "events_of_forgotten_users"  # that came after their users were forgotten, of what was shown before
NOT_OURS_YET = "labelled_outside_period"  # exposures that name the experiment, before its start or after its end


class Unused(StrEnum):
    """Why an event does not count. Its value is its name in the state's counts and in the report."""

    DUPLICATE_EXPOSURE = "duplicate_exposures"
    DUPLICATE_FEEDBACK = "duplicate_feedback"
    OTHER_EXPERIMENT = "exposures_outside_experiment"
    OTHER_DEFINITION = "exposures_of_another_definition"  # of the experiment, from a replica that had it otherwise
    LATE_EXPOSURE = "late_exposures"
    OUTSIDE_PERIOD = "feedback_outside_period"
    OUTSIDE_EXPERIMENT = "feedback_outside_experiment"
    NO_EXPOSURE = "feedback_without_exposure"
    NOT_SHOWN = "feedback_on_item_not_shown"
    OTHER_USER = "feedback_of_another_user"
    BEFORE_EXPOSURE = "feedback_before_its_exposure"
    TOO_LATE = "feedback_after_attribution_window"
    LATE_FEEDBACK = "late_feedback"
    FOLDED = "feedback_folded"  # it counts, but as part of a view that an earlier event of the same item began


class ExposureRecord(NamedTuple):
    """An exposure. `arm` is empty where it is not of the experiment; `items` too, where it is of no use at all.

    `offset` is its place in its log: of two with one request id, the first counts.
    """

    event_id: str
    time_ms: int
    user_id: int
    arm: str
    model: str
    snapshot: str
    items: tuple[tuple[int, str], ...]  # item and source, in the order shown
    simulated: bool
    replica: str = ""
    answer_us: int = -1  # -1: not measured
    age_ms: int = -1  # of the newest example that the model had learned from; -1: not known
    offset: int = 0
    served_only: bool = False


class Response(NamedTuple):
    """Feedback; an impression where `shown_item_ids` has any. Without its place, so that two of one content are one."""

    event_id: str
    time_ms: int
    user_id: int
    item_id: int
    play_time_ms: int
    effective_view: bool
    follow: bool
    simulated: bool
    shown_item_ids: tuple[int, ...] = ()


class EventSums(NamedTuple):
    """Sums. A view is an item that a recall has shown; a recall that has shown nothing is none."""

    recalls: int = 0
    views: int = 0
    told: int = 0  # views that feedback tells of, be it by an impression
    effective_views: int = 0
    follows: int = 0
    play_ms: int = 0
    timed: int = 0  # recalls whose answer was timed
    answer_us: int = 0
    age_ms: int = 0  # of the models that answered, summed; one of unknown age adds none
    served: int = 0  # items that were answered, also by what has shown nothing

    def plus(self, other: "EventSums") -> "EventSums":
        """The sum, field by field.

        >>> EventSums(1, 2).plus(EventSums(3, 4)).views
        6
        """
        return EventSums(*(a + b for a, b in zip(self, other, strict=True)))


NOTHING = EventSums()


def age_class(age_ms: int) -> int:
    """The class of a model's age: the number of ends in `AGES_MS` that it has reached; -1 where it is not known.

    >>> age_class(-1), age_class(0), age_class(300_000), age_class(10**9)
    (-1, 0, 1, 5)
    """
    return bisect_right(AGES_MS, age_ms) if age_ms >= 0 else -1


def full_version(snapshot: str) -> str:
    """The full snapshot that a delta belongs to: an experiment has hundreds of deltas, and each answers few.

    >>> full_version("v000010+003"), full_version("v000010")
    ('v000010', 'v000010')
    """
    return snapshot.partition("+")[0]


def tracked_versions(versions: Iterable[str]) -> set[str]:
    """At most `VERSIONS` of an arm's versions: those with the smallest hashes, so as good as drawn by lot.

    A version that is let go once is never taken back, whatever others come, in any order: there are `VERSIONS` with
    smaller hashes already. What is known of a version that is kept is therefore complete.

    >>> tracked_versions(["v2", "v1"]) == {"v1", "v2"}, len(tracked_versions(f"v{i}" for i in range(100)))
    (True, 20)
    """
    return set(sorted(set(versions), key=_lot)[:VERSIONS])


@lru_cache(maxsize=10_000)
def _lot(version: str) -> bytes:
    return blake2b(version.encode(), digest_size=8).digest() + version.encode()
