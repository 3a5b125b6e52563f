"""A secret reaches the client and nothing else; each mistake with one is a sentence that does not say it."""

import copy
import json
import logging
import stat
from pathlib import Path
from typing import Any

import pytest
import structlog
import yaml

from contracts.config.secret import LARGEST, revealed
from contracts.config.settings import Settings, SettingsError, dump, load, parse
from contracts.kafka.security import check
from tests.contracts.config.test_settings import sound

SECRET = "tr0ub4dor"  # noqa: S105
LOGIN = {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN", "sasl_plain_username": "me"}


def with_login(**more: Any) -> dict[str, Any]:
    data = copy.deepcopy(sound())
    data["kafka"]["security"] = LOGIN | more
    return data


def password(settings: Settings) -> Any:
    return revealed(settings.kafka.security)["sasl_plain_password"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text(SECRET + "\n")
    return path


def test_a_password_may_stand_in_the_file_in_one_of_its_own_or_in_the_environment(tmp_path: Path, file: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(yaml.safe_dump(with_login()))
    itself = parse(with_login(sasl_plain_password=SECRET))
    from_file = parse(with_login(sasl_plain_password_file=str(file)))
    by_variable = load(path, {"DRIFTLINE_KAFKA__SECURITY__SASL_PLAIN_PASSWORD": SECRET})
    by_file = load(path, {"DRIFTLINE_KAFKA__SECURITY__SASL_PLAIN_PASSWORD_FILE": str(file)})
    for settings in (itself, from_file, by_variable, by_file):
        assert password(settings) == SECRET
        assert settings == itself
        check(settings.kafka.security)


@pytest.mark.parametrize("value", ['{"a": 1}', "[1]", "12", "true", "#x", " y ", "a=b,c"])
def test_a_password_of_the_environment_is_taken_as_it_is(tmp_path: Path, value: str) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(yaml.safe_dump(with_login()))
    assert password(load(path, {"DRIFTLINE_KAFKA__SECURITY__SASL_PLAIN_PASSWORD": value})) == value


def test_no_way_of_writing_settings_down_says_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = parse(with_login(sasl_plain_password=SECRET, ssl_password=SECRET))
    structlog.get_logger().warning(
        "settings", settings=settings, kafka=settings.kafka, security=settings.kafka.security
    )
    logging.getLogger("x").warning("%s", settings)
    said = [
        repr(settings),
        str(settings.kafka),
        str(settings.model_dump()),
        settings.model_dump_json(),
        json.dumps(settings.model_dump(mode="json")),
        *capsys.readouterr(),
    ]
    assert "sasl_plain_password" in said[0]
    assert not [text for text in said if SECRET in text]


def test_a_dump_loads_again_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("was there before")
    path.chmod(0o644)
    settings = parse(with_login(sasl_plain_password=SECRET))
    dump(settings, path)
    assert SECRET not in path.read_text()
    assert load(path, {}) == settings
    assert password(load(path, {})) == SECRET
    modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in tmp_path.iterdir()}
    assert modes == {"settings.yaml": 0o600, "settings.sasl_plain_password": 0o600}


def empty(path: Path) -> str:
    path.write_text("\n")
    return "sasl_plain_password_file: .*secret is empty"


def absent(path: Path) -> str:
    path.unlink()
    return "sasl_plain_password_file: cannot read .*secret: No such file"


def directory(path: Path) -> str:
    path.unlink()
    path.mkdir()
    return "sasl_plain_password_file: cannot read .*secret: Is a directory"


def endless(path: Path) -> str:
    path.unlink()
    path.symlink_to("/dev/zero")
    return "sasl_plain_password_file: .*secret: it is no regular file"


def large(path: Path) -> str:
    path.write_bytes(b"x" * (LARGEST + 1))
    return "sasl_plain_password_file: .*secret is too large"


def no_text(path: Path) -> str:
    path.write_bytes(b"\xff\xfe" + SECRET.encode())
    return "sasl_plain_password_file: .*secret holds something else than text"


@pytest.mark.parametrize("spoil", [empty, absent, directory, endless, large, no_text])
def test_a_file_that_cannot_be_used_is_named(file: Path, spoil: Any) -> None:
    complaint = spoil(file)
    with pytest.raises(SettingsError, match=complaint) as caught:
        parse(with_login(sasl_plain_password_file=str(file)))
    assert SECRET not in str(caught.value) + repr(caught.value.__cause__) + str(caught.value.__cause__)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"sasl_plain_password": [SECRET]},
        {"sasl_plain_password": {SECRET: 1}},
        {"sasl_plain_password": 1.5},
        {"sasl_plain_password": True},
        {"sasl_plain_username": [SECRET]},
        {"ssl_password": [SECRET], "ssl_password_file": "x"},
    ],
)
def test_a_value_that_cannot_be_used_is_not_quoted(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingsError) as caught:
        parse(with_login(**wrong))
    assert "kafka.security" in str(caught.value)
    assert SECRET not in str(caught.value) + str(caught.value.__cause__)


def test_a_secret_and_its_file_are_not_both_given(tmp_path: Path, file: Path) -> None:
    complaint = "sasl_plain_password and sasl_plain_password_file both give the secret; leave one out"
    with pytest.raises(SettingsError, match=complaint):
        parse(with_login(sasl_plain_password=SECRET, sasl_plain_password_file=str(file)))
    path = tmp_path / "s.yaml"
    path.write_text(yaml.safe_dump(with_login(sasl_plain_password=SECRET)))
    with pytest.raises(SettingsError, match=complaint):
        load(path, {"DRIFTLINE_KAFKA__SECURITY__SASL_PLAIN_PASSWORD_FILE": str(file)})


@pytest.mark.parametrize("none", ["", None])
def test_an_empty_password_is_none(none: str | None) -> None:
    settings = parse(with_login(sasl_plain_password=none))
    with pytest.raises(SettingsError, match="sasl_plain_password: it is missing"):
        check(settings.kafka.security)
