"""`driftline experiment run` and `list`: a week that runs itself, and how those stand that were run."""

import getpass
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from contracts.config.external import load_plan
from contracts.config.settings import ExperimentAlone, Settings, load_experimenting
from contracts.runtime.clock import MINUTE_MS, SystemClock
from driftline.cli.options import ReadyFile, kafka_errors, no_password
from driftline.errors import UsageError

if TYPE_CHECKING:
    from driftline.experiment.week.outbox import Send
    from driftline.experiment.week.runner import Stop

OUT = Path("reports")
WEBHOOK = "DRIFTLINE_WEBHOOK"
STOPS_WITHIN_S = 60.0


def run(
    settings: Annotated[
        Path,
        typer.Option("--settings", "-s", metavar="FILE", help="Settings; with --data, an experiment's."),
    ],
    out: Annotated[Path, typer.Option(help="Reports go into a folder of the experiment's name in this one.")] = OUT,
    data: Annotated[
        str | None,
        typer.Option(metavar="PATH|URL", help="Rows of users and days instead of the collector's, as for `report`."),
    ] = None,
    table: Annotated[str | None, typer.Option(metavar="NAME|SQL", help="With a URL: which table, or a SELECT.")] = None,
    pre: Annotated[str | None, typer.Option(metavar="PATH|URL", help="Users and their covariates.")] = None,
    pre_table: Annotated[str | None, typer.Option(metavar="NAME|SQL", help="Their table, with a URL.")] = None,
    close_after: Annotated[
        int, typer.Option(min=0, max=7 * 24 * 60, metavar="MINUTES", help="How long a day's late rows are waited for.")
    ] = 120,
    every: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="SECONDS",
            help="How often to see what is due and whether anything is wrong. \\[default: 60; with --data 3600]",
        ),
    ] = None,
    webhook_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help=f"Holds the address that takes Slack's messages. \\[default: that in ${WEBHOOK}]"
        ),
    ] = None,
    mail: Annotated[
        str | None, typer.Option(metavar="COMMAND", help="Takes a whole message, such as 'sendmail -t'.")
    ] = None,
    mail_to: Annotated[str | None, typer.Option(metavar="ADDRESS", help="With --mail: whom to.")] = None,
    stop_when_decided: Annotated[
        bool,
        typer.Option(
            "--stop-when-decided",
            help="Stop the experiment at the first look at which its plan says ship or hold of every arm.",
        ),
    ] = False,
    ready_file: ReadyFile = None,
) -> None:
    """Run an experiment's week: a report when each day is closed, the plan's looks, alarms between them, the final
    report. Restarts go on; what was missed is made up for once. It assigns nobody: replicas do, up to its end.
    """
    from contracts.runtime.worker import announce, configure_logs, stop_on_signal
    from driftline.experiment.week import runner, sources

    no_password("--data", data)
    no_password("--pre", pre)
    senders = _senders(webhook_file, mail, mail_to)
    if data is None:
        if table or pre or pre_table:
            raise UsageError("--table, --pre and --pre-table go with --data.")
        try:
            loaded = load_experimenting(settings)
        except ExperimentAlone as error:
            raise UsageError(f"{error} To run it on rows, add --data.") from error
        source: sources.Source = sources.Collected(loaded)
        stop = _stopping(loaded) if stop_when_decided else None
        stops_within_s = loaded.stop_within_s
    else:
        if stop_when_decided:
            raise UsageError("--stop-when-decided goes without --data: driftline does not assign who is in the rows.")
        source = sources.Rows(load_plan(settings), data, table, pre, pre_table)
        stop, stops_within_s = None, STOPS_WITHIN_S
    configure_logs()
    runner.run(
        source,
        out,
        senders,
        SystemClock(),
        stop_on_signal(stops_within_s),
        lambda: announce(ready_file, {}),
        every_s=every or (60 if data is None else 3600),
        close_after_ms=close_after * MINUTE_MS,
        stop=stop,
    )


def list_(
    out: Annotated[Path, typer.Argument(help="The folder of `experiment run`'s reports.")] = OUT,
) -> None:
    """Show the experiments that `run` has run: what they said last, and what comes next."""
    from contracts.runtime.durable import StateError
    from driftline.experiment.week.book import read
    from driftline.tables import show, table, utc

    if not out.is_dir():
        raise UsageError(f"There is no folder {out}; `driftline experiment run` makes it.")
    pages, damaged = [], list[str]()
    for each in sorted(filter(Path.is_dir, out.iterdir())):
        try:
            pages.append(read(each))
        except StateError as error:  # of one experiment: the others are shown all the same
            damaged.append(str(error))
    if not damaged and not any(pages):
        raise UsageError(f"`driftline experiment run` has run nothing in {out}.")
    columns = ("experiment", "last report", "says", "next", "from (UTC)", "not delivered")
    shown = table(dict.fromkeys(columns, False), wraps=["says"])
    for page in filter(None, pages):
        says = ", ".join(f"{arm}: {decision}" for arm, decision in page.said)
        waits = [f"{len(page.waiting)} waiting"] if page.waiting else []
        lost = [f"{len(page.lost)} given up"] if page.lost else []
        then = ("ended", "") if page.ended else (page.next, utc(page.next_ms) if page.next_ms else "")
        last = Path(page.report).name if page.report else "-"
        shown.add_row(page.experiment, last, says or "-", *then, ", ".join([*waits, *lost]) or "-")
    if any(pages):
        show(shown)
    if damaged:
        raise StateError(" ".join(damaged))


def _senders(webhook_file: Path | None, mail: str | None, mail_to: str | None) -> "dict[str, Send]":
    from contracts.config.secret import read
    from driftline.experiment.week.outbox import mailer, webhook

    senders = {}
    address = os.environ.get(WEBHOOK)
    if webhook_file is not None:
        try:
            address = read("--webhook-file", webhook_file).get_secret_value()
        except ValueError as error:
            raise UsageError(f"{error}.") from None
    if address:
        senders["webhook"] = webhook(address.strip())
    if (mail is None) != (mail_to is None):
        raise UsageError("--mail and --mail-to go together.")
    if mail is not None and mail_to is not None:
        senders["mail"] = mailer(mail, mail_to)
    return senders


def _stopping(settings: Settings) -> "Stop":
    def stop(why: str) -> None:
        from contracts.config.changes import Change
        from driftline.experiment.changes import make

        with kafka_errors(settings.kafka):
            make(settings, Change("stop", 0, None, getpass.getuser(), why), SystemClock())

    return stop
