import json
import math

import pytest

from contracts.config.settings import ModelSettings
from evaluation.fit import Plan
from evaluation.grid import PRESETS, tasks
from evaluation.tasks import Task, TaskError, check, from_json, to_json

BLIND = ModelSettings(ablate=("guess",))
EVERY = ModelSettings(learn_at="every")


@pytest.mark.parametrize(
    "task",
    [
        Task("progressive", "ease"),
        Task("official", "t2diff-paper", "file", 3, ModelSettings(diffusion_steps=7), Plan(seconds=2.5), "cosine"),
    ],
)
def test_a_task_comes_back_from_json(task: Task) -> None:
    assert from_json(json.loads(json.dumps(to_json(task), allow_nan=False))) == task


@pytest.mark.parametrize("preset", PRESETS)
def test_every_run_of_the_grid_has_a_name_of_its_own_and_can_be_done(preset: str) -> None:
    grid = tasks(PRESETS[preset])
    assert len({task.name for task in grid}) == len(grid) > 90
    assert all(math.isfinite(t.plan.seconds) for t in grid if t.trains and not t.streams)
    for task in grid:
        check(task)


def test_what_is_not_usual_in_the_diffusion_is_in_the_name() -> None:
    settings = ModelSettings(dim=8, diffusion_schedule="log", diffusion_steps=200)
    task = Task("official", "t2diff-paper", "file", 1, settings, study="sampling")
    assert task.name == "official-file/t2diff-paper-d8-log-T200-sampling-s1"


@pytest.mark.parametrize(
    ("task", "sentence"),
    [
        (Task("official", "t2dif"), r"There is no model 't2dif'; there are popularity, .*, two_tower\."),
        (Task("backfilled", "ease"), r"Baselines count what was before .*"),
        (Task("packed", "ease"), r"Baselines count what was before .* packed is progressive\."),
        (Task("packed", "t2diff-paper"), r"t2diff-paper makes one vector of a window, .* packed for it\."),
        (Task("official", "diffurec", settings=EVERY), r"diffurec makes one vector .* --learn-at every .*"),
        (Task("progressive", "ease", "file"), r"The progressive protocol follows a stream .* no file order\."),
        (Task("official", "sasrec", study="cosine"), r"The cosine study is of t2diff-paper, .*"),
        (Task("progressive", "t2diff", study="sampling"), r"The sampling study is of .*"),
        (Task("official", "t2diff", settings=BLIND, study="sampling"), r"The sampling study .* there is none\."),
        (Task("official", "sasrec", settings=BLIND), r"Parts can be left out of t2diff alone, not of sasrec\."),
    ],
)
def test_a_task_that_cannot_be_is_one_sentence(task: Task, sentence: str) -> None:
    with pytest.raises(TaskError, match=f"^{sentence}$"):
        check(task)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("plan", {}), ("settings", {"dim": -1}), ("protocol", "other"), ("order", "none"), ("colour", 1)
    ],
)  # fmt: skip
def test_what_is_no_task_is_not_read_as_one(name: str, value: object) -> None:
    with pytest.raises(TaskError, match=r"holds? a task"):
        from_json(to_json(Task("official", "ease")) | {name: value})
