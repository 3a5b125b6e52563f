"""What a part is worth, and when it is served."""

import numpy as np
import pytest

from contracts.features import Ints
from trainer.evaluation.part_worth import EVERY, LEAST, PartWorth

HIT, MISS = 1, 1000


def pairs(rng: np.random.Generator, count: int, without: float, gained: float, lost: float = 0.0) -> tuple[Ints, Ints]:
    """Ranks with and without: of `count` targets so many shares are found without, gained by the part, and lost."""
    kind = rng.choice(4, count, p=[without - lost, lost, gained, 1 - without - gained])
    return np.where((kind == 0) | (kind == 2), HIT, MISS), np.where(kind <= 1, HIT, MISS)


def test_its_interval_holds_what_is_true_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(300):
        part = PartWorth("guess")
        for _ in range(30):
            part.add(*pairs(rng, 100, without=0.2, gained=0.02, lost=0.01))
        found = part.part()
        assert found.low is not None
        assert found.high is not None
        held += found.low <= 0.05 <= found.high
    assert 276 <= held <= 297  # 95 %, ± 2.5 standard errors


def test_a_part_is_served_while_it_is_of_use() -> None:
    rng = np.random.default_rng(1)
    part = PartWorth("guess")
    assert not part.served
    part.add(*pairs(rng, LEAST - 1, without=0.2, gained=0.2))
    assert not part.served, "too few to tell"
    part.add(*pairs(rng, LEAST, without=0.2, gained=0.2))
    assert part.served
    for _ in range(200):
        part.add(*pairs(rng, 500, without=0.2, gained=0.0, lost=0.05))
    assert not part.served
    assert part.metrics()["worth:guess"] == pytest.approx(-0.25, abs=0.05)
    assert part.metrics()["served:guess"] == 0


@pytest.mark.parametrize("seed", range(10))
def test_a_part_that_changes_nothing_is_not_served(seed: int) -> None:
    part = PartWorth("guess")
    ranks = np.random.default_rng(seed).integers(1, 100, 5000)
    part.add(ranks, ranks)
    assert part.part()[2:] == (0.0, 0.0, 0.0)
    assert not part.served


def test_nothing_found_without_it_is_no_number() -> None:
    part = PartWorth("guess")
    part.add(np.full(2 * LEAST, HIT), np.full(2 * LEAST, MISS))
    assert part.metrics() == {"served:guess": 0.0}


def test_a_model_without_such_a_part_is_never_tested_twice() -> None:
    part = PartWorth("")
    assert not any(part.due() for _ in range(3 * EVERY))
    assert part.metrics() == {}


def test_it_goes_on_from_its_state() -> None:
    rng = np.random.default_rng(2)
    undisturbed, before, after = (PartWorth("guess") for _ in range(3))
    first, then = (pairs(rng, 3000, without=0.2, gained=0.01) for _ in range(2))
    for part in (undisturbed, before):
        part.due()
        part.add(*first)
    after.restore(before.state())
    before.add(*then)  # spoils no state that was given away
    for part in (undisturbed, after):
        part.add(*then)
    assert undisturbed.metrics() == after.metrics()
    assert [undisturbed.due() for _ in range(EVERY)] == [after.due() for _ in range(EVERY)]
