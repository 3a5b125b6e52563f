"""`driftline import` on a real broker, as a person calls it."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from contracts.config.settings import Arm, Experiment, KafkaSettings, Settings, dump, load
from contracts.kafka import bus, consumers
from contracts.kafka.bus import producer
from contracts.messages.placement import key_of
from contracts.wire.events_pb2 import Example, Item
from driftline.cli import app as cli
from driftline.cli import imports
from feature_repo.store import apply
from stream.importer import Imported

Command = Callable[..., SimpleNamespace]
CSV = "uid,item_id,time_ms,effective_view\n1,7,1650000000000,true\n1,8,1650000001000,{}\n1,8,1650000002000,true\n"


@pytest.fixture
def command(
    embedded: KafkaSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    arm = Arm(weight=1, model="two_tower")
    settings = Settings(
        kafka=embedded,
        feature_repo=tmp_path / "features",
        snapshots=tmp_path,
        state=tmp_path / "state",
        experiment=Experiment(name="e", salt="s", start_ms=0, end_ms=1, arms={"a": arm, "b": arm}, control="a"),
    )
    dump(settings, tmp_path / "settings.yaml")
    apply(tmp_path / "features")

    def run(*arguments: object) -> SimpleNamespace:
        words = ["driftline", "import", *map(str, arguments), "--settings", str(tmp_path / "settings.yaml")]
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as ended:
            cli.main()
        shown = capsys.readouterr()
        return SimpleNamespace(code=ended.value.code, out=shown.out.strip(), err=shown.err.strip())

    return run


def put(kafka: KafkaSettings, *item_ids: int) -> None:
    to = producer(kafka)
    for item_id in item_ids:
        value = Item(schema_version=1, item_id=item_id).SerializeToString()
        to.send(kafka.topic(bus.ITEMS), key=key_of(item_id), value=value, partition=0)
    to.flush()
    to.close()


def test_a_log_is_judged_and_imported_once(command: Command, embedded: KafkaSettings, tmp_path: Path) -> None:
    file = tmp_path / "log.csv"
    file.write_text(CSV.format("maybe"))
    empty = command(file, "--column", "user_id=uid")
    assert (empty.code, empty.err.splitlines()[-1]) == (
        1, "driftline: driftline.items is empty: load the catalogue first, by `driftline catalogue load`."
    )  # fmt: skip
    put(embedded, 7, 8)
    assert (
        "has no column 'user_id', but 'uid', 'item_id', 'time_ms', 'effective_view'; --column user_id=NAME says which "
        "one it is, or --column user_key=NAME if it is a text."
    ) in command(file).err
    bad = command(file, "--column", "user_id=uid")
    assert bad.code == 1
    assert bad.err.splitlines() == [
        "row 2: column effective_view is 'maybe'; effective_view is true or false.",
        "driftline: 1 of 3 rows is bad, so nothing was imported; --skip-bad imports the others.",
    ]
    file.write_text(CSV.format("false"))
    assert command(file, "--column", "user_id=uid", "--dry-run").out == "3 of 3 rows would be imported."
    done = command(file, "--column", "user_id=uid")
    assert (done.code, done.out.splitlines()[-1]) == (
        0,
        "3 rows: 6 events taken in, 2 examples of 1 user. Now start the stream; trainer and archive read the examples.",
    )
    assert command(file, "--column", "user_id=uid").out.splitlines()[-1] == (
        "It was imported before: 6 events. Nothing was changed."
    )
    examples = [Example.FromString(each.value) for each in consumers.read_to_end(embedded, bus.EXAMPLES, 1, 0)]
    assert [(each.item_id, list(each.history.item_ids)) for each in examples] == [(7, []), (8, [7, 8])]
    assert "--column user=uid: it is FIELD=COLUMN" in command(file, "--column", "user=uid").err
    twice = command(file, "--column", "user_id=uid", "--column", "user_key=uid")
    assert twice.err == "driftline: --column names column uid for two fields: user_id and user_key."


def test_topics_that_are_not_there_are_told_at_once(command: Command, tmp_path: Path) -> None:
    settings = load(tmp_path / "settings.yaml")
    elsewhere = settings.kafka.model_copy(update={"topic_prefix": "elsewhere."})
    dump(settings.model_copy(update={"kafka": elsewhere}), tmp_path / "settings.yaml")
    file = tmp_path / "log.csv"
    file.write_text(CSV.format("true"))
    refused = command(file, "--column", "user_id=uid")
    assert (refused.code, refused.out) == (2, "")
    assert refused.err.endswith("has no topic elsewhere.items; `driftline init` creates it.")


def test_an_import_that_goes_on_says_what_was_there_before(capsys: pytest.CaptureFixture[str]) -> None:
    imports._tell("5 rows", Imported(events=4, examples=2, users=1, before=6))
    assert capsys.readouterr().out.startswith("5 rows: 4 events taken in (6 before), 2 examples of 1 user. ")
