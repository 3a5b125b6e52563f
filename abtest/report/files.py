"""The report as files: a page that needs no network, the same for a ticket, and JSON with every digit."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from abtest.analyse.context import ReportContext
from abtest.analyse.results import Report
from abtest.report.html import finite, html, is_simulated
from abtest.report.markdown import markdown

__all__ = ["FILES", "ReportContext", "html", "is_simulated", "markdown", "to_json", "write"]

FILES = ("report.html", "report.json", "report.md")


def write(report: Report, context: ReportContext, out: Path) -> None:
    """Write `FILES` into the directory `out`, which is made where it is missing."""
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(to_json(report, context), indent=2, allow_nan=False, ensure_ascii=False)
    for name, content in zip(FILES, (html(report, context), text + "\n", markdown(report, context)), strict=True):
        (out / name).write_text(content, encoding="utf-8")


def to_json(report: Report, context: ReportContext) -> dict[str, Any]:
    """The report and its context as plain values. A context number that is not finite becomes null."""
    return {**report.to_json(), "simulated": is_simulated(report, context), "context": finite(asdict(context))}
