"""Text ids: which number a text stands for, and which texts are none. Part of the public contract (`docs/events.md`).

Everything inside goes by numbers. The number of a text is a function of the text alone, so there is no map of users to
keep, to version or to share, and a producer in any language computes the same one. Of items the catalogue keeps the
text, for replies (`ItemKeys`).
"""

import unicodedata
from functools import lru_cache
from hashlib import sha256
from struct import Struct

LONGEST_TEXT_BYTES = 256  # of UTF-8
NUMBERS = (1 << 63) - 1  # an int64 that is not below 0
FIRST = Struct(">Q24x").unpack  # of a digest; in half the time of `int.from_bytes` of a slice
KEPT = 1 << 16  # numbers of texts, as items come again and again: 13 MB where the texts have 24 bytes


class BadTextId(ValueError):
    """A text that is no id; one clause says why."""


class OtherId(BadTextId):
    """A text and a number that were given for one user or item, and are not one another's."""


@lru_cache(KEPT)
def id_of_text(text: str) -> int:
    """The number of a text id: the first 8 bytes of its SHA-256, big-endian, without the highest bit; 1 for 0.

    Two texts of n have one number with a probability of n² / 2⁶⁴ at most (n (n − 1) / 2 pairs, each with 2⁻⁶³): for
    10⁶ texts 5 · 10⁻⁸, for 10⁹ texts .05. Who chooses texts so can find two in 4 · 10⁹ hashes.

    >>> id_of_text("anna")
    6149554607595376846
    >>> id_of_text("42") == 42
    False

    Raises:
        BadTextId: it is empty, too long, or holds what is no text.

    """
    try:
        content = text.encode()
    except UnicodeEncodeError:
        raise BadTextId("is not UTF-8") from None
    if not content:
        raise BadTextId("is empty")
    if len(content) > LONGEST_TEXT_BYTES:
        raise BadTextId(f"has {len(content)} bytes; {LONGEST_TEXT_BYTES} are allowed")
    # Not all that is not printable is a control character: a line separator is none. All control characters are not.
    if not text.isprintable() and _has_control(text):
        raise BadTextId("has a control character")
    (first,) = FIRST(sha256(content).digest())
    return first & NUMBERS or 1


def _has_control(text: str) -> bool:
    return any(unicodedata.category(character) == "Cc" for character in text)


def id_of(number: int, text: str) -> int:
    """The number of a user or an item that was named by a text, and by a number too where that is not 0.

    >>> id_of(0, "anna") == id_of(6149554607595376846, "anna")
    True

    Raises:
        BadTextId: the text is no id; `OtherId` where the number is another one than the text's.

    """
    of_text = id_of_text(text)
    if number not in (0, of_text):
        raise OtherId(f"is {text!r}, whose number is {of_text}, and not {number}")
    return of_text


class ItemKeys:
    """The text ids of a catalogue's items: of each number the first text that was named.

    A text stays when its item is deleted: users and snapshots may name the number for a while.

    >>> keys = ItemKeys()
    >>> keys.add(7, "seven"), keys.add(7, ""), keys.add(7, "another"), keys.get(7)
    (True, True, False, 'seven')
    """

    def __init__(self) -> None:
        self._texts: dict[int, str] = {}

    def add(self, item_id: int, text: str) -> bool:
        """Take in what a record of the catalogue says; False where the number is another text's already.

        `text`: empty where the record has none.
        """
        return not text or self._texts.setdefault(item_id, text) == text

    def get(self, item_id: int) -> str:
        """An item's text; empty where it has none."""
        return self._texts.get(item_id, "")

    def __len__(self) -> int:
        return len(self._texts)
