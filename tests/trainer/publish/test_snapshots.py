from pathlib import Path

import numpy as np
import pytest

from trainer.publish.snapshots import Boundaries, EvenSample, next_version, sampling_seed, versions_on_disk


@pytest.mark.parametrize(
    ("times", "expected", "why"),
    [
        ([0], [False], "the first example only tells where time stands"),
        ([55], [False], "wherever it stands"),
        ([1, 9], [False, False], "the same interval"),
        ([9, 10], [False, True], "a boundary belongs to the interval that it opens"),
        ([1, 45], [False, True], "a gap of several intervals is one publication"),
        ([11, 9, 12], [False, False, False], "a late example neither calls for one nor turns time back"),
        ([9, 10, 9, 10], [False, True, False, False], "an interval is entered once"),
    ],
)
def test_when_to_publish(times: list[int], expected: list[bool], why: str) -> None:
    boundaries = Boundaries(every_ms=10)
    assert [boundaries.crossed(time_ms) for time_ms in times] == expected, why


@pytest.mark.parametrize("offered", [0, 1, 256, 257, 5000])
def test_the_sample_is_bounded_even_and_the_same_each_time(offered: int) -> None:
    first, second = EvenSample(256), EvenSample(256)
    for value in range(offered):
        first.offer(value)
        second.offer(value)
    taken = first.take()
    assert taken == second.take()
    assert min(offered, 128) <= len(taken) <= 256
    assert len(set(np.diff(taken))) <= 1


def test_versions_go_on_from_what_is_on_disk(tmp_path: Path) -> None:
    assert versions_on_disk(tmp_path, "t2diff") == []
    for name in ("v000001", "v000007", ".v000008.tmp"):
        (tmp_path / "t2diff" / name).mkdir(parents=True)
    assert next_version(versions_on_disk(tmp_path, "t2diff")) == 8


def test_sampling_seeds_fit_a_generators_key_and_differ() -> None:
    seeds = {sampling_seed(seed, version) for seed in range(20) for version in range(20)}
    assert len(seeds) == 400
    assert all(0 <= seed < 2**63 for seed in seeds)
