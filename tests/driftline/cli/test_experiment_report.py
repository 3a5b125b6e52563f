"""`driftline experiment report`, `diff` and `monitor --once`: files, words and exit codes."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from abtest.collect.parts import Share
from abtest.collect.rules import Rules
from abtest.collect.state import CollectorState
from abtest.collect.store import Saved, save
from contracts.config.experiment import METRICS, Winsorize
from contracts.config.settings import Settings, dump
from contracts.runtime.clock import MINUTE_MS
from driftline.cli.app import app
from driftline.errors import UsageError
from tests.abtest.abtest_cases import START, experiment, exposure, feedback, observe, week

MISMATCH = [exposure(user, "treatment" if user < 90 else "control", request=str(user)) for user in range(1, 100)]


def run(*arguments: object):
    return CliRunner().invoke(app, ["experiment", *map(str, arguments)])


@pytest.fixture
def saved(tmp_path: Path):
    """Saves events as a collector would, and gives the settings file."""

    def make(*events, **changes) -> Path:
        given = {"kafka": {"bootstrap_servers": "127.0.0.1:1"}, "experiment": experiment(**changes)}
        settings = Settings(**given, **{name: tmp_path / name for name in ("feature_repo", "snapshots", "state")})
        if events:
            save(Saved(observe(CollectorState(Rules.of(settings)), *events)), Share().path(settings))
        dump(settings, tmp_path / "s.yaml")
        return tmp_path / "s.yaml"

    return make


def worse_guardrail(users: int = 400):
    """A day on which the treatment's users play half as long."""
    events = []
    for user in range(1, users + 1):
        arm = "treatment" if user % 2 else "control"
        at, request = START + user * 1000, f"r{user}"
        events.append(exposure(user, arm, at, request))
        play = (10_000 + user % 7 * 100) // (2 if user % 2 else 1)
        events += [feedback(user, at + MINUTE_MS, request, item, play, (user + item) % 3 > 0) for item in (1, 2)]
    return events


def test_a_sound_report_ends_with_0_and_says_where_and_what(saved, tmp_path):
    settings = saved(*week(users=60, days=7))
    shown = run("report", "-s", settings, "--out", tmp_path / "out")
    assert shown.exit_code == 0, shown.output
    assert "report.html, report.json, report.md" in shown.stdout
    assert ": treatment." in shown.stdout
    assert "1 warning: The last day. Weigh what" in shown.stdout
    found = json.loads((tmp_path / "out" / "report.json").read_text())
    assert found["context"]["command"] == f"driftline experiment report -s {settings} --out {tmp_path / 'out'}"
    assert len(found["data_hash"]) == 64


def test_invalid_data_end_with_2_and_are_written_all_the_same(saved, tmp_path):
    shown = run("report", "-s", saved(*MISMATCH), "--out", tmp_path / "out")
    assert shown.exit_code == 2
    assert "Invalid: treatment." in shown.stdout
    assert (tmp_path / "out" / "report.html").exists()


def test_a_broken_guardrail_ends_with_3(saved, tmp_path):
    settings = saved(*worse_guardrail(), days=1, metrics=METRICS[:3])
    shown = run("report", "-s", settings, "--out", tmp_path / "out")
    assert shown.exit_code == 3, shown.output
    assert "Play duration fell by more than the plan allows" in shown.stdout
    assert run("monitor", "-s", settings, "--once").exit_code == 3


@pytest.mark.parametrize("command", ["report", "monitor"])
def test_help_says_what_the_exit_codes_mean(command):
    said = " ".join(run(command, "--help").stdout.split())
    assert "0 all is well, 2 the data are invalid" in said
    assert "3 a guardrail is broken" in said


@pytest.mark.parametrize("arguments", [["report"], ["monitor", "--once"]])
def test_a_collector_that_saved_nothing_is_one_sentence(saved, tmp_path, arguments):
    shown = run(*arguments, "-s", saved())
    assert isinstance(shown.exception, UsageError)
    assert str(shown.exception) == f"The collector has saved nothing in {tmp_path / 'state'} yet."


def test_a_cap_is_said_in_the_terminal_in_every_file_and_is_no_change_of_the_plan(saved, tmp_path):
    capped = tuple(
        metric.model_copy(update={"winsorize": Winsorize(quantile=0.9)}) if metric.name == "play_duration" else metric
        for metric in METRICS
    )
    for name, users in (("a", 40), ("b", 60)):
        shown = run("report", "-s", saved(*week(users=users, days=7), metrics=capped), "--out", tmp_path / name)
        said = f"the 90 % quantile of all {users} users, all arms together; above it, and counted as that: "
        assert shown.exit_code == 0, shown.output
        assert said in shown.stdout
        for file in ("report.html", "report.md"):
            assert said in (tmp_path / name / file).read_text()
        (cap,) = json.loads((tmp_path / name / "report.json").read_text())["winsorized"]
        assert (cap["metric"], cap["of"], cap["quantile"], cap["among"]) == ("play_duration", "pooled", 0.9, users)
    found = json.loads(run("diff", tmp_path / "a/report.json", tmp_path / "b/report.json", "--json").stdout)
    assert not [change for change in found["changes"] if change["kind"] == "plan"]
    assert [change for change in found["changes"] if change["name"] == "Cap of Play duration"]


def test_once_looks_once(saved):
    shown = run("monitor", "-s", saved(*week(users=60, days=3)), "--once")
    assert shown.exit_code == 0, shown.output
    assert "day 3 of 7" in shown.stdout
    assert run("monitor", "-s", saved(*MISMATCH), "--once").exit_code == 2


def test_diff_names_what_changed_as_a_table_and_as_json(saved, tmp_path):
    for name, users in (("a", 40), ("b", 60)):
        run("report", "-s", saved(*week(users=users, days=7)), "--out", tmp_path / name)
    files = tmp_path / "a" / "report.json", tmp_path / "b" / "report.json"
    shown = run("diff", *files)
    assert shown.exit_code == 0, shown.output
    assert "They are of different data." in shown.stdout
    assert ["users", "control", "20", "30"] in [line.split() for line in shown.stdout.splitlines()]
    assert "primary; less is worse" in " ".join(shown.stdout.split())
    found = json.loads(run("diff", *files, "--json").stdout)
    assert found["same_data"] is False
    assert {"kind": "users", "name": "control", "before": "20", "after": "30", "note": "", "judged": ""} in found[
        "changes"
    ]
    assert run("diff", files[0], files[0]).stdout == "Nothing changed. Both are of the same data.\n"


def test_diff_of_what_is_no_report_is_one_sentence(tmp_path):
    (tmp_path / "x.json").write_text("{}")
    shown = run("diff", tmp_path / "x.json", tmp_path / "x.json")
    assert str(shown.exception) == f"{tmp_path / 'x.json'} is not a report: it has no schema_version."
