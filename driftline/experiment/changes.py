"""What operators do to a running experiment: read its course, send a change."""

from contracts.config.changes import LEAD_MS, Change, refusal
from contracts.config.settings import Settings
from contracts.kafka.bus import EXPERIMENTS, check_topics, producer
from contracts.kafka.consumers import read_to_end
from contracts.messages.experiments import Course, change_record
from contracts.runtime.clock import Clock
from driftline.errors import RunError, UsageError

SENT_WITHIN_S = 30.0


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


def make(settings: Settings, wanted: Change, clock: Clock, *, simulated: bool = False) -> Change:
    """Send a change to everybody who follows the experiment; the change as it was made.

    Args:
        settings: of the deployment.
        wanted: the change; where its `from_ms` is 0 it holds as soon as everybody can have heard of it.
        clock: says what is past.
        simulated: the experiment's time is not the clock's.

    Raises:
        UsageError: it cannot be made.
        RunError: it was made so slowly that some may have heard of it when it held already.

    """
    course = course_of(settings)
    experiment = course.experiment
    sender = producer(settings.kafka)
    try:
        now_ms = clock.now_ms()  # when all that may take its time is done
        change = wanted if wanted.from_ms else wanted._replace(from_ms=now_ms + LEAD_MS)
        period_ms = experiment.start_ms, experiment.end_ms
        why = refusal(experiment.changes, change, period_ms, None if simulated else now_ms)
        if why:
            raise UsageError(f"Cannot {change.kind} {experiment.name}: {why}.")
        topic = settings.kafka.topic(EXPERIMENTS)
        value = change_record(experiment, change, now_ms)
        sender.send(topic, key=experiment.name.encode(), value=value).get(timeout=SENT_WITHIN_S)
    finally:
        sender.close()
    if not simulated and clock.now_ms() >= change.from_ms:
        raise RunError(
            f"The broker took so long that the {change.kind} held before replicas heard of it: of requests in between "
            "some were answered as before."
        )
    return change
