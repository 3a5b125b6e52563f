"""`driftline catalogue` on real brokers: what it sends is what the workers read."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contracts.config.settings import Arm, Experiment, KafkaSettings, Settings, dump
from contracts.kafka import bus, consumers
from contracts.messages.events import decode_catalogue
from contracts.messages.ids import id_of_text
from contracts.runtime.clock import ManualClock
from contracts.wire.events_pb2 import Item
from driftline.catalogue.load import Progress
from driftline.cli import app as cli

Command = Callable[..., SimpleNamespace]
CSV = "video,category_ids,duration_ms,title\n7,3|5,12000,a\n8,,,b\n"
TWO = [
    (7, Item(schema_version=1, item_id=7, category_ids=[3, 5], duration_ms=12_000)),
    (8, Item(schema_version=1, item_id=8)),
]


def written(folder: Path, kafka: KafkaSettings) -> Path:
    arm = Arm(weight=1, model="two_tower")
    settings = Settings(
        kafka=kafka,
        feature_repo=folder,
        snapshots=folder,
        state=folder,
        experiment=Experiment(name="e", salt="s", start_ms=0, end_ms=1, arms={"a": arm, "b": arm}, control="a"),
    )
    dump(settings, folder / "settings.yaml")
    return folder / "settings.yaml"


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """`driftline catalogue …` with settings that name no broker, or the one that was given."""

    def run(*arguments: object, kafka: KafkaSettings | None = None) -> SimpleNamespace:
        settings = written(tmp_path, kafka or KafkaSettings(bootstrap_servers="127.0.0.1:1"))
        words = ["driftline", "catalogue", *map(str, arguments), "--settings", str(settings)]
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as ended:
            cli.main()
        shown = capsys.readouterr()
        return SimpleNamespace(code=ended.value.code, out=shown.out.rstrip("\n"), err=shown.err.rstrip("\n"))

    return run


def sent(kafka: KafkaSettings) -> list[tuple[int, Item | None]]:
    """What lies in the topic; each record has the key of its item."""
    records = list(consumers.read_to_end(kafka, bus.ITEMS, 0, 0))
    assert [record.key for record in records] == [
        bus.key_of(decode_catalogue(record.key, record.value, max_bytes=1000)[0]) for record in records
    ]
    return [decode_catalogue(record.key, record.value, max_bytes=1000) for record in records]


def test_a_file_is_loaded_in_each_format(command: Command, kafka: KafkaSettings, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(CSV)
    done = command("load", tmp_path / "a.csv", "--column", "item_id=video", kafka=kafka)
    said = f"2 items sent to {kafka.topic('items')}."
    assert (done.code, done.out) == (0, f"{said} Columns that items do not have were left out: title.")
    (tmp_path / "a.jsonl").write_text(
        '{"item_id": 7, "category_ids": [3, 5], "duration_ms": 12000}\n{"item_id": "8"}\n'
    )
    assert command("load", tmp_path / "a.jsonl", kafka=kafka).out == said
    pq.write_table(
        pa.table({"item_id": [7, 8], "category_ids": [[3, 5], None], "duration_ms": [12_000, None]}), tmp_path / "p"
    )
    assert command("load", tmp_path / "p", "--format", "parquet", kafka=kafka).out == said
    assert sent(kafka) == TWO * 3


def test_items_are_put_blocked_unblocked_deleted_and_shown(command: Command, kafka: KafkaSettings) -> None:
    put = command("put", 7, 8, "--category", 3, "--duration-ms", 12_000, kafka=kafka)
    assert (put.code, put.out) == (0, "2 items put.")
    assert command("block", 7, kafka=kafka).out == "1 item blocked."
    assert command("list", kafka=kafka).out.endswith("2 items, 1 blocked, 0 expired.")
    (shown,) = command("list", "--blocked", "--json", kafka=kafka).out.splitlines()
    assert json.loads(shown) == {"item_id": 7, "category_ids": [3], "duration_ms": 12_000, "blocked": True}
    assert command("unblock", 7, kafka=kafka).out == "1 item unblocked."
    assert json.loads(command("show", 7, kafka=kafka).out) == {
        "item_id": 7,
        "category_ids": [3],
        "duration_ms": 12_000,
    }
    assert command("delete", 8, kafka=kafka).out == "1 item deleted."
    of_seven = Item(schema_version=1, item_id=7, category_ids=[3], duration_ms=12_000)
    assert sent(kafka)[-2:] == [(7, of_seven), (8, None)]

    gone = command("block", 7, 8, kafka=kafka)
    assert (gone.code, gone.err) == (2, f"driftline: Item 8 is not in {kafka.topic('items')}; nothing was changed.")
    assert len(sent(kafka)) == 5


def test_items_of_texts_are_named_by_them(command: Command, kafka: KafkaSettings) -> None:
    assert command("put", 7, "--item-key", "a b", "--category", 3, kafka=kafka).out == "2 items put."
    number = id_of_text("a b")
    by_text = Item(schema_version=1, item_id=number, item_key="a b", category_ids=[3])
    assert sent(kafka) == [(7, Item(schema_version=1, item_id=7, category_ids=[3])), (number, by_text)]
    assert command("block", "--item-key", "a b", kafka=kafka).out == "1 item blocked."
    shown = {"item_id": number, "item_key": "a b", "category_ids": [3], "blocked": True}
    assert json.loads(command("show", "--item-key", "a b", kafka=kafka).out) == shown
    assert json.loads(command("show", number, kafka=kafka).out) == shown
    assert command("unblock", "--item-key", "a b", kafka=kafka).out == "1 item unblocked."
    gone = command("delete", "--item-key", "a b", "--item-key", "c", kafka=kafka)
    assert (gone.code, gone.err) == (2, f"driftline: Item c is not in {kafka.topic('items')}; nothing was changed.")
    assert command("delete", "--item-key", "a b", kafka=kafka).out == "1 item deleted."
    assert sent(kafka)[-2:] == [(number, by_text), (number, None)]


def test_a_bad_row_is_told_and_nothing_is_sent_unless_it_may_be_skipped(
    command: Command, embedded: KafkaSettings, tmp_path: Path
) -> None:
    path = tmp_path / "a.csv"
    path.write_text("item_id,duration_ms\n7,12.5\n8,5\nx,5\n")
    faults = (
        "row 1 (line 2): column duration_ms is '12.5'; duration_ms is whole milliseconds, 0 or more.\n"
        "row 3 (line 4): column item_id is 'x'; item_id is a whole number above 0.\n"
    )
    refused = command("load", path, kafka=embedded)
    said = "driftline: 2 of 3 rows are bad, so nothing was sent; --skip-bad sends the others."
    assert (refused.code, refused.out, refused.err) == (1, "", faults + said)
    assert sent(embedded) == []
    tried = command("load", path, "--skip-bad", "--dry-run", kafka=embedded)
    assert (tried.code, tried.out) == (0, "1 of 3 rows would be sent.")
    assert sent(embedded) == []
    skipped = command("load", path, "--skip-bad", kafka=embedded)
    assert (skipped.code, skipped.err + "\n") == (0, faults)
    assert skipped.out == f"1 item sent to {embedded.topic('items')}. 2 bad rows left out."
    assert sent(embedded) == [(8, Item(schema_version=1, item_id=8, duration_ms=5))]


def test_of_many_bad_rows_the_first_are_told_and_all_are_counted(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("item_id\n" + "x\n" * 1_234)
    refused = command("load", path)
    *told, more, end = refused.err.splitlines()
    assert (len(told), more) == (20, "… and 1,214 bad rows more.")
    assert end.startswith("driftline: 1,234 of 1,234 rows are bad, so nothing was sent")


def test_a_dry_run_needs_no_broker(command: Command, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(CSV)
    tried = command("load", tmp_path / "a.csv", "--dry-run", "--column", "item_id=video")
    said = "2 of 2 rows would be sent. Columns that items do not have were left out: title."
    assert (tried.code, tried.out, tried.err) == (0, said, "")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["load", "absent.csv"], "Cannot read absent.csv: No such file or directory."),
        (["load", "a.csv", "--column", "id=video"], "--column id=video: it is FIELD=COLUMN, and a field is item_id, "),
        (["load", "a.csv", "--column", "item_id"], "--column item_id: it is FIELD=COLUMN"),
        (["put", "7", "--expires-ms", "1800000000"], "Item 7 cannot be put: column expires_ms is 1800000000; "),
        (["put", "0"], "Item 0 cannot be put: column item_id is 0; item_id is 0, not above 0."),
        (["put", "7"], "No Kafka broker answers at 127.0.0.1:1"),
        (["block"], "Say which items: ITEM_ID, or --item-key TEXT."),
        (["block", "--item-key", ""], "The text id '' is empty."),
        (["show", "7"], "No Kafka broker answers at 127.0.0.1:1"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(command: Command, arguments: list[str], said: str) -> None:
    ended = command(*arguments)
    assert ended.code == 2
    assert ended.err.startswith(f"driftline: {said}")
    assert len(ended.err.splitlines()) == 1


def test_a_broker_without_the_topics_is_told_what_creates_them(command: Command, embedded: KafkaSettings) -> None:
    elsewhere = embedded.model_copy(update={"topic_prefix": "other."})
    ended = command("put", 7, kafka=elsewhere)
    assert ended.code == 2
    assert ended.err.endswith("has no topic other.items; `driftline init` creates it.")


def test_a_long_file_is_told_of_while_it_is_read() -> None:
    clock, said = ManualClock(), list[str]()
    progress = Progress(clock, said.append)
    for at_ms, state in ((4_999, "early"), (5_000, "first"), (9_000, "between"), (10_000, "second")):
        clock.at_ms = at_ms
        progress.at(state)
    assert said == ["first", "second"]
