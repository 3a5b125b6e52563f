"""The numbers of text ids: the same in every language, and none for what is no text id."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.messages.events import BadEvent, Reason, decode_catalogue, require_own_number
from contracts.messages.ids import BadTextId, ItemKeys, OtherId, id_of, id_of_text
from contracts.messages.placement import key_of
from contracts.wire.events_pb2 import Item

# Two texts with one number: a search by distinguished points (van Oorschot, Wiener 1999) took 3.5 · 10⁹ hashes.
COLLISION = ("item-28e62ce43462d56f", "item-320fb625f9b5b94b")

TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=64)


@given(TEXTS)
def test_the_number_is_what_the_contract_says(text: str) -> None:
    hexadecimal = hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]
    number = int(hexadecimal, 16) % 2**63
    assert id_of_text(text) == (number or 1)
    assert 0 < id_of_text(text) < 2**63


@pytest.mark.parametrize(
    ("text", "digest"),  # the first half is what `printf %s TEXT | sha256sum` begins with
    [
        ("anna", 0x55579B557896D0CE),
        ("42", 0x73475CB40A568E8D),
        ("日本 – ü", 0x6978ACA598404C06),
        ("a", 0xCA978112CA1BBDCA),
    ],
)
def test_the_number_is_what_sha256sum_says(text: str, digest: int) -> None:
    assert id_of_text(text) == digest % 2**63


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is empty"),
        ("a" * 257, "has 257 bytes; 256 are allowed"),
        ("ü" * 129, "has 258 bytes; 256 are allowed"),
        ("a\n", "has a control character"),
        ("a\tb", "has a control character"),
        ("\x00", "has a control character"),
        ("a\x7f", "has a control character"),
        ("a\x85", "has a control character"),
        ("\udcff", "is not UTF-8"),
    ],
)
def test_what_is_no_text_id_is_told_so(text: str, why: str) -> None:
    with pytest.raises(BadTextId, match=f"^{why}$"):
        id_of_text(text)


@pytest.mark.parametrize("text", ["a" * 256, "ü" * 128, " ", "a b", "\u2028", "\u00a0x", "👩\u200d🔬"])
def test_any_other_text_is_one(text: str) -> None:
    assert id_of_text(text) > 0


def test_a_text_is_what_it_is_byte_by_byte() -> None:
    """No case is folded, no space cut off, no accent composed, no number read."""
    assert len({*map(id_of_text, ("a", "A", " a", "a ", "\u00e4", "a\u0308", "7", "07", "+7"))}) == 9


def test_a_number_beside_the_text_must_be_its_own() -> None:
    number = id_of_text("a")
    assert id_of(0, "a") == id_of(number, "a") == number
    for other in (number - 1, 1, -1):
        with pytest.raises(OtherId, match=f"is 'a', whose number is {number}, and not {other}"):
            id_of(other, "a")


def test_of_two_texts_with_one_number_the_first_is_the_items() -> None:
    first, second = COLLISION
    assert id_of_text(first) == id_of_text(second) == 7920792532661096861
    number = id_of_text(first)

    def record(text: str) -> tuple[int, Item | None]:
        value = Item(schema_version=1, item_key=text, item_id=0 if text else number).SerializeToString()
        return decode_catalogue(key_of(number), value, max_bytes=1000)

    keys = ItemKeys()
    require_own_number(keys, *record(""))
    assert len(keys) == 0
    for text in (first, "", first):
        require_own_number(keys, *record(text))
    require_own_number(keys, number, None)  # a deletion does not let go of it
    with pytest.raises(BadEvent) as refused:
        require_own_number(keys, *record(second))
    assert refused.value.reason is Reason.ID_COLLISION
    assert refused.value.detail == f"item_key {second!r} has the number {number}, as {first!r} has, which came first"
    assert keys.get(number) == first
