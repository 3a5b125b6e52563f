from itertools import islice

import numpy as np
import pytest

from benchmarks.crowd import CATEGORY, Crowd, catalogue, dated, examples
from benchmarks.trainer.served import Sent, quantiles, waits
from contracts.messages.events import decode_example
from contracts.runtime.clock import MINUTE_MS

NOW_MS = 10**12
CROWD = Crowd(users=6, items=2 * CATEGORY, behaviours=5)
# Two examples a second and partition, from second 0 on.
SENT = {partition: Sent(np.arange(6), np.arange(6) / 2) for partition in (0, 1)}


def test_an_example_waits_until_the_first_version_that_includes_its_offset() -> None:
    served = [(4.0, {0: 2, 1: 1}), (7.0, {0: 6, 1: 6})]
    found = waits(SENT, served, 0.0, 10.0)
    assert found.tolist() == [4, 3.5, 6, 5.5, 5, 4.5, 4, 6.5, 6, 5.5, 5, 4.5]


def test_only_what_was_sent_in_the_measured_time_counts() -> None:
    assert waits(SENT, [(9.0, {0: 6, 1: 6})], 1.0, 2.0).tolist() == [8, 7.5, 8, 7.5]


def test_an_older_version_that_is_put_back_takes_nothing_away() -> None:
    served = [(4.0, {0: 6, 1: 6}), (5.0, {0: 1, 1: 1})]
    assert waits(SENT, served, 2.5, 3.0).tolist() == [1.5, 1.5]


def test_what_no_version_includes_was_never_served() -> None:
    assert np.isinf(waits(SENT, [], 0.0, 1.0)).all()
    assert np.isinf(waits(SENT, [(4.0, {0: 6})], 0.0, 10.0)).sum() == 6


def test_a_quantile_is_told_only_where_so_many_were_served() -> None:
    assert quantiles(np.append(np.arange(199.0), np.inf)) == {"p50": 100.0, "p99": 198.0}
    assert quantiles(np.empty(0)) == {"p50": None, "p99": None}


def test_the_crowds_examples_are_what_the_trainer_takes() -> None:
    ids = {item.item_id for item in catalogue(CROWD)}
    assert ids == set(range(1, 2 * CATEGORY + 1))
    for example in islice(examples(CROWD), 30):
        taken = decode_example(dated(example, NOW_MS).SerializeToString(), max_bytes=10_000)
        assert taken.item_id in ids
        assert {*taken.history.item_ids} <= ids
        assert [*taken.history.times_ms] == [NOW_MS - minutes * MINUTE_MS for minutes in (5, 4, 3, 2, 1)]


def test_all_users_of_the_crowd_take_turns() -> None:
    drawn = [example.user_id for example in islice(examples(CROWD), 3 * CROWD.users)]
    turns = [sorted(drawn[at : at + CROWD.users]) for at in range(0, len(drawn), CROWD.users)]
    assert turns == [[1, 2, 3, 4, 5, 6]] * 3


@pytest.mark.parametrize("generation", [0, 1])
def test_a_user_goes_on_where_they_were(generation: int) -> None:
    rows: dict[int, list[list[int]]] = {}
    for example in islice(examples(CROWD), generation * 16 * CROWD.users, (generation * 16 + 3) * CROWD.users):
        rows.setdefault(example.user_id, []).append([*example.history.item_ids, example.item_id])
    for first, second, _ in rows.values():
        assert first[1:] == second[:-1]
