import pytest

from abtest.analyse.results import ArmEffect, ArmValue, Check, MetricResult, Planned
from abtest.analyse.verdict import decide, exit_code
from abtest.stats.effects import Effect
from contracts.config.experiment import AnalysisPlan

FIXED, SEQUENTIAL = AnalysisPlan(), AnalysisPlan(kind="group-sequential")


def result(name, role, low, high, relative=None, direction="increase", least=0.0, cautions=()):
    middle = (low + high) / 2 if relative is None and low is not None else relative
    planned = Planned("fixed", by_cuped=False, relative=middle, low=low, high=high, reason="no views in arm control")
    line = ArmEffect("treatment", Effect(), cautions, planned=planned)
    arms = (ArmValue("control", 9, 1.0, 0.1, None), ArmValue("treatment", 9, 1.0, 0.1, None))
    return MetricResult(name, name, "", "", role, direction, least, arms, (line,))


def verdict(*guardrails, primary, checks=(), plan=FIXED, ended=True, interference=False):
    return decide("treatment", [primary, *guardrails], checks, plan, ended=ended, interference=interference)


GOOD = result("evr", "primary", 0.01, 0.10)
OPEN = result("evr", "primary", -0.1, 0.1)


@pytest.mark.parametrize(
    ("primary", "decision"),
    [
        (GOOD, "ship"),
        (result("evr", "primary", -0.10, -0.01), "hold"),
        (OPEN, "inconclusive"),
        (result("latency", "primary", -0.10, -0.01, direction="decrease"), "ship"),
        (result("latency", "primary", 0.01, 0.10, direction="decrease"), "hold"),
        (result("evr", "primary", -0.01, 0.01, least=0.02), "hold"),  # whatever it gained, it is not worth it
        (result("evr", "primary", 0.001, 0.03, least=0.02), "inconclusive"),
        (result("evr", "primary", 0.001, 0.05, least=0.02), "ship"),
        (result("evr", "primary", None, None), "inconclusive"),
        (result("evr", "primary", 0.01, 0.1, cautions=("only 3 users in arm control",)), "inconclusive"),
    ],
)
def test_the_primary_metric_decides_by_its_planned_interval(primary, decision):
    assert verdict(primary=primary).decision == decision


def test_an_invalid_check_outweighs_everything():
    check = Check("split", "Traffic split", "invalid", "Users did not fall into the arms as planned.")
    decided = verdict(primary=GOOD, checks=[check])
    assert decided.decision == "invalid"
    assert decided.because.startswith("Users did not fall")
    assert exit_code([decided]) == 2


def test_a_guardrail_that_is_certainly_worse_than_allowed_holds():
    lost = result("play", "guardrail", -0.10, -0.02, least=0.01)
    decided = verdict(lost, primary=GOOD)
    assert (decided.decision, decided.broken) == ("hold", ("play",))
    assert exit_code([decided]) == 3
    assert verdict(result("play", "guardrail", -0.10, -0.005, least=0.01), primary=GOOD).decision == "ship"
    slower = result("latency", "guardrail", 0.02, 0.10, direction="decrease")
    assert verdict(slower, primary=GOOD).decision == "hold"


def test_a_fixed_horizon_is_judged_once_and_a_sequential_plan_at_every_look():
    assert verdict(primary=GOOD, ended=False).decision == "inconclusive"
    assert verdict(primary=GOOD, ended=False, plan=SEQUENTIAL).decision == "ship"


def test_models_that_learned_from_each_other_do_not_ship_unless_that_was_planned():
    assert verdict(primary=GOOD, interference=True).decision == "inconclusive"
    pooled = AnalysisPlan(pooled_training=True)
    assert verdict(primary=GOOD, interference=True, plan=pooled).decision == "ship"
    assert verdict(primary=result("evr", "primary", -0.1, -0.01), interference=True).decision == "hold"
