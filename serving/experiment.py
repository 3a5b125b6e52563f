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
    def problem(self) -> str:
        """How a collector goes by something else, in a sentence; empty where none does."""
        return problem_of(self._course)

    def take(self, record: Told) -> None:
        """Take the next record of the topic."""
        with self._lock:
            self._records.append(record)
            before = self.problem
            self._course.take(record)
            self._show()
            if self.problem and self.problem != before:
                log.error(self.problem)

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
            error=self.problem,
        )

    def _show(self) -> None:
        self.now = Definition(self._course.experiment, self._course.hash)
        self._metrics.other_definition.set(bool(self.problem))


def problem_of(course: Course) -> str:
    """How a collector goes by something else than a replica, in a sentence; empty where none does, or where none has
    run yet.
    """
    if course.other:
        verb = "differ" if "," in course.other else "differs"
        return f"The experiment's collector has another definition of it: {course.other} {verb} from these settings."
    ours = course.experiment
    if ours.exists and course.collected and not course.defined and course.collected != ours.name:
        return f"No collector has run {ours.name}; the one that came last runs {course.collected}."
    return ""
