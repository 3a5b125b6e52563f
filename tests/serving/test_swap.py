"""What to load next: literal states, literal decisions."""

import pytest

from serving.swap import Load, to_load

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
