"""Places at random: what a log must be able to say of them."""

from collections import Counter

import numpy as np
import pytest

from contracts.config.experiment import EXPLORE
from contracts.config.settings import Arm, Source
from contracts.messages.events import decode_exposure
from contracts.runtime.clock import HOUR_MS
from contracts.wire.events_pb2 import Item
from contracts.wire.recall_pb2 import RecallRequest
from serving.answerer import reply_to
from serving.catalogue import Withdrawn
from serving.explore import explore
from serving.exposures import AnsweredRequest, exposure_of
from serving.model import LoadedModel
from tests.serving.serving_cases import make_snapshot
from tests.serving.test_answer import BOTH, POPULAR_ITEMS, T2DIFF, answered, ask, experiment, items, row, sources

MODEL = LoadedModel(make_snapshot("t2diff", rows=12))
ALWAYS = [T2DIFF, Source(source=EXPLORE, share=0.9)]
SOMETIMES = [T2DIFF, Source(source=EXPLORE, share=0.25)]


def many(definition, count=4000, **options):
    """Answers to one user at as many moments."""
    asks = [ask(time_ms=100 + n % 100, k=3, **options) for n in range(100)]
    models = [{"t2diff": LoadedModel(make_snapshot("t2diff", number=1 + n, rows=12))} for n in range(count // 100)]
    return [answered(definition, each, request) for each in models for request in asks]


def test_every_item_comes_to_every_place_at_random_as_often_as_its_propensity_says():
    definition = experiment(*SOMETIMES)
    found = many(definition)
    at_random = Counter(
        (place, item) for each in found for place, (item, _, source) in enumerate(each.picks) if source == EXPLORE
    )
    chances = {chance for each in found for chance in each.propensities.values()}
    assert chances == {0.2 / 11}  # a fifth of the places, 12 items of which one is seen
    assert {item for _, item in at_random} == set(range(2, 13))
    expected = len(found) * 0.2 / 11  # 73 each, with a standard deviation of 8.5
    chi_square = sum((at_random[place, item] - expected) ** 2 / expected for place in range(3) for item in range(2, 13))
    assert chi_square < 33 + 4 * np.sqrt(2 * 33)


def test_what_is_ranked_fills_the_other_places_in_its_order_and_no_item_stands_twice():
    plain = [item for item, _, _ in answered(experiment(), BOTH, ask(k=4)).picks]
    found = many(experiment(*SOMETIMES), 1000)
    assert any(EXPLORE in sources(each) for each in found)
    ranked = list(range(2, 13))
    for each in found:
        assert len(set(items(each))) == 3
        kept = [item for item, _, source in each.picks if source != EXPLORE]
        drawn = set(each.propensities)
        assert kept == [item for item in ranked if item not in drawn][: len(kept)]
    assert plain == sorted(plain)  # by rank: nothing is random without the source


def test_asking_twice_gives_one_answer_and_another_moment_another():
    definition = experiment(*ALWAYS)
    one, again, later = (answered(definition, {"t2diff": MODEL}, ask(k=4, time_ms=time)) for time in (150, 150, 151))
    assert (one.picks, one.propensities) == (again.picks, again.propensities)
    assert one.picks != later.picks


def test_neither_what_is_seen_nor_what_is_withdrawn_is_drawn():
    withdrawn = Withdrawn()
    withdrawn.take(3, Item(item_id=3, blocked=True))
    shown: set[int] = set()
    for time_ms in range(100, 200):
        request = ask(row([1, 2]), k=3, time_ms=time_ms, exclude=[4])
        found = answered(experiment(*ALWAYS), {"t2diff": MODEL}, request, withdrawn=withdrawn)
        shown.update(found.propensities)
        assert set(found.propensities.values()) <= {0.9 / 1.9 / 9}  # 3 may be drawn, and leaves its place to a rank
        assert len(set(items(found))) == 3
    assert shown == set(range(5, 13))


def test_where_there_are_fewer_items_than_places_none_is_at_random():
    want = ask(row([1, 2, 3]), k=6).want
    picks = [(item, 0.0, "t2diff") for item in (4, 5, 6, 7)]
    assert explore(picks, 0.49, LoadedModel(make_snapshot(rows=6)), want, None) is None
    assert explore([], 0.49, MODEL, want, None) is None


def test_ids_and_times_of_any_sign_are_taken():
    picks = [(item, 0.0, "t2diff") for item in range(1, 9)]
    for user_id, time_ms in ((-5, 150), (5, -150), (-(2**63), 2**63 - 1)):
        want = ask(k=8).want._replace(user_id=user_id, now_ms=time_ms, seen=frozenset())
        found = explore(picks, 0.49, MODEL, want, None)
        assert found is not None
        assert len(found.picks) == 8


def test_scores_are_those_of_the_arms_own_model():
    found = answered(experiment(*ALWAYS), {"t2diff": MODEL}, ask(k=12))
    plain = answered(experiment(), {"t2diff": MODEL}, ask(k=12))
    assert dict(pick[:2] for pick in found.picks) == pytest.approx(dict(pick[:2] for pick in plain.picks))
    unknown = answered(experiment(*ALWAYS), {"t2diff": MODEL}, ask(None, k=6))
    assert EXPLORE in sources(unknown)
    assert all(score == item for item, score, _ in unknown.picks)  # item i has been watched i times


def test_quotas_of_the_other_sources_hold_among_what_is_ranked():
    found = answered(experiment(*ALWAYS, POPULAR_ITEMS), {"t2diff": MODEL}, ask(k=11))
    by_source = Counter(sources(found))
    assert by_source[EXPLORE] > 0
    assert abs(by_source["t2diff"] - by_source["popular"]) <= by_source[EXPLORE]


def test_reply_and_exposure_say_what_came_at_random_with_which_chance_and_nothing_else_does():
    found = answered(experiment(*ALWAYS), {"t2diff": MODEL}, ask(k=6))
    reply = reply_to(RecallRequest(user_id=1, request_id="r"), found)
    exposure = exposure_of(AnsweredRequest(1, HOUR_MS, True, reply, 0.0), "here")
    read = decode_exposure(exposure.SerializeToString(), received_ms=HOUR_MS, future_tolerance_ms=0, max_bytes=10_000)
    for item in (*reply.items, *read.items):
        assert item.HasField("propensity") == (item.source == EXPLORE)
        if item.source == EXPLORE:
            assert item.propensity == pytest.approx(found.propensities[item.item_id])
    assert EXPLORE in read.snapshot_versions
    assert any(item.source == "t2diff" for item in read.items)


def test_a_draft_and_a_share_of_half_are_refused_in_one_sentence():
    with pytest.raises(ValueError, match="explore goes with blend quota"):
        Arm(weight=1, model="t2diff", sources=SOMETIMES, blend="team-draft")
    with pytest.raises(ValueError, match="explore would fill 50% of the places"):
        Arm(weight=1, model="t2diff", sources=[T2DIFF, Source(source=EXPLORE)])
    arm = Arm(weight=1, model="t2diff", sources=SOMETIMES)
    assert (arm.explored, arm.models) == (0.2, ("t2diff",))
    assert Arm(weight=1, model="t2diff").explored == 0
