"""Which records are a user's, and which letters go."""

from collections.abc import Callable

import pytest

from contracts.config.settings import KafkaSettings
from contracts.kafka import bus
from contracts.messages.ids import id_of_text
from contracts.wire.events_pb2 import DeadLetter, ExperimentChange, Exposure, Feedback, Forget
from driftline.forget.records import is_request, is_theirs
from driftline.forget.request import Left
from driftline.forget.topics import rewrite_letters, search
from driftline.forget.user import User
from tests.stream.stream_cases import Sender, read_all

ANNA = User.of_text("anna-of-the-tests")
SHORT = User(7)


def letter(key: bytes = b"9", detail: str = "", value: bytes = b"", topic: str = "driftline.feedback") -> bytes:
    return DeadLetter(schema_version=1, key=key, detail=detail, value=value, topic=topic).SerializeToString()


OF_ANNA = {
    "key": letter(key=str(ANNA.number).encode()),
    "detail": letter(detail=f"request r was not user {ANNA.number}'s"),
    "text in a detail": letter(detail="user_key is 'anna-of-the-tests', whose number is not 7"),
    "text in an event": letter(value=Feedback(user_key=ANNA.text).SerializeToString()),
    "number in an event": letter(value=Exposure(user_id=ANNA.number).SerializeToString(), topic="x.exposures"),
    "JSON": letter(value=f'{{"user_id": {ANNA.number}}}'.encode()),
    "undecodable": letter(value=b"\xff\xff" + ANNA.number.to_bytes(8, "big")),
}
OF_OTHERS = {
    "key": letter(),
    "event": letter(value=Feedback(user_id=77).SerializeToString()),
    "detail": letter(detail="request r was not user 77's"),
    "no letter": b"junk",
}


@pytest.mark.parametrize("value", OF_ANNA.values(), ids=OF_ANNA)
def test_a_letter_is_a_users_wherever_it_names_the_user(value: bytes) -> None:
    assert is_theirs(ANNA, bus.DEAD_LETTERS, None, value)


@pytest.mark.parametrize("value", OF_OTHERS.values(), ids=OF_OTHERS)
@pytest.mark.parametrize("user", [ANNA, SHORT], ids=str)
def test_letters_of_others_are_nobody_elses(user: User, value: bytes) -> None:
    assert not is_theirs(user, bus.DEAD_LETTERS, None, value)


def test_a_short_id_is_found_where_it_is_decoded() -> None:
    assert is_theirs(SHORT, bus.DEAD_LETTERS, None, letter(value=Feedback(user_id=7).SerializeToString()))
    assert is_theirs(SHORT, bus.DEAD_LETTERS, None, letter(detail="request r was not user 7's"))
    assert is_theirs(SHORT, bus.EXAMPLES, b"7", b"junk")


def test_requests_are_told_from_events() -> None:
    asked = Feedback(user_id=7, forget=Forget()).SerializeToString()
    assert is_request(SHORT, bus.FEEDBACK, asked)
    assert not is_request(ANNA, bus.FEEDBACK, asked)
    assert not is_request(SHORT, bus.FEEDBACK, Feedback(user_id=7).SerializeToString())
    assert not is_request(SHORT, bus.EXPOSURES, asked)


def test_a_change_of_an_experiment_is_of_whom_it_names_if_that_is_no_accident() -> None:
    change = ExperimentChange(why=f"{ANNA.text} asked; ramp to 7 %").SerializeToString()
    assert is_theirs(ANNA, bus.EXPERIMENTS, b"e", change)
    assert not is_theirs(SHORT, bus.EXPERIMENTS, b"7", change)


def test_records_on_a_wrong_partition_are_found(apache: KafkaSettings) -> None:
    wrong = 1 - bus.partition_of(ANNA.number, apache.partitions)
    stray = Exposure(schema_version=1, user_id=ANNA.number, time_ms=1).SerializeToString()
    change = ExperimentChange(why=f"{ANNA.text} asked").SerializeToString()
    sender = Sender(apache)
    for name, value, partition in ((bus.EXPOSURES, stray, wrong), (bus.EXPERIMENTS, change, 0)):
        sender._producer.send(apache.topic(name), key=b"e", value=value, partition=partition, timestamp_ms=5)
    sender.flush()
    sender.close()
    found = search(apache, [ANNA, SHORT])
    assert not found[SHORT]
    assert [each[:3] for each in found[ANNA]] == [(bus.EXPOSURES, wrong, 1), (bus.EXPERIMENTS, 0, 1)]
    left = Left(ANNA, (), tuple(found[ANNA]), ())
    assert not left.settled, "the experiments' topic keeps all"
    assert [each.topic for each in left.events] == [bus.EXPOSURES]


@pytest.fixture
def letters(apache: KafkaSettings) -> Callable[..., None]:
    def send(*values: bytes) -> None:
        sender = Sender(apache)
        for value in values:
            sender._producer.send(apache.topic(bus.DEAD_LETTERS), key=b"9", value=value, partition=0, timestamp_ms=5)
        sender.flush()
        sender.close()

    return send


def test_letters_of_a_user_go_and_all_others_stay_in_order(apache: KafkaSettings, letters: Callable[..., None]) -> None:
    both = [*OF_OTHERS.values(), *OF_ANNA.values(), letter(detail="last")]
    letters(*both)
    assert rewrite_letters(apache, [ANNA]) == len(OF_ANNA)
    assert read_all(apache, bus.DEAD_LETTERS) == [*OF_OTHERS.values(), letter(detail="last")]
    assert not search(apache, [ANNA])[ANNA]
    assert rewrite_letters(apache, [ANNA]) == 0


def test_letters_that_a_killed_rewrite_has_sent_already_are_there_once(
    apache: KafkaSettings, letters: Callable[..., None]
) -> None:
    others = [*OF_OTHERS.values()]
    letters(*others, *OF_ANNA.values(), *others[:2])
    rewrite_letters(apache, [ANNA])
    assert read_all(apache, bus.DEAD_LETTERS) == others


def test_the_number_of_a_text_is_the_users() -> None:
    assert ANNA.number == id_of_text(ANNA.text)
