"""Which record comes before which, whatever the polls."""

import threading
from pathlib import Path

import pytest

from contracts.runtime.clock import ManualClock
from tests.stream.step_cases import exposure
from tests.trainer.trainer_cases import START_MS, make_example, small_settings
from tests.trainer.trainer_rig import EXAMPLES, EXPOSURES, ITEMS, MemoryLog
from trainer.data.catalogue import Announced
from trainer.input.intake import SILENCE_MS, Intake


class StopLater(threading.Event):
    """Is set once it has been asked so often."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self._left = after

    def is_set(self) -> bool:
        self._left -= 1
        return self._left < 0


class Reader:
    """An intake whose records are noted as "item <id>" and "example <id>"."""

    def __init__(self, root: Path, per_poll: int, stop: threading.Event | None = None) -> None:
        self.clock = ManualClock(START_MS)
        self.log = MemoryLog(per_poll, self.clock)
        self.intake = Intake(small_settings(root), self.log, pytest.fail, self.clock, stop or threading.Event())
        self.read: list[str] = []
        self._known: set[int] = set()

    def item(self, item_id: int, logged_ms: int) -> None:
        self.log.append_item(item_id, logged_ms)

    def example(self, item_id: int, logged_ms: int, partition: int = 0, time_ms: int = START_MS) -> None:
        self.log.append(EXAMPLES[partition], make_example([], item_id, time_ms).SerializeToString(), logged_ms)

    def polls(self, count: int) -> None:
        for _ in range(count):
            for _, entry in self.intake.records(self._known.__contains__):
                if isinstance(entry.value, Announced):
                    self._known.add(entry.value.item_id)
                    self.read.append(f"item {entry.value.item_id}")
                else:
                    self.read.append(f"example {entry.value.item_id}")


@pytest.mark.parametrize("per_poll", [1, 2, 50])
def test_items_come_before_the_examples_that_the_log_received_after_them(tmp_path: Path, per_poll: int) -> None:
    reader = Reader(tmp_path, per_poll)
    for item_id, logged_ms in ((1, 10), (2, 20), (3, 30)):
        reader.item(item_id, logged_ms)
    for item_id, logged_ms in ((1, 15), (1, 20), (3, 31)):
        reader.example(item_id, logged_ms)
    reader.polls(20)
    assert reader.read == ["item 1", "example 1", "item 2", "example 1", "item 3", "example 3"]


def test_the_item_of_an_example_comes_before_it_however_late_the_log_received_it(tmp_path: Path) -> None:
    reader = Reader(tmp_path, per_poll=2)
    for item_id in range(1, 8):
        reader.item(item_id, logged_ms=1000)
    reader.example(5, logged_ms=10)
    reader.polls(10)
    assert reader.read == ["item 1", "item 2", "item 3", "item 4", "item 5", "example 5"]


def test_an_item_that_never_comes_is_waited_for_once_in_a_while(tmp_path: Path) -> None:
    reader = Reader(tmp_path, per_poll=50)
    reader.item(1, logged_ms=10)
    reader.polls(10)
    begun_ms = reader.clock.now_ms()
    for n in range(20):
        reader.example(99, logged_ms=20, time_ms=START_MS + n)
    reader.polls(10)
    assert reader.read == ["item 1", *["example 99"] * 20]
    assert SILENCE_MS <= reader.clock.now_ms() - begun_ms < 5 * SILENCE_MS


def test_what_waits_for_a_hanging_log_of_items_is_not_handed_over(tmp_path: Path) -> None:
    reader = Reader(tmp_path, per_poll=50, stop=StopLater(after=100))
    reader.item(1, logged_ms=10)
    reader.log.hang(ITEMS)
    reader.example(1, logged_ms=20)
    reader.polls(10)
    assert reader.log.position(EXAMPLES[0]) == 1
    assert reader.read == []


def test_an_exposure_on_another_partition_than_its_users_is_left_out_as_the_stream_does(tmp_path: Path) -> None:
    reader = Reader(tmp_path, per_poll=50)
    for partition, user in ((0, 2), (0, 3), (1, 2), (1, 5)):
        shown = exposure(f"r{user}", START_MS, user=user)
        reader.log.append(EXPOSURES[partition], shown.SerializeToString(), START_MS)
    taken: list[int] = []
    for _ in range(20):
        taken += [entry.value.user_id for _, entry in reader.intake.records(lambda _: True)]  # type: ignore[union-attr]
    assert taken == [2, 5]
