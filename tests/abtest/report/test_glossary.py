"""Terms of art are explained where they are used, and all of them in the manual."""

import re
from pathlib import Path

import pytest

from abtest.report.glossary import TERMS, used
from abtest.report.html import html
from tests.abtest.report_cases import CONTEXT, filled, invalid, planned, report_of

MANUAL = Path(__file__).parents[3] / "docs" / "report.md"


def names(text: str) -> list[str]:
    return [term.name for term in used(text)]


@pytest.mark.parametrize("term", TERMS, ids=lambda term: term.name)
def test_a_term_is_met_by_its_own_name_and_stands_in_the_manual(term):
    assert term in used(term.name)
    manual = " ".join(MANUAL.read_text().split())
    assert f"**{term.name}**: {term.said}" in manual


def test_a_page_explains_the_terms_that_it_uses_and_no_others():
    fixed, sequential = (html(planned(kind), CONTEXT) for kind in ("fixed", "group-sequential"))
    assert "<dt>Group-sequential</dt>" in sequential
    assert "<dt>Group-sequential</dt>" not in fixed
    for page in (fixed, sequential):
        assert "<dt>CUPED</dt>" in page
        assert "<dt>Holm</dt>" in page
        assert "<dt>Benjamini–Hochberg</dt>" not in page


@pytest.mark.parametrize("report", [report_of("full"), report_of("empty"), invalid(filled(planned()))])
def test_every_term_in_the_text_of_a_page_is_explained_on_it(report):
    page = html(report, CONTEXT)
    explained = re.findall(r"<dt>([^<]*)</dt>", page.split('id="terms"')[1])
    assert explained == names(page.split("<main>")[1].split("</main>")[0])
    assert len(explained) > 3


def test_what_stands_in_tags_alone_is_not_text():
    assert names('<svg class="Holm"></svg> CUPED') == ["CUPED"]
