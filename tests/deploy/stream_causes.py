"""Causes of the stream's alerts, one after the other in one real worker on the embedded broker."""

from collections.abc import Callable
from pathlib import Path

from kafka import TopicPartition

from contracts.config.settings import KafkaSettings
from contracts.kafka import bus
from contracts.runtime.clock import ManualClock
from feature_repo.store import apply
from tests.contracts.kafka.batch_cases import send_garbage
from tests.deploy.causes import BACKLOG, Cause, at
from tests.stream.step_cases import exposure, feedback
from tests.stream.stream_cases import SENT_MS, Running, Sender, settings_for

PAGES = 120  # enough for a rule that asks for a hundred items shown


class Stream:
    """A worker, and what is sent to it."""

    def __init__(self, kafka: KafkaSettings, root: Path) -> None:
        settings = settings_for(kafka, root)
        apply(settings.feature_repo)
        self.kafka = kafka
        self.clock = ManualClock(SENT_MS)
        self.sender = Sender(kafka)
        self.sender.items(1, 2)
        self.running = Running(settings, clock=self.clock)
        # What is usual: pages of which half the items were watched, and told of.
        self._pages("usual", served_only=False)
        self.running.take(2 * PAGES)

    def close(self) -> None:
        self.running.worker.close()
        self.sender.close()

    def _pages(self, name: str, *, served_only: bool) -> None:
        names = [f"{name}{n}" for n in range(PAGES)]
        shown = [exposure(each, SENT_MS, user=user, served_only=served_only) for user, each in enumerate(names, 1)]
        self.sender.events(*shown, *(feedback(1, SENT_MS + 1, each.request_id, user=each.user_id) for each in shown))

    def causes(self) -> dict[str, Callable[[], int]]:
        """By the alert's name; each returns for how many minutes to look on."""
        return {
            "DeadLetters": self.dead_letters,
            "WrongPartition": self.wrong_partition,
            "BatchNotDecoded": self.batch_not_decoded,
            "PositivesAlone": self.positives_alone,
            "RecordsLost": self.records_lost,
            "FeedbackWithoutExposures": self.feedback_without_exposures,
            "StreamBehind": self.stream_behind,
        }

    def dead_letters(self) -> int:
        self.sender.send(bus.FEEDBACK, b"no feedback", 1)
        self.sender.flush()
        self.running.take(1)
        return 10

    def wrong_partition(self) -> int:
        user = next(user for user in range(1, 100) if bus.partition_of(user, self.kafka.partitions) == 1)
        other = next(user for user in range(1, 100) if bus.partition_of(user, self.kafka.partitions) == 0)
        self.sender.send(bus.FEEDBACK, feedback(1, SENT_MS, "usual1", user=user).SerializeToString(), other)
        self.sender.flush()
        self.running.take(1)
        return 10

    def batch_not_decoded(self) -> int:
        send_garbage(self.kafka, bus.FEEDBACK, 3)
        self.running.take(1)
        return 10

    def positives_alone(self) -> int:
        """Items that are served only, and of which those alone are told that were watched."""
        self._pages("alone", served_only=True)
        self.running.take(2 * PAGES)
        return 15

    def records_lost(self) -> int:
        """The broker deleted what was next. That its log begins later is put into the client's mouth, as the embedded
        broker deletes nothing.
        """
        worker = self.running.worker
        consumer, where = worker._consumer, TopicPartition(self.kafka.topic(bus.FEEDBACK), 0)
        position = worker._ownership.owned[0].feedback.end
        begins = consumer.beginning_offsets
        consumer.beginning_offsets = lambda partitions: {where: position + 5}
        worker._ownership.skip_deleted({where: position})
        consumer.beginning_offsets = begins
        consumer.seek(where, position)
        worker._ownership.owned[0].feedback.end = worker._ownership.owned[0].store.position.feedback = position
        return 10

    def feedback_without_exposures(self) -> int:
        self.sender.events(*(feedback(1, SENT_MS + 2, f"nowhere{n}", user=1 + n) for n in range(PAGES)))
        self.running.take(PAGES)
        self.clock.advance(400_000)
        self.running.worker.step()
        return 15

    def exposures_come(self) -> None:
        """Those that the feedback waited for."""
        self.sender.events(*(exposure(f"nowhere{n}", SENT_MS, user=1 + n) for n in range(PAGES)))
        self.running.take(PAGES)

    def stream_behind(self) -> int:
        """More than can be taken at once."""
        again = exposure("usual0", SENT_MS, user=1)
        content = again.SerializeToString()
        for _ in range(BACKLOG):
            self.sender.send(bus.EXPOSURES, content, 1)
        self.sender.flush()
        while not (self.running.value("stream_lag", partition=str(bus.partition_of(1, self.kafka.partitions))) or 0):
            self.running.worker.step()
        return 30


def stream_causes(kafka: KafkaSettings, root: Path) -> dict[str, Cause]:
    """What the worker showed before and after each cause, by the alert's name."""
    stream = Stream(kafka, root)
    registry = stream.running.worker.metrics.registry
    found = {}
    try:
        for alert, cause in stream.causes().items():
            if alert == "StreamBehind":
                stream.exposures_come()
            before = at(0, "stream", registry)
            minutes = cause()
            found[alert] = Cause([before, at(70, "stream", registry)], 70 + minutes, since=65)
    finally:
        stream.close()
    return found
