import numpy as np
import pandas as pd
import pytest

from world.base import WorldError, waves
from world.kuairand import kuairand

SHORT = {"days": 1, "warmup_days": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, small_log, write_folder):
    return write_folder(tmp_path_factory.mktemp("kuairand"), small_log)


def answers(world, span_ms):
    rng = np.random.default_rng(0)
    wanted = [rng.choice(world.catalogue.item_ids, visit.k, replace=False) for visit in world.visits()]
    out = []
    for wave in waves(world.visits(), span_ms):
        out += world.respond(wave, [wanted[visit.index] for visit in wave])
    return [np.stack([a.start_ms, a.play_time_ms, a.effective_view, a.follow]).tolist() for a in out]


def test_csv_and_parquet_make_the_same_world(folder, tmp_path, small_log, write_folder):
    one, other = kuairand(folder, **SHORT), kuairand(write_folder(tmp_path, small_log, "parquet"), **SHORT)
    assert list(one.warmup()) == list(other.warmup())
    assert one.visits() == other.visits()
    assert one.quality == other.quality
    assert one.catalogue.categories == other.catalogue.categories


def test_the_catalogue_holds_every_video(folder, small_log):
    catalogue = kuairand(folder, **SHORT).catalogue
    assert catalogue.item_ids.tolist() == list(range(1, 121))
    assert catalogue.categories[0] == ()
    assert catalogue.categories[1] == (4, 8)
    logged = small_log.loc[small_log["video_id"] == 0, "duration_ms"].median()
    assert catalogue.durations_ms[:2].tolist() == [int(logged), 30_000]


def test_responses_do_not_depend_on_how_visits_are_batched(folder):
    first, second = kuairand(folder, **SHORT, seed=4), kuairand(folder, **SHORT, seed=4)
    assert answers(first, 0) == answers(second, 3_600_000)
    assert answers(kuairand(folder, **SHORT, seed=5), 0) != answers(kuairand(folder, **SHORT, seed=4), 0)


def test_times_ascend_per_user_across_visits(folder):
    world = kuairand(folder, **SHORT)
    latest = {}
    for visit, (starts, *_) in zip(world.visits(), answers(world, 0), strict=True):
        assert latest.get(visit.user_id, 0) < visit.time_ms <= starts[0]
        latest[visit.user_id] = starts[-1]


def test_the_warm_up_ends_where_the_visits_begin(folder):
    world = kuairand(folder, **SHORT)
    assert max(page.time_ms for page in world.warmup()) < world.experiment_start_ms <= world.visits()[0].time_ms
    assert world.visits()[-1].time_ms < world.end_ms
    assert (world.experiment_start_ms + world.day_offset_ms) % 86_400_000 == 0


def test_every_row_of_the_warm_up_comes_through_once(tmp_path, small_log, write_folder):
    spoiled = small_log.astype({"play_time_ms": object, "time_ms": object})
    spoiled.loc[10, "play_time_ms"] = "garbage"
    spoiled.loc[11, "time_ms"] = None
    spoiled = pd.concat([spoiled, spoiled.iloc[20:25]])
    world = kuairand(write_folder(tmp_path, spoiled), days=1, warmup_days=5)
    end = world.experiment_start_ms
    rows = [row for page in world.warmup() for row in page.rows]
    assert len(rows) == (small_log["time_ms"] < end).sum() + 5
    assert sum(row.play_time_ms is None for row in rows) == sum(row.time_ms is None for row in rows) == 1


def test_fewer_users_may_be_asked_for(folder):
    world = kuairand(folder, **SHORT, users=60)
    assert len({visit.user_id for visit in world.visits()} | {page.user_id for page in world.warmup()}) <= 60


@pytest.mark.parametrize("name", ["log_standard_*.csv", "user_features_pure.csv", "video_features_basic_pure.csv"])
def test_a_missing_file_is_named_in_one_sentence(tmp_path, small_log, name, write_folder):
    for path in write_folder(tmp_path, small_log).glob(name):
        path.unlink()
    with pytest.raises(WorldError) as caught:
        kuairand(tmp_path, **SHORT)
    assert f"has no {name}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_column_is_named_with_its_file(tmp_path, small_log, write_folder):
    write_folder(tmp_path, small_log.drop(columns="long_view"))
    with pytest.raises(WorldError, match=r"log_standard_1_pure\.csv has no column long_view\.$"):
        kuairand(tmp_path, **SHORT)


def test_an_unreadable_file_is_named(tmp_path, small_log, write_folder):
    write_folder(tmp_path, small_log, "parquet")
    (tmp_path / "user_features_pure.parquet").write_bytes(b"not parquet")
    with pytest.raises(WorldError, match=r"user_features_pure\.parquet can't be read"):
        kuairand(tmp_path, **SHORT)


def test_too_small_a_warm_up_is_refused(tmp_path, small_log, write_folder):
    write_folder(tmp_path, small_log.iloc[:: len(small_log) // 60])
    with pytest.raises(WorldError, match="the response model needs"):
        kuairand(tmp_path, **SHORT)


def test_a_visit_that_was_shown_nothing_answers_nothing(folder):
    world = kuairand(folder, **SHORT)
    (answer,) = world.respond(world.visits()[:1], [np.empty(0, np.int64)])
    assert answer.start_ms.size == answer.play_time_ms.size == answer.effective_view.size == answer.follow.size == 0
    assert world.respond([], []) == []


def test_an_item_that_is_not_in_the_catalogue_cannot_be_shown(folder):
    world = kuairand(folder, **SHORT)
    with pytest.raises(ValueError, match="not in the catalogue"):
        world.respond(world.visits()[:1], [np.array([10**6])])


def test_the_real_log(real_folder):
    world = kuairand(real_folder)
    rows = [row for page in world.warmup() for row in page.rows]
    assert len(rows) > 100_000
    assert world.catalogue.item_ids.size == 7583
    quality = world.quality
    assert quality.auc > 0.72
    assert quality.calibration_error < 0.02
    assert quality.play_mae_s < quality.play_constant_mae_s
    assert abs(quality.play_predicted_s / quality.play_observed_s - 1) < 0.1
