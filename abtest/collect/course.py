"""The collector's part in the topic of experiments: it writes its definition, and keeps what operators did."""

from collections.abc import Sequence

import structlog

from abtest.collect.store import Saved
from contracts.config.settings import Settings
from contracts.kafka.bus import EXPERIMENTS, producer
from contracts.kafka.consumers import read_to_end
from contracts.messages.experiments import Course, Told, definition_record
from contracts.runtime.clock import Clock

DEFINED_WITHIN_S = 30.0  # so long a broker may take to keep the experiment's definition


def begun_course(settings: Settings, clock: Clock, log: structlog.stdlib.BoundLogger) -> Course:
    """What the topic says of the experiment, this collector's definition being the newest: it is the authority."""
    course = Course(settings.experiment)
    read_course(settings, course)
    if not course.defined:
        log.info("experiment defined", experiment=settings.experiment.name, hash=course.hash, other=course.other)
        sender = producer(settings.kafka)
        try:
            value = definition_record(settings.experiment, clock.now_ms())
            topic = settings.kafka.topic(EXPERIMENTS)
            sender.send(topic, key=settings.experiment.name.encode(), value=value).get(timeout=DEFINED_WITHIN_S)
        finally:
            sender.close()
        read_course(settings, course)
    return course


def read_course(settings: Settings, course: Course) -> None:
    """Take what the topic has of it by now."""
    for record in read_to_end(settings.kafka, EXPERIMENTS, 0, 0):
        course.take(record)


def follow(saved: Saved, course: Course, records: Sequence[Told], log: structlog.stdlib.BoundLogger) -> None:
    """Take what operators did into the state, for the report; it decides nothing of what counts."""
    before = course.experiment.changes
    for record in records:
        course.take(record)
    for change in course.experiment.changes[len(before) :]:
        log.info("experiment changed", **change._asdict())
    if course.experiment.changes != saved.state.rules.experiment.changes:
        saved.state.rules = saved.state.rules.after(course.experiment.changes)
    if course.other and records:
        log.error("another collector runs this experiment with another definition", other=course.other)
