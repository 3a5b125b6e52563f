"""The default demo, whole: both arms go on learning all week with the gate on."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.proof
@pytest.mark.e2e
@pytest.mark.timeout(1800)
def test_each_arm_has_a_live_publication_in_each_half_day_and_is_never_stale(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "driftline", "demo", "--no-freshness", "--out", str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=1700, check=False)
    assert ended.returncode == 0, ended.stdout
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["freshness_worth"]["arms"] is None
    assert summary["freshness_worth"]["command"] in ended.stdout
    assert len(summary["arms"]) == 2
    for arm in summary["arms"].values():
        assert len(arm["live_by_half_day"]) == 14
        assert min(arm["live_by_half_day"]) >= 1, arm
        assert arm["stale_h"] == 0, arm
