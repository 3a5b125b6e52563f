"""The experiments' topic: everybody who reads it comes to one course, whatever lies in it."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from contracts.config.changes import Change
from contracts.config.experiment import Arm, Experiment
from contracts.messages.experiments import Course, change_record, definition_record
from contracts.wire.events_pb2 import ExperimentRecord

ARMS = {"a": Arm(weight=1, model="two_tower"), "b": Arm(weight=1, model="t2diff")}
OURS = Experiment(name="e", salt="s", start_ms=0, end_ms=100, arms=ARMS, control="a")
RESHUFFLED = OURS.model_copy(update={"salt": "again"})
ELSEWHERE = OURS.model_copy(update={"name": "another"})
PAUSE, RAMP = Change("pause", 10, by="ann", why="a fire"), Change("ramp", 20, 0.25)


@dataclass
class Record:
    offset: int
    value: bytes | None


def course(*values: bytes | None) -> Course:
    taken = Course(OURS)
    for offset, value in enumerate(values):
        taken.take(Record(offset, value))
    return taken


def test_changes_come_back_as_they_were_made() -> None:
    given_back = Change("ramp", 30)
    found = course(*(change_record(OURS, change, 1) for change in (PAUSE, RAMP, given_back)))
    assert found.experiment.changes == (PAUSE, RAMP, given_back)


def test_an_experiment_that_is_run_again_with_another_salt_has_no_part_in_what_was_done_before() -> None:
    stopped = change_record(RESHUFFLED, Change("stop", 10), 1)
    found = course(definition_record(RESHUFFLED, 1), stopped, definition_record(OURS, 2))
    assert found.experiment.changes == ()
    assert found.defined
    assert found.other == ""


def test_another_definition_of_the_same_name_is_told_by_what_differs() -> None:
    found = course(definition_record(OURS, 1), definition_record(RESHUFFLED, 2))
    assert (found.defined, found.other) == (False, "salt")
    assert course(definition_record(ELSEWHERE, 1)).other == ""


def test_records_that_are_read_twice_count_once() -> None:
    taken = course(change_record(OURS, PAUSE, 1))
    assert not taken.take(Record(0, change_record(OURS, PAUSE, 1)))
    assert taken.experiment.changes == (PAUSE,)


@given(st.lists(st.binary(max_size=60) | st.none()))
def test_what_cannot_be_read_changes_nothing(strange: list[bytes | None]) -> None:
    later = ExperimentRecord(schema_version=2, experiment="e", experiment_hash=OURS.hash)
    later.change.from_ms = 5
    unknown = ExperimentRecord(schema_version=1, experiment="e", experiment_hash=OURS.hash)
    unknown.change.kind = 77  # type: ignore[assignment]
    values = [*strange, later.SerializeToString(), unknown.SerializeToString()]
    found = course(*values, change_record(OURS, PAUSE, 1))
    assert found.experiment.changes[-1:] == (PAUSE,)
    assert course(*values).experiment == OURS
