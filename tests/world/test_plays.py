import numpy as np

from world.plays import PlayTimes, threshold_ms


def fitted(rng):
    durations = rng.choice([9_000, 25_000, 90_000, 0], 8000)
    effective = rng.random(8000) < 0.3
    limit = threshold_ms(durations)
    plays = np.where(effective, limit + rng.lognormal(9, 1.2, 8000), limit * rng.random(8000)).astype(np.int64)
    return PlayTimes.fit(durations, plays, effective), durations, plays, effective


def test_drawn_play_times_obey_the_published_rule_and_keep_the_tail():
    rng = np.random.default_rng(1)
    model, durations, plays, effective = fitted(rng)
    drawn = model.draw(durations, effective, rng.random(durations.size))
    assert ((drawn >= threshold_ms(durations)) == effective).all()
    assert drawn.min() >= 0
    for share in (0.5, 0.9, 0.99):
        np.testing.assert_allclose(np.quantile(drawn, share), np.quantile(plays, share), rtol=0.15)


def test_expected_and_median_play_time_lie_between_those_of_the_two_kinds_of_view():
    model, *_ = fitted(np.random.default_rng(2))
    durations = np.full(3, 25_000)
    chances = np.array([0.0, 0.5, 1.0])
    for values in (model.mean_ms(durations, chances), model.median_ms(durations, chances)):
        assert values[0] < values[1] < values[2]
        assert values[0] < 18_000 < values[2]


def test_a_duration_never_seen_falls_back_to_all_durations():
    model = PlayTimes.fit(np.full(100, 9000), np.arange(100) * 200, np.arange(100) >= 50)
    assert model.draw(np.array([500_000]), np.array([True]), np.array([0.99])).tolist() == [19_800]
