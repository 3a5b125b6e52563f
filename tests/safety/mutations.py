"""Files that were changed: by the disk, by a crash, and by somebody who means harm. A function of a seed."""

import io
import json
import zipfile
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Random = np.random.Generator
RAN = "driftline-fuzz-ran"  # what a payload would leave behind
NUMBERS = (0, 1, -1, 2**31 - 1, 2**31, 2**63 - 1, 2**64 - 1, 10**18)

PICKLE = f"cos\nsystem\n(S'touch {RAN}'\ntR.".encode()
YAML = f"!!python/object/apply:os.system ['touch {RAN}']\n".encode()
NPY_OBJECT = (
    b"\x93NUMPY\x01\x00"
    + (118).to_bytes(2, "little")
    + (b"{'descr': '|O', 'fortran_order': False, 'shape': (), }".ljust(117) + b"\n" + PICKLE)
)
NPY_HUGE = (
    b"\x93NUMPY\x01\x00"
    + (118).to_bytes(2, "little")
    + (b"{'descr': '<i8', 'fortran_order': False, 'shape': (900000000000,), }".ljust(117) + b"\n" + bytes(64))
)
DEEP = b"[" * 100_000
ALIASES = b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(
    f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n".encode() for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


def zipped(entries: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """An archive of these."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return buffer.getvalue()


BOMB = zipped({"header.npy": bytes(1 << 26)}, zipfile.ZIP_DEFLATED)
CRAFTED = (
    b"",
    b"\x00",
    PICKLE,
    YAML,
    NPY_OBJECT,
    NPY_HUGE,
    DEEP,
    ALIASES,
    b"null",
    b"[]",
    b"{}",
    b'{"format": 1e999}',
    b"9" * 6000,
    b"\xff\xfe\x00",
    zipped({"header.npy": NPY_OBJECT}),
    zipped({"header.npy": NPY_HUGE}),
    zipped({"../../escaped.npy": NPY_HUGE, "/etc/passwd": b"x"}),
    zipped({"archive/data.pkl": PICKLE, "archive/version": b"3\n", "archive/byteorder": b"little"}),
)


def mutated(random: Random, content: bytes, others: Sequence[bytes]) -> bytes:
    """A file that is another one: by one to three changes, or in whole."""
    if random.random() < 0.08:
        return CRAFTED[random.integers(len(CRAFTED))]
    if random.random() < 0.01:
        return BOMB
    if others and random.random() < 0.05:
        return others[random.integers(len(others))]
    for _ in range(random.integers(1, 4)):
        content = CHANGES[random.integers(len(CHANGES))](random, content)
    return content


def _flip(random: Random, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(random.integers(1, 9) if changed else 0):
        changed[random.integers(len(changed))] ^= 1 << random.integers(8)
    return bytes(changed)


def _cut(random: Random, content: bytes) -> bytes:
    return content[: random.integers(len(content) + 1)]


def _splice(random: Random, content: bytes) -> bytes:
    begin, end = sorted(random.integers(len(content) + 1, size=2))
    at = random.integers(len(content) + 1)
    return content[:at] + content[begin : min(end, begin + 4096)] + content[at:]


def _leave_out(random: Random, content: bytes) -> bytes:
    begin = random.integers(len(content) + 1)
    return content[:begin] + content[begin + random.integers(1, 64) :]


def _zeros(random: Random, content: bytes) -> bytes:
    begin, length = random.integers(len(content) + 1), random.integers(1, 512)
    return content[:begin] + bytes(len(content[begin : begin + length])) + content[begin + length :]


def _noise(random: Random, content: bytes) -> bytes:
    begin, length = random.integers(len(content) + 1), random.integers(1, 64)
    return content[:begin] + random.bytes(length) + content[begin + length :]


def _number(random: Random, content: bytes) -> bytes:
    width = (2, 4, 8)[random.integers(3)]
    number = NUMBERS[random.integers(len(NUMBERS))] % 256**width
    at = random.integers(len(content) + 1)
    return content[:at] + number.to_bytes(width, ("little", "big")[random.integers(2)]) + content[at + width :]


def _digits(random: Random, content: bytes) -> bytes:
    places = [place for place, byte in enumerate(content[:4096]) if 48 <= byte <= 57]
    if not places:
        return _flip(random, content)
    at = places[random.integers(len(places))]
    return content[:at] + str(NUMBERS[random.integers(len(NUMBERS))]).encode() + content[at + 1 :]


def _more(random: Random, content: bytes) -> bytes:
    return content + random.bytes(random.integers(1, 64))


CHANGES: tuple[Callable[[Random, bytes], bytes], ...] = (
    _flip, _flip, _cut, _splice, _leave_out, _zeros, _noise, _number, _digits, _more,
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 2**40, 2**63, 10**30, 0.5, float("nan"), float("inf"), "", "x", "../../x", "/etc/passwd",
    "v000009", [], {}, [[]], [1, 2, 3], {"x": 1}, b"", PICKLE, "a" * 3000,
)  # fmt: skip


def changed_value(random: Random, value: Any) -> Any:
    """A value of dictionaries, lists, numbers, texts and arrays, in which one or two parts are others or gone."""
    for _ in range(random.integers(1, 3)):
        value = _changed(random, value)
    return value


def _changed(random: Random, value: Any) -> Any:
    if isinstance(value, dict) and value and random.random() < 0.95:
        key = list(value)[random.integers(len(value))]
        if random.random() < 0.1:
            return {name: each for name, each in value.items() if name != key}
        return value | {key: _changed(random, value[key])}
    if isinstance(value, list | tuple) and value and random.random() < 0.8:
        at = random.integers(len(value))
        changed = [*value]
        changed[at] = _changed(random, value[at])
        return type(value)(changed) if type(value) in (list, tuple) else changed
    if isinstance(value, np.ndarray) and random.random() < 0.7:
        return _changed_array(random, value)
    return VALUES[random.integers(len(VALUES))]


def _changed_array(random: Random, values: Any) -> Any:
    choice = random.integers(6)
    if choice == 0:
        return values[: len(values) // 2] if values.ndim else values.reshape(1)
    if choice == 1:
        return values.reshape(-1, 1)
    if choice == 2:
        with np.errstate(invalid="ignore", over="ignore"):  # of a number that the other type lacks any will do
            return values.astype((np.float64, np.int64, np.uint8, np.float32)[random.integers(4)])
    flat = np.array(values).reshape(-1)
    if flat.size:
        extremes = (0, -1, 1, 2**31) if flat.dtype.kind in "iu" else (0, -1, np.nan, np.inf)
        with np.errstate(all="ignore"):
            flat[random.integers(flat.size)] = np.array(extremes[random.integers(4)]).astype(flat.dtype)
    return flat.reshape(values.shape)


def as_json(value: Any) -> bytes:
    """As JSON, with what JSON has no form for as a text."""
    return json.dumps(value, default=repr).encode()
