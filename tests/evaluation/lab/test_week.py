"""Whole weeks at small size."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from contracts.config.settings import GateSettings, StreamSettings, TrainerSettings
from contracts.runtime.clock import DAY_MS
from contracts.wire.events_pb2 import Example, Exposure, Feedback
from evaluation.lab.plan import PLAIN, Run, WorldPlan, execute, experiment_of
from evaluation.lab.policy import LabError, settings_of
from evaluation.lab.results import audience, difference
from tests.evaluation.lab.lab_cases import CHANGING, TINY, plan, week
from trainer.data.catalogue import Announced
from trainer.engine import Engine, learns_from, neutral_to
from trainer.meters import Meters
from trainer.model_line import Ended
from world.records import Announcement, Record


@pytest.fixture(scope="module")
def changing():
    names = ("frozen", "online", "popularity", "omniscient")
    return {name: week(name, CHANGING) for name in names}


def test_the_same_seed_gives_the_same_week_and_another_seed_another_one():
    one, other, third = week("online", TINY), week("online", TINY), week("online", TINY, seed=1)
    assert (one.views == other.views).all()
    assert (one.effective == other.effective).all()
    assert one.publications == other.publications
    assert one.effective.shape != third.effective.shape or (one.effective != third.effective).any()


def test_policies_that_do_the_same_differ_by_nothing_at_all():
    without_gate, plain = week("online-no-gate", TINY), week("plain", TINY)
    apart = difference(without_gate, plain)
    assert apart[3:] == (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


def test_a_policy_that_would_publish_after_the_end_is_the_frozen_one():
    never = TrainerSettings(publish_every_ms=1000 * DAY_MS)
    (late,) = execute(Run(TINY, 0, (plan("online", never),)))
    (frozen,) = execute(Run(TINY, 0, (plan("frozen", never),)))
    assert difference(late, frozen).difference == 0.0
    assert late.learned > frozen.learned > 0


def test_a_frozen_policy_publishes_nothing_after_the_start(changing):
    frozen, online = changing["frozen"], changing["online"]
    assert frozen.live == frozen.held == 0
    assert sum(each.time_ms > online.start_ms for each in online.publications) >= 4 * CHANGING.days - 1
    assert online.live + online.held > 0
    assert frozen.learned < online.learned


def test_who_knows_more_earns_more(changing):
    for better, worse in (("omniscient", "online"), ("online", "popularity"), ("online", "frozen")):
        apart = difference(changing[better], changing[worse])
        assert apart.difference > 4 * apart.std_error, (better, worse)


def test_new_items_find_an_audience_where_somebody_looks_for_them(changing):
    best, frozen = audience(changing["omniscient"]), audience(changing["frozen"])
    assert best.born == frozen.born > 50
    assert best.found > best.born / 2 > frozen.found
    assert best.median_h is not None


def test_all_users_meet_every_policy_equally_often(changing):
    views = [outcome.views for outcome in changing.values()]
    assert all((each == views[0]).all() for each in views)


def test_the_logging_policy_earns_what_the_log_did():
    world = WorldPlan(days=2, warmup_days=2, users=250, items=250)
    logged: Counter[bool] = Counter()

    def look(event):
        if isinstance(event, Example):
            logged[True] += event.arm == ""
        elif isinstance(event, Record) and event.topic == "exposures":
            exposure = Exposure.FromString(event.value)
            logged[False] += len(exposure.items) if not exposure.arm else 0

    outcome = week("logging", world, tap=look)
    assert abs(outcome.evr - logged[True] / logged[False]) < 0.03


def test_what_came_of_what_was_shown_is_what_the_records_say():
    plays, follows, views = Counter(), Counter(), Counter()

    def look(event):
        if isinstance(event, Record) and event.topic == "feedback":
            said = Feedback.FromString(event.value)
            if said.request_id.startswith("visit-"):
                plays[said.user_id] += said.play_time_ms
                follows[said.user_id] += said.follow
                views[said.item_id] += 1

    outcome = week("popularity", TINY, tap=look)
    shown = outcome.shown
    assert shown.play_ms.tolist() == [plays[user] for user in outcome.user_ids.tolist()]
    assert shown.follows.tolist() == [follows[user] for user in outcome.user_ids.tolist()]
    ids = TINY.open(0).catalogue.item_ids.tolist()
    assert shown.views.tolist() == [views[item] for item in ids]
    assert shown.views.sum() == outcome.views.sum() > 0
    assert shown.effective.sum() == outcome.effective.sum()
    assert shown.item_play_ms.sum() == shown.play_ms.sum()


def test_an_item_is_announced_before_anything_is_done_with_it_and_never_shown_before_it_is_born():
    born = {}
    shown: list[tuple[int, int]] = []

    def look(event):
        if isinstance(event, Announcement):
            born[event.item.item_id] = event.time_ms
        elif isinstance(event, Record) and event.topic == "exposures":
            exposure = Exposure.FromString(event.value)
            assert all(item.item_id in born or not exposure.arm for item in exposure.items)
            shown.extend((item.item_id, exposure.time_ms) for item in exposure.items if exposure.arm)

    week("omniscient", replace(TINY, births=0.2), tap=look)
    assert shown
    assert all(born[item] <= time_ms for item, time_ms in shown)
    assert any(born[item] > born[min(born)] for item, _ in shown)


def test_arms_share_the_users_and_each_learns_from_its_own_or_from_all():
    learned = {}
    for whose in ("own", "pooled", "weighted"):
        trainer = TrainerSettings(learn_from=whose, gate=GateSettings(enabled=False))
        policies = (plan("online:two_tower", trainer), plan("online", trainer))
        one, other = execute(Run(TINY, 0, policies))
        assert not (one.views.sum(1) > 0)[other.views.sum(1) > 0].any()
        assert one.views.sum() > 0 < other.views.sum()
        learned[whose] = one.learned
    assert learned["own"] < min(learned["pooled"], learned["weighted"])


def test_weights_say_nothing_where_everybody_has_one_policy():
    weeks = []
    for whose in ("own", "weighted"):
        trainer = TrainerSettings(learn_from=whose, gate=GateSettings(enabled=False))
        weeks += execute(Run(TINY, 0, (plan("online", trainer),)))
    assert np.array_equal(weeks[0].views, weeks[1].views)
    assert np.array_equal(weeks[0].effective, weeks[1].effective)


def test_the_other_arm_of_the_same_model_is_somebody_elses():
    policies = (plan("online"), plan("online:two_tower"))
    world = TINY.open(0)
    for own, other in (policies, policies[::-1]):
        arms = experiment_of(policies, own, world, 0).arms
        assert learns_from(own.model, [own.name, other.name, ""], "own", arms).tolist() == [True, False, True]
        assert neutral_to(own.model, [own.name, other.name, ""], arms).tolist() == [False, True, True]
    alone = experiment_of(policies[:1], policies[0], world, 0).arms
    assert neutral_to("two_tower", list(alone), alone).all()


def test_two_models_share_users_as_the_trainers_own_two_lines_do(tmp_path):
    """The trainer is one engine with a line a model; here each policy has an engine. Both publish the same."""
    policies = (plan("online"), plan("online:t2diff"))
    log = []
    outcomes = execute(Run(TINY, 0, policies), tap=log.append)
    world = TINY.open(0)
    experiment = experiment_of(policies, policies[0], world, 0)
    assert {name: arm.model for name, arm in experiment.arms.items()} == {
        "online": "two_tower",
        "online:t2diff": "t2diff",
    }
    settings = settings_of(TrainerSettings(), "two_tower", experiment, 0, tmp_path)
    both = settings.trainer.model_copy(update={"models": ("two_tower", "t2diff")})
    engine = Engine(settings.model_copy(update={"trainer": both}), Meters())
    published = []
    begun = False
    for number, event in enumerate(log):
        if isinstance(event, Announcement):
            engine.take_item(Announced(event.item.item_id, event.item), event.time_ms, "items:0", number)
        elif isinstance(event, Exposure):
            engine.take_exposure(event, "exposures:0", number)
        elif isinstance(event, Example):
            if not begun and event.time_ms > world.experiment_start_ms:
                engine.snapshots()
                begun = True
            moves = engine.take(event, "examples:0", number)
            published += [each.manifest for each in moves if not isinstance(each, Ended)] * begun
    for outcome, model in zip(outcomes, ("two_tower", "t2diff"), strict=True):
        expected = [(each.version, not each.rejected, each.gate["reason"]) for each in published if each.model == model]
        found = [(each.version, each.passed, each.reason) for each in outcome.publications]
        assert found[-len(expected) :] == expected
        assert len(expected) >= 4 * TINY.days - 1


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("onlin", "There is no policy 'onlin'"),
        ("online:bert", "There is no model 'bert'"),
        ("popularity:sasrec", "neither a model nor settings"),
    ],
)
def test_a_policy_that_there_is_not_is_one_sentence(name, sentence):
    with pytest.raises(LabError, match=sentence):
        plan(name)


def test_the_plain_learner_is_pinned_in_every_setting_that_moves_it():
    """A new setting of the learner is pinned in PLAIN to what the learner did before there was the setting."""
    elsewhere = {
        "models", "vocabulary", "negatives", "frequency_half_life", "publish_every_examples", "publish_every_s",
        "deltas_every_examples", "deltas_every_s", "delta_tolerance", "keep_snapshots", "keep_rejected",
        "checkpoint_every_examples", "device", "threads", "poll_records",
    }  # fmt: skip
    assert PLAIN.model_fields_set | elsewhere == set(TrainerSettings.model_fields)
    assert PLAIN.model.model_fields_set | {"diffusion_schedule", "ablate"} == set(type(PLAIN.model).model_fields)


def test_a_week_of_kuairands_users(real_kuairand):
    world = WorldPlan(data=real_kuairand, days=2, warmup_days=3, users=1500)
    popularity, logging = week("popularity", world), week("logging", world)
    assert popularity.user_ids.size > 300
    assert 0.2 < logging.evr < 0.5
    assert 0.2 < popularity.evr < 0.6
    with pytest.raises(LabError, match="leave out omniscient"):
        week("omniscient", world)


def test_a_warm_up_that_gives_nothing_to_learn_from_is_one_sentence():
    nothing_fits = StreamSettings(max_event_bytes=1)
    with pytest.raises(LabError, match="too little to learn from"):
        execute(Run(TINY, 0, (replace(plan("online"), stream=nothing_fits),)))


def test_a_share_of_the_places_comes_at_random_and_examples_carry_the_propensities():
    places, chances, carried = 0, [], 0

    def look(event):
        nonlocal places, carried
        if isinstance(event, Record) and event.topic == "exposures":
            shown = Exposure.FromString(event.value)
            if shown.arm:
                places += len(shown.items)
                chances.extend(item.propensity for item in shown.items if item.HasField("propensity"))
                assert all((item.source == "explore") == item.HasField("propensity") for item in shown.items)
        elif isinstance(event, Example) and event.arm:
            carried += any(event.page.propensities)

    execute(Run(TINY, 0, (replace(plan("online"), explore=0.2),)), tap=look)
    assert len(chances) / places == pytest.approx(0.2, abs=4 * np.sqrt(0.16 / places))
    assert carried
    assert all(0.2 / (TINY.items + 1) <= chance <= 0.2 for chance in chances)
