"""`driftline check-event`, on events as strangers send them."""

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from contracts.config.settings import dump
from contracts.wire.events_pb2 import Item
from driftline.cli import app as cli
from tests.stream.step_cases import exposure, feedback, impression
from tests.stream.test_worker import bad_records
from tests.trainer.trainer_cases import small_settings

NOW_MS = 1_772_323_200_000

Command = Callable[..., SimpleNamespace]


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """`driftline check-event - …` of what is given to its standard input."""

    def run(content: bytes, topic: str = "feedback", *arguments: object) -> SimpleNamespace:
        words = ["driftline", "check-event", "-", "--topic", topic, "--received-ms", NOW_MS, *arguments]
        monkeypatch.setattr(sys, "argv", [*map(str, words)])
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(content)))
        with pytest.raises(SystemExit) as ended:
            cli.main()
        shown = capsys.readouterr()
        return SimpleNamespace(code=ended.value.code, out=shown.out.rstrip("\n"), err=shown.err)

    return run


def in_json(**changes: object) -> bytes:
    fields = {
        "schema_version": 1,
        "event_id": "e",
        "request_id": "r",
        "user_id": 7,
        "item_id": 3,
        "time_ms": NOW_MS,
        "play_time_ms": 0,
        "effective_view": False,
    }
    return json.dumps(fields | changes).encode()


def test_a_good_event_is_ok_in_either_form_and_told_where_it_belongs(check: Command) -> None:
    expected = "ok: user 7; its key is 7, and it belongs on partition 1 of 2"
    marked = [in_json().decode().encode(encoding) for encoding in ("utf-8-sig", "utf-16")]  # as Windows' editors write
    binary = feedback(time_ms=NOW_MS).SerializeToString()
    for value in (binary, in_json(), in_json(user_id="7", follow=None), *marked):
        ended = check(value)
        assert (ended.code, ended.out) == (0, expected)
    shown = check(exposure(time_ms=NOW_MS, user=9).SerializeToString(), "exposures", "--partitions", 8)
    assert shown.out == "ok: user 9; its key is 9, and it belongs on partition 1 of 8"
    item = check(Item(schema_version=1, item_id=5).SerializeToString(), "items")
    assert item.out == "ok: it says what is known of item 5; its key is 5, and items has one partition"
    assert check(b"", "items", "--null", "--key", 5).out.startswith("ok: it deletes item 5")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (
            in_json(time_ms=NOW_MS // 1000),
            "out_of_range: time_ms is in milliseconds, but 1772323200 is in 1970; are these",
        ),
        (in_json(time_ms=NOW_MS + 0.5), "undecodable: not the JSON form of driftline.v1.Feedback"),
        (in_json(effective_view=None), "missing_field: effective_view is missing"),
        (in_json(user=7), "undecodable: not the JSON form of driftline.v1.Feedback"),
        (b'{"user_id": 7', "undecodable: not the JSON form of driftline.v1.Feedback"),
        (b"", "undecodable: the record is empty"),
        (b"junk", "undecodable: not a Feedback"),
        (b"[" * 100_000, "undecodable: not a Feedback"),
        (b'{"user_id":' * 20_000, "undecodable: not the JSON form of driftline.v1.Feedback"),
    ],
)
def test_a_bad_event_has_its_reason_and_what_is_right(check: Command, value: bytes, said: str) -> None:
    ended = check(value)
    assert ended.code == 1
    assert ended.out.startswith(said)


def test_impressions_are_judged_and_told_from_outcomes(check: Command) -> None:
    outcome = {"item_id": None, "play_time_ms": None, "effective_view": None}
    where = "ok: user 7; its key is 7, and it belongs on partition 1 of 2"
    assert check(in_json(**outcome, shown_item_ids=[3, 4, 3])).out == f"{where}; an impression of 2 items"
    assert check(impression((3,), NOW_MS).SerializeToString()).out == f"{where}; an impression of 1 item"
    mixed = check(in_json(shown_item_ids=[3]))
    assert (mixed.code, mixed.out.split(":")[0]) == (1, "mixed")
    served = exposure(time_ms=NOW_MS, served_only=True).SerializeToString()
    assert check(served, "exposures").out == f"{where}; only what feedback tells of was shown"


def test_its_reasons_are_the_workers(check: Command) -> None:
    """These are the records that `tests/stream/test_worker.py` sends to a worker, with the reasons that it gives."""
    only_the_worker_knows = {"unknown_item"}
    for reason, value in bad_records().items():
        ended = check(value, "feedback", "--received-ms", 5_000_000)
        assert ended.out.startswith("ok:" if reason in only_the_worker_knows else f"{reason}: "), reason


def test_a_partition_that_is_not_the_users_is_wrong(check: Command) -> None:
    assert check(in_json(), "feedback", "--partition", 1).code == 0
    ended = check(in_json(), "feedback", "--partition", 0)
    assert ended.code == 1
    assert ended.out.startswith("wrong_partition: user 7 belongs on partition 1 (user_id mod 2), and this is on 0")
    none = check(in_json(), "feedback", "--partition", 2)
    assert (none.code, none.err) == (2, "driftline: --partition is 2; feedback has 2, which count from 0.\n")


def test_items_have_one_partition(check: Command) -> None:
    item = Item(schema_version=1, item_id=5).SerializeToString()
    assert check(item, "items", "--partition", 0, "--partitions", 1).code == 0
    ended = check(item, "items", "--partition", 1)
    assert (ended.code, ended.err) == (2, "driftline: --partition is 1; items has 1, which count from 0.\n")
    ended = check(item, "items", "--partitions", 2)
    assert (ended.code, ended.err) == (2, "driftline: --partitions is 2; items has one partition.\n")


def test_text_ids_are_judged_and_the_number_is_told(check: Command) -> None:
    by_text = in_json(user_id=None, user_key="anna", item_id=None, item_key="film/7")
    ended = check(by_text)
    assert (ended.code, ended.out) == (
        0,
        "ok: user 6149554607595376846 ('anna'); its key is 6149554607595376846, and it belongs on partition 0 of 2",
    )
    item = check(b'{"schema_version": 1, "item_key": "42"}', "items")
    assert item.out.startswith("ok: it says what is known of item 8306709966045482637 ('42'); its key is 83067")
    assert check(b'{"schema_version": 1, "item_key": "42"}', "items", "--key", 42).out.startswith("wrong_key: ")
    for value, said in (
        (in_json(user_key="anna"), "id_conflict: user_key is 'anna', whose number is 6149554607595376846, and not 7"),
        (in_json(item_key="x" * 257), "out_of_range: item_key has 257 bytes"),
        (in_json(user_id="anna"), "undecodable: not the JSON form of driftline.v1.Feedback"),
    ):
        ended = check(value)
        assert ended.code == 1
        assert ended.out.startswith(said)


def test_a_text_id_has_a_number_and_a_partition(tmp_path: Path) -> None:
    def run(*arguments: object) -> tuple[int, str, str]:
        command = [sys.executable, "-m", "driftline", "id", *map(str, arguments)]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout, done.stderr

    assert run("anna", "42") == (0, "6149554607595376846\tanna\n8306709966045482637\t42\n", "")
    path = tmp_path / "settings.yaml"
    dump(small_settings(tmp_path), path)
    assert run("anna", "42", "-s", path)[1] == "6149554607595376846\t0\tanna\n8306709966045482637\t1\t42\n"
    for text, why in (
        ("", "is empty"),
        ("a" * 257, "has 257 bytes; 256 are allowed"),
        ("a\nb", "has a control character"),
    ):
        assert run(text) == (2, "", f"driftline: The text id {text[:40]!a} {why}.\n")


def test_a_closed_standard_input_is_a_sentence() -> None:
    program = 'exec "$0" -m driftline check-event - --topic items <&-'
    done = subprocess.run(
        ["sh", "-c", program, sys.executable], check=False, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (2, "driftline: Cannot read standard input: it is closed.\n")


def test_it_needs_no_more_than_the_base_install(tmp_path: Path) -> None:
    path = tmp_path / "event.json"
    path.write_bytes(in_json())
    program = (
        "import sys; sys.modules |= dict.fromkeys(['kafka', 'numpy', 'structlog', 'prometheus_client', 'torch']);"
        f"sys.argv = ['driftline', 'check-event', {str(path)!r}, '--topic', 'feedback'];"
        "from driftline.cli.app import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("ok: user 7")
