"""A whole week that runs itself, on rows that come in day by day and on what a collector saves."""

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from abtest.analyse.results import Report
from abtest.collect.parts import Share
from abtest.collect.rules import Rules
from abtest.collect.state import CollectorState
from abtest.collect.store import Saved, save
from contracts.config.experiment import AnalysisPlan, Experiment, MetricPlan
from contracts.config.settings import KafkaSettings, Settings, dump
from contracts.runtime.clock import DAY_MS, HOUR_MS, ManualClock, SystemClock
from driftline.errors import UsageError
from driftline.experiment.week import runner as week
from driftline.experiment.week.book import Book, read
from driftline.experiment.week.runner import Runner
from driftline.experiment.week.sources import Collected, Rows
from driftline.processes.process import wait_until
from tests.abtest.abtest_cases import START, experiment, observe
from tests.abtest.abtest_cases import week as events

LATE_MS = 2 * HOUR_MS
PLAY = MetricPlan(name="play", kind="mean", columns=("play_s",), role="primary")
SLEEP = MetricPlan(name="sleep", kind="mean", columns=("sleep_s",), role="guardrail")


class Warehouse:
    """Rows of users and days that come in as days go by, those of the day that goes on too."""

    def __init__(self, root: Path, of: Experiment, *, gain: float = 0.0, loss: float = 0.0, users: int = 400) -> None:
        self.file = root / "days.parquet"
        random = np.random.default_rng(3)
        day, user = np.divmod(np.arange(of.days * users), users)
        treated = user % 2 == 1
        play = random.exponential(60.0, len(user)) * np.where(treated, 1 + gain, 1.0)
        sleep = random.exponential(60.0, len(user)) * np.where(treated, 1 - loss, 1.0)
        arm = np.where(treated, "treatment", "control")
        self._rows = pd.DataFrame({"user_id": user, "arm": arm, "day": day, "play_s": play, "sleep_s": sleep})
        self.source = Rows(of, str(self.file))

    def at(self, days: float) -> None:
        """So many days are over; of the next one there are some users' rows, who differ from others."""
        whole, part = divmod(days, 1)
        now = self._rows[(self._rows.day < whole) | ((self._rows.day == whole) & (self._rows.user_id < 400 * part))]
        now.to_parquet(self.file, index=False)


class Rig:
    """A runner on a warehouse, whose clock the test moves."""

    def __init__(self, root: Path, of: Experiment, stop: Callable[[str], None] | None = None, **rows: float) -> None:
        self.of, self.home, self.clock = of, root / "reports", ManualClock(of.start_ms - 1)
        self.warehouse = Warehouse(root, of, **rows)  # type: ignore[arg-type]
        self.stop = stop
        self.restart()

    def restart(self) -> None:
        self.book = Book(self.home, self.of.name, self.of.hash)
        self.runner = Runner(self.warehouse.source, self.home, self.book, self.clock, LATE_MS, (), self.stop)

    def at(self, days: float) -> None:
        """A step so many days after the start and the wait for late rows."""
        self.warehouse.at(days)
        self.clock.at_ms = START + int(days * DAY_MS) + LATE_MS
        self.runner.step()

    def report(self, folder: str = "latest") -> dict[str, object]:
        found: dict[str, object] = json.loads((self.home / folder / "report.json").read_text())
        return found


@pytest.fixture(autouse=True)
def _home(tmp_path: Path) -> None:
    (tmp_path / "reports").mkdir()


def of(days: int = 7, **changes: object) -> Experiment:
    return experiment(days=days, metrics=(PLAY, SLEEP), **changes)


def test_a_week_gives_a_report_a_day_and_a_verdict_at_the_end(tmp_path: Path) -> None:
    rig = Rig(tmp_path, of(), gain=0.5)
    for day in range(1, 8):
        rig.at(day)
    assert rig.book.page.done == tuple(f"day-{day:02d}" for day in range(1, 8))
    assert [each["decision"] for each in rig.report("day-06")["verdicts"]] == ["inconclusive"]  # type: ignore[attr-defined]
    assert [each["decision"] for each in rig.report()["verdicts"]] == ["ship"]  # type: ignore[attr-defined]
    assert rig.book.page.said == (("treatment", "ship"),)
    assert rig.runner.ended


def test_a_sequential_plan_looks_at_whole_days_alone_at_its_looks_alone(tmp_path: Path) -> None:
    rig = Rig(tmp_path, of(analysis=AnalysisPlan(kind="group-sequential", looks=(2, 4, 7))))
    for day in (1.25, 2.75, 3, 3.75, 4.25):
        rig.at(day)
    looks = {
        folder: [look["day"] for look in rig.report(folder)["courses"][0]["looks"]]  # type: ignore[index]
        for folder in ("day-01", "day-02", "day-03", "day-04")
    }
    assert looks == {"day-01": [], "day-02": [1], "day-03": [1], "day-04": [1, 3]}


def test_what_was_missed_is_made_up_for_once_and_a_restart_does_nothing_twice(tmp_path: Path) -> None:
    rig = Rig(tmp_path, of())
    rig.at(1)
    rig.restart()
    rig.at(4.5)
    rig.restart()
    rig.at(4.6)
    assert rig.book.page.done == ("day-01", "day-02", "day-03", "day-04")
    assert sorted(each.name for each in rig.home.glob("day-*")) == ["day-01", "day-04"]
    told = [key for key in rig.book.page.told if key.startswith("day")]
    assert told == ["day-01", "day-04"]


def test_a_broken_guardrail_sounds_an_alarm_once_and_nothing_does_where_nothing_is_wrong(tmp_path: Path) -> None:
    rig = Rig(tmp_path, of(), loss=0.9)
    for half in range(5):
        rig.at(half / 2)
    assert [key for key in rig.book.page.told if key.startswith("alarm")] == ["alarm-treatment-sleep"]
    (tmp_path / "calm" / "reports").mkdir(parents=True)
    calm = Rig(tmp_path / "calm", of())
    for half in range(5):
        calm.at(half / 2)
    assert not [key for key in calm.book.page.told if key.startswith("alarm")]


def test_rows_that_cannot_be_had_are_said_once_and_the_report_comes_when_they_can(tmp_path: Path) -> None:
    rig = Rig(tmp_path, of())
    rig.clock.at_ms = START + DAY_MS + LATE_MS
    rig.runner.step()
    rig.runner.step()
    assert rig.book.page.told == ("failure-day-01",)
    assert rig.book.page.done == ()
    rig.at(1)
    assert rig.book.page.done == ("day-01",)


def test_it_stops_the_experiment_when_the_plan_has_decided(tmp_path: Path) -> None:
    why: list[str] = []
    plan = AnalysisPlan(kind="group-sequential", looks=(2, 4, 7))
    rig = Rig(tmp_path, of(analysis=plan), why.append, gain=1.0)
    for day in (1, 2, 3):
        rig.at(day)
    assert why == ["Its plan has decided. treatment: ship."]
    assert "stop" in rig.book.page.told


def test_without_a_look_nothing_is_decided(tmp_path: Path) -> None:
    why: list[str] = []
    rig = Rig(tmp_path, of(), why.append, gain=1.0)
    for day in range(1, 8):
        rig.at(day)
    assert why == []


def test_a_second_one_says_so_and_ends(tmp_path: Path) -> None:
    source, out = Warehouse(tmp_path, of()).source, tmp_path / "reports"

    def run(stopped: threading.Event, announce: Callable[[], None]) -> None:
        week.run(source, out, {}, ManualClock(), stopped, announce, every_s=1, close_after_ms=0)

    stopped = threading.Event()

    def second() -> None:
        with pytest.raises(UsageError, match=r"Another `driftline experiment run` runs e in"):
            run(threading.Event(), lambda: None)
        stopped.set()

    run(stopped, second)
    run(stopped, lambda: None)  # the first has let go of it


@pytest.mark.e2e
def test_on_what_a_collector_saves_it_reports_and_alarms(tmp_path: Path, embedded: KafkaSettings) -> None:
    places = {name: tmp_path / name for name in ("feature_repo", "snapshots", "state")}
    settings = Settings(kafka=embedded, experiment=experiment(), **places)
    source = Collected(settings)
    assert source.live(0) is None
    state = observe(CollectorState(Rules.of(settings)), *events(users=20))
    save(Saved(state), Share().path(settings))
    seen = source.live(0)
    assert isinstance(seen, Report)
    assert source.live(0) is None, "nothing new"
    assert source.experiment() == settings.experiment
    home = tmp_path / "reports"
    book, clock = Book(home, "e", settings.experiment.hash), ManualClock(START + DAY_MS)
    Runner(source, home, book, clock, 0, ()).step()
    assert book.page.done == ("day-01",)
    assert (home / "day-01" / "report.html").stat().st_size > 10_000


def test_the_command_runs_a_week_that_is_over_to_its_end_and_lists_it(tmp_path: Path) -> None:
    Warehouse(tmp_path, of(days=2)).at(2)
    models = (("control", "two_tower"), ("treatment", "t2diff"))
    file = {
        "name": "e", "salt": "s", "start": "1970-01-11T00:00:00Z", "end": "1970-01-13T00:00:00Z", "control": "control",
        "arms": {name: {"weight": 1, "model": model} for name, model in models},
        "metrics": [{"name": "play", "kind": "mean", "columns": ["play_s"], "role": "primary"}],
    }  # fmt: skip
    (tmp_path / "e.yaml").write_text(yaml.safe_dump(file))
    command = [sys.executable, "-m", "driftline", "experiment"]
    given = ["run", "-s", "e.yaml", "--data", "days.parquet", "--out", "reports", "--every", "1"]
    done = subprocess.run([*command, *given], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "reports" / "e" / "latest" / "report.html").is_file()
    page = read(tmp_path / "reports" / "e")
    assert page is not None
    assert page.ended
    listed = subprocess.run([*command, "list", "reports"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "treatment: inconclusive" in listed.stdout
    assert "ended" in listed.stdout


def test_a_signal_ends_it_and_it_goes_on_later(tmp_path: Path, embedded: KafkaSettings) -> None:
    places = {name: tmp_path / name for name in ("feature_repo", "snapshots", "state")}
    dump(
        Settings(kafka=embedded, experiment=experiment(start_ms=2**41, end_ms=2**41 + DAY_MS), **places), tmp_path / "s"
    )
    ready = tmp_path / "ready.json"
    command = [sys.executable, "-m", "driftline", "experiment", "run", "-s", "s", "--ready-file", str(ready)]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        late = AssertionError("it did not come to run")
        wait_until(ready.exists, lambda: None, lambda: late, timeout_s=60, clock=SystemClock())
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    page = read(tmp_path / "reports" / "e")
    assert page is not None
    assert page.next == "day-01"
