import numpy as np
import torch

from trainer.data.vocabulary import Changes, Vocabulary
from trainer.learn.frequency import HEAVIEST, Frequency


def following(rows: int, half_life: int) -> Frequency:
    frequency = Frequency(half_life)
    frequency.follow(Changes(rows, np.arange(rows), np.full(rows, -1), np.arange(rows)))
    return frequency


def shares(frequency: Frequency, rows: int) -> list[float]:
    return [round(share, 6) for share in frequency.shares(torch.arange(rows)).tolist()]


def test_shares_are_those_of_counts_that_halve_with_every_half_life() -> None:
    rng = np.random.default_rng(0)
    batches = [rng.integers(0, 5, rng.integers(1, 20)) for _ in range(300)]
    frequency, counts = following(5, half_life=30), np.zeros(5)
    for batch in batches:
        frequency.add(torch.from_numpy(batch))
        np.add.at(counts, batch, 1)
        assert np.allclose(shares(frequency, 5), counts / counts.sum(), atol=1e-8)
        counts *= 0.5 ** (len(batch) / 30)


def test_weights_that_would_outgrow_a_float_are_scaled_down() -> None:
    frequency = following(2, half_life=1)
    for _ in range(3000):  # 2^6000 without
        frequency.add(torch.tensor([0, 1]))
        assert frequency._weight <= HEAVIEST
    assert shares(frequency, 2) == [0.5, 0.5]


def test_counts_move_with_their_rows_and_go_with_their_items() -> None:
    frequency, vocabulary = following(3, half_life=10**9), Vocabulary()
    for number in (7, 8, 9):
        vocabulary.put(number)
    frequency.add(torch.tensor([0, 0, 0, 0, 1, 2, 2, 2]))
    version, serials = vocabulary.version, vocabulary.serials
    vocabulary.remove(7)
    vocabulary.put(7)
    frequency.follow(vocabulary.since(version, serials))
    assert dict(zip(vocabulary.ids.tolist(), shares(frequency, 3), strict=True)) == {9: 0.75, 8: 0.25, 7: 0.0}
    again = Frequency(10**9)
    again.restore(frequency.state())
    for one in (frequency, again):
        one.add(torch.tensor([2, 2]))
        assert dict(zip(vocabulary.ids.tolist(), shares(one, 3), strict=True)) == {9: 0.5, 8: 0.166667, 7: 0.333333}
