import json

import pytest
from typer.testing import CliRunner

from contracts.config.settings import SettingsError
from driftline.cli.app import app
from driftline.errors import USER_ERRORS

SMALL = ["lab", "--days", "1", "--warmup-days", "1", "--users", "40", "--items", "100"]


def refused(*arguments: str) -> str:
    found = CliRunner().invoke(app, [*SMALL, *arguments])
    assert isinstance(found.exception, USER_ERRORS), found.output
    return str(found.exception)


def test_a_lab_prints_tables_and_writes_json_markdown_and_a_picture(tmp_path):
    files = {name: tmp_path / f"lab.{name}" for name in ("json", "md", "svg")}
    found = CliRunner().invoke(
        app,
        [
            *SMALL, "--policies", "popularity,omniscient", "--seeds", "2", "--births", "0.1", "--ab", "--jobs", "2",
            "--json", str(files["json"]), "--markdown", str(files["md"]), "--picture", str(files["svg"]),
        ],
    )  # fmt: skip
    assert found.exit_code == 0, found.output
    for title in ("Effective view rate of the whole", "by day", "Beside popularity", "Items born", "A/B test"):
        assert title in found.output
    content = json.loads(files["json"].read_text())
    assert list(content["policies"]) == ["popularity", "omniscient"]
    assert [each["seed"] for each in content["shared"]] == [0, 1]
    assert content["policies"]["popularity"]["share_of_omniscient"]["mean"] < 1
    assert "| omniscient | " in files["md"].read_text()
    assert "omniscient" in files["svg"].read_text()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--policies", "frozen,luck"], "There is no policy 'luck'"),
        (["--policies", ","], "Which policies"),
        (["--model", "bert"], "There is no model 'bert'"),
        (["--ab", "--policies", "frozen,online,plain"], "--ab takes two policies, not 3."),
        (["--learn-from", "pooled"], "--learn-from goes with --ab"),
        (["--picture", "week.gif"], "must end in .svg or .png"),
        (["--json", "nowhere/at/all.json"], "is not a folder"),
        (["--world", "nowhere", "--policies", "popularity"], "can only be chosen in the synthetic world"),
        (["--settings", "nowhere.yaml"], "nowhere.yaml"),
        (["--policies", "online@nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_what_cannot_be_is_one_sentence_before_anything_runs(arguments, sentence):
    assert sentence in refused(*arguments)


def test_a_model_whose_examples_have_no_loss_of_their_own_is_not_weighted():
    policies = ["--ab", "--policies", "online:contrastvae,online", "--learn-from", "weighted"]
    assert "does not go with contrastvae" in refused(*policies)


def test_a_settings_file_may_hold_the_trainers_section_alone_and_is_checked(tmp_path):
    from evaluation.lab.settings import LabSettings, read_settings

    file = tmp_path / "lab.yaml"
    file.write_text("trainer: {publish_every_s: 60, model: {dim: 8}}\n")
    found = read_settings(file)
    assert found.trainer.model.dim == 8
    assert found.stream == LabSettings().stream
    assert found.by_the_clock() == ["publish_every_s"]
    file.write_text("trainer: {learning: fast}\n")
    with pytest.raises(SettingsError, match=r"trainer\.learning: there is no such setting"):
        read_settings(file)
