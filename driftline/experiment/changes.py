"""What operators do to a running experiment: read its course, send a change."""

from contracts.config.changes import Change, refusal
from contracts.config.settings import Settings
from contracts.kafka.bus import EXPERIMENTS, check_topics, producer
from contracts.kafka.consumers import read_to_end
from contracts.messages.experiments import Course, change_record
from driftline.errors import UsageError

SENT_WITHIN_S = 30.0
LEAD_MS = 5_000  # before a change holds: by then every replica that runs has heard of it, so all go by it at one moment


def course_of(settings: Settings) -> Course:
    """What has been done to the settings' experiment so far.

    Raises:
        UsageError: its collector has another definition of it than these settings.

    """
    check_topics(settings.kafka)
    course = Course(settings.experiment)
    for record in read_to_end(settings.kafka, EXPERIMENTS, 0, 0):
        course.take(record)
    if course.other:
        raise UsageError(
            f"The collector of {course.experiment.name} has another definition of it ({course.other}) than these "
            "settings; use the settings that it runs with."
        )
    return course


def make(settings: Settings, change: Change, now_ms: int) -> None:
    """Send a change to everybody who follows the experiment.

    Raises:
        UsageError: it cannot be made.

    """
    course = course_of(settings)
    experiment = course.experiment
    why = refusal(experiment.changes, change, (experiment.start_ms, experiment.end_ms), now_ms)
    if why:
        raise UsageError(f"Cannot {change.kind} {experiment.name}: {why}.")
    sender = producer(settings.kafka)
    try:
        topic = settings.kafka.topic(EXPERIMENTS)
        value = change_record(experiment, change, now_ms)
        sender.send(topic, key=experiment.name.encode(), value=value).get(timeout=SENT_WITHIN_S)
    finally:
        sender.close()
