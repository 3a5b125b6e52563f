import numpy as np
import pytest

from contracts.runtime.clock import DAY_MS
from world.base import WorldError, waves
from world.latent import affinity
from world.synthetic import synthetic

SMALL = {"days": 2, "warmup_days": 1, "users": 60, "items": 200}


def played(world, choose, span_ms=300_000):
    """Effective view rate, and all responses, when `choose(visit)` gives the rows of the items shown."""
    out = []
    for wave in waves(world.visits(), span_ms):
        out += world.respond(wave, [choose(visit) + 1 for visit in wave])
    return np.concatenate([answer.effective_view for answer in out]).mean(), out


@pytest.fixture(scope="module")
def full():
    return synthetic(0)


def test_the_default_world_has_the_traffic_and_the_rates_it_promises(full):
    log = full.log
    visits, users = full.visits(), 1000
    assert 21 < len(visits) / users < 33  # in seven days
    assert 100 < (sum(visit.k for visit in visits) + len(log)) / users < 183
    assert 0.25 < log["long_view"].mean() < 0.36
    assert 0.0005 < log["is_follow"].mean() < 0.003
    plays = log["play_time_ms"].dropna().astype(float)
    assert plays.quantile(0.99) > 8 * plays.median()
    shown = log["video_id"].value_counts(normalize=True)
    assert shown.iloc[:150].sum() > 0.35


def test_the_log_has_the_promised_defects(full):
    log, items = full.log, full.catalogue.item_ids.size
    assert (log["play_time_ms"] < 0).sum() == 10
    assert (log["time_ms"] > full.end_ms).sum() == 10
    assert (log["video_id"] >= items).sum() == 10
    assert log["play_time_ms"].isna().sum() == 10
    assert 20 <= log.duplicated().sum() <= 50
    assert (
        sum(len(page.rows) for page in full.warmup())
        == len(log) - (full.log["time_ms"].between(full.experiment_start_ms, full.end_ms)).sum()
    )


def test_same_seed_same_world():
    one, other, third = synthetic(1, **SMALL), synthetic(1, **SMALL), synthetic(2, **SMALL)
    assert list(one.warmup()) == list(other.warmup())
    assert one.visits() == other.visits()
    assert list(one.warmup()) != list(third.warmup())


def test_responses_do_not_depend_on_how_visits_are_batched():
    def fixed(visit):
        return (visit.index * 7 + np.arange(visit.k) * 31) % 200

    _, alone = played(synthetic(1, **SMALL), fixed, 0)
    _, together = played(synthetic(1, **SMALL), fixed, 3_600_000)
    for one, other in zip(alone, together, strict=True):
        for name in ("start_ms", "play_time_ms", "effective_view", "follow"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_better_targeted_items_earn_more_and_those_of_the_session_most():
    size = {"days": 3, "warmup_days": 1, "users": 150, "items": 600}
    rng = np.random.default_rng(0)

    def best(scores, k):
        return rng.choice(np.argsort(-scores)[:30], k, replace=False)

    worlds = [synthetic(0, **size) for _ in range(3)]
    people = worlds[0].users.population
    session = worlds[2].users

    def at_random(visit):
        return rng.choice(people.items, visit.k, replace=False)

    def lasting(visit):
        return best(people.item_vectors @ people.lasting[visit.user_id - 1], visit.k)

    def now(visit):
        user = visit.user_id - 1
        return best(affinity(people, session.focus[[user] * 600], np.full(600, user), np.arange(600)), visit.k)

    rates = [played(world, choose)[0] for world, choose in zip(worlds, (at_random, lasting, now), strict=True)]
    assert rates[0] + 0.1 < rates[1]
    assert rates[1] + 0.02 < rates[2]


def test_effective_views_obey_the_rule():
    world = synthetic(3, **SMALL)
    durations = world.catalogue.durations_ms
    _, answers = played(world, lambda visit: np.arange(visit.k) + visit.index % 100)
    for visit, answer in zip(world.visits(), answers, strict=True):
        shown = durations[np.arange(visit.k) + visit.index % 100]
        assert ((answer.play_time_ms >= np.minimum(shown, 18_000)) == answer.effective_view).all()
        assert not (answer.follow & ~answer.effective_view).any()


def test_sessions_have_several_requests_and_nights_are_quiet(full):
    times = np.array([visit.time_ms for visit in full.visits()])
    users = np.array([visit.user_id for visit in full.visits()])
    order = np.lexsort((times, users))
    same = np.diff(users[order]) == 0
    soon = np.diff(times[order])[same] < 30 * 60_000
    assert soon.mean() > 0.6
    hours = np.bincount(times % DAY_MS // 3_600_000, minlength=24)
    assert hours[2:6].sum() < 0.3 * hours[18:22].sum()


def test_a_visit_that_was_shown_nothing_answers_nothing():
    world = synthetic(3, **SMALL)
    one, other = world.respond(world.visits()[:2], [np.empty(0, np.int64), np.array([1, 2])])
    assert (one.start_ms.size, other.start_ms.size) == (0, 2)
    with pytest.raises(ValueError, match="not in the catalogue"):
        world.respond(world.visits()[2:3], [np.array([201])])


def test_a_world_may_be_tiny_but_not_empty():
    world = synthetic(0, days=1, warmup_days=0, users=2, items=12)
    assert list(world.warmup()) == []
    with pytest.raises(WorldError):
        synthetic(0, days=0)
