"""`driftline import`: a file teaches once what its events would have taught live, and the stream goes on from there."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import stream.importer
from contracts.config.settings import KafkaSettings, Settings, SettingsError
from contracts.kafka import bus, consumers
from contracts.messages.ids import id_of_text
from contracts.wire.events_pb2 import Example, Feedback
from driftline.processes import broker
from driftline.processes.server import Server
from feature_repo.store import UserSequences, apply
from stream.deliver import Stopped
from stream.import_file import HistoryError, HistoryFile
from stream.importer import Imported, Importer
from tests.conftest import own_topics
from tests.stream.import_cases import BEGIN_MS, ITEMS, NOW_MS, live, opened, rows_of, write
from tests.stream.step_cases import exposure, feedback
from tests.stream.stream_cases import Running, Sender, settings_for

USERS = range(1, 10)


@pytest.fixture
def settings(kafka: KafkaSettings, tmp_path: Path) -> Settings:
    return prepared(kafka, tmp_path)


def prepared(kafka: KafkaSettings, directory: Path) -> Settings:
    apply(directory / "features")
    sender = Sender(kafka)
    sender.items(*ITEMS)
    sender.close()
    return settings_for(kafka, directory)


def take(settings: Settings, file: HistoryFile, digest: str = "d", stop: threading.Event | None = None) -> Imported:
    importer = Importer(settings, UserSequences(settings.feature_repo), set(ITEMS), NOW_MS)
    return importer.take(file, digest, stop or threading.Event())


def taught(settings: Settings) -> dict[int, list[Example]]:
    """Examples by partition, without what tells how they came in."""
    found = {}
    for partition in range(settings.kafka.partitions):
        found[partition] = []
        for record in consumers.read_to_end(settings.kafka, bus.EXAMPLES, partition, 0):
            example = Example.FromString(record.value)
            for field in ("event_id", "request_id", "sent_at_ms", "arm", "model", "snapshot_version"):
                example.ClearField(field)
            found[partition].append(example)
    return found


def remembered(settings: Settings) -> list[Any]:
    """Users' rows in Feast."""
    rows = UserSequences(settings.feature_repo).read([*USERS])
    return [row and (list(row.item_ids), list(row.times_ms), list(row.follows), list(row.sessions)) for row in rows]


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_a_file_teaches_what_its_events_would_have_taught(
    apache_server: Server, tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream.importer, "EVENTS_AT_ONCE", 50)
    rows = rows_of(seed=1, pages=60)
    homes = []
    for name in ("live", "imported"):
        kafka = own_topics(apache_server)
        broker.prepare(kafka)
        homes.append(prepared(kafka, tmp_path / name))
    by_events, by_file = homes
    sender = Sender(by_events.kafka)
    events = live(rows)
    sender.events(*events)
    sender.close()
    with Running(by_events) as running:
        running.take(len(events))
    file = opened(write(rows, tmp_path / f"log{suffix}"), by_file, tmp_path / "scratch")
    found = take(by_file, file)
    assert (found.events, found.before, dict(found.refused)) == (len(events), 0, {})
    assert found.examples == sum(row["effective_view"] for row in rows) > 50
    assert taught(by_file) == taught(by_events)
    assert remembered(by_file) == remembered(by_events)
    again = take(by_file, file)
    assert (again.events, again.before) == (0, len(events))
    assert taught(by_file) == taught(by_events)


def test_an_import_that_is_stopped_anywhere_goes_on_where_it_was(
    apache_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream.importer, "EVENTS_AT_ONCE", 20)
    rows = rows_of(seed=2, pages=40)
    path = write(rows, tmp_path / "log.parquet")
    outcomes = []
    for name, interrupted in (("whole", False), ("in pieces", True)):
        kafka = own_topics(apache_server)
        broker.prepare(kafka)
        settings = prepared(kafka, tmp_path / name)
        file = opened(path, settings, tmp_path / f"scratch of {name}")
        stops = 0
        for _ in range(100):
            stop = StopAfter(looks=3 if interrupted else 10**6)
            try:
                take(settings, file, stop=stop)
            except Stopped:
                stops += 1
            else:
                break
        assert (stops > 3) == interrupted
        outcomes.append((taught(settings), remembered(settings)))
    assert outcomes[0] == outcomes[1]


def test_half_a_file_is_finished_first_and_as_it_was_begun(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever an import was stopped, between partitions too, neither another file nor another judgement gets in."""
    monkeypatch.setattr(stream.importer, "EVENTS_AT_ONCE", 20)
    path = write(rows_of(seed=5, pages=20), tmp_path / "log.parquet")
    later = write(rows_of(seed=6, pages=5, begin_ms=BEGIN_MS + 48 * 3_600_000), tmp_path / "later.parquet")
    whole = opened(path, settings, tmp_path / "whole")
    fewer = opened(path, settings, tmp_path / "fewer", known=ITEMS[:-1])
    other = opened(later, settings, tmp_path / "other")
    here = "x" * stream.importer.FILE_DIGITS
    begun = here + whole.judgement(2)
    assert whole.judgement(2) not in (fewer.judgement(2), whole.judgement(3))
    stops = 0
    while True:
        try:
            take(settings, whole, begun, StopAfter(looks=2))
        except Stopped:
            stops += 1
        else:
            break
        with pytest.raises(SettingsError, match="in the middle of another file"):
            take(settings, other, "y" * stream.importer.FILE_DIGITS)
        with pytest.raises(SettingsError, match="of which other rows were bad when it began"):
            take(settings, fewer, here + fewer.judgement(2))
    assert stops > 5
    assert take(settings, fewer, here + fewer.judgement(2)).events == 0  # it was imported before
    assert take(settings, other, "y" * stream.importer.FILE_DIGITS).events > 0


class StopAfter(threading.Event):
    """Is set once it has been looked at so often."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self._left = looks

    def is_set(self) -> bool:
        self._left -= 1
        return self._left < 0


def test_the_stream_takes_over_from_an_import(settings: Settings, tmp_path: Path) -> None:
    rows = rows_of(seed=3, pages=20)
    take(settings, opened(write(rows, tmp_path / "log.csv"), settings, tmp_path / "scratch"))
    before = taught(settings)
    sender = Sender(settings.kafka)
    later_ms = BEGIN_MS + 100 * 3_600_000
    sender.events(exposure("live", later_ms, (1, 2), user=3), feedback(1, later_ms + 5, "live", user=3))
    sender.close()
    with Running(settings) as running:
        running.take(2)
    after = taught(settings)
    partition = bus.partition_of(3, settings.kafka.partitions)
    assert after[partition][:-1] == before[partition]
    assert after[1 - partition] == before[1 - partition]
    history = sorted((row["time_ms"], row["item_id"]) for row in rows if row["user_id"] == 3)
    new = after[partition][-1]
    assert (new.user_id, new.item_id) == (3, 1)
    assert [*zip(new.history.times_ms, new.history.item_ids, strict=True)] == history
    with pytest.raises(SettingsError, match="has been through records of the log already"):
        take(settings, opened(tmp_path / "log.csv", settings, tmp_path / "again"), digest="other")


def test_files_come_in_the_order_of_their_time(settings: Settings, tmp_path: Path) -> None:
    day_ms = 24 * 3_600_000
    days = [rows_of(seed=day, pages=15, begin_ms=BEGIN_MS + day * day_ms) for day in range(3)]
    files = [
        opened(write(rows, tmp_path / f"{n}.parquet"), settings, tmp_path / f"scratch-{n}")
        for n, rows in enumerate(days)
    ]
    take(settings, files[1], "second")
    with pytest.raises(SettingsError, match="files are imported in the order of their time"):
        take(settings, files[0], "first")
    take(settings, files[2], "third")
    assert sum(map(len, taught(settings).values())) == sum(row["effective_view"] for rows in days[1:] for row in rows)


def test_a_running_stream_is_left_alone(settings: Settings, tmp_path: Path) -> None:
    sender = Sender(settings.kafka)
    sender.events(*(exposure(f"r{user}", 1000, (1,), user=user) for user in (1, 2)))
    sender.close()
    file = opened(write(rows_of(seed=4, pages=3), tmp_path / "log.csv"), settings, tmp_path / "scratch")
    with Running(settings) as running:
        running.take(2)
        with pytest.raises(SettingsError, match=r"The stream runs on .*: stop it, import, and start it again"):
            take(settings, file)


def bad_rows() -> Iterator[tuple[str, Any, str]]:
    yield "user_id", None, "column user_id is empty; user_id is a whole number above 0."
    yield "user_id", 7.5, "column user_id is '7.5'; user_id is a whole number above 0."
    yield "user_id", 0, "column user_id is '0'; user_id is a whole number above 0."
    yield "item_id", 99, "column item_id is '99'; item_id is a whole number above 0, of an item in the catalogue."
    yield "time_ms", BEGIN_MS // 1000, "1650000000 is in 1970; are these seconds?"
    yield "time_ms", NOW_MS + 10**9, "when it was shown or began to play, in Unix milliseconds."
    yield "time_ms", BEGIN_MS + 20 * 3_600_000, "column time_ms is"  # too long after the page's first row
    yield "request_id", " ", "column request_id is ' '; request_id is text"
    yield "request_id", "x" * 1025, "request_id is text of at most 1,024 bytes"
    yield "effective_view", "perhaps", "column effective_view is 'perhaps'; effective_view is true or false."
    yield "effective_view", None, "column effective_view is empty; effective_view is true or false."
    yield "play_time_ms", -1, "column play_time_ms is '-1'; play_time_ms is whole milliseconds, 0 to a day."
    yield "follow", "x", "column follow is 'x'; follow is true or false."


@pytest.mark.parametrize(("field", "value", "said"), [*bad_rows()])
def test_what_is_wrong_with_a_row_is_said(tmp_path: Path, field: str, value: Any, said: str) -> None:
    rows: list[dict[str, Any]] = [
        {
            "user_id": 1, "item_id": item, "time_ms": BEGIN_MS, "request_id": "r",
            "effective_view": True, "play_time_ms": 5, "follow": False,
        }
        for item in (1, 2, 3)
    ]  # fmt: skip
    rows[1][field] = value
    path = tmp_path / "log.jsonl"
    file = opened(write(rows, path), settings_for(KafkaSettings(bootstrap_servers="h:1"), tmp_path), tmp_path / "s")
    assert (file.rows, file.bad) == (3, 1)
    (fault,) = file.faults()
    assert str(fault).startswith("row 2: column ")
    assert said in str(fault)


def test_where_a_file_has_texts_alone_a_missing_id_is_told_of_the_texts_column(tmp_path: Path) -> None:
    rows = [{"user_key": user, "item_id": 1, "time_ms": BEGIN_MS} for user in ("anna", "")]
    settings = settings_for(KafkaSettings(bootstrap_servers="h:1"), tmp_path)
    file = opened(write(rows, tmp_path / "log.csv"), settings, tmp_path / "s")
    (fault,) = file.faults()
    assert str(fault).startswith("row 2: column user_key is empty; user_key is text of at most 256 bytes")


def test_a_page_of_two_users_is_refused_whole(tmp_path: Path) -> None:
    rows = [{"user_id": user, "item_id": user, "time_ms": BEGIN_MS, "request_id": "r"} for user in (1, 2)]
    file = opened(
        write(rows, tmp_path / "log.parquet"),
        settings_for(KafkaSettings(bootstrap_servers="h:1"), tmp_path),
        tmp_path / "s",
    )
    assert [(fault.row, fault.column, fault.value) for fault in file.faults()] == [
        (1, "request_id", "'r'"), (2, "request_id", "'r'")
    ]  # fmt: skip


def test_positives_alone_need_three_columns_by_any_name(settings: Settings, tmp_path: Path) -> None:
    rows = [{"uid": 1, "vid": item, "at": BEGIN_MS + item} for item in (1, 2, 3)]
    file = opened(
        write(rows, tmp_path / "log.csv"), settings, tmp_path / "s", user_id="uid", item_id="vid", time_ms="at"
    )
    found = take(settings, file)
    assert (found.events, found.examples, found.users) == (6, 3, 1)
    examples = taught(settings)[1]
    assert [(each.item_id, list(each.history.item_ids)) for each in examples] == [(1, []), (2, [1]), (3, [1, 2])]


def test_a_missing_column_and_an_unreadable_file_are_one_sentence(tmp_path: Path) -> None:
    settings = settings_for(KafkaSettings(bootstrap_servers="h:1"), tmp_path)
    path = write([{"uid": 1}], tmp_path / "log.csv")
    with pytest.raises(HistoryError, match=r"has no column 'user_id', but 'uid'; --column user_id=NAME says"):
        opened(path, settings, tmp_path / "a")
    path.with_suffix(".parquet").write_bytes(b"no such thing")
    with pytest.raises(HistoryError, match=r"^Cannot read .*log.parquet: [^\n]+\.$"):
        opened(path.with_suffix(".parquet"), settings, tmp_path / "b")


def test_users_and_items_by_text(tmp_path: Path) -> None:
    """A text stands for its number; one that is none, or not that of the number beside it, is a fault."""
    rows = [
        {"user_key": user, "user_id": number, "item_key": item, "time_ms": BEGIN_MS}
        for user, number, item in [
            ("anna", None, "a film"), ("anna", id_of_text("anna"), "a film"),
            ("anna", 7, "a film"), ("x" * 257, None, "a film"), ("anna", None, "another"), ("", 7, "a film"),
        ]
    ]  # fmt: skip
    settings = settings_for(KafkaSettings(bootstrap_servers="h:1"), tmp_path)
    file = opened(write(rows, tmp_path / "log.jsonl"), settings, tmp_path / "s", known=[id_of_text("a film")])
    assert [(fault.row, fault.column) for fault in file.faults()] == [(3, "user_key"), (4, "user_key"), (5, "item_key")]
    events = [event for part in range(2) for event in file.events(part, 2, "f", skip=0)]
    users = {(event.user_id, event.item_id) for event in events if isinstance(event, Feedback)}
    assert users == {(id_of_text("anna"), id_of_text("a film")), (7, id_of_text("a film"))}


@pytest.mark.parametrize("name", ["*.csv", "day[1]?.csv", "it's.csv", "user_id=7/log.csv"])
def test_a_file_is_that_file_whatever_it_is_called(tmp_path: Path, name: str) -> None:
    """No pattern of several files, and no column of a folder's name."""
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    write([{"user_id": 1, "item_id": 2, "time_ms": BEGIN_MS}], path)
    write([{"user_id": 1, "item_id": 3, "time_ms": BEGIN_MS}], path.parent / "day1x.csv")
    file = opened(path, settings_for(KafkaSettings(bootstrap_servers="h:1"), tmp_path), tmp_path / "scratch")
    assert [(each.user_id, each.item_id) for each in file.events(1, 2, "f", skip=1) if isinstance(each, Feedback)] == [
        (1, 2)
    ]


def test_nothing_is_guessed_of_the_first_rows(tmp_path: Path) -> None:
    """Texts that look like times or comments stay as they are, and JSON may say something first in its last line."""
    settings = settings_for(KafkaSettings(bootstrap_servers="h:1"), tmp_path)
    row: dict[str, Any] = {"item_id": 1, "time_ms": BEGIN_MS}
    users = ["2022-05-05", "#anna", "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"]
    for suffix in (".jsonl", ".csv", ".parquet"):
        path = write([{"user_key": user} | row for user in users], tmp_path / f"texts{suffix}")
        file = opened(path, settings, tmp_path / f"scratch of {suffix}")
        assert file.faults() == []
        events = [event for part in range(2) for event in file.events(part, 2, "f", skip=0)]
        assert {event.user_id for event in events} == {id_of_text(user) for user in users}
    late = [{"user_id": 1} | row] * 21_000 + [{"user_id": 1, "follow": True} | row]
    file = opened(write(late, tmp_path / "late.jsonl"), settings, tmp_path / "late")
    assert (file.rows, file.bad) == (21_001, 0)
    followed = [event for event in file.events(1, 2, "f", skip=42_000) if isinstance(event, Feedback) and event.follow]
    assert len(followed) == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", r"log.csv has no header: its first line names the columns, separated by commas\.$"),
        ("user_id,USER_ID,item_id,time_ms\n1,1,1,1\n", r"log.csv has two columns called 'user_id'\.$"),
        ("user_id,item_id,time_ms\n1,2\n", r"log.csv: CSV Error on Line: 2; Expected Number of Columns: 3 Found: 2\.$"),
        ("user_id,item_id,time_ms\n1,\xe9,2\n", r"log.csv: it is not UTF-8 at byte 26\.$"),
        ("user_id;item_id;time_ms\n1;2;3\n", r"has no column 'user_id', but 'user_id;item_id;time_ms'"),
    ],
)  # fmt: skip
def test_what_is_no_csv_is_one_sentence(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(text.encode("latin-1"))
    settings = settings_for(KafkaSettings(bootstrap_servers="h:1"), tmp_path)
    with pytest.raises(HistoryError, match=said):
        opened(path, settings, tmp_path / "scratch")


def test_a_folder_and_no_file_are_one_sentence(tmp_path: Path) -> None:
    settings = settings_for(KafkaSettings(bootstrap_servers="h:1"), tmp_path)
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(HistoryError, match=r"folder\.csv is no file\.$"):
        opened(tmp_path / "folder.csv", settings, tmp_path / "a")
    with pytest.raises(HistoryError, match=r"^There is no file .*none\.csv\.$"):
        opened(tmp_path / "none.csv", settings, tmp_path / "b")
