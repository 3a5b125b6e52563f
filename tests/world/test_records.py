"""What goes to Kafka, in which order, and when a visit counts as stored."""

import numpy as np

from contracts.kafka import bus
from contracts.wire.events_pb2 import Exposure, Feedback
from contracts.wire.recall_pb2 import RecalledItem, RecallReply
from world.base import LogPage, LogRow, Response, Visit
from world.records import Pending, Record, in_order_of_receipt, page_records, response_records


def row(item_id: int | None, time_ms: int | None, received_ms: int) -> LogRow:
    return LogRow(item_id, time_ms, 5, effective_view=True, follow=False, received_ms=received_ms)


def test_a_page_is_one_exposure_and_a_feedback_event_a_row_unrepaired() -> None:
    page = LogPage("p", 7, 100, (row(3, 110, 110), row(3, 110, 110), row(None, None, 120)))
    exposure, *feedback = page_records(page, simulated=False)
    assert [item.item_id for item in Exposure.FromString(exposure.value).items] == [3]
    events = [Feedback.FromString(record.value) for record in feedback]
    assert events[0].event_id == events[1].event_id
    assert not events[2].HasField("item_id")
    assert not events[2].HasField("time_ms")


def test_a_log_without_a_user_leaves_the_user_out() -> None:
    page = LogPage("p", 0, 100, (row(3, 110, 110),))
    _, feedback = page_records(page, simulated=False)
    assert not Feedback.FromString(feedback.value).HasField("user_id")


def test_pages_are_merged_by_receipt() -> None:
    pages = [LogPage("a", 1, 100, (row(1, 100, 100), row(2, 500, 500))), LogPage("b", 2, 200, (row(3, 210, 210),))]
    records = list(in_order_of_receipt(pages, simulated=False))
    assert [record.received_ms for record in records] == [100, 100, 200, 210, 500]


def test_a_visit_is_stored_when_its_exposure_and_all_its_feedback_are() -> None:
    visit = Visit(0, 2, 1000, 2)
    reply = RecallReply(request_id="r", items=[RecalledItem(item_id=5), RecalledItem(item_id=6)])
    response = Response(np.array([1001, 9000]), np.array([10, 10]), np.array([True, False]), np.array([False, False]))
    pending = Pending(partitions=2)
    sent = {(bus.EXPOSURES, 0): 1, (bus.FEEDBACK, 0): 0}
    pending.add(visit, list(response_records(visit, reply, response)), sent)
    assert list(pending.logged({})) == []
    assert list(pending.logged(sent)) == [0]

    def due(until_ms: float) -> list[Record]:
        found = list(pending.due(until_ms))
        sent[bus.FEEDBACK, 0] += len(found)
        pending.sent(sent)
        return found

    assert [record.received_ms for record in due(5000)] == [1001]
    assert list(pending.settle(sent)) == []  # its second item has not begun to play
    assert not pending.empty
    assert len(due(float("inf"))) == 1
    assert list(pending.settle({**sent, (bus.EXPOSURES, 0): 0})) == []
    assert list(pending.settle(sent)) == [0]
    assert pending.empty


def test_what_a_log_carries_over_waits_for_its_time_and_settles_no_visit() -> None:
    pending = Pending(partitions=2)
    pending.carry([Record(bus.FEEDBACK, 1, 700, b""), Record(bus.FEEDBACK, 1, 300, b"")])
    assert [record.received_ms for record in pending.due(500)] == [300]
    assert not pending.empty
    assert [record.received_ms for record in pending.due(700)] == [700]
    pending.sent({})
    assert list(pending.settle({})) == []
