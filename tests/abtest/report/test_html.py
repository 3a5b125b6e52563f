"""The page: it stands alone, says everything, and can be read by everyone."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from abtest.analyse.analysis import analyse
from abtest.analyse.context import ReportContext
from abtest.collect.state import CollectorState
from abtest.report import html as module
from abtest.report.html import Live, html
from tests.abtest.abtest_cases import exposure, observe, rules
from tests.abtest.report_cases import CONTEXT, STATES, filled, invalid, planned, report_of

PAGES = {
    **{name: lambda name=name: report_of(name) for name in STATES},
    "planned": planned,
    "filled": lambda: filled(planned("group-sequential")),
    "filled and invalid": lambda: invalid(filled(planned("group-sequential"))),
}
VOID_TAGS = {"meta", "br", "line", "path", "rect", "circle", "polygon", "polyline"}


class Outline(HTMLParser):
    """What a screen reader would make of a page: headings in order, landmarks, cells, drawings; and unclosed tags."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.headings: list[int] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.broken: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag not in VOID_TAGS:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.broken.append(tag)

    def each(self, *names: str) -> list[dict[str, str | None]]:
        return [attrs for tag, attrs in self.tags if tag in names]


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("context", [CONTEXT, ReportContext()])
def test_every_state_makes_a_page_that_asks_nothing_of_the_network(name, context):
    page = html(PAGES[name](), context)
    assert not re.search(r"(src|href)\s*=\s*[\"']?(?![\"'#])|url\(", page)
    assert "http:" not in page
    assert "https:" not in page
    assert "<script" not in page
    assert "@import" not in page
    assert "nan" not in re.sub(r"[a-z]nan|nan[a-z]", "", page.lower())


@pytest.mark.parametrize("name", PAGES)
def test_a_screen_reader_finds_its_way(name):
    outline = Outline(html(PAGES[name](), CONTEXT))
    assert outline.broken == []
    assert outline.open == []
    assert outline.headings[0] == 1
    assert outline.headings.count(1) == 1
    assert all(after - before <= 1 for before, after in zip(outline.headings, outline.headings[1:], strict=False))
    assert all(any(tag == landmark for tag, _ in outline.tags) for landmark in ("header", "main", "footer"))
    ids = [attrs["id"] for _, attrs in outline.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert all(section["aria-labelledby"] in ids for section in outline.each("section"))
    assert all("scope" in cell for cell in outline.each("th"))
    assert all("aria-label" in attrs or attrs.get("aria-hidden") == "true" for attrs in outline.each("svg"))
    assert all(str(link["href"]).removeprefix("#") in ids for link in outline.each("a"))


def test_what_was_tested_on_whom_with_what_and_what_to_do_stands_there():
    page = html(planned("group-sequential"), CONTEXT)
    for said in (
        "It helps.",
        "recall",
        "two_tower",
        "t2diff",
        "1970-01-11 00:00 to 1970-01-18 00:00 UTC",
        "60, each in one arm",
        "7 of 7, cut at midnight UTC",
        "group-sequential",
        "after day 3, 5 and 7 of 7",
        "Holm",
        "1.0 % of Effective view rate",
        "What to do:",
    ):
        assert said in page, said


def test_every_check_has_its_level_in_words():
    page = html(filled(planned()), CONTEXT)
    assert "3 of 100 came late." in page
    assert re.search(r'<span aria-hidden="true">!</span> Warning', page)
    assert re.search(r'<span aria-hidden="true">✓</span> Fine', page)


def test_the_verdict_names_the_warnings_and_leads_to_them():
    verdict = re.compile(r'(?s)<section class="verdict.*?</section>')
    (box,) = verdict.findall(html(filled(planned()), CONTEXT))
    assert "2 warnings: The last day and Late events." in box
    assert '<a href="#checks">' in box
    (quiet,) = verdict.findall(html(replace(planned(), checks=()), CONTEXT))
    assert "warning" not in quiet
    assert "#checks" not in quiet


def test_an_invalid_experiment_strikes_every_effect_also_in_parts_and_sources():
    valid, void = filled(planned()), invalid(filled(planned()))
    struck = html(void, CONTEXT)
    assert "<s>" not in html(valid, CONTEXT)
    assert struck.count("<s>") == struck.count('<s><span class="sr">not valid: </span>')
    body = re.sub(r"(?s)<s>.*?</s>", "", struck[struck.index("<main>") :])
    body = re.sub(r'(?s)<svg.*?</svg>|<p class="note">.*?</p>', "", body)
    assert not re.search(r"[+−]\d[\d.,]* %|✓</span> better|p [=<] \.\d", body.split("Scorecard")[1])
    tables = re.findall(r'<table class="cards([^"]*)"', struck)
    assert tables.count(" void") == len(tables) - 1  # all but the models, which are no effects
    assert all(label.startswith("Not valid.") for label in re.findall(r'role="img" aria-label="([^"]*)"', struck))


def test_less_is_better_where_the_plan_says_so():
    report = planned()
    latency = next(result for result in report.metrics if result.metric == "latency")
    assert latency.direction == "decrease"
    assert html(report, CONTEXT).count("less is better") >= 1


def test_all_of_a_scorecard_is_on_one_scale():
    card = re.search(r'(?s)<table class="cards">.*?</table>', html(planned(), CONTEXT))
    ends = re.findall(r'<text class="tick end"[^>]*>([^<]*)</text>', card[0])
    assert len(ends) > 2
    assert len(set(ends)) == 1


def test_interference_above_one_percent_is_named():
    assert CONTEXT.models[0].interference == 0.01
    assert html(report_of("full"), CONTEXT).count("</span> interference</span>") == 1


def test_it_says_what_a_part_of_a_model_is_worth_and_whether_it_was_served():
    said = "Recall@20 of t2diff with its guess, beside without: −0.1 % (−0.4 % to +0.2 %); it is served without."
    assert html(PAGES["planned"](), CONTEXT).count(said) == 1


def test_simulated_responses_are_labelled_even_where_the_caller_forgot():
    shown = exposure(simulated=True)
    assert "Simulated responses" in html(analyse(observe(CollectorState(rules()), shown)), ReportContext())
    assert "Simulated responses" not in html(report_of("one user"), ReportContext())


def test_names_cannot_inject_markup():
    evil = "<script>x</script>\"'><img src=x>"
    state = observe(
        CollectorState(rules(name="<b>", hypothesis=evil, owner=evil)), exposure(experiment="<b>", items=((1, evil),))
    )
    context = ReportContext(world=evil, commit=evil, command=evil, configuration={evil: evil}, counts={evil: 1})
    page = html(analyse(state), context)
    assert "<script" not in page
    assert "<img" not in page
    assert "<b>" not in re.sub(r"<b>(What to do:|[+−])", "", page)
    assert "&lt;script&gt;" in page


def test_the_footer_says_of_what_and_by_what_it_was_made():
    report = planned()
    page = html(report, CONTEXT)
    assert report.data_hash[:12] in page
    assert f"<code>{CONTEXT.commit}</code>" in page
    assert CONTEXT.command in page


def test_snapshots_are_marked_only_where_they_fall_into_the_days_shown():
    with_marks = html(planned(), CONTEXT)
    assert "a new snapshot, at its first answer" in with_marks
    assert "a new snapshot, at its first answer" not in html(planned(), ReportContext())
    figures = re.findall(r"(?s)<figure.*?</figure>", with_marks)
    assert all(figure.count('class="mark"') == len(CONTEXT.marks) for figure in figures)


def test_plain_figures_and_those_by_cuped_are_told_apart_under_the_drawings():
    report = planned("group-sequential")
    head = report.metrics[0]
    (line,) = head.effects
    judged = replace(line.planned, by_cuped=True, relative=0.01, low=-0.02, high=0.04)
    first = replace(head, effects=(replace(line, planned=judged),))
    captions = [
        re.sub(r"<[^>]*>|\s+", " ", caption)
        for caption in re.findall(
            r"(?s)<figcaption>(.*?)</figcaption>", html(replace(report, metrics=(first, *report.metrics[1:])), CONTEXT)
        )
    ]
    assert captions[0].startswith("All days, plain: ")
    assert re.search(r"By the plan, by CUPED: +\+1.0 % +\[−2.0 %, \+4.0 %\]", captions[0])
    page = html(filled(report), CONTEXT)
    assert "each day, plain 95 % interval" in page
    assert "All days so far, plain</th>" in page


def test_a_live_page_renews_itself_and_an_ordinary_one_does_not():
    live = html(planned(), CONTEXT, Live(at_ms=864_000_000, saved_ms=864_000_000, refresh_s=7))
    assert '<meta http-equiv="refresh" content="7">' in live
    assert "http-equiv" not in html(planned(), CONTEXT)
    assert "http-equiv" not in html(planned(), CONTEXT, Live(at_ms=0, saved_ms=0))


def luminance(colour: str) -> float:
    """WCAG 2.2, relative luminance."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_stands_out_from_what_it_is_on(scheme):
    css = (Path(module.__file__).parent / "templates" / "report.css").read_text()
    colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", css.split(":root {")[scheme + 1]))
    pairs = [(ink, on) for ink in ("ink", "soft", "accent", "good", "bad", "wait") for on in ("card",)]
    pairs += [("ink", "page"), ("soft", "page"), ("good", "good-bg"), ("bad", "bad-bg"), ("wait", "wait-bg")]
    pairs += [(ink, on) for ink in ("ink", "soft") for on in ("good-bg", "bad-bg", "wait-bg")]
    for ink, on in pairs:
        lighter, darker = sorted((luminance(colours[ink]), luminance(colours[on])), reverse=True)
        assert (lighter + 0.05) / (darker + 0.05) >= 4.5, (ink, on)
