"""Which arm, which sources, which fallback: literal requests, literal answers."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest

from abtest.assignment.assign import assign
from contracts.config.experiment import RampStep
from contracts.config.settings import Arm, Experiment, Source
from contracts.snapshots import canary
from contracts.snapshots.canary import Canary
from contracts.wire.events_pb2 import Item
from feature_repo.row import UserRow
from serving.answer import POPULAR, Answer, FeaturedRequest, NoAnswer, answer
from serving.catalogue import Withdrawn
from serving.model import LoadedModel, OnTrial
from tests.serving.serving_cases import make_snapshot

T2DIFF, TWO_TOWER, POPULAR_ITEMS = Source(source="t2diff"), Source(source="two_tower"), Source(source="popular")
BOTH = {name: LoadedModel(make_snapshot(name)) for name in ("two_tower", "t2diff")}


def experiment(*sources: Source, blend: str = "quota") -> Experiment:
    """The treatment's sources are these."""
    return Experiment.model_validate(
        {
            "name": "e",
            "salt": "s",
            "start_ms": 100,
            "end_ms": 200,
            "arms": {
                "control": {"weight": 1, "model": "two_tower"},
                "treatment": {"weight": 1, "model": "t2diff", "sources": sources, "blend": blend},
            },
            "control": "control",
        }
    )


PLAIN = experiment()
TREATED = next(user for user in range(1, 100) if assign(PLAIN, user, 150).arm == "treatment")


def row(items: Sequence[int], user_id: int = TREATED) -> UserRow:
    times = list(range(len(items)))
    return UserRow(user_id, items, times, times, [1] * len(items), [0] * len(items), [0] * len(items), 1, 1)


WATCHED_ONE = row([1])


def ask(known: UserRow | None = WATCHED_ONE, k: int = 2, time_ms: int = 150, **options: object) -> FeaturedRequest:
    return FeaturedRequest(TREATED, time_ms, k, known, **options)  # type: ignore[arg-type]


def answered(
    definition: Experiment, models: dict[str, LoadedModel], *asks: FeaturedRequest, withdrawn: Withdrawn | None = None
) -> Answer:
    (found,) = answer(definition, models, asks, (withdrawn or Withdrawn()).at)
    assert isinstance(found, Answer)
    return found


def items(found: Answer) -> list[int]:
    return [item for item, _, _ in found.picks]


def sources(found: Answer) -> list[str]:
    return [source for _, _, source in found.picks]


def test_the_arm_decides_the_model() -> None:
    found = answered(PLAIN, BOTH, ask())
    assert (found.experiment, found.arm, found.fallbacks) == ("e", "treatment", [])
    assert found.model is BOTH["t2diff"]
    assert (items(found), sources(found)) == ([2, 3], ["t2diff", "t2diff"])


def test_a_tester_is_served_and_labelled_and_who_is_not_in_yet_has_the_control_and_no_label() -> None:
    tester = PLAIN.model_copy(update={"overrides": {"control": (TREATED,)}})
    found = answered(tester, BOTH, ask())
    assert (found.experiment, found.arm, sources(found)) == ("e", "control", ["two_tower"] * 2)
    early = PLAIN.model_copy(update={"ramp": (RampStep(from_ms=160, share=1.0),)})
    found = answered(early, BOTH, ask())
    assert (found.experiment, found.arm, sources(found)) == ("", "", ["two_tower"] * 2)
    assert answered(early, BOTH, ask(time_ms=160)).arm == "treatment"


@pytest.mark.parametrize("time_ms", [99, 200])
def test_outside_the_period_the_control_serves_everyone_in_no_arm(time_ms: int) -> None:
    found = answered(PLAIN, BOTH, ask(time_ms=time_ms))
    assert (found.experiment, found.arm, sources(found)) == ("", "", ["two_tower"] * 2)


def test_an_unknown_user_gets_popular_items_and_is_told() -> None:
    found = answered(PLAIN, BOTH, ask(None))
    assert (sources(found), found.fallbacks) == ([POPULAR] * 2, ["unknown user"])
    assert items(found) == [6, 5]
    assert found.sources[0].candidates.user_vector is None


def test_an_unknown_user_of_whom_the_caller_knows_something_is_answered_by_the_tower() -> None:
    found = answered(PLAIN, BOTH, ask(None, recent=[1]))
    assert (sources(found), found.fallbacks) == (["t2diff"] * 2, ["unknown user, from context"])
    assert items(found) == [2, 3], "what was just watched is not returned"


def test_what_the_caller_knows_is_ignored_where_there_are_features() -> None:
    assert items(answered(PLAIN, BOTH, ask(recent=[6]))) == items(answered(PLAIN, BOTH, ask()))


def test_late_features_are_told_of() -> None:
    assert answered(PLAIN, BOTH, ask(late=True)).fallbacks == ["features late, last known"]
    nothing = answered(PLAIN, BOTH, ask(None, late=True))
    assert (nothing.fallbacks, sources(nothing)) == (["features late, none known"], [POPULAR] * 2)


def test_an_arm_without_a_snapshot_is_served_by_the_control_and_is_told() -> None:
    found = answered(PLAIN, {"two_tower": BOTH["two_tower"]}, ask())
    assert (found.arm, sources(found), found.fallbacks) == ("treatment", ["two_tower"] * 2, ["no snapshot of t2diff"])


def test_nothing_loaded_and_an_empty_catalogue_are_no_answer() -> None:
    hides = Withdrawn().at
    (nothing,) = answer(PLAIN, {}, [ask()], hides)
    assert isinstance(nothing, NoAnswer)
    assert "no snapshot" in str(nothing)
    (empty,) = answer(PLAIN, {"t2diff": LoadedModel(make_snapshot("t2diff", rows=0))}, [ask()], hides)
    assert isinstance(empty, NoAnswer)
    assert "catalogue" in str(empty)


NEWEST_FIRST = (9, 8, 7, 1)


def unlearned(models: dict[str, LoadedModel], request: FeaturedRequest, *hidden: int) -> Answer:
    withdrawn = Withdrawn()
    for item in hidden:
        withdrawn.take(item, None)
    (found,) = answer(PLAIN, models, [request], withdrawn.at, newest=NEWEST_FIRST)
    assert isinstance(found, Answer)
    return found


def test_before_anything_is_learned_the_newest_items_are_the_answer_and_say_so() -> None:
    found = unlearned({}, ask(None, k=3))
    assert found.picks == [(9, 0.0, "newest"), (8, 0.0, "newest"), (7, 0.0, "newest")]
    assert (found.experiment, found.arm, found.model) == ("e", "treatment", None)
    assert found.fallbacks == ["no snapshot of t2diff", "nothing learned, newest items"]
    assert [(each.name, each.model) for each in found.sources] == [("newest", None)]


def test_of_the_newest_items_too_none_comes_that_is_seen_excluded_or_withdrawn() -> None:
    assert items(unlearned({}, ask(WATCHED_ONE, k=4, exclude=[8]), 9)) == [7]
    assert items(unlearned({}, ask(None, k=4, recent=[7]))) == [9, 8, 1]
    nothing = unlearned({}, ask(WATCHED_ONE, k=4, exclude=[7, 8, 9]))
    assert (items(nothing), [each.name for each in nothing.sources]) == ([], ["newest"])


def test_what_another_model_has_counted_comes_first_and_what_nobody_has_watched_is_none_of_it() -> None:
    made = make_snapshot("sasrec")
    counts = np.array([1, 0, 0, 0, 5, 3], np.float32)  # of items 1 to 6
    counting = LoadedModel(replace(made, item_counts=counts))
    found = unlearned({"sasrec": counting}, ask(None, k=6), 5)
    assert found.picks[:2] == [(6, 3.0, "popular"), (1, 1.0, "popular")]
    assert (items(found)[2:], sources(found)[2:]) == ([9, 8, 7], ["newest"] * 3), "item 1 stands there once"
    assert found.model is counting
    assert [(each.name, each.model) for each in found.sources] == [("popular", counting), ("newest", None)]
    assert found.fallbacks[1:] == ["nothing learned, popular items", "nothing learned, newest items"]
    assert unlearned({"sasrec": counting}, ask(None, k=1)).fallbacks[1:] == ["nothing learned, popular items"]


def test_of_several_snapshots_the_one_that_learned_last_says_what_is_popular() -> None:
    old, new = (make_snapshot(name) for name in ("sasrec", "caser"))
    newer = LoadedModel(replace(new, manifest=replace(new.manifest, event_time_ms=5)))
    assert unlearned({"sasrec": LoadedModel(old), "caser": newer}, ask(None)).model is newer


def test_a_snapshot_without_items_and_late_features_are_told_of_beside_the_newest_items() -> None:
    empty = {"t2diff": LoadedModel(make_snapshot("t2diff", rows=0))}
    found = unlearned(empty, ask(None, late=True))
    assert items(found) == [9, 8]
    assert found.fallbacks == [
        "no items in the snapshot of t2diff",
        "features late, none known",
        "nothing learned, newest items",
    ]


def test_while_a_replica_may_not_answer_from_the_catalogue_nothing_loaded_is_no_answer() -> None:
    other = {"sasrec": LoadedModel(make_snapshot("sasrec"))}
    for newest, models in ((None, other), ((), {})):
        (nothing,) = answer(PLAIN, models, [ask()], Withdrawn().at, newest=newest)
        assert isinstance(nothing, NoAnswer)


def test_what_is_excluded_or_withdrawn_is_not_returned_and_k_is_filled() -> None:
    withdrawn = Withdrawn()
    withdrawn.take(3, Item(item_id=3, blocked=True))
    withdrawn.take(4, Item(item_id=4, expires_ms=150))
    withdrawn.take(5, Item(item_id=5, expires_ms=151))
    assert items(answered(PLAIN, BOTH, ask(exclude=[2]), withdrawn=withdrawn)) == [5, 6]
    assert items(answered(PLAIN, BOTH, ask(None, exclude=[6]), withdrawn=withdrawn)) == [5, 2], "popular items too"


def test_sources_have_their_quotas_and_every_item_says_its_source() -> None:
    found = answered(experiment(T2DIFF, POPULAR_ITEMS), BOTH, ask(k=4))
    assert list(zip(items(found), sources(found), strict=True)) == [
        (2, "t2diff"),
        (6, "popular"),
        (3, "t2diff"),
        (5, "popular"),
    ]
    assert [(source.name, source.model) for source in found.sources] == [
        ("t2diff", BOTH["t2diff"]),
        ("popular", BOTH["t2diff"]),
    ]


def test_shares_are_relative() -> None:
    three_to_one = experiment(Source(source="t2diff", share=3), Source(source="two_tower", share=1))
    assert sources(answered(three_to_one, BOTH, ask(k=4))).count("t2diff") == 3


def test_a_draft_is_a_function_of_user_and_snapshots() -> None:
    drafted = experiment(T2DIFF, POPULAR_ITEMS, blend="team-draft")
    first, second = (answered(drafted, BOTH, ask(k=5)) for _ in range(2))
    assert list(first.picks) == list(second.picks)
    assert sorted(items(first)) == [2, 3, 4, 5, 6], "each item once, whoever picks it"


def test_a_source_without_a_snapshot_leaves_its_places_to_the_others() -> None:
    found = answered(experiment(T2DIFF, TWO_TOWER), {"t2diff": BOTH["t2diff"]}, ask(k=4))
    assert (sources(found), found.fallbacks) == (["t2diff"] * 4, ["no snapshot of two_tower"])


def test_where_the_control_stands_in_it_has_the_share_of_the_arms_own_model() -> None:
    arm = experiment(Source(source="t2diff", share=3), POPULAR_ITEMS)
    found = answered(arm, {"two_tower": BOTH["two_tower"]}, ask(k=4))
    assert (sources(found).count("two_tower"), sources(found).count(POPULAR)) == (3, 1)


def test_what_one_gets_does_not_depend_on_the_others_of_the_batch() -> None:
    asks = [ask(k=3), ask(None, k=1), ask(row([1, 2, 3, 4, 5, 6]), k=2), ask(row([6]), k=5)]
    together = answer(PLAIN, BOTH, asks, Withdrawn().at)
    for each, found in zip(asks, together, strict=True):
        alone = answered(PLAIN, BOTH, each)
        assert isinstance(found, Answer)
        assert items(found) == items(alone)
        np.testing.assert_allclose(
            [score for _, score, _ in found.picks], [score for _, score, _ in alone.picks], rtol=1e-6
        )


def test_an_arm_whose_sources_leave_out_its_model_or_repeat_one_is_refused() -> None:
    with pytest.raises(ValueError, match="'t2diff' is not among its sources"):
        Arm(weight=1, model="t2diff", sources=(TWO_TOWER,))
    with pytest.raises(ValueError, match="a source stands twice"):
        Arm(weight=1, model="t2diff", sources=(T2DIFF, T2DIFF))


TRIED = Canary("v000007", 0.5, "v000007")
ON_TRIAL = {
    name: OnTrial(LoadedModel(make_snapshot(name, number=7, scale=-1.0)), TRIED) for name in ("two_tower", "t2diff")
}
TRIES, TRIES_NOT = (
    next(
        user
        for user in range(1, 1000)
        if assign(PLAIN, user, 150).arm == "treatment" and canary.answers("t2diff", TRIED, user, 150) is tries
    )
    for tries in (True, False)
)


def versions(
    definition: Experiment, user: int, known: UserRow | None = WATCHED_ONE, models: Mapping[str, LoadedModel] = BOTH
) -> list[tuple[str, str]]:
    """Each source of an answer and the version behind it, while all models have one on trial."""
    asked = FeaturedRequest(user, 150, 4, known)
    (found,) = answer(definition, models, [asked], Withdrawn().at, ON_TRIAL)
    assert isinstance(found, Answer)
    return [(each.name, each.model.manifest.version) for each in found.sources]


def test_who_tries_a_snapshot_has_it_in_place_of_the_arms_own_model() -> None:
    assert versions(PLAIN, TRIES) == [("t2diff", "v000007")]
    assert versions(PLAIN, TRIES_NOT) == [("t2diff", "v000001")]
    assert versions(PLAIN, TRIES, known=None) == [("popular", "v000007")]
    assert versions(PLAIN, TRIES_NOT, known=None) == [("popular", "v000001")]


def test_other_sources_are_what_is_live_and_what_is_popular_is_as_the_own_model_counts() -> None:
    of_three = experiment(TWO_TOWER, T2DIFF, POPULAR_ITEMS)
    assert versions(of_three, TRIES) == [("t2diff", "v000007"), ("two_tower", "v000001"), ("popular", "v000007")]
    assert versions(of_three, TRIES_NOT) == [("t2diff", "v000001"), ("two_tower", "v000001"), ("popular", "v000001")]


def test_what_stands_in_for_a_missing_model_is_what_is_live() -> None:
    control = {"two_tower": BOTH["two_tower"]}
    both = next(
        u
        for u in range(1, 1000)
        if canary.answers("two_tower", TRIED, u, 150) and assign(PLAIN, u, 150).arm == "treatment"
    )
    assert versions(PLAIN, both, models=control) == [("two_tower", "v000001")]


def test_nothing_is_tried_where_nothing_is_live() -> None:
    (nothing,) = answer(PLAIN, {}, [FeaturedRequest(TRIES, 150, 4, WATCHED_ONE)], Withdrawn().at, ON_TRIAL)
    assert isinstance(nothing, NoAnswer)


def test_users_of_a_batch_are_divided_as_the_trial_says_and_the_answers_are_those_of_each_alone() -> None:
    asks = [FeaturedRequest(user, 150, 3, row([1, 2], user)) for user in range(1, 400)]
    together = answer(PLAIN, BOTH, asks, Withdrawn().at, ON_TRIAL)
    tried = set()
    for each, found in zip(asks, together, strict=True):
        assert isinstance(found, Answer)
        model = {"treatment": "t2diff", "control": "two_tower"}[found.arm]
        tries = canary.answers(model, TRIED, each.user_id, 150)
        tried.add((model, tries))
        expected = ON_TRIAL[model].model if tries else BOTH[model]
        assert found.model is expected
        (alone,) = expected.recall([each.want])
        assert items(found) == alone.item_ids
        # A score near 0 is a difference of larger numbers.
        np.testing.assert_allclose([score for _, score, _ in found.picks], alone.scores, rtol=1e-6, atol=1e-6)
    assert len(tried) == 4
