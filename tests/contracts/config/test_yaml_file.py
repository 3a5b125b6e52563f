"""Files that would take minutes, gigabytes or for ever to read are refused; those that are merely long are read."""

import os
from pathlib import Path

import pytest

from contracts.config.secret import read
from contracts.config.settings import SettingsError
from contracts.config.yaml_file import LARGEST, LONGEST_NUMBER, parse_yaml, read_yaml


def test_a_mapping_of_many_keys_is_read() -> None:
    keys = [f"k{i}" for i in range(40_000)]
    assert list(parse_yaml("".join(f"{key}: 1\n" for key in keys), Path("s"))) == keys


@pytest.mark.parametrize("number", ["1" + ":1" * 50, "9" * 101, "0x" + "f" * 99, "1." + "1" * 99], ids=lambda n: n[:3])
def test_a_number_has_a_bounded_length(number: str) -> None:
    with pytest.raises(SettingsError, match=f"more than {LONGEST_NUMBER} characters, in line 1"):
        parse_yaml(f"a: {number}", Path("s"))
    assert parse_yaml(f"a: '{number}'", Path("s")) == {"a": number}
    assert parse_yaml("a: 1:30", Path("s")) == {"a": 90}


def test_a_file_is_read_as_far_as_it_may_be_long(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(f"a: '{'é' * (LARGEST - 5)}'")
    assert len(read_yaml(path)["a"]) == LARGEST - 5
    with path.open("wb") as file:
        file.truncate(1 << 40)  # sparse: more than any memory
    with pytest.raises(SettingsError, match="larger than 1,048,576 characters"):
        read_yaml(path)


def test_what_is_no_regular_file_is_not_waited_for(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path in (fifo, Path("/dev/zero")):
        with pytest.raises(SettingsError, match=f"Cannot read the settings file {path}: it is no regular file"):
            read_yaml(path)
        with pytest.raises(ValueError, match=f"password_file: cannot read {path}: it is no regular file"):
            read("password_file", path)
    with pytest.raises(SettingsError, match="Is a directory"):
        read_yaml(tmp_path)
