"""`driftline experiment validate` and `assign`: what they print, and what they end with."""

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from abtest.assignment.assign import assign
from contracts.config.experiment import load_experiment
from contracts.messages.ids import id_of_text
from driftline.cli.app import app
from tests.contracts.config.test_experiment import WRITTEN
from tests.contracts.config.test_settings import sound

DURING = "2026-03-03T12:00:00+08:00"


def run(*arguments: object):
    return CliRunner().invoke(app, ["experiment", *map(str, arguments)])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "e.yaml").write_text(WRITTEN)
    return tmp_path / "e.yaml"


def test_sound_experiments_are_shown_and_end_with_0(file: Path) -> None:
    other = yaml.safe_load(WRITTEN) | {"name": "x", "salt": "x", "slots": [0.5, 1], "overrides": {}}
    (file.parent / "other.yaml").write_text(yaml.safe_dump(other))
    shown = run("validate", file.parent)
    assert shown.exit_code == 0, shown.stderr
    assert "t2diff-against-two-tower" in shown.stdout
    assert "0.5 to 1" in shown.stdout


def test_every_error_is_shown_and_ends_with_2(file: Path) -> None:
    (file.parent / "twin.yaml").write_text(WRITTEN)
    (file.parent / "wrong.yaml").write_text("name: x")
    shown = run("validate", file, file.parent / "twin.yaml", file.parent / "wrong.yaml")
    assert shown.exit_code == 2
    lines = shown.stderr.splitlines()
    assert all(line.startswith("driftline: ") for line in lines)
    fields = ("name", "slots", "salt", "overrides")
    assert "wrong.yaml: " in lines[0]
    assert [line.split("twin.yaml: ")[1].split(":")[0] for line in lines[1:]] == list(fields)


def test_assign_says_arm_and_why_from_the_experiment_or_from_the_settings(file: Path) -> None:
    settings = file.parent / "s.yaml"
    settings.write_text(yaml.safe_dump({**sound(), "experiment": str(file)}))
    users = range(60)
    at_ms = load_experiment(file).start_ms + 60 * 60 * 60_000
    expected = [(str(u), *assign(load_experiment(file), u, at_ms)) for u in users]
    assert {why for _, _, why in expected} == {"assigned", "override", "outside slots", "holdout"}
    for source in (file, settings):
        for time in (DURING, at_ms):
            shown = run("assign", "-s", source, "--at", time, *users)
            assert shown.exit_code == 0, shown.stderr
            wanted = [f"{user}\t{arm or '-'}\t{why}" for user, arm, why in expected]
            assert shown.stdout.splitlines() == wanted


def test_assign_takes_text_ids_whose_numbers_say_the_arm(file: Path) -> None:
    number = id_of_text("anna")
    by_number, by_text = run("assign", "-s", file, number), run("assign", "-s", file, 17, "--user-key", "anna")
    assert by_text.stdout == f"17\ttreatment\toverride\n{by_number.stdout.replace(str(number), 'anna')}"
    nobody, wrong = run("assign", "-s", file), run("assign", "-s", file, 17, "--user-key", "")
    assert (nobody.stdout, str(nobody.exception)) == ("", "Say whose arm: USER_IDS, or --user-key TEXT.")
    assert (wrong.stdout, str(wrong.exception)) == ("", "The text id '' is empty.")


def test_without_a_time_assign_answers_for_a_moment_of_the_experiment(file: Path) -> None:
    assert run("assign", "-s", file, 17).stdout == "17\ttreatment\toverride\n"


@pytest.mark.parametrize("user_id", [2**63, -(2**63) - 1])
def test_a_user_id_beyond_64_bits_is_one_sentence_and_nobody_is_shown(file: Path, user_id: int) -> None:
    shown = run("assign", "-s", file, "--", 17, user_id)
    assert shown.stdout == ""
    assert str(shown.exception) == (f"User id {user_id} is not a signed 64-bit integer (from -2^63 up to 2^63 - 1).")


def test_a_time_that_is_none_is_one_sentence(file: Path) -> None:
    shown = run("assign", "-s", file, "--at", "noon", 17)
    assert str(shown.exception) == "--at 'noon' is not a time with a zone, such as 2026-03-01T00:00:00+08:00."
