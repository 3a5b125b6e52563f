"""The `experiments` topic: by which definition an experiment is collected, and what operators did to it. Pure.

The collector is the authority: it writes the definition that it runs by, commands write changes, and replicas, the
collector and commands read both through one `Course`.
"""

import json
from typing import Protocol

from google.protobuf.message import DecodeError

from contracts.config.changes import Change, Kind
from contracts.config.experiment import Experiment
from contracts.messages.events import SCHEMA_VERSION
from contracts.wire.events_pb2 import ExperimentChange, ExperimentDefinition, ExperimentRecord

KINDS: dict[ExperimentChange.Kind, Kind] = {
    ExperimentChange.KIND_PAUSE: "pause",
    ExperimentChange.KIND_RESUME: "resume",
    ExperimentChange.KIND_RAMP: "ramp",
    ExperimentChange.KIND_STOP: "stop",
}
NUMBERS = {kind: number for number, kind in KINDS.items()}


class Told(Protocol):
    """A record of the topic, as far as it is read."""

    @property
    def offset(self) -> int: ...
    @property
    def value(self) -> bytes | None: ...


class Course:
    """What the topic says of one experiment, up to the last record taken.

    `experiment`: its definition, as the settings have it, with the changes that were made. `other`: what the newest
    definition that a collector wrote says differently; empty where nothing does or none was written. `defined`: the
    newest definition of the experiment's name is of its hash. `collected`: the name of the experiment that a collector
    defined last; empty where none has.
    """

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment.model_copy(update={"changes": ()})
        self.hash = experiment.hash
        self.other = ""
        self.defined = False
        self.collected = ""
        self._next = 0  # offset of the next record

    def take(self, record: Told) -> bool:
        """Take the next record of the topic; whether it changed anything. One that was taken before, or that is not
        readable, changes nothing.
        """
        if record.offset < self._next:
            return False
        self._next = record.offset + 1
        told = _decoded(record.value)
        if told is not None and told.WhichOneof("what") == "definition":
            self.collected = told.experiment
        if told is None or told.experiment != self.experiment.name:
            return False
        if told.WhichOneof("what") == "definition":
            self.defined = told.experiment_hash == self.hash
            self.other = "" if self.defined else self._differences(told.definition.json)
            return True
        change = _change(told.change, self.experiment)
        if change is None or told.experiment_hash != self.hash:
            return False
        self.experiment = self.experiment.model_copy(update={"changes": (*self.experiment.changes, change)})
        return True

    def _differences(self, text: str) -> str:
        """By name, what the collector's definition has otherwise."""
        try:
            theirs = json.loads(text)
        except ValueError:
            return "its definition"
        ours = self.experiment.definition
        if not isinstance(theirs, dict):
            return "its definition"
        return ", ".join(name for name in ours if theirs.get(name) != ours[name]) or "its definition"


def definition_record(experiment: Experiment, now_ms: int) -> bytes:
    """A record's value: the definition that a collector runs by."""
    definition = ExperimentDefinition(json=json.dumps(experiment.definition, sort_keys=True))
    return _record(experiment, now_ms, definition=definition).SerializeToString()


def change_record(experiment: Experiment, change: Change, now_ms: int) -> bytes:
    """A record's value: what an operator did."""
    sent = ExperimentChange(kind=NUMBERS[change.kind], from_ms=change.from_ms, by=change.by, why=change.why)
    if change.share is not None:
        sent.share = change.share
    return _record(experiment, now_ms, change=sent).SerializeToString()


def _record(
    experiment: Experiment,
    now_ms: int,
    definition: ExperimentDefinition | None = None,
    change: ExperimentChange | None = None,
) -> ExperimentRecord:
    return ExperimentRecord(
        schema_version=SCHEMA_VERSION,
        experiment=experiment.name,
        experiment_hash=experiment.hash,
        told_ms=now_ms,
        definition=definition,
        change=change,
    )


def _decoded(value: bytes | None) -> ExperimentRecord | None:
    if not value:
        return None
    try:
        told = ExperimentRecord.FromString(value)
    except DecodeError:
        return None
    return told if told.schema_version == SCHEMA_VERSION and told.WhichOneof("what") else None


def _change(told: ExperimentChange, experiment: Experiment) -> Change | None:
    """None: it is of a later build, or no change that a command would have sent."""
    kind = KINDS.get(told.kind)
    share = told.share if told.HasField("share") else None
    if kind is None or (share is not None and not 0 <= share <= 1):
        return None
    if not experiment.start_ms <= told.from_ms < experiment.end_ms:
        return None
    return Change(kind, told.from_ms, share if kind == "ramp" else None, told.by, told.why)
