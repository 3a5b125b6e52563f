"""The report as Markdown."""

import re
from dataclasses import replace

import pytest

from abtest.analyse.analysis import analyse
from abtest.analyse.context import ReportContext
from abtest.collect.state import CollectorState
from abtest.report.markdown import markdown, text
from tests.abtest.abtest_cases import exposure, observe, rules
from tests.abtest.report_cases import CONTEXT, STATES, filled, invalid, planned, report_of


@pytest.mark.parametrize("name", STATES)
def test_every_table_has_as_many_cells_in_each_row(name):
    for table in re.findall(r"(?m)(?:^\|.*\n)+", markdown(report_of(name), CONTEXT)):
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}) == 1


def test_verdict_checks_scorecard_and_days_are_there():
    said = markdown(filled(planned("group-sequential")), CONTEXT)
    order = ["# e", "Simulated responses", "> It helps.", "## ", "By the plan:", "## Checks", "## Scorecard", "### Day"]
    assert [said.index(part) for part in order] == sorted(said.index(part) for part in order)
    assert "3 of 100 came late." in said
    assert "1970-01-17" in said
    assert planned("group-sequential").data_hash[:12] in said


def test_the_verdict_names_the_warnings_and_leads_to_them():
    verdict = markdown(filled(planned()), CONTEXT).split("By the plan:")[0]
    assert "2 warnings: The last day and Late events. [See the checks](#checks)." in verdict
    assert "warning" not in markdown(replace(planned(), checks=()), CONTEXT).split("By the plan:")[0]


def test_an_invalid_experiment_strikes_every_effect():
    said = markdown(invalid(filled(planned())), CONTEXT)
    card = said.split("## Scorecard")[1]
    assert not re.search(r"[+−]\d[\d.,]* %", re.sub(r"~~.*?~~", "", card.split("- ")[0]))
    assert "~~" not in markdown(planned(), CONTEXT)


def test_names_cannot_inject_markup():
    evil = "<img src=x>|**b** [l](x)\n# h"
    state = observe(CollectorState(rules(hypothesis=evil, owner=evil)), exposure())
    said = markdown(analyse(state), ReportContext())
    assert not re.search(r"(?<!\\)<img", said)
    assert not re.search(r"(?<!\\)\*\*b", said)
    assert not re.search(r"(?m)^# h", said)


def test_text_is_one_line():
    assert text("a\n  b") == "a b"
