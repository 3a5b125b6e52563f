"""A catalogue whose items come, go and come back, against the plainest model of one."""

from typing import Any

import numpy as np
import pytest

from tests.trainer.data.catalogue_cases import Table
from trainer.data.catalogue import Catalogue


class Plain:
    """What a catalogue is, as dicts."""

    def __init__(self) -> None:
        self.items: dict[int, list[Any]] = {}  # id -> [categories, heard of, serial]
        self.arrivals = 0

    def put(self, item_id: int, categories: list[int], time_ms: int) -> None:
        if item_id not in self.items:
            self.items[item_id] = [categories, time_ms, self.arrivals]
            self.arrivals += 1
        known = self.items[item_id]
        self.items[item_id] = [categories, max(known[1], time_ms), known[2]]

    def expire(self, before_ms: int) -> int:
        kept = {i: known for i, known in self.items.items() if known[1] >= before_ms}
        gone, self.items = len(self.items) - len(kept), kept
        return gone


def agree(catalogue: Catalogue, plain: Plain) -> None:
    assert catalogue.item_ids.tolist() == sorted(plain.items)
    rows = catalogue.rows(catalogue.item_ids)
    assert sorted(rows) == list(range(len(catalogue)))
    assert catalogue.arrival.tolist() == rows.tolist()
    bags = catalogue.bags(rows)
    ids = catalogue.categories.ids[bags.flat]
    found = [part.tolist() for part in np.split(ids, bags.lengths.cumsum()[:-1])]
    assert found == [plain.items[i][0] for i in sorted(plain.items)]
    assert set(catalogue.categories.ids.tolist()) == {c for known in plain.items.values() for c in known[0]}


@pytest.mark.parametrize("seed", range(4))
def test_whatever_happens_the_rows_and_whoever_follows_them_are_right(seed: int) -> None:
    rng = np.random.default_rng(seed)
    catalogue, plain = Catalogue(), Plain()
    often, seldom = Table(), Table()
    for now_ms in range(1500):
        item_id = int(rng.integers(1, 60))
        match rng.choice(["put", "remove", "touch", "expire"], p=[0.6, 0.2, 0.15, 0.05]):
            case "put":
                categories = rng.integers(1, 9, rng.integers(0, 4)).tolist()
                catalogue.put(item_id, categories, now_ms)
                plain.put(item_id, categories, now_ms)
            case "remove":
                assert catalogue.remove(item_id) == (plain.items.pop(item_id, None) is not None)
            case "touch" if item_id in plain.items:
                catalogue.touch(catalogue.rows(np.array([item_id])), np.array([now_ms]))
                plain.items[item_id][1] = now_ms
            case "expire":
                before_ms = now_ms - int(rng.integers(20, 200))
                assert catalogue.expire(before_ms) == plain.expire(before_ms)
        if rng.random() < 0.5:
            often.follow(catalogue.items)
        if rng.random() < 0.02:
            agree(catalogue, plain)
            again = Catalogue()
            again.restore(catalogue.state())
            catalogue = again  # and everybody goes on following
            seldom.follow(catalogue.items)
            expected = [[known[2], i] for i, known in sorted(plain.items.items())]
            assert seldom.content[catalogue.arrival].tolist() == expected
    agree(catalogue, plain)
    for table in (often, seldom):
        table.follow(catalogue.items)
        assert table.content[catalogue.arrival].tolist() == [[plain.items[i][2], i] for i in sorted(plain.items)]
        assert table.follow(catalogue.items) == 0
    assert plain.arrivals >= often.arrivals > 300  # far more than there are ids: many came back


def test_an_item_that_is_heard_of_again_lives_on_and_one_that_is_late_does_not_age() -> None:
    catalogue = Catalogue()
    for item_id in (1, 2, 3):
        catalogue.put(item_id, [], 100)
    catalogue.touch(catalogue.rows(np.array([2, 3])), np.array([500, 50]))
    catalogue.put(1, [4], 300)
    assert catalogue.expire(101) == 1
    assert catalogue.item_ids.tolist() == [1, 2]
    assert catalogue.expire(300) == 0
    assert catalogue.expire(301) == 1
    assert catalogue.item_ids.tolist() == [2]
