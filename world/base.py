"""What a world is: a catalogue, a warm-up log, visits of users, and what users do with what they are shown.

A world does no input or output and reads no clock; `world.drive` is what puts it on Kafka and asks Recall.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from contracts.config.settings import SettingsError
from contracts.features import Ints

Bools: TypeAlias = npt.NDArray[np.bool_]
Doubles: TypeAlias = npt.NDArray[np.float64]

VISIT_GAP_MS = 30 * 60_000  # a longer pause between two of a user's impressions starts a new visit
MAX_SLATE = 20
PAUSE_MS = 1000  # between the end of one play and the beginning of the next
LATENESS_MS = 2 * 60 * 60_000  # how late a stream must allow events to be that replays a world


class WorldError(SettingsError):
    """A world that cannot be made from what was given; one sentence says why."""


@dataclass(frozen=True)
class WorldCatalogue:
    """All items that can be shown; row i of each column belongs to item_ids[i]."""

    item_ids: Ints  # (N,) sorted, > 0
    categories: tuple[tuple[int, ...], ...]  # N tuples of category ids > 0; () where an item has none
    durations_ms: Ints  # (N,) 0 where it is not known
    born_ms: Ints | None = None  # (N,) when each can first be shown; None: all from the world's start


@dataclass(frozen=True, slots=True)
class LogRow:
    """One impression as it stands in the log, unrepaired; None where the log holds nothing that can be read."""

    item_id: int | None
    time_ms: int | None
    play_time_ms: int | None
    effective_view: bool | None
    follow: bool | None
    received_ms: int  # when the log received it; sound even where `time_ms` is not


@dataclass(frozen=True, slots=True)
class LogPage:
    """One logged request: consecutive impressions of a user's visit.

    An item stands on a page once, or several times with one and the same time (duplicate rows of the log), so
    (request_id, item_id, time_ms) identifies an event and its duplicates share it.
    """

    request_id: str
    user_id: int  # 0 where the log names no user
    time_ms: int  # when the page came up: the time at which its first row was received
    rows: tuple[LogRow, ...]  # at least one, in the order shown


@dataclass(frozen=True, slots=True)
class Visit:
    """A user arrives and asks for k items."""

    index: int  # position among the world's visits; keys the randomness of the response
    user_id: int
    time_ms: int
    k: int


@dataclass(frozen=True)
class Response:
    """What the user did with each of the m items shown; all arrays (m,)."""

    start_ms: Ints  # event time at which the item began to play; ascends, and ends before the user's next visit
    play_time_ms: Ints
    effective_view: Bools
    follow: Bools


@dataclass(frozen=True)
class CalibrationBin:
    """One tenth of the held-out impressions, by predicted probability."""

    rows: int
    predicted: float  # mean predicted probability of an effective view
    observed: float  # share of effective views


@dataclass(frozen=True)
class ResponseQuality:
    """How well a fitted response model predicts impressions that it was not fitted on."""

    rows: int  # held-out impressions
    auc: float  # of the probability of an effective view
    log_loss: float
    predicted_rate: float  # mean predicted probability of an effective view
    observed_rate: float
    calibration_error: float  # expected calibration error: mean |predicted - observed| over the bins, by rows
    calibration: tuple[CalibrationBin, ...]
    play_mae_s: float  # mean absolute error of the predicted median play time, seconds
    play_constant_mae_s: float  # the same for the best constant: the median of the rows it was fitted on
    play_median_error_s: float  # median absolute error, seconds
    play_predicted_s: float  # mean play time that the model expects, seconds
    play_observed_s: float  # mean play time observed, seconds


class World(Protocol):
    """Simulated users, or users of a log."""

    @property
    def name(self) -> str: ...
    @property
    def description(self) -> str:
        """One sentence for the report."""

    @property
    def simulated_log(self) -> bool:
        """Whether the warm-up is simulated too."""

    @property
    def catalogue(self) -> WorldCatalogue: ...
    @property
    def start_ms(self) -> int: ...
    @property
    def experiment_start_ms(self) -> int: ...
    @property
    def end_ms(self) -> int: ...
    @property
    def day_offset_ms(self) -> int:
        """Added to event time before cutting days."""

    @property
    def quality(self) -> ResponseQuality | None:
        """Of the response model on held-out impressions; None where the responses are the truth by construction."""

    def warmup(self) -> Iterator[LogPage]:
        """The log from start_ms to experiment_start_ms, in time order, bad rows included."""

    def visits(self) -> Sequence[Visit]:
        """Who comes when from experiment_start_ms to end_ms, in time order."""

    def respond(self, visits: Sequence[Visit], shown: Sequence[Ints]) -> list[Response]:
        """What users do with the items that each of the visits was shown.

        Each user at most once a call, and calls in time order per user: a response depends on earlier ones. How
        visits are grouped into calls otherwise changes nothing.

        Raises:
            ValueError: an item is not in the catalogue.

        """

    def logged_choice(self, visits: Sequence[Visit]) -> list[Ints]:
        """Item ids that the policy behind the log shows on each visit, at most `k`; a function of the visit alone."""

    def affinities(self, visits: Sequence[Visit]) -> Doubles | None:
        """What nobody outside can know: how gladly each visitor would now view each item; (B, N), -inf: not born yet.

        A monotone function of the probability of an effective view, as it is after the earlier calls of `respond` and
        before that for these visits. None where the world cannot say it for a whole catalogue.
        """


class Arrival(Protocol):
    """What `waves` groups: visits, pages."""

    @property
    def user_id(self) -> int: ...
    @property
    def time_ms(self) -> int: ...


A = TypeVar("A", bound=Arrival)


def waves(arrivals: Iterable[A], span_ms: int) -> Iterator[list[A]]:
    """Cut arrivals in time order into runs in which no user appears twice and which span at most `span_ms`.

    A user's next request must see the effect of the one before; what is in one wave may be answered in any order.

    >>> come = [Visit(i, user, at, 4) for i, (user, at) in enumerate([(1, 0), (2, 5), (1, 6), (3, 90)])]
    >>> [[visit.index for visit in wave] for wave in waves(come, 60)]
    [[0, 1], [2], [3]]
    """
    wave: list[A] = []
    users: set[int] = set()
    for arrival in arrivals:
        if wave and (arrival.user_id in users or arrival.time_ms - wave[0].time_ms > span_ms):
            yield wave
            wave, users = [], set()
        wave.append(arrival)
        users.add(arrival.user_id)
    if wave:
        yield wave


def begin_times(time_ms: int, plays_ms: Ints, until_ms: int) -> Ints:
    """When each of the items shown at `time_ms` begins to play: one after the other, a second between them.

    Where that would run past `until_ms`, the user's next visit, the beginnings (not the plays) are squeezed together,
    so that a user's events come in the order of the visits.

    >>> begin_times(1000, np.array([5000, 2000, 9000]), 60_000).tolist()
    [2000, 8000, 11000]
    >>> begin_times(1000, np.array([5000, 2000, 9000]), 6000).tolist()
    [1499, 4499, 5999]
    """
    if not plays_ms.size:
        return np.empty(0, np.int64)
    offsets = np.concatenate([[0], np.cumsum(plays_ms[:-1] + PAUSE_MS)]) + PAUSE_MS
    room = until_ms - time_ms - 1
    if offsets[-1] > room:
        offsets = offsets * max(room, 0) // offsets[-1]
    begins: Ints = (time_ms + offsets).astype(np.int64)
    return begins


def next_visit_times(visits: Sequence[Visit], end_ms: int) -> Ints:
    """When the user of each visit comes again, (V,); a visit gap after `end_ms` where that is not known.

    >>> next_visit_times([Visit(0, 7, 10, 4), Visit(1, 8, 20, 4), Visit(2, 7, 30, 4)], 100).tolist()
    [30, 1800100, 1800100]
    """
    out = np.empty(len(visits), np.int64)
    following: dict[int, int] = {}
    for at in range(len(visits) - 1, -1, -1):
        visit = visits[at]
        out[at] = following.get(visit.user_id, end_ms + VISIT_GAP_MS)
        following[visit.user_id] = visit.time_ms
    return out
