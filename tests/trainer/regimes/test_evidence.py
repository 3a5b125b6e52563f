import numpy as np
import pytest

from trainer.regimes.evidence import WORST_LOSS, Evidence


def drawn(pages: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).gamma(2.0, 0.5, (pages, 3)).astype(np.float32)


def test_moments_taken_by_batch_are_those_of_weighted_pages() -> None:
    losses, half_life = drawn(90), 20
    evidence = Evidence(3, half_life)
    for part in np.array_split(losses, 7):
        evidence.add(part, np.arange(len(part)))
    weights = 0.5 ** (np.arange(89, -1, -1) / half_life)
    difference = (losses[:, 0] - losses[:, 2]).astype(np.float64)
    mean = np.average(difference, weights=weights)
    error = np.sqrt((weights**2 * (difference - mean) ** 2).sum()) / weights.sum()
    gain = evidence.gain(of=2, over=0)
    assert gain.mean == pytest.approx(mean)
    assert gain.std_error == pytest.approx(error)
    assert evidence.gain(of=0, over=2).mean == pytest.approx(-mean)
    assert evidence.losses == pytest.approx(np.average(losses, axis=0, weights=weights))


def test_a_user_counts_once_in_a_batch() -> None:
    losses = drawn(10)
    crowd, bot = Evidence(3, 10**9), Evidence(3, 10**9)
    crowd.add(losses[:1], np.array([7]))
    bot.add(np.repeat(losses[:1], 50, 0), np.full(50, 7))
    for evidence in (crowd, bot):
        evidence.add(losses[1:], np.arange(9))
    assert bot.losses == pytest.approx(crowd.losses)


def test_losses_that_are_no_numbers_are_the_worst_and_bounded() -> None:
    evidence = Evidence(3, 100)
    evidence.add(np.array([[np.nan, np.inf, 1e9]], np.float32), np.array([1]))
    assert evidence.losses.tolist() == [WORST_LOSS] * 3


def test_without_a_page_nothing_is_certain() -> None:
    gain = Evidence(2, 100).gain(of=1, over=0)
    assert (gain.mean, gain.std_error) == (0.0, float("inf"))


def test_it_goes_on_from_a_state() -> None:
    calm, killed = Evidence(3, 20), Evidence(3, 20)
    for evidence in (calm, killed):
        evidence.add(drawn(30), np.arange(30))
    again = Evidence(3, 20)
    again.restore(killed.state())
    for evidence in (calm, again):
        evidence.add(drawn(30, 1), np.arange(30))
    assert calm.gain(1, 0) == again.gain(1, 0)
