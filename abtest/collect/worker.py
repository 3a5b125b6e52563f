"""The process that reads exposures and feedback and keeps the experiment's state. A thin shell around
`abtest.collect.state`.

Order of every round, so that a crash at any point neither loses nor doubles an event:
    1. poll, and take the batch into the state;
    2. now and then, write the state with the offsets it includes into one file;
    3. commit the offsets to the broker. They are only progress for others to watch: a start seeks to the file's.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

import structlog
from kafka import TopicPartition
from kafka.structs import OffsetAndMetadata
from prometheus_client import CollectorRegistry, Counter, Gauge

from abtest.collect.course import begun_course, follow
from abtest.collect.forget import forget_user, make_anonymous, over_since_ms
from abtest.collect.parts import Share, load_part, require_division
from abtest.collect.records import EventSums
from abtest.collect.rules import Rules
from abtest.collect.state import close, live, observe_bad, observe_exposure, observe_feedback, users_per_arm
from abtest.collect.store import Saved, Saves, save
from abtest.stats.metrics import (
    STREAMED,
    STREAMED_BEFORE,
    of_experiment,
    require_known_before,
    with_capped,
)
from contracts.config.settings import Experiment, Settings, SettingsError, StreamSettings
from contracts.kafka.bus import EXPERIMENTS, EXPOSURES, FEEDBACK, check_topics, partitions_of
from contracts.kafka.consumers import Consumer, LogEnd, consumer
from contracts.messages.attribution import is_late, watermark_ms
from contracts.messages.events import BadEvent
from contracts.messages.forget import is_forget
from contracts.messages.positives import ONLY_POSITIVES, PositivesWatch
from contracts.messages.received import exposure_of, feedback_of
from contracts.runtime.clock import Clock, SystemClock
from contracts.runtime.cycles import look_seldom
from contracts.runtime.durable import LockedError, StateError, lock_file
from contracts.runtime.endpoint import opened
from contracts.runtime.worker import announce, configure_logs, stop_on_signal

POLL_MS = 200
SHOW_EVERY_MS = 1_000
ALONE = Share()


class Meters:
    """What the worker shows to Prometheus. Values per arm include users seen in both; the report leaves them out."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.events = Counter("abtest_events_in", "Events read", ["kind"], registry=registry)
        self.bad = Counter("abtest_bad_events", "Events that could not be read", ["reason"], registry=registry)
        self.forgotten = Counter("abtest_forgotten_users", "Requests to forget a user followed", registry=registry)
        self.evr = Gauge("abtest_evr", "Effective views over items shown", ["arm"], registry=registry)
        self.users = Gauge("abtest_users", "Users seen", ["arm"], registry=registry)
        self.views = Gauge("abtest_views", "Items shown", ["arm"], registry=registry)
        self.served = Gauge("abtest_served", "Items served, shown or not", ["arm"], registry=registry)
        self.recalls = Gauge("abtest_recalls", "Recalls shown", ["arm"], registry=registry)
        self.lag = Gauge("abtest_lag", "Records not taken in yet, as far as the last fetches told", registry=registry)
        self.open = Gauge("abtest_open_requests", "Requests whose feedback may still come", registry=registry)

    def show(self, saved: Saved) -> dict[str, EventSums]:
        """Bring the gauges up to date; the sums of each arm. An arm without views has no EVR, and shows none."""
        users, sums_of_arms = users_per_arm(saved.state), live(saved.state)
        for arm, sums in sums_of_arms.items():
            self.users.labels(arm).set(users[arm])
            self.views.labels(arm).set(sums.views)
            self.served.labels(arm).set(sums.served)
            self.recalls.labels(arm).set(sums.recalls)
            if sums.views:
                self.evr.labels(arm).set(sums.effective_views / sums.views)
        self.open.set(len(saved.state.requests))
        return sums_of_arms


def run(settings: Settings, ready_file: Path | None = None, share: Share = ALONE) -> None:
    """Keep the state until a stop signal, then save it and return.

    `share`: of the partitions, which this collector has; others have the rest.

    Raises:
        SettingsError: the saved state cannot be continued under these settings, a metric is of something that is not
            collected, or another collector has this share.

    """
    configure_logs()
    clock: Clock = SystemClock()
    endpoint = opened("collector", settings, clock)
    stop = stop_on_signal(settings.stop_within_s)
    log = structlog.get_logger(worker="abtest")
    registry = CollectorRegistry()
    meters = Meters(registry)
    path, kafka = share.path(settings), settings.kafka
    require_columns(settings.experiment)
    held = _held(settings, share)
    saved = continued(share, settings)
    check_topics(kafka)
    course = begun_course(settings, clock, log)
    client = consumer(kafka, [], f"{kafka.topic_prefix}abtest", max_poll_records=settings.stream.poll_records)
    client.reads.register(registry)
    try:
        mine = [each for each in partitions_of(kafka, [EXPOSURES, FEEDBACK]) if share.has(each.partition)]
        exposures, (told,) = kafka.topic(EXPOSURES), partitions_of(kafka, [EXPERIMENTS])
        _begin(client, [*mine, told], saved.offsets)
        look_seldom()
        endpoint.show(registry)
        announce(ready_file, {"metrics_port": endpoint.port})
        log.info("ready", resumed=bool(saved.offsets), share=str(share), metrics_port=endpoint.port)
        keys = [_key(partition) for partition in mine]
        shown_ms, saves = clock.now_ms(), Saves(path, clock)
        positives: dict[str, PositivesWatch] = defaultdict(PositivesWatch)  # by arm
        while not stop.is_set():
            batch = client.poll(timeout_ms=POLL_MS)
            follow(saved, course, batch.pop(told, ()), log)
            for partition, records in batch.items():
                step(saved, partition, records, partition.topic == exposures, settings.stream, kafka.partitions, meters)
            now_ms = clock.now_ms()
            if now_ms - shown_ms >= SHOW_EVERY_MS:
                close_settled(saved, keys)
                let_go_of_ids(saved, settings.retention.experiment_users_ms)
                warn_of_positives(positives, meters.show(saved), clock.elapsed_s(), log)
                shown_ms = now_ms
            saves.save_if_due(saved)
            meters.lag.set(lag_of(saved, client, keys))
            endpoint.pulse.beat(client.missing())
            if batch:
                client.commit({p: OffsetAndMetadata(saved.offsets[_key(p)], "", -1) for p in batch})
        save(saved, path)
        log.info("stopped", **{name: count for name, count in saved.state.counts.items() if count})
    finally:
        client.close()
        held.close()


def _begin(client: Consumer, partitions: Sequence[TopicPartition], offsets: Mapping[str, int]) -> None:
    """Read these from where the state has come to, and from their first record where it has none."""
    client.assign([*partitions])
    client.seek_to_beginning()
    for key, offset in offsets.items():
        client.seek(_partition(key), offset)


def _held(settings: Settings, share: Share) -> TextIO:
    """The lock of a share's state.

    Raises:
        SettingsError: another collector holds it, or the share is none.

    """
    require_division(settings, share)
    path = share.path(settings)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        return lock_file(path.with_suffix(".lock"))
    except LockedError as error:
        raise SettingsError(f"Another collector keeps {path}.") from error


def continued(share: Share, settings: Settings) -> Saved:
    """The saved state of a share's collector.

    Raises:
        SettingsError: it cannot be continued under these settings.

    """
    try:
        return load_part(share.path(settings), share, settings)
    except StateError as error:
        raise SettingsError(str(error)) from error


class Record:
    """What `step` needs of a consumed record (kafka-python's has it): the interface, for types only."""

    value: bytes | None
    timestamp: int
    partition: int
    offset: int


def step(
    saved: Saved,
    partition: TopicPartition,
    records: Sequence[Record],
    are_exposures: bool,
    stream: StreamSettings,
    partitions: int,
    meters: Meters,
) -> None:
    """Take one partition's batch into the state. A record that cannot be read is counted and passed over.

    `partitions`: how many its topic has.

    Here the log's order is known, so here is decided what is late in it.
    """
    key = _key(partition)
    newest_ms = saved.newest_ms.get(key, 0)
    for record in records:
        try:
            if are_exposures:
                exposure = exposure_of(record, stream, partitions)
                late = is_late(exposure.time_ms, newest_ms, stream.allowed_lateness_ms)
                observe_exposure(saved.state, exposure, record.offset, late=late)
                newest_ms = max(newest_ms, exposure.time_ms)
            else:
                feedback = feedback_of(record, stream, partitions)
                if is_forget(feedback):
                    forget_user(saved.state, feedback, record.partition)
                    saved.forgot = True
                    meters.forgotten.inc()
                    continue
                late = is_late(feedback.time_ms, newest_ms, stream.allowed_lateness_ms)
                observe_feedback(saved.state, feedback, record.offset, late=late)
                newest_ms = max(newest_ms, feedback.time_ms)
        except BadEvent as error:
            observe_bad(saved.state, error.reason, newest_ms, record.timestamp)
            meters.bad.labels(error.reason).inc()
    meters.events.labels("exposure" if are_exposures else "feedback").inc(len(records))
    if records:
        saved.offsets[key] = records[-1].offset + 1
        saved.newest_ms[key] = newest_ms


def lag_of(saved: Saved, log_end: LogEnd, keys: Sequence[str]) -> int:
    """Records of the partitions `keys` that are not in the state yet."""
    return sum(log_end.lag(_partition(key), saved.offsets.get(key, 0)) for key in keys)


def close_settled(saved: Saved, keys: Sequence[str]) -> None:
    """Fold what nothing more can come for.

    The watermark is the slowest partition's newest event time: in a catch-up one partition may be days ahead.
    """
    through_ms = settled_ms(saved.newest_ms, keys, saved.state.rules)
    if through_ms is not None and through_ms > saved.state.closed_ms:
        close(saved.state, through_ms, _exposures_read(saved, keys))


def _exposures_read(saved: Saved, keys: Sequence[str]) -> dict[int, int]:
    """By partition, the offset up to which exposures have been read."""
    wheres = {key: _partition(key) for key in keys}
    return {
        where.partition: saved.offsets.get(key, 0) for key, where in wheres.items() if where.topic.endswith(EXPOSURES)
    }


def let_go_of_ids(saved: Saved, keep_ms: int | None) -> None:
    """Make users anonymous, so long after the experiment's end; None: never."""
    since_ms = over_since_ms(saved.state)
    if keep_ms is not None and since_ms is not None and since_ms >= keep_ms and not saved.state.anonymous:
        make_anonymous(saved.state)
        saved.forgot = True


def warn_of_positives(
    watches: Mapping[str, PositivesWatch],
    arms: Mapping[str, EventSums],
    now_s: float,
    log: structlog.stdlib.BoundLogger,
) -> None:
    """Say so where an arm's service seems to tell of positives alone."""
    for arm, sums in arms.items():
        if watches[arm].look(sums.views, sums.effective_views, now_s):
            log.warning(ONLY_POSITIVES, arm=arm, shown=sums.views, effective_views=sums.effective_views)


def require_columns(experiment: Experiment) -> None:
    """The collector knows what the metrics are of, and what their caps are of: else it would be found out at the end.

    Raises:
        SettingsError: it does not.

    """
    of_experiment(experiment, with_capped(STREAMED, experiment))
    require_known_before(experiment, [f"pre.{column}" for column in STREAMED_BEFORE])


def settled_ms(newest_ms: Mapping[str, int], keys: Sequence[str], rules: Rules) -> int | None:
    """Exposures at or before this event time have all their feedback; None while a partition has shown no event.

    >>> from contracts.config.settings import Arm, Experiment
    >>> arms = {"a": Arm(weight=1, model="two_tower"), "b": Arm(weight=1, model="t2diff")}
    >>> experiment = Experiment(name="e", salt="s", start_ms=0, end_ms=9, arms=arms, control="a")
    >>> settled_ms({"x:0": 50, "x:1": 90}, ["x:0", "x:1"], Rules(experiment, 1, 10, 5))
    34

    One that is exactly the window and the lateness behind may still get feedback: that is not late.
    """
    if any(key not in newest_ms for key in keys):
        return None
    return watermark_ms((newest_ms[key] for key in keys), rules.allowed_lateness_ms) - rules.attribution_window_ms - 1


def _key(partition: TopicPartition) -> str:
    return f"{partition.topic}:{partition.partition}"


def _partition(key: str) -> TopicPartition:
    topic, _, number = key.rpartition(":")
    return TopicPartition(topic, int(number))
