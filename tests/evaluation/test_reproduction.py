"""The page holds what the results say, and nothing else."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from evaluation import grid
from evaluation.reproduction import NOTES, main
from evaluation.results import path_of, write
from evaluation.tasks import Task
from tests.evaluation.toys import PLAN, result

PAPER = Task("official", "t2diff-paper", "file", 0, grid.SMALL_SHAPE, PLAN)
STREAM = Task("progressive", "two_tower", settings=grid.STREAM_SHAPE)
COSINES = {"step": [2.0, 1.0], "all": [0.4, 0.5], "last": [0.1, 0.2]}
SAMPLED = {"evaluations": [2.0, 1.0, 2.0], "recall@20": [0.2, 0.199, 0.2], "ms": [0.3, 0.1, 0.2]}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    for seed, ranks in enumerate([[1, 2, 30, 40], [1, 20, 30, 40]]):
        write(folder, result(Task("official", "t2diff-paper", "file", seed, grid.SMALL_SHAPE, PLAN), ranks))
    write(
        folder,
        result(Task("official", "t2diff-paper", "file", 0, grid.SMALL_SHAPE, PLAN, "cosine"), [1], study=COSINES),
    )
    ours = replace(grid.make("official", "t2diff", "file", 0, grid.SMALL_SHAPE, PLAN), study="sampling")
    write(folder, result(ours, [1], study=SAMPLED))
    write(folder, result(STREAM, [1, 30, 30, 30], coverage=None))
    everywhere = grid.make("progressive", "two_tower-at-every", "time", 0, grid.STREAM_SHAPE, PLAN)
    write(folder, result(everywhere, [1, 30, 30, 1], coverage=None))
    blind = grid.make("progressive", "t2diff-without-guess", "time", 0, grid.STREAM_SHAPE, PLAN)
    write(folder, result(blind, [1, 1, 30, 1], coverage=None))
    return folder


def written(results: Path, out: Path) -> dict[str, str]:
    """The page's sections by title."""
    out.mkdir(exist_ok=True)
    assert main(["--results", str(results), "--out", str(out)]) == 0
    head, *parts = (out / "reproduction.md").read_text().split("\n## ")
    return {"": head} | {title: rest for title, _, rest in (part.partition("\n\n") for part in parts)}


def test_a_row_holds_the_mean_of_its_seeds_beside_the_papers(results: Path, tmp_path: Path) -> None:
    section = written(results, tmp_path / "docs")["Table 2, file order"]
    rows = [line for line in section.splitlines() if line.startswith("| ")][1:]
    assert len(rows) == 1
    assert rows[0].startswith("| t2diff-paper | .0774 | .2773 | .3750 (")
    assert "| .5000 (" in rows[0]
    assert rows[0].endswith("| .0000 of 2 |")
    assert "Not run: popularity, markov, " in section
    assert "t2diff-paper" not in section.split("Not run: ")[1].split("\n")[0]
    assert "on a machine, 1 thread; d = 8 (ids 2); 0.001 MB of parameters; trained 2 s a run; torch 2." in section


def test_what_was_not_run_has_neither_row_nor_picture(results: Path, tmp_path: Path) -> None:
    sections = written(results, tmp_path / "docs")
    for title in ("Table 2, time order", "Leave-one-out in time order"):
        assert "|" not in sections[title]
        assert "pictures" not in sections[title]
        assert "Not run: " in sections[title]
    assert sorted(p.name for p in (tmp_path / "docs" / "pictures").iterdir()) == [
        f"reproduction-{key}.png" for key in ("few-steps", "figure-4", "progressive", "table-2-file")
    ]


def test_the_stream_is_measured_against_the_control_in_the_same_regime(results: Path, tmp_path: Path) -> None:
    section = written(results, tmp_path / "docs")["KuaiRand-Pure as a stream"]
    (row,) = [line for line in section.splitlines() if line.startswith("| t2diff-without-guess |")]
    assert "| every | .7500 (" in row
    assert "+50.0 % (+0.0 to " in row
    (control,) = [line for line in section.splitlines() if line.startswith("| two_tower-at-every |")]
    assert "| every | .5000 (" in control
    assert "+100.0 % (" in control  # of the one that learns at the last place alone


def test_what_has_no_control_in_its_regime_is_compared_with_none(results: Path, tmp_path: Path) -> None:
    four = grid.make("packed", "t2diff-at-last-4", "time", 0, grid.STREAM_SHAPE, PLAN)
    write(results, result(four, [1, 30, 30, 1], coverage=None, study={"backfill_s": [41.6]}))
    write(results, result(Task("packed", "two_tower", settings=grid.STREAM_SHAPE), [1, 1, 30, 1], coverage=None))
    section = written(results, tmp_path / "docs")["The same stream after a packed backfill"]
    (row,) = [line for line in section.splitlines() if line.startswith("| t2diff-at-last-4 |")]
    assert "| last 4 | .5000 (" in row
    assert row.endswith("| 42 |  |  |")
    blind = grid.make("packed", "t2diff-without-guess-at-last-4", "time", 0, grid.STREAM_SHAPE, PLAN)
    write(results, result(blind, [1, 30, 30, 30], coverage=None))
    section = written(results, tmp_path / "docs")["The same stream after a packed backfill"]
    (row,) = [line for line in section.splitlines() if line.startswith("| t2diff-at-last-4 |")]
    assert "|  | +100.0 % (" in row


def test_studies_are_told_as_they_were_stored(results: Path, tmp_path: Path) -> None:
    sections = written(results, tmp_path / "docs")
    assert "| 1 | 0.500 | 0.200 |" in sections["Figure 4: ẑ₀ on the way"]
    assert "| t2diff | deterministic | 1 | .1990 | -0.50 % | 0.100 |" in sections["Few-step sampling"]
    assert "Not run: t2diff-paper." in sections["Few-step sampling"]


def test_the_same_results_give_the_same_bytes(results: Path, tmp_path: Path) -> None:
    for name in ("one", "other"):
        written(results, tmp_path / name)
    files = [sorted(p for p in (tmp_path / name).rglob("*") if p.is_file()) for name in ("one", "other")]
    assert len(files[0]) == 5
    assert [p.read_bytes() for p in files[0]] == [p.read_bytes() for p in files[1]]


def test_notes_stand_under_their_tables(results: Path, tmp_path: Path) -> None:
    out = tmp_path / "docs"
    out.mkdir()
    (out / NOTES).write_text("## table-3\n\nFewer epochs.\n\n## intro\nIn short.\n")
    sections = written(results, out)
    assert "\n\nFewer epochs." in sections["Table 3: the schedule of β"]
    assert "\n\nIn short." in sections[""]


@pytest.mark.parametrize("spoilt", ["notes", "result", "queries"])
def test_what_does_not_fit_is_one_sentence_and_exit_code_2(
    spoilt: str, results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if spoilt == "notes":
        (tmp_path / NOTES).write_text("## table-9\n")
    elif spoilt == "result":
        path = path_of(results, PAPER)
        path.write_text(json.dumps(json.loads(path.read_text()) | {"ranks": None}))
    else:
        write(results, result(PAPER, [1, 2]))
    with pytest.raises(SystemExit) as ended:
        main(["--results", str(results), "--out", str(tmp_path)])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert {"notes": "table-9", "result": "is not a result", "queries": "same queries"}[spoilt] in said
    assert len(said.splitlines()) == 1
