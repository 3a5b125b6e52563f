"""`driftline experiment monitor`: looks, the page, the process."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from rich.console import Console

from abtest.collect.parts import Share
from abtest.collect.rules import Rules
from abtest.collect.state import CollectorState
from abtest.collect.store import Saved, save
from contracts.config.settings import Settings, dump
from contracts.runtime.clock import ManualClock
from driftline.errors import UsageError
from driftline.experiment import watch
from tests.abtest.abtest_cases import experiment, exposure, observe, week


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    given = {"kafka": {"bootstrap_servers": "127.0.0.1:1"}, "experiment": experiment()}
    places = {name: tmp_path / name for name in ("feature_repo", "snapshots", "state")}
    return Settings(**given, **places)


def collected(settings: Settings, *events) -> CollectorState:
    """What a collector would have saved after these events."""
    state = observe(CollectorState(Rules.of(settings)), *events)
    save(Saved(state), Share().path(settings))
    return state


def get(port: int, path: str = "/", **headers: str):
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
    return urllib.request.urlopen(request, timeout=10)  # noqa: S310 (http, as above)


def text(view: watch.View) -> str:
    console = Console(file=io.StringIO(), width=140)
    console.print(watch.rendered(view))
    return console.file.getvalue()


def test_nothing_saved_is_nothing_to_see(settings):
    looks = watch.Watch(settings, ManualClock(7), 5)
    assert looks.look() is None
    assert str(settings.state) in looks.waiting


def test_a_state_is_seen_once_and_again_when_it_is_a_new_one(settings):
    looks = watch.Watch(settings, ManualClock(7), 5)
    collected(settings, *week(users=20))
    first = looks.look()
    assert first.live.at_ms == 7
    assert sum(first.report.split.users.values()) == 20
    assert looks.look() is None
    collected(settings, *week(users=24))
    assert sum(looks.look().report.split.users.values()) == 24


def test_the_page_renews_itself_only_while_events_may_come(settings):
    looks = watch.Watch(settings, ManualClock(), 5)
    state = collected(settings, *week(users=20))
    assert looks.look().live.refresh_s == 5
    state.closed_ms = settings.experiment.end_ms
    save(Saved(state), Share().path(settings))
    assert looks.look().live.refresh_s is None


def test_a_damaged_state_is_one_sentence(settings):
    Share().path(settings).parent.mkdir(parents=True)
    Share().path(settings).write_bytes(b"x")
    with pytest.raises(UsageError, match="is damaged"):
        watch.Watch(settings, ManualClock(), 5).look()


def test_the_terminal_shows_verdict_checks_and_every_metric(settings):
    collected(settings, *week(users=60))
    shown = text(watch.Watch(settings, ManualClock(), 5).look())
    for said in ("Inconclusive: treatment", "day 3 of 7", "60 users", "Effective view rate", "hold at all moments"):
        assert said in shown


def test_an_ended_experiment_is_not_called_inconclusive(settings):
    last = exposure(999, at=settings.experiment.end_ms - 1000, request="last")
    collected(settings, *week(users=60, days=7), last)
    shown = text(watch.Watch(settings, ManualClock(), 5).look())
    assert "Ended: treatment. The experiment has ended at 1970-01-18 00:00 UTC;" in shown
    assert "Inconclusive" not in shown
    assert "run it with more users" not in shown
    assert "hold at all moments" in shown


def test_a_mismatch_is_shown_as_invalid_and_strikes_the_effects(settings):
    collected(settings, *[exposure(u, "treatment" if u < 90 else "control", request=str(u)) for u in range(1, 100)])
    view = watch.Watch(settings, ManualClock(), 5).look()
    console = Console(file=io.StringIO(), width=140, force_terminal=True, color_system="standard")
    console.print(watch.rendered(view))
    assert "Invalid: treatment" in console.file.getvalue()
    assert "better" not in console.file.getvalue()


def test_names_are_text_to_the_terminal_and_not_its_markup(settings):
    changed = settings.model_copy(update={"experiment": experiment(name="e", hypothesis="[red]x[/red]", owner="[/]")})
    collected(changed, *week(users=20))
    assert "Inconclusive" in text(watch.Watch(changed, ManualClock(), 5).look())


def test_one_page_is_served_on_loopback_and_nothing_else():
    with watch.served(0, b"one") as server:
        answer = get(server.server_port)
        assert (answer.read(), answer.headers["Cache-Control"]) == (b"one", "no-store")
        server.page = b"two"
        assert get(server.server_port, "/?x").read() == b"two"
        for path, host, code in (("/etc/passwd", "localhost", 404), ("/", "evil.example.org", 421)):
            with pytest.raises(urllib.error.HTTPError) as refused:
                get(server.server_port, path, Host=host)
            assert refused.value.code == code
            refused.value.close()
        assert server.server_address[0] == "127.0.0.1"


def test_a_port_that_is_taken_is_one_sentence():
    with watch.served(0, b"") as server:
        port = server.server_port
        with pytest.raises(UsageError, match=f"port {port} of 127"), watch.served(port, b""):
            pytest.fail("two servers on one port")


def test_watching_waits_shows_what_comes_and_ends_when_told(settings):
    """Through every step of a watch, each begun by what the one before it has shown."""
    stop, ports = threading.Event(), []
    console = Console(file=io.StringIO(), width=140)
    seen = []

    class Steps(threading.Event):
        def wait(self, timeout=None):
            page = get(ports[0]).read().decode()
            seen.append(page)
            if len(seen) == 1:
                collected(settings, *week(users=20))
            else:
                self.set()
            return self.is_set()

    stop = Steps()
    watch.run(settings, 0, 5, ManualClock(), stop, console, ports.append)
    assert "Nothing to see yet" in seen[0]
    assert "has saved nothing" in seen[0]
    assert "Verdict" in seen[1]
    assert "20 users" in console.file.getvalue()
    with pytest.raises(OSError, match="refused"):
        get(ports[0])


def test_the_process_ends_cleanly_on_ctrl_c(settings, tmp_path):
    collected(settings, *week(users=20))
    dump(settings, tmp_path / "s.yaml")
    ready = tmp_path / "ready"
    command = [sys.executable, "-m", "driftline", "experiment", "monitor", "-s", str(tmp_path / "s.yaml")]
    process = subprocess.Popen(
        [*command, "--every", "1", "--ready-file", str(ready)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"COLUMNS": "140"},
    )
    try:
        deadline = time.monotonic() + 60
        while not ready.exists() and process.poll() is None and time.monotonic() < deadline:
            threading.Event().wait(0.05)
        port = json.loads(ready.read_text())["port"]
        while "Verdict" not in (page := get(port).read().decode()) and time.monotonic() < deadline:
            threading.Event().wait(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert "Verdict" in page
    assert (process.returncode, err) == (0, "")
    assert f"http://127.0.0.1:{port}/" in out
    assert "20 users" in out
