"""Every protocol at toy size, from real formats to results."""

from pathlib import Path

import numpy as np
import pytest
import torch

from evaluation import movielens as movielens_data
from evaluation.data import DataError
from evaluation.results import Result
from evaluation.runs import Folders, Step, run
from evaluation.tasks import Protocol, Study, Task, TaskError
from tests.evaluation import toys

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    root = tmp_path_factory.mktemp("data")
    return Folders(toys.movielens(root / "ml"), toys.instances(root / "official"), toys.kuairand(root / "kuairand"))


@pytest.fixture(autouse=True)
def _few_validate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(movielens_data, "VALIDATION_USERS", 5)


def done(protocol: Protocol, model: str, folders: Folders, study: Study | None = None, **other: object) -> Result:
    order = "file" if protocol == "official" else "time"
    task = Task(protocol, model, order, 0, toys.SHAPE, toys.PLAN, study)
    return run(task, folders, device=CPU, **other)  # type: ignore[arg-type]


@pytest.mark.parametrize(("protocol", "queries"), [("official", 4), ("leave-one-out", 24), ("progressive", 8 * 2 * 7)])
@pytest.mark.parametrize("model", ["markov", "t2diff", "two_tower"])
def test_a_run_answers_every_test_query_and_says_what_it_cost(
    protocol: Protocol, queries: int, model: str, folders: Folders
) -> None:
    steps: list[Step] = []
    found = done(protocol, model, folders, report=steps.append)
    assert found.ranks.shape == found.user_ids.shape == (queries,)
    assert found.items == toys.ITEMS
    assert ((found.ranks >= 1) & (found.ranks <= toys.ITEMS)).all()
    assert found.parameter_bytes > 0
    assert set(found.inference_ms) == {1, 64}
    assert all(ms > 0 for ms in found.inference_ms.values())
    assert [s.share for s in steps] == sorted(s.share for s in steps)
    if found.task.trains and not found.task.streams:
        assert 1 <= found.best_epoch <= found.epochs == toys.PLAN.epochs == len(found.history)


@pytest.mark.parametrize("protocol", ["backfilled", "packed"])
def test_a_backfilled_model_has_learned_before_the_first_query(protocol: Protocol, folders: Folders) -> None:
    fresh, backfilled = (done(each, "two_tower", folders) for each in ("progressive", protocol))
    assert backfilled.user_ids.tolist() == fresh.user_ids.tolist()
    assert not np.array_equal(backfilled.ranks, fresh.ranks)
    assert not fresh.study
    assert backfilled.study["backfill_s"][0] > 0


def test_a_chain_knows_the_way_round_the_circle(folders: Folders) -> None:
    assert (done("official", "markov", folders).ranks == 1).all()
    assert (done("leave-one-out", "markov", folders).ranks == 1).all()
    # On the first tested day two days have been seen, which lead everywhere but to what begins later.
    stream = done("progressive", "markov", folders)
    assert (stream.ranks[-32:] == 1).all()


def test_the_same_seed_gives_the_same_ranks(folders: Folders) -> None:
    one, other = (done("official", "t2diff-paper", folders) for _ in range(2))
    assert one.ranks.tolist() == other.ranks.tolist()
    assert [e["loss"] for e in one.history] == [e["loss"] for e in other.history]


def test_the_test_set_does_not_pick_the_epoch(folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[set[int]] = []
    real = movielens_data.official(folders.movielens, folders.official, "file")  # type: ignore[arg-type]
    monkeypatch.setattr(
        "evaluation.fit.validate", lambda fitted, queries: asked.append({q.user_id for q in queries}) or 0.0
    )
    done("official", "two_tower", folders)
    assert asked == [{q.user_id for q in real.validation}] * toys.PLAN.epochs
    assert not asked[0] & {q.user_id for q in real.test}


def test_the_cosine_study_follows_the_whole_reverse_process(folders: Folders) -> None:
    study = done("official", "t2diff-paper", folders, "cosine").study
    assert study["step"] == list(range(50, 0, -1))
    assert all(-1 <= c <= 1 for key in ("all", "last") for c in study[key])
    assert study["all"] != study["last"]


@pytest.mark.parametrize(("model", "own"), [("t2diff-paper", 50), ("t2diff", 4)])
def test_the_sampling_study_walks_in_fewer_steps_and_leaves_the_model_as_it_was(
    model: str, own: int, folders: Folders
) -> None:
    found = done("official", model, folders, "sampling")
    assert found.study["evaluations"] == [own, 1, 2, 3, 4, 8, 16, 50]
    assert found.study["recall@20"] == [1.0] * 8  # there are only 12 items
    assert found.ranks.tolist() == done("official", model, folders).ranks.tolist()


@pytest.mark.parametrize(
    ("task", "sentence"),
    [
        (Task("official", "markov", "file"), r"The official protocol needs the MovieLens-1M folder\."),
        (Task("progressive", "markov"), r"The progressive protocol needs the KuaiRand-Pure folder\."),
        (Task("progressive", "markov", "file"), r"The progressive protocol follows .*"),
    ],
)
def test_a_task_without_its_folder_is_one_sentence(task: Task, sentence: str) -> None:
    with pytest.raises(TaskError, match=f"^{sentence}$"):
        run(task, Folders(), device=CPU)


def test_too_few_users_are_one_sentence(folders: Folders, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(movielens_data, "VALIDATION_USERS", 400)
    fresh = Folders(toys.movielens(tmp_path / "ml"), folders.official)
    with pytest.raises(DataError, match=r"ml has too few users or behaviours to learn from, validate and test\."):
        done("official", "two_tower", fresh)


def test_lists_cover_what_they_hold(folders: Folders) -> None:
    assert done("leave-one-out", "popularity", folders).coverage == 1.0  # lists of 20 from 12 items
    assert np.isclose(done("official", "ease", folders).coverage or 0, 1.0)
