"""What the experiment has seen so far: a state that any order and any partition of the events leads to.

Two layers make it so. *Open* requests hold raw events by request id, each with its place in its log: a union, so
repeats and the order in which logs are read do not matter and feedback may arrive before its exposure. Once nothing
more can come for a request, it is *folded* into sums per user and day, and forgotten: memory is bounded by the
attribution window, not by the experiment's length. What comes for a folded request is counted, never added twice.

Which events count:
    An exposure counts if it names this experiment and one of its arms and lies within its period, unless it
    was shown to a tester. Whatever was shown in the days before counts as the user's pre-period, whoever showed it.
    Feedback counts if its request's exposure counts and `contracts.messages.attribution` joins the two: the stream
    learns by that rule too. It counts on its exposure's day. A view is an item that a request has shown: each item of
    its exposure or, where that was served only, each that feedback tells of. An exposure that has shown nothing counts
    in `served` alone, and its user is in no arm by it.
    What is late in its log does not count. Whoever reads the log says so (`late`): the state sees no order.
    Everything else is counted by reason (`Unused`).

How much it holds: an open request until it is folded; of a user `EventSums` a day, source and class of model age, an
interval a session, and one for each of at most `VERSIONS` full snapshots of an arm. An arm that has had more has a
sample of them, drawn by lot (`tracked_versions`), so that a trainer that publishes every few minutes does not make
users larger.

No clock and no I/O in here. Events change the state in place: to copy a hundred thousand users per event is no option.
"""

from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeVar

from abtest.assignment.assign import active
from abtest.collect.activity import Interval, join
from abtest.collect.attribution import attributed, sums_by_source, sums_of
from abtest.collect.records import (
    IMPRESSIONS,
    NOT_OURS_YET,
    NOT_SERVED,
    NOTHING,
    NOTHING_SHOWN,
    OF_FORGOTTEN,
    EventSums,
    ExposureRecord,
    Response,
    Unused,
    age_class,
    full_version,
    tracked_versions,
)
from abtest.collect.rules import Rules
from contracts.config.settings import Experiment
from contracts.messages.attribution import is_impression
from contracts.messages.forget import Marks
from contracts.wire.events_pb2 import Exposure, Feedback

_Key = TypeVar("_Key", bound=Hashable)


@dataclass
class OpenRequest:
    """What is known of one request so far."""

    shown: ExposureRecord | None = None
    responses: dict[Response, int] = field(default_factory=dict)  # with their first place in the log of their user

    def in_log_order(self) -> list[Response]:
        """The responses as their log has them. Places in different logs do not compare, but a user has one log."""
        return sorted(self.responses, key=lambda response: (self.responses[response], response))


@dataclass
class UserRecord:
    """One user's folded requests."""

    arms: set[str] = field(default_factory=set)
    days: dict[int, EventSums] = field(default_factory=dict)
    sources: dict[str, EventSums] = field(default_factory=dict)
    ages: dict[int, EventSums] = field(default_factory=dict)  # by class of model age
    versions: dict[tuple[str, str], EventSums] = field(
        default_factory=dict
    )  # by arm and full snapshot; see `CollectorState`
    replicas: set[str] = field(default_factory=set)  # that answered
    pre: EventSums = NOTHING  # of the days before the experiment
    sessions: list[Interval] = field(default_factory=list)  # activity, joined


@dataclass
class CollectorState:
    """See the module. `plan`: what the experiment's file said would be done with it when the state began."""

    rules: Rules
    requests: dict[str, OpenRequest] = field(default_factory=dict)
    users: dict[int, UserRecord] = field(default_factory=dict)
    arms: dict[str, EventSums] = field(default_factory=dict)  # of folded requests, users in two arms included
    recalls: Counter[tuple[str, str, str]] = field(default_factory=Counter)  # by arm, model, snapshot version
    spans: dict[tuple[str, str], Interval] = field(default_factory=dict)  # first and last answer of tracked versions
    counts: Counter[str] = field(default_factory=Counter)
    closed_ms: int = 0  # what was shown at or before this time has been folded
    newest_ms: int = 0  # newest event time read, of whatever event
    plan: dict[str, Any] = field(default_factory=dict)
    forgotten: Marks = field(default_factory=Marks)  # of late
    anonymous: bool = False  # whether users' numbers are nobody's ids any more

    def __post_init__(self) -> None:
        self.plan = self.plan or plan_of(self.rules.experiment)


def plan_of(experiment: Experiment) -> dict[str, Any]:
    """What has to be fixed before an experiment starts: hypothesis, metrics with their roles, analysis."""
    return experiment.model_dump(mode="json", include={"hypothesis", "metrics", "analysis"})


def observe_exposure(state: CollectorState, exposure: Exposure, offset: int = 0, *, late: bool = False) -> None:
    """Take an exposure in that lies at `offset` of its log; `late`: it is too far behind what its log had before."""
    state.counts["exposures"] += 1
    state.newest_ms = max(state.newest_ms, exposure.time_ms)
    mark = state.forgotten.get(exposure.user_id)
    if mark is not None and offset < mark.exposures_end:
        state.counts[OF_FORGOTTEN] += 1
        rules = state.rules
        until_ms = exposure.time_ms + rules.attribution_window_ms + rules.allowed_lateness_ms
        state.forgotten.extend(exposure.user_id, until_ms)
        return
    known = state.requests.get(exposure.request_id)
    if late and known is not None and known.shown is not None:
        state.counts[Unused.DUPLICATE_EXPOSURE] += 1
        return
    experiment = state.rules.experiment
    running = active(experiment, exposure.time_ms)
    if late or exposure.time_ms <= state.closed_ms:
        # What is late of another time is of no experiment's concern but that time's.
        state.counts[Unused.LATE_EXPOSURE if running else Unused.OTHER_EXPERIMENT] += 1
        return
    labelled = exposure.experiment == experiment.name and exposure.arm in experiment.arms
    if labelled and exposure.experiment_hash not in ("", state.rules.hash):
        if running:
            state.counts[Unused.OTHER_DEFINITION] += 1
        labelled = False
    if labelled and not running:
        state.counts[NOT_OURS_YET] += 1
    ours = labelled and running and exposure.user_id not in experiment.testers
    before = state.rules.begin_ms <= exposure.time_ms < experiment.start_ms
    if not ours and not _may_have_feedback(state.rules, exposure.time_ms):
        state.counts[Unused.OTHER_EXPERIMENT] += 1
        return
    record = ExposureRecord(
        exposure.event_id,
        exposure.time_ms,
        exposure.user_id,
        exposure.arm if ours else "",
        exposure.model,
        exposure.snapshot_version,
        tuple((item.item_id, item.source) for item in exposure.items) if ours or before else (),
        exposure.simulated,
        exposure.replica,
        round(1000 * exposure.answer_ms) if exposure.HasField("answer_ms") else -1,
        max(exposure.time_ms - exposure.model_time_ms, 0) if exposure.model_time_ms else -1,
        offset,
        exposure.served_only,
    )
    request = state.requests.setdefault(exposure.request_id, OpenRequest())
    _add_exposure(state, request, record)


def observe_feedback(state: CollectorState, feedback: Feedback, offset: int = 0, *, late: bool = False) -> None:
    """Take a feedback event in; its exposure may come later. `offset`, `late`: as for exposures."""
    state.counts["feedback"] += 1
    state.newest_ms = max(state.newest_ms, feedback.time_ms)
    if not _may_have_feedback(state.rules, feedback.time_ms):
        state.counts[Unused.OUTSIDE_PERIOD] += 1
        return
    if not late and feedback.time_ms <= state.closed_ms and feedback.request_id not in state.requests:
        state.counts[Unused.NO_EXPOSURE] += 1
        return
    response = Response(
        feedback.event_id,
        feedback.time_ms,
        feedback.user_id,
        feedback.item_id,
        feedback.play_time_ms,
        feedback.effective_view,
        feedback.follow,
        feedback.simulated,
        tuple(feedback.shown_item_ids),
    )
    if late:
        known = state.requests.get(feedback.request_id)
        repeated = known is not None and response in known.responses
        reason = Unused.LATE_FEEDBACK if feedback.time_ms >= state.rules.experiment.start_ms else Unused.OUTSIDE_PERIOD
        state.counts[Unused.DUPLICATE_FEEDBACK if repeated else reason] += 1
        return
    request = state.requests.setdefault(feedback.request_id, OpenRequest())
    _add_response(state, request, response, offset)


def observe_bad(state: CollectorState, reason: str, log_ms: int, received_ms: int) -> None:
    """Count an event that could not be read, unless it is of another time than the experiment's.

    Its own time is not known. It is of an earlier one where the log received it before the days that are looked at
    (`received_ms`), and of a later one where its log has come past the end (`log_ms`, the newest event time before it).
    """
    end_ms = state.rules.experiment.end_ms + state.rules.attribution_window_ms
    if received_ms >= state.rules.begin_ms and log_ms < end_ms:
        state.counts[f"bad_{reason}"] += 1


def close(state: CollectorState, through_ms: int, exposures_read: Mapping[int, int] = MappingProxyType({})) -> None:
    """Fold every request that was shown at or before `through_ms` (event time).

    Call it only when nothing more can come for those: `through_ms` = watermark − attribution window − lateness.
    `exposures_read`: by partition, the offset up to which exposures have been read; one that is not in it: all have.
    """
    for request_id, request in list(state.requests.items()):
        if request.shown is not None:
            if request.shown.time_ms <= through_ms:
                _fold(state, request.shown, request.in_log_order())
                del state.requests[request_id]
            continue
        for response in list(request.responses):
            if response.time_ms <= through_ms:  # its exposure came before it, and would have been folded by now
                is_marked = state.forgotten.get(response.user_id) is not None
                state.counts[OF_FORGOTTEN if is_marked else Unused.NO_EXPOSURE] += 1
                del request.responses[response]
        if not request.responses:
            del state.requests[request_id]
    state.closed_ms = max(state.closed_ms, through_ms)
    state.forgotten.expire(
        state.closed_ms, lambda mark: mark.exposures_end <= exposures_read.get(mark.partition, mark.exposures_end)
    )


def merge(a: CollectorState, b: CollectorState) -> CollectorState:
    """As if one state had taken in what both did. Neither is changed.

    The two must not have folded the same request: split events by user (Kafka's partitions are), or merge before
    closing.
    """
    if a.rules != b.rules:
        raise ValueError("states of different experiments or settings do not merge")
    closed_ms, newest_ms = max(a.closed_ms, b.closed_ms), max(a.newest_ms, b.newest_ms)
    merged = CollectorState(a.rules, plan=a.plan, closed_ms=closed_ms, newest_ms=newest_ms)
    merged.forgotten, merged.anonymous = a.forgotten.union(b.forgotten), a.anonymous or b.anonymous
    for state in (a, b):
        merged.counts.update(state.counts)
        merged.recalls.update(state.recalls)
        for arm, sums in state.arms.items():
            merged.arms[arm] = merged.arms.get(arm, EventSums()).plus(sums)
        for user_id, user in state.users.items():
            _add_user(merged, user_id, user)
        for version, span in state.spans.items():
            merged.spans[version] = _spanning(merged.spans.get(version, span), span)
        for request_id, request in state.requests.items():
            into = merged.requests.setdefault(request_id, OpenRequest())
            if request.shown is not None:
                _add_exposure(merged, into, request.shown)
            for response, offset in request.responses.items():
                _add_response(merged, into, response, offset)
    for arm in a.rules.experiment.arms:
        _let_go(merged, arm)
    return merged


def folded(state: CollectorState) -> CollectorState:
    """The state with every request folded, as a report needs it; `state` itself goes on unchanged."""
    complete = merge(state, CollectorState(state.rules))
    times = [time for request in complete.requests.values() for time in _times(request)]
    close(complete, max(times, default=complete.closed_ms))
    return complete


def live(state: CollectorState) -> dict[str, EventSums]:
    """Sums per arm so far, open requests included; users in two arms are still in. Cheap enough for every second."""
    totals = {arm: state.arms.get(arm, EventSums()) for arm in state.rules.experiment.arms}
    for request in state.requests.values():
        if request.shown is not None and request.shown.arm:
            joined = attributed(state.rules.attribution_window_ms, request.shown, request.in_log_order())
            totals[request.shown.arm] = totals[request.shown.arm].plus(sums_of(request.shown, joined))
    return totals


def users_per_arm(state: CollectorState) -> Counter[str]:
    """Distinct users seen in each arm so far; a user seen in two arms is in both."""
    seen = {(user_id, arm) for user_id, user in state.users.items() for arm in user.arms}
    for request in state.requests.values():
        exposure = request.shown
        # Before any feedback nobody knows whether what was served only is shown.
        if exposure is not None and exposure.arm and (request.responses or not exposure.served_only):
            seen.add((exposure.user_id, exposure.arm))
    return Counter(arm for _, arm in seen)


def _may_have_feedback(rules: Rules, time_ms: int) -> bool:
    return rules.begin_ms <= time_ms < rules.experiment.end_ms + rules.attribution_window_ms


def _add_exposure(state: CollectorState, request: OpenRequest, exposure: ExposureRecord) -> None:
    if request.shown is None:
        request.shown = exposure
        return
    state.counts[Unused.DUPLICATE_EXPOSURE] += 1
    # Two that differ are a fault upstream: the first of the log counts, and where no log says which, any fixed choice.
    request.shown = min(request.shown, exposure, key=lambda record: (record.offset, record))


def _add_response(state: CollectorState, request: OpenRequest, response: Response, offset: int) -> None:
    before = request.responses.get(response)
    if before is not None:
        state.counts[Unused.DUPLICATE_FEEDBACK] += 1
    request.responses[response] = offset if before is None else min(before, offset)


def _add_user(state: CollectorState, user_id: int, user: UserRecord) -> None:
    into = state.users.setdefault(user_id, UserRecord())
    into.arms |= user.arms
    into.replicas |= user.replicas
    into.pre = into.pre.plus(user.pre)
    _add_sums(into.days, user.days)
    _add_sums(into.sources, user.sources)
    _add_sums(into.ages, user.ages)
    _add_sums(into.versions, user.versions)
    into.sessions = join([*into.sessions, *user.sessions], state.rules.session_gap_ms)


def _add_sums(into: dict[_Key, EventSums], more: Mapping[_Key, EventSums]) -> None:
    for key, sums in more.items():
        into[key] = into.get(key, EventSums()).plus(sums)


def _fold(state: CollectorState, exposure: ExposureRecord, responses: Sequence[Response]) -> None:
    joined = attributed(state.rules.attribution_window_ms, exposure, responses)
    sums = sums_of(exposure, joined)
    if not exposure.arm and exposure.items:
        if joined.shown:
            _add_user(state, exposure.user_id, UserRecord(pre=sums))
        state.counts["pre_period_exposures"] += 1
        return
    if not exposure.arm:
        state.counts[Unused.OTHER_EXPERIMENT] += 1
        state.counts[Unused.OUTSIDE_EXPERIMENT] += len(responses)
        return
    state.counts.update(str(reason) for reason, _ in joined.unused)
    state.counts[NOT_SERVED] += joined.not_served
    state.arms[exposure.arm] = state.arms.get(exposure.arm, EventSums()).plus(sums)
    if not joined.shown:
        state.counts[NOTHING_SHOWN] += 1
        return
    state.counts[Unused.FOLDED] += joined.folded
    state.counts[IMPRESSIONS] += sum(map(is_impression, joined.counted))
    state.counts["simulated_events"] += exposure.simulated + sum(response.simulated for response in joined.counted)
    state.recalls[exposure.arm, exposure.model, exposure.snapshot] += 1
    version = exposure.arm, full_version(exposure.snapshot)
    # What was served only may have been fetched ahead of anybody's coming.
    here = [] if exposure.served_only else [(exposure.time_ms, exposure.time_ms)]
    user = UserRecord(
        {exposure.arm},
        {state.rules.day(exposure.time_ms): sums},
        sums_by_source(exposure, joined),
        {age_class(exposure.age_ms): sums},
        {version: sums} if version[1] and _admitted(state, version, exposure.time_ms) else {},
        {exposure.replica} - {""},
        sessions=[*here, *((each.time_ms, each.time_ms + each.play_time_ms) for each in joined.behaviours)],
    )
    _add_user(state, exposure.user_id, user)


def _admitted(state: CollectorState, version: tuple[str, str], time_ms: int) -> bool:
    """Whether a version that answers is tracked; another one may have to make room."""
    span = time_ms, time_ms
    before = state.spans.get(version)
    if before is None:
        arm, name = version
        if name not in tracked_versions(
            [name, *(other_name for other_arm, other_name in state.spans if other_arm == arm)]
        ):
            return False
        state.spans[version] = span
        _let_go(state, arm)
    else:
        state.spans[version] = _spanning(before, span)
    return True


def _let_go(state: CollectorState, arm: str) -> None:
    """Forget by user the versions of an arm that are too many."""
    mine = {version for other_arm, version in state.spans if other_arm == arm}
    gone = {(arm, version) for version in mine - tracked_versions(mine)}
    for version in gone:
        del state.spans[version]
    for user in state.users.values() if gone else ():
        for version in gone & user.versions.keys():
            del user.versions[version]


def _spanning(a: Interval, b: Interval) -> Interval:
    return min(a[0], b[0]), max(a[1], b[1])


def _times(request: OpenRequest) -> Iterator[int]:
    if request.shown is not None:
        yield request.shown.time_ms
    yield from (response.time_ms for response in request.responses)
