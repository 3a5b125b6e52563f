"""The whole system, as real processes, on a small world."""

import json
import signal
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest

from contracts.runtime.clock import SystemClock
from driftline.demo.summary import unaccounted

DAYS = 2
SMALL = ["--days", str(DAYS), "--warmup-days", "1", "--users", "80", "--items", "300"]
START_TIMEOUT_S = 150.0

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]


def demo(out: Path, broker: str) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-m",
        "driftline",
        "demo",
        *SMALL,
        "--out",
        str(out),
        "--broker",
        broker,
        "--no-freshness",
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.fixture(scope="module", params=["embedded", "apache"])
def broker(request: pytest.FixtureRequest) -> str:
    """What `--broker` is given, for each of the two."""
    return "embedded" if request.param == "embedded" else request.getfixturevalue("apache_server").address


@pytest.fixture(scope="module")
def finished(broker: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], str]:
    """Where a run that ended well wrote to, its summary, and what it printed."""
    out = tmp_path_factory.mktemp("demo")
    process = demo(out, broker)
    printed, _ = process.communicate(timeout=300)
    assert process.returncode == 0, printed
    return out, json.loads((out / "summary.json").read_text()), printed


def test_every_event_is_accounted_for(finished: tuple[Path, dict[str, Any], str]) -> None:
    _, summary, _ = finished
    assert summary["events_in"] > 1000
    assert unaccounted(summary) == 0
    assert summary["held"] == 0
    for topic in summary["events_by_topic"].values():
        assert topic["in"] == sum(count for name, count in topic.items() if name != "in")
    assert summary["examples"] == summary["example_sources"] > 0


def test_bad_rows_of_the_log_are_dead_lettered_with_their_reasons(
    finished: tuple[Path, dict[str, Any], str],
) -> None:
    out, summary, _ = finished
    reasons = summary["dead_letter_reasons"]
    assert set(reasons) == {"future_timestamp", "missing_field", "out_of_range", "unknown_item"}
    letters = [json.loads(line) for line in (out / "run" / "deadletters.jsonl").read_text().splitlines()]
    assert Counter(letter["reason"] for letter in letters) == reasons
    assert all(letter["value"] and letter["detail"] for letter in letters)
    assert finished[1]["duplicates_dropped"] > 0


def test_no_recall_failed_and_no_reply_mixed_versions(finished: tuple[Path, dict[str, Any], str]) -> None:
    _, summary, _ = finished
    assert summary["recalls"] > 100
    assert (summary["recalls_failed"], summary["mixed_version_replies"], summary["exposures_lost"]) == (0, 0, 0)
    assert summary["events_by_topic"]["exposures"]["in"] > summary["recalls"]


def test_every_arm_has_snapshots_that_go_live_and_both_replicas_swap(
    finished: tuple[Path, dict[str, Any], str],
) -> None:
    _, summary, _ = finished
    for arm in summary["arms"].values():
        assert arm["made"] >= 5 * (1 + DAYS)  # of six a day, the last of which is late
        assert len(arm["live_by_half_day"]) == 2 * DAYS
        assert arm["live"] >= sum(arm["live_by_half_day"]) >= DAYS  # so few users need half a day for a trial
        assert arm["promoted"] <= arm["live"]
        assert arm["live"] + arm["rolled_back"] + arm["held"] <= arm["made"]
        assert 0 < arm["longest_without_live_h"] < 24 * DAYS
    assert len(summary["swaps"]) == 2
    for swaps in summary["swaps"].values():
        assert set(swaps) == {"t2diff", "two_tower"}
        assert min(swaps.values()) > DAYS
    for answered in summary["snapshots_that_answered"].values():
        assert answered > DAYS


def test_where_freshness_is_not_measured_the_command_that_does_it_is_said(
    finished: tuple[Path, dict[str, Any], str],
) -> None:
    out, summary, printed = finished
    assert summary["freshness_worth"]["arms"] is None
    assert f"--settings {out}/run/settings.yaml" in summary["freshness_worth"]["command"]
    assert printed.rstrip().endswith(summary["freshness_worth"]["command"])


def test_each_arm_learned_from_its_own_users_and_the_warm_up(
    finished: tuple[Path, dict[str, Any], str],
) -> None:
    learned = finished[1]["learned_from"]
    assert set(learned["t2diff"]) == {"", "treatment"}
    assert set(learned["two_tower"]) == {"", "control"}


def test_the_numbers_are_there(finished: tuple[Path, dict[str, Any], str]) -> None:
    _, summary, printed = finished
    for freshness in summary["freshness_s"].values():
        assert 0 < freshness["p50"] <= freshness["p99"]
    for latency in summary["recall_latency_ms"].values():
        assert 0 < latency["p50"] <= latency["p99"]
    for recall in summary["progressive_recall"].values():
        assert 0 < recall["recall@20"] <= recall["recall@100"] <= 1
    names = {"evr", "follow_rate", "play_duration", "app_usage", "recalls", "latency", "play_p90"}
    assert set(summary["metrics"]) == names
    evr = summary["metrics"]["evr"]["treatment"]
    assert 0 < evr["control"] < 1
    assert evr["ci_low"] < evr["relative"] < evr["ci_high"]
    assert "recalls/s" in printed
    assert "mixed versions 0" in printed


def test_the_report_says_that_it_is_simulated(finished: tuple[Path, dict[str, Any], str]) -> None:
    out, summary, _ = finished
    page = (out / "report.html").read_text()
    assert "simulated" in page.lower()
    report = json.loads((out / "report.json").read_text())
    assert report["simulated"] is True
    assert len(report["days"]) == DAYS
    assert sum(summary["users_per_arm"].values()) <= 80


@pytest.mark.parametrize("broker", ["embedded", pytest.param("apache", marks=pytest.mark.proof)], indirect=True)
def test_ctrl_c_leaves_no_process_and_no_port(tmp_path: Path, broker: str) -> None:
    clock = SystemClock()
    process = demo(tmp_path, broker)
    ready = tmp_path / "run" / "logs" / "replica-2.ready.json"
    deadline = clock.elapsed_s() + START_TIMEOUT_S
    while not ready.exists():
        assert process.poll() is None
        assert clock.elapsed_s() < deadline
    port = json.loads(ready.read_text())["port"]
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= (6 if broker == "embedded" else 5)
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in printed
    assert "Traceback" not in printed
    assert not any(child.is_running() for child in children)
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), timeout=1):
        pass
