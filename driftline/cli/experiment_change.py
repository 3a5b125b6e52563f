"""`driftline experiment pause`, `resume`, `ramp`, `stop` and `status`: what operators do to a running experiment."""

import getpass
from typing import TYPE_CHECKING, Annotated

import typer

from contracts.config.experiment import instant_ms
from contracts.config.settings import Settings, load_experimenting
from contracts.runtime.clock import SystemClock
from driftline.cli.options import SettingsOption, kafka_errors
from driftline.errors import UsageError

if TYPE_CHECKING:
    from contracts.config.changes import Kind

Why = Annotated[str, typer.Option(help="The reason, for the report and for who asks later.")]
At = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help="From when on, by the requests' event time: ISO 8601 with a zone, or Unix milliseconds. "
        "\\[default: in 5 s, so that all replicas have heard of it]",
    ),
]
Simulated = Annotated[
    bool, typer.Option("--simulated", help="The experiment's time is not the clock's, as in a replay; with --at.")
]
PLANNED = "plan"


def pause(settings: SettingsOption, why: Why = "", at: At = None, simulated: Simulated = False) -> None:
    """Assign nobody to an arm: everybody gets what the control's model recalls, outside the experiment.

    Who was in it is in the same arm again after `resume`.
    """
    _make(load_experimenting(settings), "pause", None, at, why, simulated=simulated)


def resume(settings: SettingsOption, why: Why = "", at: At = None, simulated: Simulated = False) -> None:
    """End a pause."""
    _make(load_experimenting(settings), "resume", None, at, why, simulated=simulated)


def ramp(
    settings: SettingsOption,
    share: Annotated[
        str,
        typer.Argument(
            help=f"Share of the users of its slots, 0 to 1; or '{PLANNED}': as its file has it.", metavar="SHARE"
        ),
    ],
    why: Why = "",
    at: At = None,
    simulated: Simulated = False,
) -> None:
    """Let another share of the users in. Nobody changes arm: who is in at 10 % is in at 50 %, in the same one."""
    _make(load_experimenting(settings), "ramp", _share(share), at, why, simulated=simulated)


def stop(
    settings: SettingsOption,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    why: Why = "",
    at: At = None,
    simulated: Simulated = False,
) -> None:
    """Assign nobody any more, for good. A plan that decides at the end decides nothing then."""
    loaded = load_experimenting(settings)
    if not yes:
        typer.confirm(f"Stop {loaded.experiment.name}? It cannot be resumed.", abort=True)
    _make(loaded, "stop", None, at, why, simulated=simulated)


def status(settings: SettingsOption) -> None:
    """Show how the experiment stands, and what was done to it."""
    from abtest.assignment.assign import ramp_share, state_of
    from contracts.config.changes import in_force_order
    from driftline.experiment.changes import course_of
    from driftline.tables import show, table, utc

    loaded = load_experimenting(settings)
    with kafka_errors(loaded.kafka):
        course = course_of(loaded)
    experiment, now_ms = course.experiment, SystemClock().now_ms()
    collected = "" if course.defined else "; no collector has run it yet"
    state = state_of(experiment, now_ms)
    share = f", {ramp_share(experiment, now_ms):.0%} of its slots' users" if state == "running" else ""
    coming = [change for change in in_force_order(experiment.changes) if change.from_ms > now_ms]
    then = "".join(f"; {change.kind} from {utc(change.from_ms)} on" for change in coming)
    typer.echo(f"{experiment.name} ({course.hash}): {state}{share}{then}{collected}.")
    typer.echo(f"From {utc(experiment.start_ms)} to {utc(experiment.end_ms)} (UTC).")
    if not experiment.changes:
        return
    shown = table({"from (UTC)": False, "what": False, "share": True, "by": False, "why": False}, wraps=["why"])
    for change in in_force_order(experiment.changes):
        part = "" if change.kind != "ramp" else "as planned" if change.share is None else f"{change.share:.2%}"
        shown.add_row(utc(change.from_ms), change.kind, part, change.by, change.why)
    show(shown)


def _make(settings: Settings, kind: "Kind", share: float | None, at: str | None, why: str, *, simulated: bool) -> None:
    from contracts.config.changes import Change
    from driftline.experiment.changes import make
    from driftline.tables import utc

    from_ms = 0 if at is None else moment_ms(at)
    if simulated and at is None:
        raise UsageError("--simulated goes with --at: the clock does not tell the experiment's time.")
    with kafka_errors(settings.kafka):
        wanted = Change(kind, from_ms, share, getpass.getuser(), why)
        from_ms = make(settings, wanted, SystemClock(), simulated=simulated).from_ms
    done = {"pause": "is paused", "resume": "goes on", "stop": "is stopped"}
    of_plan = "lets in as many as its file says" if share is None else f"lets {share:.2%} of its slots' users in"
    typer.echo(f"{settings.experiment.name} {done.get(kind, of_plan)} from {utc(from_ms)} (UTC) on.")


def _share(text: str) -> float | None:
    if text == PLANNED:
        return None
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise UsageError(f"SHARE is {text}; it is a number from 0 to 1, or '{PLANNED}'.")
    return share


def moment_ms(text: str) -> int:
    """A moment of the command line in Unix milliseconds."""
    if text.lstrip("-").isdecimal():
        return int(text)
    try:
        return instant_ms(text, "--at")
    except ValueError as error:
        raise UsageError(f"{error}.") from error
