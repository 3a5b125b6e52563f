"""`driftline deadletters` against a real broker: what it shows, and what arrives when it sends originals again."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from kafka import KafkaProducer

from contracts.config.settings import KafkaSettings
from contracts.kafka import bus, consumers
from contracts.messages.events import BadEvent, Reason, dead_letter
from contracts.runtime.clock import HOUR_MS, SystemClock
from contracts.wire.events_pb2 import DeadLetter, Feedback, Item
from driftline.cli import app as cli
from driftline.deadletters import letters as deadletters
from driftline.deadletters import resend

NOON_MS = 1_700_049_600_000  # 2023-11-15 12:00 UTC


class Post:
    """Sends records to a worker that can use none of them."""

    def __init__(self, kafka: KafkaSettings, producer: KafkaProducer) -> None:
        self._kafka = kafka
        self._producer = producer

    def send(self, topic: str, key: bytes | None, value: bytes, at_ms: int, partition: int = 0) -> Any:
        """Put a record into a topic (short name); it comes back as a consumer receives it."""
        sent = self._producer.send(
            self._kafka.topic(topic), key=key, value=value, partition=partition, timestamp_ms=at_ms
        ).get(20)
        return SimpleNamespace(
            topic=sent.topic, partition=partition, offset=sent.offset, key=key, value=value, timestamp=at_ms
        )

    def refuse(self, record: Any, reason: Reason, detail: str = "") -> None:
        bus.send_dead_letter(self._producer, self._kafka, BadEvent(reason, detail or f"it is {reason}"), record)
        self._producer.flush()

    def leave_out(self, record: Any) -> None:
        """Dead-letter a record whose value is too large for the letter."""
        letter = dead_letter(BadEvent(Reason.OVERSIZED, f"{deadletters.LEFT_OUT}: so many bytes"), record)
        letter.value = b""
        self._producer.send(
            self._kafka.topic(bus.DEAD_LETTERS), key=record.key, value=letter.SerializeToString(), timestamp_ms=NOON_MS
        ).get(20)


@pytest.fixture
def post(kafka: KafkaSettings) -> Iterator[Post]:
    producer = bus.producer(kafka, max_request_size=2**30)
    yield Post(kafka, producer)
    producer.close()


class Ended(SimpleNamespace):
    code: int
    out: str
    err: str


Command = Callable[..., Ended]


@pytest.fixture
def command(
    kafka: KafkaSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """`driftline deadletters …` with settings for the test's broker."""
    settings = settings_file(tmp_path, kafka)
    pause = threading.Event()
    while not names(kafka) >= {kafka.topic(name) for name in bus.TOPICS}:
        pause.wait(0.05)  # Apache Kafka says that it has created a topic a moment before it lists it

    def run(name: str, *arguments: object) -> Ended:
        words = ["driftline", "deadletters", name, "-s", str(settings), *map(str, arguments)]
        monkeypatch.setattr(sys, "argv", words)
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        shown = capsys.readouterr()
        return Ended(code=ended.value.code, out=shown.out, err=shown.err)

    return run


def names(kafka: KafkaSettings) -> set[str]:
    client = bus.admin(kafka)
    try:
        return set(client.list_topics())
    finally:
        client.close()


def settings_file(folder: Path, kafka: KafkaSettings) -> Path:
    arms = {"control": {"weight": 1, "model": "two_tower"}, "treatment": {"weight": 1, "model": "t2diff"}}
    experiment = {"name": "e", "salt": "s", "start_ms": 0, "end_ms": 1, "arms": arms, "control": "control"}
    folders = {name: str(folder / name) for name in ("feature_repo", "snapshots", "state")}
    path = folder / "settings.yaml"
    path.write_text(yaml.safe_dump({"kafka": kafka.model_dump(mode="json"), "experiment": experiment, **folders}))
    return path


def feedback(n: int) -> bytes:
    return Feedback(schema_version=1, event_id=f"event-{n}", request_id="r", user_id=n, item_id=5).SerializeToString()


def records(kafka: KafkaSettings, topic: str, partition: int = 0) -> list[Any]:
    return list(consumers.read_to_end(kafka, topic, partition, 0))


def lines(shown: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in shown.splitlines()]


@pytest.fixture
def letters(post: Post) -> Sequence[Any]:
    """Four letters, ids 0 to 3, from three topics, an hour apart."""
    originals = [
        post.send(bus.FEEDBACK, b"1", feedback(1), NOON_MS, 1),
        post.send(bus.ITEMS, b"9", Item(schema_version=1, item_id=-9).SerializeToString(), NOON_MS + HOUR_MS),
        post.send(bus.FEEDBACK, None, feedback(3), NOON_MS + 2 * HOUR_MS, 1),
        post.send(bus.EXPOSURES, b"4", b"no such thing \x00", NOON_MS + 3 * HOUR_MS),
    ]
    reasons = [Reason.UNKNOWN_ITEM, Reason.OUT_OF_RANGE, Reason.UNKNOWN_ITEM, Reason.UNDECODABLE]
    for record, reason in zip(originals, reasons, strict=True):
        post.refuse(record, reason)
    return originals


def test_a_topic_without_letters_says_so(command: Command) -> None:
    assert command("list") == Ended(code=0, out="There are no dead letters.\n", err="")
    assert command("list", "--json") == Ended(code=0, out="", err="")
    assert command("replay", "--all") == Ended(code=0, out="There are no dead letters.\n", err="")


def test_a_broker_without_the_topic_says_what_makes_it_and_is_left_as_it_was(tmp_path: Path, command: Command) -> None:
    def elsewhere(name: str) -> Ended:
        path = tmp_path / "settings.yaml"
        written = yaml.safe_load(path.read_text())
        written["kafka"]["topic_prefix"] = "elsewhere."
        path.write_text(yaml.safe_dump(written))
        return command(name)

    for _ in range(2):  # had the first created it, the second would find it
        ended = elsewhere("list")
        assert ended.code == 2
        assert "has no topic elsewhere.deadletters; `driftline init` creates it." in ended.err


def test_list_shows_a_line_for_each_letter_and_counts_the_reasons(command: Command, letters: Sequence[Any]) -> None:
    ended = command("list")
    assert ended.code == 0
    *table, counts = ended.out.rstrip().splitlines()
    rows = [line.split() for line in table if line.split()[:1] in ([["0"], ["1"], ["2"], ["3"]])]
    size = str(len(letters[0].value))
    assert rows[0] == [
        "0",
        "unknown_item",
        "feedback",
        "1",
        "0",
        "2023-11-15",
        "12:00:00",
        size,
        *["it", "is", "unknown_item"],
    ]
    assert [row[2] for row in rows] == ["feedback", "items", "feedback", "exposures"]
    assert counts == "unknown_item 2, out_of_range 1, undecodable 1"


@pytest.mark.parametrize(
    ("filters", "ids"),
    [
        ([], [0, 1, 2, 3]),
        (["--reason", "unknown_item"], [0, 2]),
        (["--topic", "feedback"], [0, 2]),
        (["--topic", "PREFIX.items"], [1]),
        (["--since", "2023-11-15 14:00:00"], [2, 3]),
        (["--limit", "1"], [3]),
        (["--reason", "unknown_item", "--limit", "1"], [2]),
        (["--reason", "no_such_reason"], []),
    ],
)
def test_list_filters_and_keeps_the_newest(
    kafka: KafkaSettings, command: Command, letters: Sequence[Any], filters: list[str], ids: list[int]
) -> None:
    filters = [word.replace("PREFIX.", kafka.topic_prefix) for word in filters]
    assert [line["id"] for line in lines(command("list", "--json", *filters).out)] == ids


def test_list_says_what_it_does_not_show(command: Command, letters: Sequence[Any]) -> None:
    assert "3 older not shown (--limit)." in command("list", "--limit", 1).out
    assert command("list", "--reason", "unknwon").out == (
        "No dead letter matches. All there are: unknown_item 2, out_of_range 1, undecodable 1\n"
    )


def test_show_decodes_the_original(command: Command, letters: Sequence[Any]) -> None:
    ended = command("show", 0)
    assert ended.code == 0
    assert f"detail    it is unknown_item\ntopic     {letters[0].topic}\n" in ended.out
    assert f"time      2023-11-15 12:00:00 UTC ({NOON_MS} ms)\nkey       1\n" in ended.out
    name, _, text = ended.out.partition("\n\n")[2].partition(" ")
    assert (name, json.loads(text)["event_id"]) == ("Feedback", "event-1")


def test_show_dumps_what_cannot_be_decoded(command: Command, letters: Sequence[Any]) -> None:
    assert "0000  6e 6f 20 73 75 63 68 20 74 68 69 6e 67 20 00     no such thing .\n" in command("show", 3).out


def test_show_writes_the_original_bytes(
    kafka: KafkaSettings, command: Command, letters: Sequence[Any], tmp_path: Path
) -> None:
    assert command("show", 3, "--raw", tmp_path / "raw").code == 0
    assert (tmp_path / "raw").read_bytes() == letters[3].value
    words = ["deadletters", "show", "3", "-s", str(tmp_path / "settings.yaml"), "--raw", "-"]
    piped = subprocess.run([sys.executable, "-m", "driftline", *words], capture_output=True, check=True, timeout=60)
    assert piped.stdout == letters[3].value


@pytest.mark.parametrize("words", [["show", 7], ["replay", 7], ["replay", 0, 7]])
def test_an_unknown_id_is_one_sentence(command: Command, letters: Sequence[Any], words: list[object]) -> None:
    ended = command(*words)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == "driftline: There is no dead letter 7; `driftline deadletters list` shows those there are.\n"


@pytest.mark.parametrize("words", [[], ["0", "--all"], ["--all", "--reason", "unknown_item"]])
def test_replay_wants_exactly_one_selector(command: Command, words: list[str]) -> None:
    ended = command("replay", *words)
    assert ended.code == 2
    assert "ids, --reason, or --all" in ended.err


def test_replay_sends_what_came_to_where_it_came_from(
    kafka: KafkaSettings, command: Command, letters: Sequence[Any]
) -> None:
    before = SystemClock().now_ms()
    ended = command("replay", 3, 2, 0)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == "3 sent again: exposures 1, feedback 2.\n"
    sent = records(kafka, bus.FEEDBACK, 1)[2:] + records(kafka, bus.EXPOSURES)[1:]
    for record, original, letter_id in zip(sent, [letters[0], letters[2], letters[3]], [0, 2, 3], strict=True):
        assert (record.key, record.value, record.timestamp) == (original.key, original.value, original.timestamp)
        headers = dict(record.headers)
        assert headers[resend.REPLAYED_FROM] == str(letter_id).encode()
        assert before <= int(headers[bus.SENT_AT]) <= SystemClock().now_ms()


def test_replay_by_reason_sends_those_alone(kafka: KafkaSettings, command: Command, letters: Sequence[Any]) -> None:
    assert command("replay", "--reason", "unknown_item").out == "2 sent again: feedback 2.\n"
    assert len(records(kafka, bus.EXPOSURES)) == len(records(kafka, bus.ITEMS)) == 1


def test_a_second_replay_leaves_out_what_the_first_has_sent(
    kafka: KafkaSettings, command: Command, letters: Sequence[Any]
) -> None:
    command("replay", 0)
    assert command("replay", "--reason", "unknown_item").out.splitlines() == [
        "1 sent again: feedback 1.",
        "1 left out: replayed before (--again sends them once more).",
    ]
    assert len(records(kafka, bus.FEEDBACK, 1)) == 4
    assert command("replay", 0, "--again").out == "1 sent again: feedback 1.\n"
    assert [record.value for record in records(kafka, bus.FEEDBACK, 1)[4:]] == [letters[0].value]


def test_a_replay_is_seen_and_is_no_dead_letter(
    kafka: KafkaSettings, command: Command, letters: Sequence[Any], tmp_path: Path
) -> None:
    command("replay", 0)
    shown = lines(command("list", "--json").out)
    assert [(line["id"], line["replayed"] is not None) for line in shown] == [
        (0, True),
        (1, False),
        (2, False),
        (3, False),
    ]
    assert [line["id"] for line in lines(command("list", "--json", "--pending").out)] == [1, 2, 3]
    assert "unknown_item 2 (1 replayed)" in command("list").out
    assert "UTC: dead letter 0 was sent again, as offset 2" in command("show", 0).out
    assert command("show", 4).code == 2  # the note's own offset
    assert deadletters.save(kafka, tmp_path / "saved.jsonl") == 4


def test_a_letter_that_was_written_twice_is_one_record(
    kafka: KafkaSettings, command: Command, letters: Sequence[Any], post: Post
) -> None:
    post.refuse(letters[0], Reason.UNKNOWN_ITEM)  # id 4: as a worker does that reads its topics again
    assert command("replay", "--reason", "unknown_item").out.splitlines() == [
        "2 sent again: feedback 2.",
        "1 left out: another letter is about the same record.",
    ]
    assert command("replay", 4).out.splitlines()[0] == "0 sent again."
    assert len(records(kafka, bus.FEEDBACK, 1)) == 4


def test_a_dry_run_shows_and_sends_nothing(kafka: KafkaSettings, command: Command, letters: Sequence[Any]) -> None:
    ended = command("replay", "--all", "--dry-run")
    assert ended.code == 0
    assert "undecodable" in ended.out
    assert ended.out.endswith("4 would be sent again: exposures 1, feedback 2, items 1.\n")
    assert [len(records(kafka, name)) for name in (bus.EXPOSURES, bus.ITEMS, bus.DEAD_LETTERS)] == [1, 1, 4]
    assert len(records(kafka, bus.FEEDBACK, 1)) == 2


def test_only_the_workers_topics_are_replayed_into(kafka: KafkaSettings, command: Command, post: Post) -> None:
    at = {"offset": 0, "key": b"k", "value": b"v", "timestamp": NOON_MS}
    post.refuse(SimpleNamespace(topic="payments", partition=0, **at), Reason.UNDECODABLE)
    post.refuse(SimpleNamespace(topic=kafka.topic(bus.DEAD_LETTERS), partition=0, **at), Reason.UNDECODABLE)
    post.refuse(SimpleNamespace(topic=kafka.topic(bus.FEEDBACK), partition=7, **at), Reason.UNDECODABLE)
    for letter_id in range(3):
        ended = command("replay", letter_id)
        assert ended.code == 2
        assert f"Dead letter {letter_id} comes from" in ended.err
    assert command("replay", "--all").out.splitlines()[0] == "0 sent again."
    assert "payments" not in names(kafka)


def test_an_original_that_was_left_out_is_fetched_from_where_it_came(
    kafka: KafkaSettings, command: Command, post: Post
) -> None:
    post.send(bus.FEEDBACK, b"1", feedback(1), NOON_MS)
    large = post.send(bus.FEEDBACK, b"2", feedback(2) * 100_000, NOON_MS)
    post.leave_out(large)
    assert lines(command("list", "--json").out)[0]["size"] is None
    assert f"size      {len(large.value):,} bytes" in command("show", 0).out
    assert command("replay", 0).code == 0
    (sent,) = records(kafka, bus.FEEDBACK)[2:]
    assert (sent.key, sent.value, sent.timestamp) == (b"2", large.value, NOON_MS)


@pytest.mark.parametrize("offset", [0, 50])
def test_an_original_that_is_gone_is_one_sentence_and_the_others_are_sent(
    kafka: KafkaSettings, command: Command, post: Post, offset: int
) -> None:
    kept = post.send(bus.FEEDBACK, b"1", feedback(1), NOON_MS)
    gone = SimpleNamespace(**{**vars(kept), "offset": offset, "timestamp": NOON_MS - 1})
    post.leave_out(gone)
    post.refuse(kept, Reason.UNKNOWN_ITEM)
    assert "The original is gone" in command("show", 0).out
    ended = command("replay", "--all")
    assert ended.code == 1
    assert ended.out == "1 sent again: feedback 1.\n"
    assert ended.err.splitlines() == [
        f"Dead letter 0 was not sent: offset {offset} is gone from {kept.topic}.",
        "driftline: 1 of 2 dead letters was not sent again.",
    ]


def test_records_of_others_in_the_topic_are_counted_and_passed_over(
    kafka: KafkaSettings, command: Command, post: Post, letters: Sequence[Any], tmp_path: Path
) -> None:
    post.send(bus.DEAD_LETTERS, None, b"no such thing", NOON_MS)
    ended = command("list", "--json")
    assert len(lines(ended.out)) == 4
    assert "1 record of the dead-letter topic is no dead letter; left out." in ended.err
    assert deadletters.save(kafka, tmp_path / "saved.jsonl") == 4


def test_many_letters_keep_their_order_over_batches(
    kafka: KafkaSettings, command: Command, post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resend, "BATCH_RECORDS", 7)
    for n in range(40):
        post.refuse(post.send(bus.FEEDBACK, b"1", feedback(n), NOON_MS + n, n % 2), Reason.UNKNOWN_ITEM)
    assert command("replay", "--all").out == "40 sent again: feedback 40.\n"
    for partition in (0, 1):
        found = [record.value for record in records(kafka, bus.FEEDBACK, partition)]
        assert found == [feedback(n) for n in range(partition, 40, 2)] * 2


def test_a_large_letter_goes_through_the_dead_letter_topic(kafka: KafkaSettings, command: Command, post: Post) -> None:
    large = post.send(bus.FEEDBACK, b"1", b"\xff" * 5_000_000, NOON_MS)
    post.refuse(large, Reason.OVERSIZED)
    assert command("replay", 0).code == 0
    assert records(kafka, bus.FEEDBACK)[1].value == large.value


def test_a_note_is_a_message_that_any_reader_of_the_topic_can_read(
    kafka: KafkaSettings, command: Command, letters: Sequence[Any]
) -> None:
    command("replay", 0)
    note = DeadLetter.FromString(records(kafka, bus.DEAD_LETTERS)[-1].value)
    assert (note.reason, note.topic, note.partition, note.offset) == ("replayed", letters[0].topic, 1, 0)
    assert note.value == b""


def test_a_batch_that_could_not_be_decoded_is_no_record_to_send_again(command: Command, post: Post) -> None:
    record = post.send(bus.FEEDBACK, None, b"a whole batch", NOON_MS, 1)
    post.refuse(record, Reason.UNREADABLE_BATCH)
    ended = command("replay", 0)
    assert (ended.code, ended.out) == (2, "")
    assert "Dead letter 0 is a whole batch that could not be decoded" in ended.err
    assert "driftline deadletters show 0 --raw FILE" in ended.err
    assert command("replay", "--all").out.startswith("0 sent again.\n1 left out. Dead letter 0 is a whole batch")
    assert command("show", 0, "--raw", "-").out == "a whole batch"
