"""A user to forget or to look for, in every form in which the id is written somewhere. Pure."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from contracts.messages.ids import id_of_text

SHORTEST_BYTES = 5  # of a number, zeros at its ends left out; a shorter one stands in files by accident
SHORTEST_DIGITS = 8
SHORTEST_TEXT_BYTES = 6


@dataclass(frozen=True)
class User:
    """`text` where the user was named by a text id."""

    number: int
    text: str = ""

    @classmethod
    def of_text(cls, text: str) -> "User":
        """The user with a text id.

        Raises:
            BadTextId: it is none.

        """
        return cls(id_of_text(text), text)

    def __str__(self) -> str:
        """As people call the user."""
        return f"'{self.text}'" if self.text else str(self.number)

    @property
    def digits(self) -> bytes:
        """As keys of records have it."""
        return str(self.number).encode()

    @cached_property
    def patterns(self) -> dict[str, bytes]:
        """By encoding, bytes that stand in a file for no other reason, as far as there are any.

        >>> sorted(User(6149554607595376846).patterns)
        ['big-endian', 'big-endian, sortable', 'decimal', 'little-endian', 'varint', 'varint, zigzag']
        >>> User(7).patterns, list(User.of_text("anna-1").patterns)[-1]
        ({}, 'text')
        """
        found: dict[str, bytes] = {}
        if len(self.digits) >= SHORTEST_DIGITS:
            found["decimal"] = self.digits
        if (self.number.bit_length() + 7) // 8 >= SHORTEST_BYTES:
            found |= {
                "little-endian": self.number.to_bytes(8, "little"),
                "big-endian": self.number.to_bytes(8, "big"),
                "big-endian, sortable": (self.number + (1 << 63)).to_bytes(8, "big"),
                "varint": varint(self.number),
                "varint, zigzag": varint(self.number << 1),
            }
        if len(self.text.encode()) >= SHORTEST_TEXT_BYTES:
            found["text"] = self.text.encode()
        return found

    def occurs_in(self, content: bytes) -> bool:
        """Whether bytes have the user in any encoding; False for one of whom none can be told by bytes."""
        return any(pattern in content for pattern in self.patterns.values())

    def is_named_in(self, sentence: str) -> bool:
        """Whether the detail of a dead letter names the user.

        >>> user = User(7)
        >>> user.is_named_in("request r was not user 7's"), user.is_named_in("user 77 belongs on partition 1")
        (True, False)
        """
        return bool(re.search(rf"(?<!\d){self.number}(?!\d)", sentence)) or bool(self.text and self.text in sentence)


def varint(number: int) -> bytes:
    """As protobuf writes it.

    >>> varint(300).hex()
    'ac02'
    """
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def chunks(content: Iterable[bytes], overlap: int) -> Iterator[bytes]:
    """Chunks, each behind the last `overlap` bytes of the one before: no pattern is cut in two.

    >>> list(chunks([b"abcd", b"efgh"], 2))
    [b'abcd', b'cdefgh']
    """
    tail = b""
    for chunk in content:
        whole = tail + chunk
        yield whole
        tail = whole[-overlap:] if overlap else b""
