import json
import re
from functools import cache

import pytest

from abtest.analysis import analyse
from abtest.checks import ModelFacts
from abtest.report import ReportContext, html, write
from abtest.state import State
from tests.abtest.abtest_cases import exposure, observe, rules, week

CONTEXT = ReportContext(
    simulated=True,
    world="a little world",
    response_quality={"auc": 0.7, "play_mae_s": float("nan"), "rows": 10},
    models=(
        ModelFacts("control", "two_tower", 3, "v3", {"control": 99, "treatment": 1}, {20: 0.1, 100: None}),
        ModelFacts("treatment", "t2diff", 3, "v3", {"treatment": 50, "control": 50}, {20: 0.2, 100: 0.3}),
    ),
    configuration={"dim": 64},
    counts={"recalls": 12},
    seed=7,
)
STATES = {
    "full": week(users=60, days=7),
    "empty": [],
    "one user": [exposure()],
    "mismatch": [exposure(user, "treatment" if user < 90 else "control", request=str(user)) for user in range(1, 100)],
}


@cache
def report_of(name):
    return analyse(observe(State(rules()), *STATES[name]))


@pytest.mark.parametrize("name", STATES)
@pytest.mark.parametrize("context", [CONTEXT, ReportContext()])
def test_every_state_makes_a_page_that_asks_nothing_of_the_network(name, context):
    page = html(report_of(name), context)
    assert not re.search(r"(src|href|url\()\s*=?\s*[\"']?", page.split("</style>")[1])
    assert "http" not in page
    assert "@import" not in page
    assert "nan" not in re.sub(r"[a-z]nan|nan[a-z]", "", page.lower())


@pytest.mark.parametrize("name", STATES)
def test_the_json_is_strict_and_complete(name, tmp_path):
    write(report_of(name), CONTEXT, tmp_path / "out")
    text = (tmp_path / "out" / "report.json").read_text()
    data = json.loads(text, parse_constant=pytest.fail)
    assert data["schema_version"] == 2
    assert data["simulated"] is True
    assert data["context"]["response_quality"]["play_mae_s"] is None
    for result in data["metrics"]:
        for line in result["effects"]:
            assert (line["effect"]["ci_low"] is None) == (line["effect"]["reason"] is not None)


def test_simulated_responses_are_labelled_even_where_the_caller_forgot():
    shown = exposure(simulated=True)
    assert "Simulated responses" in html(analyse(observe(State(rules()), shown)), ReportContext())
    assert "Simulated responses" not in html(report_of("one user"), ReportContext())


def test_an_invalid_experiment_greys_its_effects_out():
    assert 'class="cards void"' in html(report_of("mismatch"), CONTEXT)
    assert 'class="cards void"' not in html(report_of("full"), CONTEXT)


def test_interference_above_one_percent_is_named():
    assert CONTEXT.models[0].interference == 0.01
    page = html(report_of("full"), CONTEXT)
    assert page.count("◆ interference") == 1


def test_every_drawing_is_described_and_every_heading_cell_scoped():
    page = html(report_of("full"), CONTEXT)
    assert all("aria-label=" in tag or "aria-hidden=" in tag for tag in re.findall(r"<svg[^>]*>", page))
    assert all("scope=" in tag for tag in re.findall(r"<th[ >][^>]*>", page))


def test_names_cannot_inject_markup():
    page = html(analyse(observe(State(rules(name="<script>x</script>")), *[])), CONTEXT)
    assert "<script" not in page


def test_the_same_state_gives_the_same_bytes():
    assert html(report_of("full"), CONTEXT) == html(report_of("full"), CONTEXT)
