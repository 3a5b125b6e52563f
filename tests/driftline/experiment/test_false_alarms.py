"""What `aa` has measured of the verdict is shown by reports on the same experiment, and by no other."""

from pathlib import Path

import pytest

from abtest.analyse.context import FalseAlarms
from contracts.config.experiment import AnalysisPlan
from contracts.config.settings import Settings
from driftline.experiment.false_alarms import known_false_alarms, save_false_alarms
from tests.abtest.abtest_cases import experiment

ALARMS = FalseAlarms(200, 0.02, (0.01, 0.05), 0.05, (0.02, 0.1), 0.0, (0.0, 0.03), users=1000)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    given = {"kafka": {"bootstrap_servers": "127.0.0.1:1"}, "experiment": experiment()}
    return Settings(**given, **dict.fromkeys(("feature_repo", "snapshots", "state"), tmp_path))


def test_they_are_known_once_they_are_saved(settings: Settings) -> None:
    assert known_false_alarms(settings, 1000) is None
    save_false_alarms(ALARMS, settings)
    assert known_false_alarms(settings, 1000) == ALARMS


@pytest.mark.parametrize(("users", "known"), [(499, False), (500, True), (2000, True), (2001, False), (0, False)])
def test_those_of_far_fewer_or_far_more_users_are_not(settings: Settings, users: int, known: bool) -> None:
    save_false_alarms(ALARMS, settings)
    assert (known_false_alarms(settings, users) == ALARMS) is known


def test_those_of_another_plan_are_not(settings: Settings) -> None:
    save_false_alarms(ALARMS, settings)
    other = settings.experiment.model_copy(update={"analysis": AnalysisPlan(alpha=0.01)})
    assert known_false_alarms(settings.model_copy(update={"experiment": other}), 1000) is None


def test_a_damaged_file_is_as_none(settings: Settings) -> None:
    save_false_alarms(ALARMS, settings)
    (settings.state / "abtest-aa.json").write_text("{")
    assert known_false_alarms(settings, 1000) is None
