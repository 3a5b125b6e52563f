import pytest

from abtest.analyse.results import ArmEffect, ArmValue, Check, Claim, Deciding, MetricResult
from abtest.analyse.verdict import decide, exit_code
from abtest.stats.effects import Effect
from contracts.config.experiment import AnalysisPlan

FIXED, SEQUENTIAL = AnalysisPlan(), AnalysisPlan(kind="group-sequential")


def result(name, role, low, high, relative=None, direction="increase", least=0.0, doubt=None):
    if low is None:
        deciding = Deciding(reason="no views in arm control")
    else:
        middle = (low + high) / 2 if relative is None else relative
        good_low, good_high = (low, high) if direction == "increase" else (-high, -low)
        deciding = Deciding(
            "log ratio",
            middle,
            low,
            high,
            better=Claim(good_low > 0, doubt),
            worse=Claim(good_high < (-least if role == "guardrail" else 0), doubt),
            short=Claim(good_high < least, doubt),
        )
    line = ArmEffect("treatment", Effect(), deciding=deciding)
    arms = (ArmValue("control", 9, 1.0, 0.1, None), ArmValue("treatment", 9, 1.0, 0.1, None))
    return MetricResult(name, name, "", "", role, direction, least, arms, (line,))


def verdict(*guardrails, primary, checks=(), plan=FIXED, ended=True, interference=False, stale="", one_sided=""):
    return decide(
        "treatment", [primary, *guardrails], checks, plan,
        ended=ended, interference=interference, stale=stale, one_sided=one_sided,
    )  # fmt: skip


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
        (result("evr", "primary", 0.01, 0.1, doubt="one user has 80 % of views in arm control"), "inconclusive"),
        (result("evr", "primary", -0.1, -0.01, doubt="the jackknife does not agree"), "inconclusive"),
    ],
)
def test_the_primary_metric_decides_by_its_deciding_interval(primary, decision):
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


def test_a_guardrail_that_cannot_be_judged_forbids_ship_and_is_named():
    unknown = result("follows", "guardrail", None, None)
    decided = verdict(unknown, primary=GOOD)
    assert (decided.decision, decided.broken, decided.not_judged) == ("inconclusive", (), ("follows",))
    assert "the guardrail follows cannot be judged: no views in arm control" in decided.because
    doubted = result("play", "guardrail", -0.2, -0.1, doubt="the difference does not agree")
    assert verdict(doubted, primary=GOOD).not_judged == ("play",)
    assert verdict(doubted, primary=OPEN).decision == "inconclusive"


def test_sentences_say_which_way_a_metric_went():
    errors = result("errors", "guardrail", 0.1, 0.3, direction="decrease", least=0.02)
    assert verdict(errors, primary=GOOD).because == "errors rose by more than the plan allows."
    assert verdict(result("play", "guardrail", -0.3, -0.1), primary=GOOD).because.startswith("play fell")
    assert verdict(primary=result("latency", "primary", -0.1, -0.01, direction="decrease")).because.startswith(
        "latency fell;"
    )


def test_a_fixed_horizon_is_judged_once_and_a_sequential_plan_at_every_look():
    assert verdict(primary=GOOD, ended=False).decision == "inconclusive"
    assert verdict(primary=GOOD, ended=False, plan=SEQUENTIAL).decision == "ship"


def test_models_that_learned_from_each_other_do_not_ship_unless_that_was_planned():
    assert verdict(primary=GOOD, interference=True).decision == "inconclusive"
    pooled = AnalysisPlan(pooled_training=True)
    assert verdict(primary=GOOD, interference=True, plan=pooled).decision == "ship"
    assert verdict(primary=result("evr", "primary", -0.1, -0.01), interference=True).decision == "hold"


def test_where_one_arm_was_stale_nothing_ships_and_every_sentence_says_so():
    stale = "control was stale: 80.8 % of its recalls"
    gained = verdict(primary=GOOD, stale=stale)
    assert (gained.decision, verdict(primary=GOOD).decision) == ("inconclusive", "ship")
    assert gained.because.endswith(f"but that may be freshness alone: {stale}.")
    for primary, decision in ((result("evr", "primary", -0.1, -0.01), "hold"), (OPEN, "inconclusive")):
        decided = verdict(primary=primary, stale=stale)
        assert (decided.decision, decided.because.endswith(f"{stale}.")) == (decision, True)
    meant = AnalysisPlan(unlike_freshness=True)
    assert verdict(primary=GOOD, stale=stale, plan=meant) == verdict(primary=GOOD)


def test_on_positives_alone_nothing_ships():
    gained = verdict(primary=GOOD, one_sided="of treatment nearly all items shown are effective views")
    assert gained.decision == "inconclusive"
    assert gained.because.endswith("but of treatment nearly all items shown are effective views.")
    lost = result("evr", "primary", -0.1, -0.01)
    assert verdict(primary=lost, one_sided="…") == verdict(primary=lost)
