from collections import Counter

import numpy as np
import pytest

from contracts.config.trainer import ReplaySettings
from contracts.features import Ints
from contracts.wire.events_pb2 import Example
from tests.trainer.trainer_cases import make_catalogue, make_example, markov_examples
from trainer.data.batches import encode
from trainer.learn.replay import Replay, trimmed

SETTINGS = ReplaySettings(batches=2, size=30)


def ids(batches):
    return [[example.user_id for example in batch] for batch in batches]


def test_what_is_drawn_is_a_function_of_the_seed_and_of_what_was_offered():
    one, other, third = (Replay(SETTINGS, 6, seed) for seed in (1, 1, 2))
    for replay in (one, other, third):
        replay.offer(markov_examples(200, 12))
    assert ids(one.draw(8)) == ids(other.draw(8)) != ids(third.draw(8))
    assert ids(one.draw(8)) == ids(other.draw(8))


def test_it_goes_on_from_a_state():
    calm, killed = Replay(SETTINGS, 6, 1), Replay(SETTINGS, 6, 1)
    examples = markov_examples(200, 12)
    for replay in (calm, killed):
        replay.offer(examples[:100])
        replay.draw(8)
    again = Replay(SETTINGS, 6, 1)
    again.restore(killed.state())
    for replay in (calm, again):
        replay.offer(examples[100:])
    assert ids(calm.draw(8)) == ids(again.draw(8))


def test_it_is_bounded_and_prefers_what_is_recent():
    replay = Replay(ReplaySettings(batches=1, size=30, half_life_ms=3_600_000), 6, 0)
    replay.offer(markov_examples(2000, 12))  # a minute apart: 33 half-lives
    users = {example.user_id for example in replay.draw(1000)[0]}
    assert len(users) <= 30
    assert min(users) > 1300


@pytest.mark.parametrize("batches", [0, 1])
def test_nothing_is_drawn_while_nothing_is_kept(batches):
    replay = Replay(ReplaySettings(batches=batches), 6, 0)
    if not batches:
        replay.offer(markov_examples(10, 12))
    assert replay.draw(8) == []


def test_what_is_kept_of_an_example_encodes_as_the_whole_of_it():
    example = make_example([1, 2, 3, 4, 5, 6, 7, 8], 9)
    example.history.effective_views[2] = False
    example.page.item_ids.extend([3, 9, 11])
    example.page.effective_views.extend([True, True, False])
    catalogue = make_catalogue(12)
    whole, kept = (encode([each], catalogue, 4) for each in (example, trimmed(example, 4)))
    for name in ("rows", "mask", "lag", "served_lag", "targets", "user_ids", "passed"):
        found, expected = getattr(kept, name), getattr(whole, name)
        np.testing.assert_array_equal(found, expected, err_msg=name)
    passed: Ints = catalogue.item_ids[np.searchsorted(catalogue.item_ids, [11])]
    assert whole.passed.tolist() == [catalogue.rows(passed).tolist()]


def test_what_weighs_more_is_kept_as_often_as_it_weighs():
    settings = ReplaySettings(batches=1, size=100_000, half_life_ms=10**12)
    replay, examples = Replay(settings, 6, seed=1), markov_examples(3000, 12)
    weights = np.tile(np.array([0.3, 1.0, 1.7], np.float32), 1000)
    replay.offer(examples, weights)
    kept = Counter(Example.FromString(content).user_id for content in replay._sample.values())
    times = np.array([kept[example.user_id] for example in examples]).reshape(-1, 3)
    assert set(times[:, 0]) == {0, 1}
    assert set(times[:, 1]) == {1}
    assert set(times[:, 2]) == {1, 2}
    assert times.mean(0) == pytest.approx([0.3, 1.0, 1.7], abs=0.05)


def test_weights_of_one_change_nothing():
    one, other = (Replay(ReplaySettings(batches=1), 6, seed=1) for _ in range(2))
    one.offer(markov_examples(50, 12))
    other.offer(markov_examples(50, 12), np.ones(50, np.float32))
    assert one.state() == other.state()
