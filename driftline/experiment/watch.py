"""Watching an experiment: what the collector has saved, again and again, in the terminal and as a page on loopback."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live as Screen
from rich.table import Table
from rich.text import Text

from abtest import format as fmt
from abtest.analyse.context import ReportContext
from abtest.analyse.interim import decided_elsewhere, ended, live_report
from abtest.analyse.results import Report
from abtest.collect.parts import load_state, saved_parts
from abtest.report.html import Live, html
from abtest.report.wording import ENDED, LEVELS, SIDES, by_plan, checks_summary, headed, line, side, to_do
from contracts.config.settings import Settings
from contracts.runtime.clock import Clock
from contracts.runtime.durable import StateError
from driftline.errors import UsageError
from driftline.experiment.context import known_context
from driftline.tables import LEAST_WIDTH

HOST = "127.0.0.1"
NAMES = (HOST, "localhost")
COLOURS = {"ship": "green", "hold": "red", "invalid": "red", "inconclusive": "yellow"}
SIDE_COLOURS = {"better": "green", "worse": "red", "unclear": "default"}


@dataclass(frozen=True)
class View:
    """What was seen at one look."""

    report: Report
    context: ReportContext
    live: Live


class Watch:
    """Looks at the collector's saved state; makes a report where it is a new one."""

    def __init__(self, settings: Settings, clock: Clock, every_s: int) -> None:
        self._settings = settings
        self._clock = clock
        self._every_s = every_s
        self._seen: list[tuple[int, int]] = []  # of each collector's file: when it was written, its size

    @property
    def waiting(self) -> str:
        """What to say while there is nothing to see."""
        return f"The collector has saved nothing in {self._settings.state} yet."

    def look(self) -> View | None:
        """What there is to see; None where nothing has been saved, or nothing since the last look.

        Raises:
            UsageError: the state cannot be used.

        """
        try:
            seen = [(stat.st_mtime_ns, stat.st_size) for stat in map(Path.stat, saved_parts(self._settings))]
            if not seen or seen == self._seen:
                return None
            self._seen = seen
            state = load_state(self._settings)
        except StateError as error:
            raise UsageError(str(error)) from error
        context = known_context(self._settings, state)
        running = state.closed_ms < self._settings.experiment.end_ms
        report = live_report(state, context.models)
        over = ended(state, report) and decided_elsewhere(self._settings.experiment.analysis)
        saved_ms = min(written_ns for written_ns, _ in seen) // 1_000_000
        live = Live(self._clock.now_ms(), saved_ms, self._every_s if running else None, over)
        return View(report, context, live)


def run(
    settings: Settings, port: int, every_s: int, clock: Clock, stop: threading.Event, console: Console, announce: Any
) -> None:
    """Watch until `stop` is set.

    Args:
        settings: of the experiment.
        port: of the page on the loopback interface; 0 is a free one.
        every_s: seconds from look to look.
        clock: tells when a look was.
        stop: ends the watch.
        console: where the view is shown.
        announce: called with the port once the page can be asked for.

    Raises:
        UsageError: the port is taken, or the state cannot be used.

    """
    watch = Watch(settings, clock, every_s)
    with served(port, waiting_page(watch.waiting, every_s)) as server:
        address = f"http://{HOST}:{server.server_port}/"
        announce(server.server_port)
        shown: RenderableType = Text(watch.waiting)
        if not console.is_terminal:
            console.print(shown)
        console.print(f"The same as a page: {address}   (Ctrl-C ends)", highlight=False)
        with Screen(shown, console=console, auto_refresh=False, transient=False) as screen:
            while not stop.is_set():
                view = watch.look()
                if view is not None:
                    server.page = html(view.report, view.context, view.live).encode()
                    shown = rendered(view)
                    if console.is_terminal:
                        screen.update(shown, refresh=True)
                    else:
                        console.print(shown)
                stop.wait(every_s)


def rendered(view: View) -> Group:
    """The view for a terminal."""
    report, zone = view.report, (view.report.day_offset_ms, view.report.zone)
    users = fmt.counted(sum(report.split.users.values()), "user")
    parts: list[RenderableType] = [
        Text(report.experiment, style="bold"),
        Text(
            f"day {len(report.days)} of {report.days_planned}; {users}; "
            f"saved {fmt.instant(view.live.saved_ms, *zone)}, looked at {fmt.instant(view.live.at_ms, *zone)}",
            style="dim",
        ),
    ]
    for verdict in report.verdicts:
        symbol, word = headed(verdict, over=view.live.over)
        parts.append(Text(f"{symbol} {word}: {verdict.arm}. {verdict.because}", style=COLOURS[verdict.decision]))
        if verdict.broken:
            parts.append(Text(f"! Guardrail broken: {fmt.listed(verdict.broken)}", style="red"))
        if (symbol, word) != ENDED:
            parts.append(Text(to_do(report, verdict)))
    parts.append(Text(f"{checks_summary(report.checks)}."))
    parts += [
        Text(f"  {LEVELS[check.level][0]} {LEVELS[check.level][1]}: {check.said}", style="yellow")
        for check in report.checks
        if check.level in {"warning", "invalid"}
    ]
    parts += [_scorecard(report, verdict.arm) for verdict in report.verdicts]
    level = fmt.level(float(report.plan["alpha"]))
    parts.append(Text(f"Intervals at {level} hold at all moments at once: look as often as you like.", style="dim"))
    return Group(*parts)


def _scorecard(report: Report, arm: str) -> RenderableType:
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("metric", "role"):
        shown.add_column(name)
    for heading in (Text(report.control), Text(arm), "relative difference"):
        shown.add_column(heading, justify="right")
    shown.add_column("so far", no_wrap=True)
    for result in report.metrics:
        against_control = line(result, arm)
        if against_control is None:
            continue
        values = {value.arm: value.value for value in result.arms}
        planned = by_plan(against_control)
        which = side(result, planned)
        shown.add_row(
            Text(result.label),
            result.role,
            fmt.value(values.get(report.control), result.unit),
            fmt.value(values.get(arm), result.unit),
            Text(str(planned), style="strike dim" if report.invalid else ""),
            Text("" if report.invalid or not planned.has_interval else f"{SIDES[which]} {which}", SIDE_COLOURS[which]),
        )
    return shown


def wide(console: Console) -> Console:
    """With room for a scorecard where there is no terminal to ask for its width."""
    if not console.is_terminal:
        console.width = LEAST_WIDTH
    return console


def waiting_page(message: str, every_s: int) -> bytes:
    """What is served before there is a report."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="color-scheme" content="light dark">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="refresh" content="{every_s}"><title>Waiting · A/B report</title></head>'
        f'<body style="font: 16px/1.5 system-ui, sans-serif; margin: 2rem"><main><h1>Nothing to see yet</h1>'
        f"<p>{escape(message)} This page renews itself every {every_s} s.</p></main></body></html>"
    ).encode()


class PageServer(ThreadingHTTPServer):
    """Serves one page on the loopback interface; `page` may be replaced at any time."""

    daemon_threads = True

    def __init__(self, port: int, page: bytes) -> None:
        super().__init__((HOST, port), _Handler)
        self.page = page


class _Handler(BaseHTTPRequestHandler):
    server: PageServer

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        if self.headers.get("Host", "").rsplit(":", 1)[0] not in NAMES:  # another name that leads here is not ours
            self.send_error(421)
            return
        if self.path.partition("?")[0] != "/":
            self.send_error(404)
            return
        page = self.server.page
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(page)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
        self.end_headers()
        if with_body:
            self.wfile.write(page)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (its name in the base class)
        """Nothing: the terminal shows the experiment."""


@contextmanager
def served(port: int, page: bytes) -> Iterator[PageServer]:
    """A server of `page` in a thread of its own, closed on leaving.

    Raises:
        UsageError: the port is taken.

    """
    try:
        server = PageServer(port, page)
    except OSError as error:
        raise UsageError(f"Cannot serve on port {port} of {HOST}: {error.strerror}.") from error
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
