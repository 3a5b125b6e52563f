"""The experiment that a replica goes by: its definition from the settings, what operators did from Kafka.

Written by the thread that reads the topic and by the loop on a reload, read by the loop that answers.
"""

import threading
from typing import NamedTuple

import structlog

from abtest.assignment.assign import ramp_share, state_of
from contracts.config.experiment import Experiment
from contracts.messages.experiments import Course, Told
from contracts.wire.recall_pb2 import ExperimentStatus
from serving.metrics import ServingMetrics

log = structlog.get_logger()


class Definition(NamedTuple):
    """What a batch is answered by."""

    experiment: Experiment
    hash: str


class RunningExperiment:
    """See the module. `now` is replaced as a whole, so a batch has one definition from its beginning to its end."""

    def __init__(self, experiment: Experiment, metrics: ServingMetrics) -> None:
        self._metrics = metrics
        self._lock = threading.Lock()
        self._records: list[Told] = []  # of the topic: few, and a new definition asks for those of its hash
        self._course = Course(experiment)
        self._show()

    @property
    def other(self) -> str:
        """How the collector's definition differs; empty where it does not."""
        return self._course.other

    def take(self, record: Told) -> None:
        """Take the next record of the topic."""
        with self._lock:
            self._records.append(record)
            before = self._course.other
            if self._course.take(record):
                self._show()
            if self._course.other and self._course.other != before:
                log.error(difference(self._course.other))

    def redefined(self, experiment: Experiment) -> Course:
        """What the topic says of another definition; nothing goes by it before `follow`."""
        with self._lock:
            course = Course(experiment)
            for record in self._records:
                course.take(record)
        return course

    def follow(self, experiment: Experiment) -> None:
        """Go by another definition from the next batch on."""
        course = self.redefined(experiment)
        with self._lock:
            for record in self._records:  # what came in between; what was taken is passed over
                course.take(record)
            self._course = course
            self._show()

    def status(self, now_ms: int) -> ExperimentStatus | None:
        """How it stands at `now_ms`; None where there is none."""
        experiment, number = self.now
        if not experiment.exists:
            return None
        return ExperimentStatus(
            experiment=experiment.name,
            experiment_hash=number,
            state=state_of(experiment, now_ms),
            share=ramp_share(experiment, now_ms),
            error=difference(self.other),
        )

    def _show(self) -> None:
        self.now = Definition(self._course.experiment, self._course.hash)
        self._metrics.other_definition.set(bool(self._course.other))


def difference(other: str) -> str:
    """The sentence that says how a definition differs from the collector's; empty where `other` is.

    >>> difference("arms, salt")
    "The experiment's collector has another definition of it: arms, salt differ from these settings."
    """
    verb = "differ" if "," in other else "differs"
    return f"The experiment's collector has another definition of it: {other} {verb} from these settings." * bool(other)
