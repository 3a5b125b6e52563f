"""What people are told of an experiment that runs: as text, for Slack and by mail. Pure, but for what mail attaches."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from email.message import EmailMessage
from pathlib import Path
from typing import Any, Literal

from abtest.analyse.results import Report
from abtest.format import counted, instant, level
from abtest.report.wording import sentence, warnings_summary
from contracts.config.experiment import Experiment
from driftline.experiment.week.schedule import Job

Kind = Literal["ramp", "report", "alarm", "failure"]
MARKS: dict[Kind, str] = {"ramp": "▶", "report": "■", "alarm": "⚠", "failure": "✕"}


@dataclass(frozen=True)
class Notice:
    """One thing to tell. `key`: of what it tells, which is told once. `report`: a folder with the report, or ''."""

    key: str
    kind: Kind
    at_ms: int
    subject: str
    text: str
    report: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def of_ramp(experiment: Experiment, job: Job, now_ms: int) -> Notice:
    """A step of the ramp has come."""
    when = instant(job.at_ms, experiment.day_offset_ms, experiment.zone)
    share = f"{100 * job.share:.4g} %"
    text = f"From {when} on, {share} of its slots' users are in it, as its file says."
    return Notice(job.key, "ramp", now_ms, f"{experiment.name}: {share} of users are in", text)


def of_report(
    experiment: Experiment, job: Job, missed: Sequence[Job], report: Report, folder: Path, now_ms: int
) -> Notice:
    """A report was made."""
    day = f"day {job.day + 1} of {experiment.days}"
    head = f"The final report: {day}." if job.final else f"Running: {day} is closed."
    if not job.look:
        kind = experiment.analysis.kind
        head += " Its plan decides after the last day." if kind == "fixed" else " Its plan has no look today."
    users = counted(sum(report.split.users.values()), "user")
    lines = [head, f"{users}.", *map(sentence, report.verdicts)]
    if warned := warnings_summary(report.checks):
        lines.append(f"{warned}.")
    if missed:
        names = ", ".join(str(each.day + 1) for each in missed)
        lines.append(f"Nobody made the {'report' if len(missed) == 1 else 'reports'} of day {names}; this one has all.")
    word = " · ".join(f"{each.arm}: {each.decision}" for each in report.verdicts)
    subject = f"{experiment.name}: final, {word}" if job.final else f"{experiment.name}: {day}, {word}"
    return Notice(job.key, "report", now_ms, subject, "\n".join(lines), str(folder))


def of_alarms(experiment: Experiment, live: Report, now_ms: int) -> list[Notice]:
    """What is wrong in a report by intervals that hold at all moments at once (`abtest.analyse.interim`)."""
    found = [
        Notice("alarm-split", "alarm", now_ms, f"{experiment.name}: users do not fall as planned", check.said)
        for check in live.checks
        if check.name == "split_so_far" and check.level == "invalid"
    ]
    rates = f"always-valid, at {level(float(live.plan['alpha']))}"
    return found + [
        Notice(
            f"alarm-{verdict.arm}-{label}",
            "alarm",
            now_ms,
            f"{experiment.name}: guardrail {label} is broken in {verdict.arm}",
            f"{label} of {verdict.arm} has certainly worsened by more than the plan allows ({rates}). "
            "`driftline experiment pause` takes everybody out.",
        )
        for verdict in live.verdicts
        for label in verdict.broken
    ]


def of_failure(experiment: Experiment, job: Job, why: str, now_ms: int) -> Notice:
    """A report could not be made; it is tried again."""
    text = f"{why} It is tried again until it can be made."
    return Notice(f"failure-{job.key}", "failure", now_ms, f"{experiment.name}: no report of day {job.day + 1}", text)


def of_stop(experiment: Experiment, why: str, now_ms: int) -> Notice:
    """The runner stopped the experiment, as its plan had decided."""
    return Notice("stop", "ramp", now_ms, f"{experiment.name}: stopped", f"{why} Nobody is assigned any more.")


def slack(notice: Notice) -> bytes:
    r"""The body of a request to a webhook that takes Slack's messages.

    >>> json.loads(slack(Notice("k", "alarm", 0, "a < b", "why")))
    {'text': '⚠ *a &lt; b*\nwhy'}
    """
    text = f"{MARKS[notice.kind]} *{_escaped(notice.subject)}*\n{_escaped(notice.text)}"
    if notice.report:
        text += f"\nReport: `{_escaped(notice.report)}/report.html`"
    return json.dumps({"text": text}, ensure_ascii=False).encode()


def mail(notice: Notice, to: str) -> bytes:
    """A message for a program that sends mail, such as `sendmail -t`; with the page where there is a report."""
    message = EmailMessage()
    message["To"], message["Subject"] = to, f"[driftline] {notice.subject}"
    message.set_content(notice.text + "\n")
    page = Path(notice.report) / "report.html" if notice.report else None
    if page is not None and page.is_file():
        message.add_attachment(page.read_bytes(), maintype="text", subtype="html", filename="report.html")
    return bytes(message)


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
