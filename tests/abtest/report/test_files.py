"""The report as files."""

import json

import pytest

from abtest.report.files import FILES, write
from tests.abtest.report_cases import CONTEXT, STATES, report_of


@pytest.mark.parametrize("name", STATES)
def test_the_json_is_strict_and_complete(name, tmp_path):
    write(report_of(name), CONTEXT, tmp_path / "out")
    text = (tmp_path / "out" / "report.json").read_text()
    data = json.loads(text, parse_constant=pytest.fail)
    assert data["schema_version"] == 2
    assert data["simulated"] is True
    assert data["context"]["response_quality"]["play_mae_s"] is None
    for result in data["metrics"]:
        for line in result["effects"]:
            assert (line["effect"]["ci_low"] is None) == (line["effect"]["reason"] is not None)


def test_three_files_are_written_and_nothing_else(tmp_path):
    write(report_of("full"), CONTEXT, tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(FILES)


def test_the_same_state_gives_the_same_bytes(tmp_path):
    for place in ("a", "b"):
        write(report_of("full"), CONTEXT, tmp_path / place)
    for name in FILES:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
