"""Where an event lies is judged with what it says."""

from types import SimpleNamespace

import pytest

from contracts.config.settings import StreamSettings
from contracts.messages.events import BadEvent, Reason
from contracts.messages.received import exposure_of, feedback_of
from tests.stream.step_cases import Event, exposure, feedback

PARTITIONS = 4


def judged(event: Event, partition: int) -> Reason | None:
    received = SimpleNamespace(value=event.SerializeToString(), timestamp=5000, partition=partition)
    judge = feedback_of if event.DESCRIPTOR.name == "Feedback" else exposure_of
    try:
        assert judge(received, StreamSettings(), PARTITIONS) == event
    except BadEvent as error:
        return error.reason
    return None


@pytest.mark.parametrize("user", [1, 4, 7, 2**63 - 1])
@pytest.mark.parametrize("make", [exposure, feedback])
def test_an_event_belongs_on_one_partition_by_its_user(user: int, make: object) -> None:
    event: Event = make(user=user)  # type: ignore[operator]
    reasons = [judged(event, partition) for partition in range(PARTITIONS)]
    assert reasons.index(None) == user % PARTITIONS
    assert reasons.count(Reason.WRONG_PARTITION) == PARTITIONS - 1


def test_what_is_wrong_in_itself_comes_first() -> None:
    assert judged(feedback(user=1, play_ms=-1), 0) == Reason.OUT_OF_RANGE


def test_a_user_with_a_text_id_is_named_by_it_and_lies_where_its_number_says() -> None:
    event = feedback(user=6149554607595376846)
    event.user_key = "anna"
    assert judged(event, 2) is None
    received = SimpleNamespace(value=event.SerializeToString(), timestamp=5000, partition=1)
    with pytest.raises(BadEvent, match=r"user 6149554607595376846 \('anna'\) belongs on partition 2 \(user_id mod 4\)"):
        feedback_of(received, StreamSettings(), PARTITIONS)
