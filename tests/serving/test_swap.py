"""What to load next: literal states, literal decisions."""

import pytest

from serving.swap import Load, Plan, plan, to_load

WHOLE = Load("a", "v000010+003")
MISSING = Load("a", "v000010+003", ("v000010+002", "v000010+003"))


@pytest.mark.parametrize(
    ("live", "loaded", "failed", "expected", "why"),
    [
        (None, None, [], None, "there is nothing before the first publication"),
        ("v000010", None, [], Load("a", "v000010"), "nothing is loaded yet"),
        ("v000010", "v000010", [], None, "what is live serves"),
        ("v000011", "v000010+002", [], Load("a", "v000011"), "another full one is loaded whole"),
        ("v000010+003", "v000010+001", [], MISSING, "only what is missing is loaded"),
        ("v000010+001", "v000010", [], Load("a", "v000010+001", ("v000010+001",)), "from the base on, too"),
        ("v000010+003", None, [], WHOLE, "without the base there is nothing to apply deltas to"),
        ("v000010+003", "v000009+002", [], WHOLE, "deltas go on their own base alone"),
        ("v000010+003", "v000010+004", [], WHOLE, "a delta cannot be taken back"),
        ("v000010", "v000010+004", [], Load("a", "v000010"), "nor can all of them"),
        ("v000010+003", "v000010+001", [MISSING], WHOLE, "where deltas fail, the whole chain is tried"),
        ("v000010+003", "v000010+001", [MISSING, WHOLE], None, "once; then what is loaded serves on"),
        ("nonsense", "v000010", [], Load("a", "nonsense"), "what the pointer says is for the reader to refuse"),
        ("nonsense", "v000010", [Load("a", "nonsense")], None, "once"),
    ],
)
def test_what_to_load(
    live: str | None, loaded: str | None, failed: list[Load], expected: Load | None, why: str
) -> None:
    found = to_load({"a": live}, {"a": loaded} if loaded else {}, set(failed))
    assert found == ([expected] if expected else []), why


def test_models_are_loaded_in_the_order_of_their_names() -> None:
    found = to_load({"b": "v000001", "a": "v000002"}, {"b": "v000003"}, set())
    assert found == [Load("a", "v000002"), Load("b", "v000001")]


BEFORE = "v000009+004"
TRIED_WHOLE = Load("a", "v000010+002", trial=True)
TRIED_MISSING = Load("a", "v000010+002", ("v000010+001", "v000010+002"), trial=True)


@pytest.mark.parametrize(
    ("live", "trial", "loaded", "tried", "failed", "expected", "why"),
    [
        (BEFORE, "v000010+002", BEFORE, None, [], Plan([], [], [TRIED_WHOLE]), "what is on trial is loaded beside"),
        (BEFORE, "v000010+002", BEFORE, "v000010", [], Plan([], [], [TRIED_MISSING]), "of its deltas what is missing"),
        (BEFORE, "v000010+002", BEFORE, "v000010", [TRIED_MISSING], Plan([], [], [TRIED_WHOLE]), "or the whole chain"),
        (BEFORE, "v000010+002", BEFORE, "v000010", [TRIED_MISSING, TRIED_WHOLE], Plan([], [], []), "each once"),
        (BEFORE, "v000010", BEFORE, "v000010", [], Plan([], [], []), "all is as it should be"),
        (BEFORE, "v000010", None, None, [], Plan([], [], [Load("a", BEFORE)]), "first what it is tried beside"),
        ("v000010", None, BEFORE, "v000010", [], Plan(["a"], [], []), "a good end: it moves over"),
        ("v000010", "v000010", BEFORE, "v000010", [], Plan(["a"], [], []), "CANARY is still there for a moment"),
        (
            "v000010+001", "v000010", BEFORE, "v000010", [],
            Plan(["a"], [], [Load("a", "v000010+001", ("v000010+001",))]), "a delta has followed: it moves over first",
        ),
        ("v000010+001", "v000010", "v000010+001", None, [], Plan([], [], []), "what is live is on trial no more"),
        ("v000010", None, BEFORE, "v000010+001", [], Plan([], ["a"], [Load("a", "v000010")]), "no delta is taken back"),
        ("v000010", None, "v000010", "v000010", [], Plan([], ["a"], []), "it serves already"),
        (BEFORE, None, BEFORE, "v000010", [], Plan([], ["a"], []), "a bad end: it goes"),
        (
            BEFORE, "v000011", BEFORE, "v000010", [],
            Plan([], ["a"], [Load("a", "v000011", trial=True)]), "another one is on trial",
        ),
        (
            "v000010", "v000011", BEFORE, "v000010", [],
            Plan(["a"], [], [Load("a", "v000011", trial=True)]), "the next trial begins as one ends well",
        ),
        (
            "v000010", None, BEFORE, None, [Load("a", "v000010", trial=True)],
            Plan([], [], [Load("a", "v000010")]), "what failed on trial is tried once more when it goes live",
        ),
        (
            BEFORE, "v000009+005", BEFORE, None, [],
            Plan([], [], [Load("a", "v000009+005", trial=True)]), "a delta alone may be on trial",
        ),
        (None, "v000010", BEFORE, "v000010", [], Plan([], [], []), "a disk that is away ends no trial"),
    ],
)  # fmt: skip
def test_what_to_do_about_a_trial(
    live: str | None,
    trial: str | None,
    loaded: str | None,
    tried: str | None,
    failed: list[Load],
    expected: Plan,
    why: str,
) -> None:
    found = plan(
        {"a": live},
        {"a": trial} if trial else {},
        {"a": loaded} if loaded else {},
        {"a": tried} if tried else {},
        set(failed),
    )
    assert found == expected, why


def test_what_is_live_is_loaded_before_what_is_on_trial() -> None:
    live, trials = {"a": "v000001", "b": "v000002"}, {"a": "v000009", "b": "v000009"}
    found = plan(live, trials, {"a": "v000001", "b": "v000001"}, {}, set())
    assert found.load == [Load("b", "v000002"), Load("a", "v000009", trial=True), Load("b", "v000009", trial=True)]
