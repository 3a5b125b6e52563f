"""A report's context: snapshots are marked when they went live."""

from pathlib import Path

from abtest.collect.rules import Rules
from abtest.collect.state import CollectorState
from contracts.config.settings import Settings
from contracts.snapshots import snapshot
from contracts.snapshots.snapshot import Manifest
from driftline.experiment.context import known_context
from tests.abtest.abtest_cases import START, experiment, exposure, observe


def test_a_snapshot_is_marked_at_its_first_answer_and_else_at_its_newest_event(tmp_path: Path) -> None:
    given = {"kafka": {"bootstrap_servers": "127.0.0.1:1"}, "experiment": experiment()}
    settings = Settings(**given, **{name: tmp_path / name for name in ("feature_repo", "snapshots", "state")})
    for number in (1, 2):
        version = snapshot.version_name(number)
        manifest = Manifest("t2diff", version, 4, 4, 0, (), 9, {}, {}, START + number, {})
        snapshot.seal(settings.snapshots, manifest, {})
    answered = exposure(1, "treatment", START + 7000, snapshot_version=snapshot.version_name(2))
    marks = known_context(settings, observe(CollectorState(Rules.of(settings)), answered)).marks
    assert [mark.at_ms for mark in marks if mark.arm == "treatment"] == [START + 1, START + 7000]
