"""Users as whole numbers of 64 bits, whatever they are called: a number is itself, all else a hash of what is written.

Two of n users share a hash with a probability of about n² / 2⁶⁵, at three million users one in four million.
"""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from abtest.aggregate.user_days import Ints

EXACT = 2**53  # a double holds each whole number below it


def kind_of(kind: Any) -> str:
    """What users of an Ibis type are, so that those of two tables can be compared: "number", "text" or the type."""
    if kind.is_numeric() and not kind.is_boolean():
        return "number"
    return "text" if kind.is_string() or kind.is_uuid() else str(kind)


def keys_of(values: pa.Array) -> Ints:
    """A number for each user; the same for the same user. A missing one gets any.

    >>> keys_of(pa.array([7, -1])).tolist(), len(set(keys_of(pa.array(["7", "a", "a"])).tolist()))
    ([7, -1], 2)
    """
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if isinstance(values, pa.ExtensionArray):  # such as a UUID's
        values = pa.array([None if each is None else str(each) for each in values.to_pylist()], pa.string())
    kind = values.type
    if pa.types.is_unsigned_integer(kind) or pa.types.is_signed_integer(kind):
        filled = pc.fill_null(values, pa.scalar(0, kind)) if values.null_count else values
        whole: Ints = filled.to_numpy(zero_copy_only=False).astype(np.int64, copy=False)
        return whole
    if pa.types.is_floating(kind):
        numbers = pc.fill_null(values, 0.0).to_numpy(zero_copy_only=False)
        return np.where(are_whole(numbers), numbers, 0).astype(np.int64)
    return _hashed(values.to_pylist())


def are_whole(numbers: Any) -> Any:
    """Which doubles say exactly which user is meant, (n,)."""
    return (numbers == np.floor(numbers)) & (np.abs(numbers) < EXACT)


def _hashed(values: list[Any]) -> Ints:
    from pandas.util import hash_array  # a quarter of a second that users who are numbers need not wait

    keys = np.zeros(len(values), np.int64)
    written = np.array([_written(each) for each in values], object)
    small = np.array([isinstance(each, int) for each in written], bool)
    keys[small] = written[small].astype(np.int64)
    keys[~small] = hash_array(written[~small], categorize=True).view(np.int64)
    return keys


def _written(value: Any) -> int | str | bytes:
    """A user as it is hashed; a whole number of 64 bits (of a wider type) stays one."""
    if value is None:
        return 0
    if isinstance(value, str | bytes):
        return value
    if hasattr(value, "is_finite") and value.is_finite() and value == int(value):  # a decimal
        return int(value) if -(2**63) <= value < 2**63 else str(int(value))
    return str(value)
