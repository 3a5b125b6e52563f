from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import pytest
import structlog
from kafka import TopicPartition
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from abtest.collect.course import begun_course, follow
from abtest.collect.records import EventSums, Unused
from abtest.collect.rules import Rules
from abtest.collect.state import CollectorState, folded
from abtest.collect.store import Saved, load, save
from abtest.collect.worker import (
    Meters,
    close_settled,
    require_columns,
    settled_ms,
    step,
    warn_of_positives,
)
from contracts.config.changes import Change
from contracts.config.experiment import MetricPlan, SettingsError
from contracts.config.settings import KafkaSettings, Settings, StreamSettings
from contracts.kafka import bus, consumers
from contracts.messages.experiments import Course
from contracts.messages.positives import ONLY_POSITIVES, PositivesWatch
from contracts.runtime.clock import DAY_MS, HOUR_MS, SystemClock
from driftline.experiment.changes import make
from tests.abtest.abtest_cases import START, experiment, exposure, feedback, impression, rules
from tests.contracts.kafka.batch_cases import send_foreign, send_garbage

SHOWN, SEEN = TopicPartition("exposures", 0), TopicPartition("feedback", 0)
KEYS = ["exposures:0", "feedback:0"]


@dataclass
class Record:
    value: bytes | None
    offset: int
    timestamp: int = START + 100 * HOUR_MS
    partition: int = 0


def take(saved, meters, partition, *values):
    offset = saved.offsets.get(f"{partition.topic}:0", 0)
    records = [Record(value, offset + i) for i, value in enumerate(values)]
    step(saved, partition, records, partition == SHOWN, StreamSettings(), 1, meters)


def test_a_batch_moves_the_offsets_and_the_bad_is_counted_and_passed_over():
    registry = CollectorRegistry()
    saved, meters = Saved(CollectorState(rules())), Meters(registry)
    take(saved, meters, SEEN, b"junk", None, feedback().SerializeToString(), feedback(play_ms=-1).SerializeToString())
    take(saved, meters, SHOWN, exposure().SerializeToString(), exposure(schema_version=9).SerializeToString())
    assert saved.offsets == {"exposures:0": 2, "feedback:0": 4}
    assert folded(saved.state).arms == {"treatment": EventSums(1, 2, 1, 1, 0, 1000, served=2)}
    bad = {name: count for name, count in saved.state.counts.items() if name.startswith("bad_")}
    assert sum(bad.values()) == 4
    assert bad["bad_out_of_range"] == bad["bad_unknown_version"] == 1
    meters.show(saved)
    assert registry.get_sample_value("abtest_evr", {"arm": "treatment"}) == 0.5
    assert registry.get_sample_value("abtest_evr", {"arm": "control"}) is None
    assert registry.get_sample_value("abtest_users", {"arm": "treatment"}) == 1
    assert registry.get_sample_value("abtest_events_in_total", {"kind": "feedback"}) == 4


def test_positives_alone_are_warned_of_by_arm_and_not_with_every_look():
    saved, meters = Saved(CollectorState(rules())), Meters(CollectorRegistry())
    watches = defaultdict(PositivesWatch)
    users = range(1, 121)
    take(saved, meters, SHOWN, *(exposure(u, request=str(u), served_only=True).SerializeToString() for u in users))
    take(saved, meters, SEEN, *(feedback(u, request=str(u)).SerializeToString() for u in users))
    with capture_logs() as logs:
        for now_s in (0.0, 1.0):
            warn_of_positives(watches, meters.show(saved), now_s, structlog.get_logger())
    assert [(each["event"], each["arm"], each["shown"]) for each in logs] == [(ONLY_POSITIVES, "treatment", 120)]
    take(saved, meters, SEEN, *(impression((1, 2), u, request=str(u)).SerializeToString() for u in users))
    with capture_logs() as logs:
        warn_of_positives(watches, meters.show(saved), 900.0, structlog.get_logger())
    assert not logs


def test_an_event_in_another_partition_than_its_users_is_counted_and_moves_nothing():
    saved, meters = Saved(CollectorState(rules())), Meters(CollectorRegistry())
    for partition, values in ((SHOWN, [exposure(3)]), (SEEN, [feedback(3), feedback(2)])):
        records = [Record(value.SerializeToString(), offset) for offset, value in enumerate(values)]
        step(saved, partition, records, partition == SHOWN, StreamSettings(), 2, meters)
    assert saved.state.counts["bad_wrong_partition"] == 2
    assert saved.newest_ms["exposures:0"] == 0
    assert len(saved.state.requests) == 1


def test_a_batch_that_nobody_can_decode_is_counted_and_passed_over(embedded: KafkaSettings):
    send_garbage(embedded, bus.FEEDBACK, 5)
    send_foreign(embedded, bus.FEEDBACK, "snappy", [feedback().SerializeToString()])
    saved, meters = Saved(CollectorState(rules())), Meters(CollectorRegistry())
    where = TopicPartition(embedded.topic(bus.FEEDBACK), 0)
    records = list(consumers.read_to_end(embedded, bus.FEEDBACK, 0, 0))
    step(saved, where, records, False, StreamSettings(), 1, meters)
    assert saved.offsets == {f"{where.topic}:0": 6}
    assert saved.state.counts["bad_unreadable_batch"] == 1
    assert list(saved.state.requests) == ["r"]


def test_requests_stay_open_until_the_slowest_partition_has_passed_them():
    saved, meters = Saved(CollectorState(rules())), Meters(CollectorRegistry())
    take(
        saved,
        meters,
        SHOWN,
        exposure().SerializeToString(),
        exposure(3, at=START + 9 * HOUR_MS, request="s").SerializeToString(),
    )
    close_settled(saved, KEYS)
    assert len(saved.state.requests) == 2  # no feedback seen: its partition may be far behind
    take(saved, meters, SEEN, feedback(3, START + 9 * HOUR_MS, "s").SerializeToString())
    close_settled(saved, KEYS)
    assert list(saved.state.requests) == ["s"]
    assert settled_ms(saved.newest_ms, KEYS, saved.state.rules) == START + 2 * HOUR_MS - 1


def test_what_is_more_than_the_lateness_behind_its_own_log_does_not_count():
    saved, meters = Saved(CollectorState(rules())), Meters(CollectorRegistry())
    newest, late = START + 3 * HOUR_MS, START + 2 * HOUR_MS - 1
    shown = [exposure(request=str(i), at=at) for i, at in enumerate((newest, late, late + 1))]
    take(saved, meters, SHOWN, *(event.SerializeToString() for event in shown))
    seen = [feedback(request="2", item=item, at=at) for item, at in ((1, newest), (2, late + 1), (2, late))]
    take(saved, meters, SEEN, *(event.SerializeToString() for event in seen))
    state = folded(saved.state)
    assert state.arms["treatment"][:3] == (2, 4, 2)
    assert state.counts["late_exposures"] == state.counts["late_feedback"] == 1


def test_feedback_at_the_end_of_the_window_and_of_the_lateness_still_counts():
    saved, meters = Saved(CollectorState(rules())), Meters(CollectorRegistry())
    newest = START + 7 * HOUR_MS
    take(saved, meters, SHOWN, *(exposure(request=str(at), at=at).SerializeToString() for at in (START, newest)))
    take(saved, meters, SEEN, feedback(request=str(newest), at=newest).SerializeToString())
    close_settled(saved, KEYS)
    take(saved, meters, SEEN, feedback(request=str(START), at=START + 6 * HOUR_MS).SerializeToString())
    assert folded(saved.state).arms["treatment"].told == 2


def of(column, how=None):
    return experiment(metrics=(MetricPlan(name="m", kind="mean", columns=(column,), role="primary", winsorize=how),))


def test_a_metric_of_what_is_not_collected_is_refused_before_anything_is():
    for column, how in (("play_s", None), ("usage_s", {"at": 60}), ("play_s", {"quantile": 0.9, "of": "pre"})):
        require_columns(of(column, how))
    with pytest.raises(SettingsError, match="Metric 'm': there is no column 'revenue'; there are recalls, views"):
        require_columns(of("revenue", {"at": 60}))
    with pytest.raises(SettingsError, match=r"there is no 'pre.usage_s'; known from before: pre.recalls, pre.views"):
        require_columns(of("usage_s", {"quantile": 0.9, "of": "pre"}))


def test_what_is_unreadable_or_late_of_another_time_is_not_the_experiments():
    saved, meters = Saved(CollectorState(rules())), Meters(CollectorRegistry())
    long_before = START - 9 * DAY_MS  # the days before that it looks at are seven
    old = feedback(at=long_before, request="old").SerializeToString()
    records = [Record(value, offset, long_before) for offset, value in enumerate([old, b"junk", b"junk"])]
    step(saved, SEEN, records, False, StreamSettings(), 1, meters)
    older = [exposure(request="x", at=long_before), exposure(request="y", at=long_before - 2 * HOUR_MS)]
    take(saved, meters, SHOWN, *(event.SerializeToString() for event in older))
    counts = saved.state.counts
    assert not [name for name in counts if name.startswith(("bad_", "late_"))]
    take(saved, meters, SEEN, b"junk", feedback().SerializeToString(), b"junk")
    assert counts["bad_undecodable"] == 2, "received in its time; and after an event of its time"


def test_exposures_of_another_definition_are_in_no_figure():
    of = rules()._replace(hash="ours")
    saved, meters = Saved(CollectorState(of)), Meters(CollectorRegistry())
    shown = [exposure(user, request=str(user), experiment_hash=told) for user, told in ((1, "ours"), (3, "theirs"))]
    take(saved, meters, SHOWN, *(event.SerializeToString() for event in (*shown, exposure(5, request="5"))))
    state = folded(saved.state)
    assert state.users.keys() == {1, 5}, "one that names no definition is of the only one there is"
    assert state.counts[Unused.OTHER_DEFINITION] == 1


def test_the_collectors_definition_is_written_once_and_changes_come_into_its_state(
    embedded: KafkaSettings, tmp_path: Path
):
    settings = Settings(
        kafka=embedded,
        feature_repo=tmp_path,
        snapshots=tmp_path,
        state=tmp_path,
        experiment=experiment(name=tmp_path.name),
    )
    log, clock = structlog.get_logger(), SystemClock()
    replica = Course(settings.experiment)

    def told() -> Course:
        for record in consumers.read_to_end(embedded, bus.EXPERIMENTS, 0, 0):
            replica.take(record)
        return replica

    assert not told().defined
    for _ in range(2):
        course = begun_course(settings, clock, log)
        written = [
            record
            for record in consumers.read_to_end(embedded, bus.EXPERIMENTS, 0, 0)
            if record.key == settings.experiment.name.encode()
        ]
        assert len(written) == 1
    assert told().defined
    assert not begun_course(settings.model_copy(update={"experiment": reshuffled(settings)}), clock, log).other
    assert told().other == "salt"
    course = begun_course(settings, clock, log)
    assert told().other == ""

    saved = Saved(CollectorState(Rules.of(settings)))
    pause = Change("pause", START + HOUR_MS, by="ann", why="a fire")
    assert make(settings, pause, clock, simulated=True) == pause
    follow(saved, course, [*consumers.read_to_end(embedded, bus.EXPERIMENTS, 0, 0)], log)
    save(saved, tmp_path / "abtest.npz")
    assert load(tmp_path / "abtest.npz", Rules.of(settings)).state.rules.experiment.changes == (pause,)


def reshuffled(settings: Settings):
    return settings.experiment.model_copy(update={"salt": "another"})
