"""One JSON object of the A/B room's proofs, from the parts as they run."""

import json

import pytest

from benchmarks import abtest


def test_a_part_runs_in_a_process_of_its_own_and_its_figures_are_found_by_name(capsys: pytest.CaptureFixture[str]):
    abtest.main(["--json", "--quick", "--only", "assign"])
    found = json.loads(capsys.readouterr().out)
    assert found["ramp_moved"] == 0
    assert found["assignment_buckets"]["least_p"] > 0.001
    assert found["assignment_layers"]["least_p"] > 0.001
    assert found["assigns_per_s_many"] > found["assigns_per_s_one"] > 0
    assert found["parts"]["assign"]["ramp"]["share_at_0.5"] == pytest.approx(0.5, abs=0.02)
    assert found["golden_max_relative_error"] is None  # its part was not asked for
    assert found["failed"] == {}


def test_a_part_that_fails_is_told_and_ends_with_1(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit, match="1"):
        abtest.main(["--json", "--only", "aa", "--replicates", "0"])
    assert json.loads(capsys.readouterr().out)["failed"] == {"aa": "exit code 2"}


def test_every_part_says_what_the_figures_are_read_from():
    told = {"golden": {"golden_max_relative_error": 1e-12}, "scale": {"time_ratio_to_tea_tasting": 0.2}}
    found = abtest.figures(told)
    assert found["golden_max_relative_error"] == 1e-12
    assert found["time_ratio_to_tea_tasting"] == 0.2
    assert found["coverage"] is None


@pytest.mark.proof
@pytest.mark.timeout(900)
def test_every_part_runs_and_every_figure_is_found(capsys: pytest.CaptureFixture[str]):
    parts = [part for part in abtest.PARTS if part != "aa_real"]  # which needs a data set
    abtest.main(["--json", "--quick", "--only", *parts])
    found = json.loads(capsys.readouterr().out)
    assert found["failed"] == {}
    missing = {name for name, value in found.items() if value is None}
    assert missing <= {"aa_false_positive_real_users", "coverage_real_users", "published_that_differ"}
