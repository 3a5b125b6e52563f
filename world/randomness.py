"""Randomness as a function of counters: the same number whenever, and in whatever batch, it is asked for."""

import numpy as np
import numpy.typing as npt

from contracts.features import Ints
from world.base import Doubles

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_Words = npt.NDArray[np.uint64]


def uniforms(seed: int, stream: int, counters: Ints, lanes: Ints) -> Doubles:
    """Uniform numbers in (0, 1), one for each (counter, lane) pair; `counters` and `lanes` broadcast.

    Four rounds of the splitmix64 finaliser (Steele, Lea and Flood, OOPSLA 2014) over (seed, stream, counter, lane).

    >>> once = uniforms(7, 0, np.arange(3), np.array([1]))
    >>> bool((uniforms(7, 0, np.array([2]), np.array([1])) == once[2]).all())
    True
    """
    with np.errstate(over="ignore"):  # arithmetic modulo 2**64 is meant
        state = _mix(np.asarray([seed], np.int64).astype(np.uint64))
        for part in (np.asarray([stream], np.int64), counters, lanes):
            state = _mix(state + np.asarray(part, np.int64).astype(np.uint64) * _GOLDEN)
    numbers: Doubles = ((state >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    return numbers


def _mix(words: _Words) -> _Words:
    words = words + _GOLDEN
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
