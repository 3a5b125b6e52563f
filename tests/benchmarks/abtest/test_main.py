"""One JSON object of the A/B room's proofs, from the parts as they run."""

import json

import pytest

from benchmarks.abtest import __main__ as abtest


def test_a_part_runs_in_a_process_of_its_own_and_its_figures_are_found_by_name(capsys: pytest.CaptureFixture[str]):
    abtest.main(["--json", "--quick", "--only", "assign"])
    figures = json.loads(capsys.readouterr().out)
    assert figures["ramp_moved"] == 0
    assert figures["assignment_buckets"]["least_p"] > 0.001
    assert figures["assignment_layers"]["least_p"] > 0.001
    assert figures["assigns_per_s_many"] > figures["assigns_per_s_one"] > 0
    assert figures["parts"]["assign"]["ramp"]["share_at_0.5"] == pytest.approx(0.5, abs=0.02)
    assert figures["golden_max_relative_error"] is None  # its part was not asked for
    assert figures["failed"] == {}


def test_a_part_that_fails_is_told_and_ends_with_1(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit, match="1"):
        abtest.main(["--json", "--only", "aa", "--replicates", "0"])
    assert json.loads(capsys.readouterr().out)["failed"] == {"aa": "exit code 2"}


def test_every_part_says_what_the_figures_are_read_from():
    parts = {"golden": {"golden_max_relative_error": 1e-12}, "scale": {"time_ratio_to_tea_tasting": 0.2}}
    figures = abtest.figures(parts)
    assert figures["golden_max_relative_error"] == 1e-12
    assert figures["time_ratio_to_tea_tasting"] == 0.2
    assert figures["coverage"] is None


@pytest.mark.proof
@pytest.mark.timeout(900)
def test_every_part_runs_and_every_figure_is_found(capsys: pytest.CaptureFixture[str]):
    parts = [part for part in abtest.PARTS if part != "aa_real"]  # which needs a data set
    abtest.main(["--json", "--quick", "--only", *parts])
    figures = json.loads(capsys.readouterr().out)
    assert figures["failed"] == {}
    missing = {name for name, value in figures.items() if value is None}
    assert missing <= {"aa_false_positive_real_users", "coverage_real_users", "published_that_differ"}
