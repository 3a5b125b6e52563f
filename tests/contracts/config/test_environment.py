"""Settings of the environment stand over the file's; what is wrong there is one sentence with the variable's name."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import contracts
from contracts.config.secret import revealed
from contracts.config.settings import Settings, SettingsError, load
from tests.contracts.config.test_settings import sound


def loaded(tmp_path: Path, data: dict[str, Any], **variables: str) -> Settings:
    path = tmp_path / "s.yaml"
    path.write_text(yaml.safe_dump(data))
    return load(path, {f"DRIFTLINE_{name}": value for name, value in variables.items()} | {"PATH": "/bin"})


def test_any_setting_may_come_from_the_environment_and_stands_over_the_file(tmp_path: Path) -> None:
    data = sound() | {"serving": {"port": 1, "max_k": 7}, "seed": 3}
    settings = loaded(
        tmp_path,
        data,
        SERVING__PORT="7000",
        SERVING__TLS__CERTIFICATE="c.pem",
        SERVING__TLS__KEY="k.pem",
        SEED="9",
        STATE="/elsewhere",
        TRAINER__MODELS='["t2diff"]',
        TRAINER__GATE__CANARY__SHARE="0.25",
        TRAINER__VOCABULARY__EXPIRE_AFTER_MS="null",
        KAFKA__TOPIC_CONFIG='{"retention.ms": "5"}',
        KAFKA__IDEMPOTENCE="false",
        EXPERIMENT__SALT="other",
        EXPERIMENT__ARMS__A__WEIGHT="3",
    )
    assert (settings.serving.port, settings.serving.max_k, settings.seed) == (7000, 7, 9)
    assert settings.serving.tls is not None
    assert (settings.serving.tls.certificate, settings.state) == (Path("c.pem"), Path("/elsewhere"))
    assert (settings.trainer.models, settings.trainer.gate.canary.share) == (("t2diff",), 0.25)
    assert settings.trainer.vocabulary.expire_after_ms is None
    assert (settings.kafka.topic_config, settings.kafka.idempotence) == ({"retention.ms": "5"}, False)
    assert (settings.experiment.salt, settings.experiment.arms["a"].weight) == ("other", 3)
    assert loaded(tmp_path, data) == loaded(tmp_path, data, SEED="", SERVING__PORT=""), "empty is not set"


def test_an_experiment_in_a_file_of_its_own_is_reached_too(tmp_path: Path) -> None:
    data = sound()
    (tmp_path / "e.yaml").write_text(yaml.safe_dump(data["experiment"]))
    by_path = {**data, "experiment": str(tmp_path / "e.yaml")}
    assert loaded(tmp_path, by_path) == loaded(tmp_path, data)
    assert loaded(tmp_path, by_path, EXPERIMENT__SALT="z").experiment.salt == "z"


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("KAFKAA__PARTITIONS", "3", "DRIFTLINE_KAFKAA__PARTITIONS in the environment: there is no such setting."),
        ("KAFKA__PARTITION", "3", "DRIFTLINE_KAFKA__PARTITION in the environment: there is no such setting."),
        ("SEED__X", "3", "DRIFTLINE_SEED__X in the environment: there is no such setting."),
        ("SERVING__TLS__X", "3", "DRIFTLINE_SERVING__TLS__X in the environment: there is no such setting."),
        ("SERVING_PORT", "3", "DRIFTLINE_SERVING_PORT in the environment: there is no such setting."),
        ("", "3", "DRIFTLINE_ in the environment: there is no such setting."),
        ("SERVING__PORT", "x", r"With DRIFTLINE_SERVING__PORT of the environment: .*s\.yaml: serving\.port: "),
        ("TRAINER__MODELS", "t2diff", "DRIFTLINE_TRAINER__MODELS in the environment is not written as JSON."),
        ("SERVING", "null", r"With DRIFTLINE_SERVING of the environment: .*s\.yaml: serving: "),
        ("SEED", "null", r"With DRIFTLINE_SEED of the environment: .*s\.yaml: seed: "),
        ("TRAINER__MODELS", "[" * 100_000, "DRIFTLINE_TRAINER__MODELS in the environment: its values stand too deep"),
        ("SERVING", '{"a":' * 500 + "1" + "}" * 500, "DRIFTLINE_SERVING in the environment: its values stand too deep"),
        ("SERVING", "x", "DRIFTLINE_SERVING in the environment is not written as JSON."),
        ("SERVING", "[1]", r"With DRIFTLINE_SERVING of the environment: .*s\.yaml: serving: "),
        (
            "EXPERIMENT__CONTROL",
            "z",
            "With DRIFTLINE_EXPERIMENT__CONTROL of the environment: .*: control arm 'z' is not",
        ),
    ],
)
def test_what_is_wrong_is_one_sentence(tmp_path: Path, name: str, value: str, complaint: str) -> None:
    with pytest.raises(SettingsError, match=complaint) as caught:
        loaded(tmp_path, sound(), **{name: value})
    assert "\n" not in str(caught.value)


def test_nothing_takes_away_what_may_be_absent(tmp_path: Path) -> None:
    data = sound() | {"tracing": {"endpoint": "http://127.0.0.1:1"}}
    assert loaded(tmp_path, data).tracing is not None
    assert loaded(tmp_path, data, TRACING="null").tracing is None
    assert not loaded(tmp_path, data, EXPERIMENT="null").experiment.exists
    (tmp_path / "e.yaml").write_text(yaml.safe_dump(data["experiment"]))
    assert not loaded(tmp_path, data | {"experiment": str(tmp_path / "e.yaml")}, EXPERIMENT="null").experiment.exists
    del data["experiment"]
    assert not loaded(tmp_path, data, EXPERIMENT="null").experiment.exists


@pytest.mark.parametrize("password", ["null", "true", "1e5", "007", '{"a": 1}', "[" * 5000, '"quoted"', " spaced "])
def test_a_password_is_taken_as_it_stands(tmp_path: Path, password: str) -> None:
    settings = loaded(tmp_path, sound(), KAFKA__SECURITY__SASL_PLAIN_PASSWORD=password)
    assert revealed(settings.kafka.security) == {"sasl_plain_password": password}
    both = {"KAFKA": '{"security": {"sasl_mechanism": "PLAIN"}}', "KAFKA__SECURITY__SASL_PLAIN_PASSWORD": password}
    assert revealed(loaded(tmp_path, sound(), **both).kafka.security)["sasl_plain_password"] == password


def test_two_names_of_one_setting_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"DRIFTLINE_SEED and DRIFTLINE_Seed .* are the same setting"):
        loaded(tmp_path, sound(), SEED="1", Seed="2")


def test_what_other_parts_read_is_no_setting(tmp_path: Path) -> None:
    assert loaded(tmp_path, sound(), DATA="x", KAFKA_HOME="y", WITHOUT_SERVERS="1").seed == 0


def test_what_any_part_reads_is_no_setting(tmp_path: Path) -> None:
    root, name = Path(contracts.__file__).parents[1], re.compile(r'"DRIFTLINE_([A-Z0-9_]+)"')
    files = [path for part in ("contracts", "driftline", "stream", "trainer") for path in (root / part).rglob("*.py")]
    names = {found for path in files for found in name.findall(path.read_text())}
    assert names >= {"FLINK_HOME", "KAFKA_HOME", "MAVEN_REPOSITORY", "REDIS_HOME", "S3_HOME", "WEBHOOK"}
    assert loaded(tmp_path, sound(), **dict.fromkeys(names, "x")) == loaded(tmp_path, sound())
