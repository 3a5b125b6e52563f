"""What a person sees while the experiment runs: one live table in a terminal, a line now and then elsewhere."""

from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.table import Table

from contracts.runtime.clock import Clock

PLAIN_EVERY_S = 10.0


@dataclass(frozen=True)
class ArmStatus:
    """One arm now; None where there is nothing to show yet."""

    name: str
    model: str
    snapshot: str
    evr: float | None
    users: int
    trial: str = ""  # the version on trial
    trial_since: str = ""  # simulated time
    held_since: str = ""  # the newest trial, or snapshot, ended badly, and so did all since then
    stale_h: float | None = None  # hours of event time by which what is live is behind, where that makes it stale

    @property
    def standing(self) -> str:
        """What keeps what was learned from all users; empty where nothing does.

        >>> ArmStatus("control", "t2diff", "v000007", 0.2, 9, "v000008", "Jan 3 06:00", "Jan 3 01:00", 25.0).standing
        'v000008 on trial since Jan 3 06:00, held since Jan 3 01:00, STALE: 25 h behind'
        """
        parts = (
            f"{self.trial} on trial since {self.trial_since}" if self.trial else "",
            f"held since {self.held_since}" if self.held_since else "",
            f"STALE: {self.stale_h:.0f} h behind" if self.stale_h is not None else "",
        )
        return ", ".join(part for part in parts if part)


@dataclass(frozen=True)
class Status:
    """The run now. Freshness and latency in seconds; None where nothing was measured yet."""

    phase: str
    day: int
    days: int
    fraction: float
    simulated_time: str
    events: int
    events_per_s: float
    recalls: int
    recalls_per_s: float
    stream_lag: int
    trainer_lag: int
    event_to_feature_p50: float | None
    event_to_snapshot_p50: float | None
    event_to_answer_p50: float | None
    arms: tuple[ArmStatus, ...]


def line(status: Status) -> str:
    """The status as one line of text."""
    arms = " | ".join(
        f"{arm.name} {arm.snapshot or '-'}{arm.standing and f' ({arm.standing})'} simulated EVR {_percent(arm.evr)}"
        for arm in status.arms
    )
    return (
        f"{status.phase} day {status.day}/{status.days} {status.fraction:4.0%}  {status.events_per_s:,.0f} events/s  "
        f"{status.recalls_per_s:,.0f} recalls/s  lag {status.stream_lag}+{status.trainer_lag}  "
        f"fresh {_seconds(status.event_to_feature_p50)}/{_seconds(status.event_to_snapshot_p50)}/"
        f"{_seconds(status.event_to_answer_p50)}  {arms}"
    )


def table(status: Status) -> Table:
    """The status as a table for a terminal."""
    title = f"driftline · {status.phase} day {status.day} of {status.days} · responses are simulated"
    grid = Table(title=title, title_justify="left", show_header=False, pad_edge=False)
    grid.add_column(style="dim")
    grid.add_column()
    filled = round(24 * status.fraction)
    grid.add_row(
        "simulated time",
        f"{status.simulated_time}  [green]{'█' * filled}[/][dim]{'░' * (24 - filled)}[/] {status.fraction:.0%}",
    )
    grid.add_row("events", f"{status.events:,}  ({status.events_per_s:,.0f}/s)")
    grid.add_row("recalls", f"{status.recalls:,}  ({status.recalls_per_s:,.0f}/s)")
    grid.add_row("lag", f"stream {status.stream_lag:,} events, trainer {status.trainer_lag:,} examples")
    grid.add_row(
        "freshness p50",
        f"event → feature {_seconds(status.event_to_feature_p50)}, "
        f"→ snapshot {_seconds(status.event_to_snapshot_p50)}, → answer {_seconds(status.event_to_answer_p50)}",
    )
    for arm in status.arms:
        grid.add_row(
            arm.name,
            f"{arm.model} {arm.snapshot or '(no snapshot yet)'}  "
            f"simulated EVR {_percent(arm.evr)}  {arm.users:,} users",
        )
        if arm.standing:
            grid.add_row("", f"[{'red' if arm.stale_h is not None else 'yellow'}]{arm.standing}[/]")
    return grid


class Progress:
    """Shows the status as often as it changes in a terminal, every ten seconds elsewhere."""

    def __init__(self, console: Console, clock: Clock) -> None:
        self._console = console
        self._clock = clock
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self._printed_s = float("-inf")

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def show(self, status: Status) -> None:
        """Show the newest status."""
        if self._live:
            self._live.update(table(status), refresh=True)
        elif self._clock.elapsed_s() - self._printed_s >= PLAIN_EVERY_S:
            self._printed_s = self._clock.elapsed_s()
            self._console.print(line(status), highlight=False, soft_wrap=True)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.2%}"


def _seconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"
