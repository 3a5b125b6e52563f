"""`driftline experiment plan` and `aa`, on a state as the collector saves it."""

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from abtest.state import Rules, State
from abtest.store import Saved, path_of, save
from contracts.settings import load
from driftline.cli import app
from tests.abtest.abtest_cases import experiment, observe, week
from tests.contracts.test_settings import sound


def run(*arguments: object):
    return CliRunner().invoke(app, ["experiment", *map(str, arguments)])


def settings_with(folder: Path, events, **changes) -> Path:
    """Settings of an experiment whose collector has taken `events` in."""
    spec = experiment(**changes).model_dump(mode="json")
    path = folder / "s.yaml"
    path.write_text(yaml.safe_dump({**sound(), "state": str(folder / "state"), "experiment": spec}))
    loaded = load(path)
    save(Saved(observe(State(Rules.of(loaded)), *events)), path_of(loaded))
    return path


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    return settings_with(tmp_path, week(users=120))


def test_the_experiments_own_users_are_shuffled_and_keep_the_level(settings: Path) -> None:
    shown = run("aa", "-s", settings, "--replicates", 200)
    assert shown.exit_code == 0, shown.output
    assert "120 users, shuffled into two halves 200 times" in shown.stdout
    assert "not testable" in shown.stdout  # no recall was timed
    found = json.loads(run("aa", "-s", settings, "--replicates", 200, "--json").stdout)
    levels = {(level["metric"], level["by_cuped"]): level for level in found["levels"]}
    assert levels["evr", False]["trusted"]
    assert levels["evr", False]["low"] < 0.05 < levels["evr", False]["high"]
    assert found["trusted"]
    assert found["alpha"] == 0.05


def test_a_rate_that_is_off_ends_with_2(tmp_path: Path) -> None:
    """One user holds nearly all follows, so whichever half has it is ahead, and never significantly so."""
    events = week(users=40)
    for event in events:
        if hasattr(event, "follow"):
            event.follow = event.user_id == 7 or event.event_id == events[1].event_id
    shown = run("aa", "-s", settings_with(tmp_path, events), "--replicates", 400)
    assert shown.exit_code == 2, shown.output
    assert "follow_rate is significant too rarely" in shown.stdout


def test_nobody_to_shuffle_is_one_sentence(tmp_path: Path) -> None:
    shown = run("aa", "-s", settings_with(tmp_path, []))
    assert shown.exit_code != 0
    assert "0 users in an arm" in str(shown.exception)
