"""Births: nothing where they are off, and what they promise where they are on."""

import hashlib

import numpy as np
import pytest

from contracts.runtime.clock import DAY_MS
from world.base import WorldError, waves
from world.open import open_world
from world.synthetic import START_MS, synthetic

SMALL = {"days": 3, "warmup_days": 1, "users": 80, "items": 200}


@pytest.fixture(scope="module")
def world():
    return synthetic(3, **SMALL, births=0.1)


def played(world, pages):
    return [answer for wave in waves(world.visits(), 300_000) for answer in world.respond(wave, pages(wave))]


def test_off_it_is_the_world_that_it_always_was():
    """The digest was taken of the world before there were births: whole numbers alone, of the log and of responses."""
    world = synthetic(0, users=150, items=300, days=3)
    rng = np.random.default_rng(9)
    ids = world.catalogue.item_ids
    answers = played(world, lambda wave: [rng.choice(ids, visit.k, replace=False) for visit in wave])
    digest = hashlib.sha256(world.log.to_csv(index=False).encode())
    digest.update(repr([(visit.user_id, visit.time_ms) for visit in world.visits()]).encode())
    digest.update(np.concatenate([answer.effective_view for answer in answers]).tobytes())
    digest.update(np.concatenate([answer.play_time_ms for answer in answers]).tobytes())
    assert digest.hexdigest() == "d178c5ada912fefd9d3a9ca8f8522595ab30392fc879403ee0bfd0242d180671"
    assert world.catalogue.born_ms is None


def test_on_it_keeps_the_users_and_the_items_of_the_start(world):
    still = synthetic(3, **SMALL)
    assert world.visits()[0].user_id > 0
    assert world.catalogue.categories[:200] == still.catalogue.categories
    assert world.users.intercept == still.users.intercept
    assert [visit.time_ms for visit in world.visits()] == [visit.time_ms for visit in still.visits()]


def test_a_share_is_born_on_each_day_and_the_seed_decides_which(world):
    born = world.catalogue.born_ms
    late = born[born >= START_MS]
    assert late.size == 4 * 20
    assert (born[:200] < START_MS).all()
    assert (np.diff(late) >= 0).all()
    assert late.max() < world.end_ms
    assert (synthetic(3, **SMALL, births=0.1).catalogue.born_ms == born).all()
    assert (synthetic(4, **SMALL, births=0.1).catalogue.born_ms != born).any()


def test_the_log_shows_no_item_before_it_is_born(world):
    shown = world.log[world.log["video_id"] < world.catalogue.item_ids.size]
    sound = shown[shown["time_ms"] < world.end_ms]
    born = world.catalogue.born_ms[sound["video_id"].to_numpy()]
    assert (born <= sound["time_ms"].to_numpy()).all()
    assert (born > START_MS).any()
    for visit, page in zip(world.visits()[:300], world.logged_choice(world.visits()[:300]), strict=True):
        assert (world.catalogue.born_ms[page - 1] <= visit.time_ms).all()


def test_nobody_wants_what_is_not_born_and_less_what_is_old(world):
    visit = world.visits()[0]
    (wish,) = world.affinities([visit])
    assert (np.isinf(wish) == (world.catalogue.born_ms > visit.time_ms)).all()
    change = world.users.change
    items = np.zeros(3, np.int64)
    ages = change.born_ms[0] + np.array([0, change.lifetime_ms / 2, 50 * change.lifetime_ms])
    assert change.appeal(items, ages.astype(np.int64)).round(6).tolist() == [1.0, 0.0, -3.0]


def test_tastes_shift_day_by_day_to_interests_that_are_nobodys_twice(world):
    interests = world.users.change.interests
    moved = (interests[1:] != interests[:-1]).any(2).mean()
    assert 0.05 < moved < 0.16
    assert (np.sort(interests, axis=2)[:, :, 1:] != np.sort(interests, axis=2)[:, :, :-1]).all()
    still = (interests[1:] == interests[:1]).all(2)
    lasting = world.users.change.lasting
    assert (lasting[1:] == lasting[:1]).all(2)[still].all()


def test_what_is_best_at_the_start_earns_less_at_the_end(world):
    """Shown the items that it liked best on its first day, the world likes them less and less."""
    fixed = np.argsort(-world.affinities(world.visits()[:80]).mean(0))[:40] + 1
    rng = np.random.default_rng(0)
    answers = played(world, lambda wave: [rng.choice(fixed, visit.k, replace=False) for visit in wave])
    days = (np.array([visit.time_ms for visit in world.visits()]) - world.experiment_start_ms) // DAY_MS
    rates = [
        np.mean([a.effective_view.mean() for a, day in zip(answers, days, strict=True) if day == d]) for d in (0, 2)
    ]
    assert rates[0] > rates[1] + 0.05


def test_how_visits_are_grouped_changes_nothing_here_either():
    answers = []
    for span_ms in (1, 600_000):
        world = synthetic(3, **SMALL, births=0.1)
        rounds = waves(world.visits(), span_ms)
        found = [
            answer
            for wave in rounds
            for answer in world.respond(wave, [(visit.index * 7 + np.arange(visit.k) * 31) % 200 + 1 for visit in wave])
        ]
        answers.append(np.concatenate([answer.play_time_ms for answer in found]))
    assert (answers[0] == answers[1]).all()


def test_what_cannot_be_is_one_sentence(tmp_path):
    with pytest.raises(WorldError, match="is not one"):
        synthetic(0, **SMALL, births=0.001)
    with pytest.raises(WorldError, match="only born in the synthetic world"):
        open_world(tmp_path, births=0.1)
