"""report.json as a contract: it reads back whole, and its published shape only grows within a version."""

import copy
import json
from dataclasses import fields
from pathlib import Path

import pytest

from abtest.analyse.context import ReportContext
from abtest.report.files import write
from abtest.report.json_schema import ReportFileError, broken, publish, read, schema, version_of
from tests.abtest.report_cases import CONTEXT, STATES, filled, planned, report_of

PUBLISHED = Path(__file__).parents[3] / "docs" / "report.schema.json"


@pytest.mark.parametrize("name", STATES)
@pytest.mark.parametrize("context", [CONTEXT, ReportContext()])
def test_every_report_reads_back_as_it_was(name, context, tmp_path):
    report = report_of(name)
    write(report, context, tmp_path)
    found = read(tmp_path / "report.json")
    assert all(getattr(found, field.name) == getattr(report, field.name) for field in fields(report))
    assert found.context.models == context.models
    assert found.context.marks == context.marks


def test_a_full_report_reads_back_too(tmp_path):
    report = filled(planned("group-sequential"))
    write(report, CONTEXT, tmp_path)
    found = read(tmp_path / "report.json")
    assert found.courses == report.courses
    assert found.sources == report.sources
    assert found.simulated is True


def test_the_published_schema_is_that_of_the_code():
    said = "publish it again: python -m abtest.report.json_schema docs/report.schema.json"
    assert json.loads(PUBLISHED.read_text(encoding="utf-8")) == schema(), said


def test_growth_is_published_and_what_breaks_a_reader_is_refused(tmp_path):
    path = tmp_path / "schema.json"
    earlier = copy.deepcopy(schema())
    del earlier["properties"]["data_hash"]
    path.write_text(json.dumps(earlier))
    publish(path)
    assert json.loads(path.read_text()) == schema()
    later = copy.deepcopy(schema())
    later["properties"]["colour"] = {"type": "string"}
    path.write_text(json.dumps(later))
    with pytest.raises(ReportFileError, match="colour: gone"):
        publish(path)
    later["properties"]["schema_version"]["const"] = version_of(later) - 1
    path.write_text(json.dumps(later))
    publish(path)
    assert json.loads(path.read_text()) == schema()


def test_what_breaks_inside_a_part_is_named():
    now = copy.deepcopy(schema())
    del now["$defs"]["Check"]["properties"]["level"]
    now["$defs"]["Look"]["properties"]["day"] = {"type": "string"}
    del now["$defs"]["Trend"]
    found = broken(schema(), now)
    assert {"Check.level: gone", "Look.day: changed", "Trend.slope: gone"} <= set(found)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not JSON"),
        ("[]", "is not a report: it has no schema_version"),
        ('{"schema_version": 1}', "has report format 1; this build reads 2"),
        ('{"schema_version": 2}', "is not a whole report: experiment"),
    ],
)
def test_a_file_that_is_no_report_is_one_sentence(tmp_path, text, said):
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(ReportFileError, match=said):
        read(tmp_path / "r.json")


def test_a_file_that_is_not_there_is_one_sentence(tmp_path):
    with pytest.raises(ReportFileError, match=r"Cannot read .*gone\.json: No such file or directory\."):
        read(tmp_path / "gone.json")
