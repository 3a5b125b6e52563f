import json

import numpy as np
import pytest

from abtest.aggregate.aggregate import aggregate
from abtest.aggregate.archive import Counted, load, save, write_archive
from abtest.aggregate.user_days import arranged
from abtest.analyse.analysis import report
from contracts.config.experiment import MetricPlan
from contracts.runtime.durable import StateError
from tests.abtest.abtest_cases import experiment

COLUMNS = ("views", "effective_views", "follows", "play_s", "usage_s", "recalls", "timed", "answer_ms")
COVARIATES = tuple(f"pre.{column}" for column in COLUMNS[:5])


def counted(users=500, seed=2) -> Counted:
    """A week of two arms with eight columns and five covariates."""
    random = np.random.default_rng(seed)
    user, day = np.nonzero(random.random((users, 7)) < 0.7)
    seen, user = np.unique(user, return_inverse=True)
    values = random.gamma(2.0, 3.0, (len(user), len(COLUMNS)))
    pre = random.gamma(2.0, 9.0, (len(seen), len(COVARIATES)))
    arm = random.integers(0, 2, len(seen))
    table = arranged(("control", "treatment"), COLUMNS, COVARIATES, seen, arm, pre, day, user, values)
    return Counted(aggregate(table, spread=("play_s",)), {"rows": len(user), "rows_outside_days": 3})


@pytest.fixture(scope="module")
def week():
    return counted()


def same(a: object, b: object) -> bool:
    return json.dumps(a) == json.dumps(b)


def test_a_report_from_what_was_saved_is_the_report_of_what_it_was_saved_from(tmp_path, week):
    save(week, experiment(), tmp_path / "state.npz")
    loaded = load(tmp_path / "state.npz", experiment())
    assert loaded.counts == week.counts
    assert same(report(loaded.aggregate, experiment()).to_json(), report(week.aggregate, experiment()).to_json())
    for arm, moments in week.aggregate.moments.items():
        np.testing.assert_array_equal(loaded.aggregate.moments[arm].products, moments.products)
    both = loaded.aggregate + counted(seed=3).aggregate  # it is as good as new
    assert both.users["control"] > week.aggregate.users["control"]


def test_a_week_of_two_arms_is_less_than_a_megabyte_however_many_users_there_are(tmp_path, week):
    save(week, experiment(), tmp_path / "few.npz")
    save(counted(50_000), experiment(), tmp_path / "many.npz")
    few, many = ((tmp_path / name).stat().st_size for name in ("few.npz", "many.npz"))
    assert max(few, many) < 1_000_000
    assert many < 1.5 * few  # fewer zeros, which is all that differs


def test_metrics_and_plan_may_change_after_the_data_are_in_but_not_the_arms(tmp_path, week):
    path = tmp_path / "state.npz"
    save(week, experiment(), path)
    metric = MetricPlan(name="play", kind="mean", columns=("play_s",), role="primary")
    other = experiment(metrics=(metric,), hypothesis="Another one.")
    assert report(load(path, other).aggregate, other).primary == "play"
    longer = experiment(days=9)
    with pytest.raises(StateError, match="was made of another experiment than 'e', or of other arms or days"):
        load(path, longer)


def broken(path, how):
    data = bytearray(path.read_bytes())
    if how == "cut":
        del data[len(data) // 2 :]
    else:
        data[len(data) // 2] ^= 255
    path.write_bytes(data)


@pytest.mark.parametrize("how", ["cut", "flipped"])
def test_a_damaged_file_says_so(tmp_path, week, how):
    path = tmp_path / "state.npz"
    save(week, experiment(), path)
    broken(path, how)
    with pytest.raises(StateError, match="is damaged"):
        load(path, experiment())


def test_a_file_of_another_kind_is_not_called_damaged(tmp_path):
    (tmp_path / "text.yaml").write_text("name: e")
    (tmp_path / "empty").touch()
    (tmp_path / "folder").mkdir()
    np.save(tmp_path / "array.npy", np.arange(3))
    np.savez(tmp_path / "archive.npz", a=np.arange(3))
    state = {"format": 1, "rules": "x"}
    np.savez(tmp_path / "collector.npz", header=np.frombuffer(json.dumps(state).encode(), np.uint8))
    write_archive({"days": {}}, {"experiment": experiment().definition}, tmp_path / "kept.npz")
    for path in tmp_path.iterdir():
        with pytest.raises(StateError, match=f"{path.name} is not an aggregate; `driftline experiment report"):
            load(path, experiment())


def test_a_file_that_is_not_there_says_so(tmp_path):
    with pytest.raises(StateError, match="There is no saved aggregate at"):
        load(tmp_path / "none.npz", experiment())


def test_a_crash_while_saving_leaves_the_old_file(tmp_path, week, monkeypatch):
    path = tmp_path / "state.npz"
    save(week, experiment(), path)
    before = path.read_bytes()

    def fails(descriptor):
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", fails)
    with pytest.raises(OSError, match="disk full"):
        save(Counted(week.aggregate), experiment(), path)
    assert path.read_bytes() == before
