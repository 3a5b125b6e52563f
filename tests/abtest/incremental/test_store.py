from dataclasses import replace

import numpy as np
import pytest

from abtest.aggregate import archive
from abtest.incremental import store
from abtest.incremental.add_day import add_day
from abtest.incremental.store import Group, RunKey, commit, create, load
from contracts.runtime.durable import StateError
from tests.abtest.abtest_cases import experiment
from tests.abtest.incremental.incremental_cases import COLUMNS, COVARIATES, WEEK, Crowd


@pytest.fixture
def kept(tmp_path):
    crowd, kept = Crowd(80), create(tmp_path, WEEK, COLUMNS, COVARIATES, spread=("play_s",))
    for day in (0, 2):
        kept = add_day(kept, crowd.table([day]))
    return kept


def test_what_is_kept_comes_back_with_its_keys(kept):
    loaded = load(kept.folder, WEEK)
    assert loaded.runs == kept.runs
    assert list(loaded.runs) == list(kept.runs)
    assert [day.day for day in loaded.days] == [0, 2]
    for had, day in zip(kept.days, loaded.days, strict=True):
        assert (day.runs, day.newcomers, day.row_count) == (had.runs, had.newcomers, had.row_count)
        for group in kept.groups:
            np.testing.assert_array_equal(day.about[group], had.about[group])
            np.testing.assert_array_equal(day.sums[group], had.sums[group])


def test_a_run_belongs_to_the_group_of_its_arm_and_segment():
    assert RunKey(3, "treatment", "new").group == Group("treatment", "new")


def test_an_experiment_without_days_has_nobody(tmp_path):
    kept = create(tmp_path, WEEK, COLUMNS, COVARIATES)
    assert (kept.places, kept.days, kept.aggregate.users) == (0, (), {"control": 0, "treatment": 0})
    assert load(tmp_path, WEEK).counts == {}


def test_files_are_synced_before_the_manifest_names_them(tmp_path, monkeypatch):
    kept, steps = create(tmp_path, WEEK, COLUMNS, COVARIATES), []

    def spy(module, name, what):
        original = getattr(module, name)

        def spied(subject, *rest):
            steps.append((what, getattr(subject, "name", subject)))
            return original(subject, *rest)

        monkeypatch.setattr(module, name, spied)

    spy(store, "sync_file", "file")
    spy(store, "sync_directory", "folder")
    monkeypatch.setattr(store, "write_archive", lambda *_: steps.append(("manifest", "")))
    add_day(kept, Crowd(80).table([0]))
    kinds = [kind for kind, _ in steps]
    assert kinds == ["file"] * 7 + ["folder", "manifest"]  # rows, values, pre and the roster's four


def test_only_the_last_roster_stays(kept):
    assert {path.name for path in kept.folder.glob("ids-*.npy")} == {"ids-2.npy"}


@pytest.mark.parametrize(("name", "why"), [("values-0.npy", "is missing"), ("gone-2.npy", "is damaged")])
def test_a_file_that_is_missing_or_damaged_is_named(kept, name, why):
    path = kept.folder / name
    if why == "is missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(StateError, match=f"{name} {why}; begin another folder"):
        load(kept.folder, WEEK)


def test_a_folder_of_another_format_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "FORMAT", 1)
    create(tmp_path, WEEK, COLUMNS, COVARIATES)
    monkeypatch.undo()
    with pytest.raises(StateError, match=r"kept\.npz has format 1; this build reads 4\."):
        load(tmp_path, WEEK)


def test_another_experiment_is_not_added_to(kept):
    with pytest.raises(StateError, match="another experiment"):
        load(kept.folder, experiment(days=9))


def test_what_is_committed_last_counts(kept):
    commit(replace(kept, counts={"rows": 5}))
    assert load(kept.folder, WEEK).counts == {"rows": 5}


def test_a_folder_that_has_a_forgotten_user_is_emptied_and_filled_anew(kept):
    someone = int(store.load_roster(kept)["ids"][3])
    assert not store.forget_users(kept.folder, [someone + 10**10])
    assert load(kept.folder, WEEK).days
    assert store.forget_users(kept.folder, [someone])
    assert not [*kept.folder.glob("*.np*")]
    assert not store.forget_users(kept.folder, [someone])
    again = create(kept.folder, WEEK, COLUMNS, COVARIATES)
    assert add_day(again, Crowd(80).table([0])).aggregate.users
