"""`driftline experiment report`, `diff` and `monitor`: what came of an experiment, and what comes of it."""

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from contracts.config.external import External, load_plan
from contracts.config.settings import ExperimentAlone, load_experimenting
from contracts.runtime.clock import SystemClock
from driftline.cli.options import ReadyFile, SettingsOption, no_password
from driftline.errors import UsageError

if TYPE_CHECKING:
    from abtest.analyse.context import FalseAlarms

CODES = "Exit code: 0 all is well, 2 the data are invalid (or cannot be read), 3 a guardrail is broken."


def report(
    settings: Annotated[
        Path,
        typer.Option("--settings", "-s", metavar="FILE", help="Settings; with --data or --state, an experiment's."),
    ],
    out: Annotated[Path, typer.Option(help="Where report.html, report.json and report.md go.")] = Path("out"),
    data: Annotated[
        str | None,
        typer.Option(
            metavar="PATH|URL",
            help="Rows of users and days instead: Parquet or CSV files, or the URL of an SQL engine.",
        ),
    ] = None,
    table: Annotated[str | None, typer.Option(metavar="NAME|SQL", help="With a URL: which table, or a SELECT.")] = None,
    pre: Annotated[
        str | None, typer.Option(metavar="PATH|URL", help="Users and their covariates. \\[default: the URL of --data]")
    ] = None,
    pre_table: Annotated[str | None, typer.Option(metavar="NAME|SQL", help="Their table, with a URL.")] = None,
    state: Annotated[Path | None, typer.Option(metavar="FILE", help="An aggregate that --save-state wrote.")] = None,
    save_state: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where the aggregate goes, for later reports.")
    ] = None,
    keep: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Keep the days of --data there; later read only those it lacks."),
    ] = None,
) -> None:
    """Write the report on what the collector has saved so far (it saves every few seconds, and when it stops).

    With --data or --state on that instead; -s may then be the file of an experiment alone.
    """
    from abtest.analyse.verdict import exit_code
    from abtest.report.files import FILES, ReportContext, write
    from abtest.report.wording import sentence, warnings_summary
    from driftline.experiment.data import public, report_on

    no_password("--data", data)
    no_password("--pre", pre)
    if data or table or pre or pre_table or state or save_state or keep:
        from driftline.inspect.build import commit

        experiment = load_plan(settings)
        result = report_on(experiment, data, table, pre, pre_table, state, save_state, keep)
        context = ReportContext(
            configuration={"experiment": experiment.model_dump(mode="json")},
            commit=commit(),
            false_alarms=(
                None if isinstance(experiment, External) else _false_alarms(settings, sum(result.split.users.values()))
            ),
        )
    else:
        try:
            loaded = load_experimenting(settings)
        except ExperimentAlone as error:
            raise UsageError(f"{error} For a report on rows or on an aggregate, add --data or --state.") from error
        from driftline.experiment.collected import collected

        result, context = collected(loaded)
    given = {"--data": data, "--table": table, "--pre": pre, "--pre-table": pre_table, "--state": state}
    given["--keep"] = keep
    words = [word for option, value in given.items() if value is not None for word in (option, public(str(value)))]
    command = shlex.join(["driftline", "experiment", "report", "-s", str(settings), *words, "--out", str(out)])
    try:
        write(result, replace(context, command=command), out)
    except OSError as error:
        raise UsageError(f"Cannot write to {out}: {error.strerror}.") from error
    typer.echo(f"Wrote {', '.join(FILES)} to {out}/")
    for verdict in result.verdicts:
        typer.echo(sentence(verdict))
    for check in result.checks:
        if check.name.startswith("winsorized:"):
            typer.echo(f"{check.title}: {check.said}")
    warned = warnings_summary(result.checks)
    if warned:
        typer.echo(f'{warned}. Weigh what the report says under "Can it be trusted?".')
    raise typer.Exit(exit_code(result.verdicts))


def _false_alarms(settings: Path, users: int) -> "FalseAlarms | None":
    """Those that `aa` has measured with these settings; none with the file of an experiment alone, which has no state
    beside which they could be.
    """
    from driftline.experiment.false_alarms import known_false_alarms

    try:
        return known_false_alarms(load_experimenting(settings), users)
    except ExperimentAlone:
        return None


def diff(
    before: Annotated[Path, typer.Argument(help="report.json of the earlier report.")],
    after: Annotated[Path, typer.Argument(help="report.json of the later one.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Say what changed between two reports: verdicts, effects, checks, users, days, plan."""
    from abtest.report.diff import diff as compared
    from abtest.report.json_schema import ReportFileError, read
    from driftline.tables import show, table

    try:
        comparison = compared(read(before), read(after))
    except ReportFileError as error:
        raise UsageError(str(error)) from error
    if as_json:
        typer.echo(json.dumps(comparison.to_json(), indent=2, ensure_ascii=False))
        return
    data = {True: "Both are of the same data.", False: "They are of different data.", None: ""}[comparison.same_data]
    if not comparison.changes:
        typer.echo(f"Nothing changed. {data}".strip())
        return
    typer.echo(data)
    shown = table(
        dict.fromkeys(("what", "which", "before", "after", ""), False), wraps=["which", "before", "after", ""]
    )
    for change in comparison.changes:
        which = f"{change.name} ({change.judged})" if change.judged else change.name
        shown.add_row(change.kind, which, change.before, change.after, change.note)
    show(shown)


def monitor(
    settings: SettingsOption,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of the page on 127.0.0.1; 0 for a free one.")] = 0,
    every: Annotated[int, typer.Option(min=1, metavar="SECONDS", help="From one look to the next.")] = 10,
    once: Annotated[bool, typer.Option("--once", help="Look once, print it and end; no page.")] = False,
    ready_file: ReadyFile = None,
) -> None:
    """Watch an experiment that runs, in the terminal and as a page that renews itself, by always-valid intervals."""
    loaded = load_experimenting(settings)
    from rich.console import Console

    from abtest.analyse.verdict import exit_code
    from contracts.runtime.worker import announce, stop_on_signal
    from driftline.experiment import watch
    from driftline.experiment.collected import require_state

    clock, console = SystemClock(), watch.wide(Console())
    if once:
        require_state(loaded)
        view = watch.Watch(loaded, clock, every).look()
        if view is not None:
            console.print(watch.rendered(view))
            raise typer.Exit(exit_code(view.report.verdicts))
        return
    stop = stop_on_signal(loaded.stop_within_s)
    watch.run(loaded, port, every, clock, stop, console, lambda bound: announce(ready_file, {"port": bound}))


def register(app: typer.Typer) -> None:
    """Make them commands of `driftline experiment`."""
    app.command(epilog=CODES)(report)
    app.command()(diff)
    app.command(epilog=f"With --once: {CODES[0].lower()}{CODES[1:]}")(monitor)
