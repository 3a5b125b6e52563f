"""Checkpoints: whole or not there."""

import zipfile
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from contracts.config.settings import Settings, SettingsError
from tests.safety.mutations import zipped
from tests.trainer.trainer_cases import small_settings
from trainer.checkpoint import Checkpoints, dumps, loads

Open = Callable[..., Checkpoints]


class Crash(Exception):
    """The process ends here."""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return small_settings(tmp_path)


@pytest.fixture
def opened() -> Iterator[Open]:
    made: list[Checkpoints] = []

    def make(*arguments: Any) -> Checkpoints:
        made.append(Checkpoints(*arguments))
        return made[-1]

    yield make
    for checkpoints in made:
        checkpoints.close()


def test_what_is_written_comes_back_bit_for_bit() -> None:
    state = {
        "tensor": torch.randn(3, 4).to(torch.bfloat16),
        "array": np.array([[1.5, np.nan]], np.float32),
        "nested": [{"bytes": b"\x00\xff", "none": None}, (1, 2.5, "é", True)],
        "empty": [b"", np.empty((0, 3), np.int64), {}],
        5: "a key that is no string",
    }
    back = loads(dumps(state))
    assert torch.equal(back["tensor"], state["tensor"])
    assert back["tensor"].dtype == torch.bfloat16
    np.testing.assert_array_equal(back["array"], state["array"])
    assert back["nested"] == state["nested"]
    assert back["empty"][0] == b""
    assert (back["empty"][1].shape, back["empty"][1].dtype) == ((0, 3), np.int64)
    assert back[5] == state[5]


def test_two_are_kept_and_the_newest_is_read(settings: Settings, opened: Open) -> None:
    checkpoints = opened(settings)
    assert checkpoints.newest() is None
    for n in range(4):
        checkpoints.write({"n": n})
    assert checkpoints.newest() == {"n": 3}
    names = sorted(path.name for path in (settings.state / "trainer").iterdir())
    assert names == ["00000003", "00000004", "lock"]


@pytest.mark.parametrize(("step", "found"), [("written", 1), ("renamed", 2), ("pruned", 2)])
def test_a_crash_leaves_the_last_or_the_new_one(settings: Settings, opened: Open, step: str, found: int) -> None:
    def crash(arrived: str) -> None:
        if arrived == step:
            raise Crash

    first = opened(settings)
    first.write({"n": 1})
    first.close()
    crashing = opened(settings, crash)
    with pytest.raises(Crash):
        crashing.write({"n": 2})
    crashing.close()
    after = opened(settings)
    assert after.newest() == {"n": found}
    after.write({"n": 3})
    assert after.newest() == {"n": 3}


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "manifest"])
def test_a_damaged_one_gives_way_to_the_one_before(settings: Settings, opened: Open, damage: str) -> None:
    checkpoints = opened(settings)
    checkpoints.write({"n": 1})
    checkpoints.write({"n": 2})
    path = settings.state / "trainer" / "00000002" / "state.pt"
    content = path.read_bytes()
    if damage == "flip":
        path.write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])
    elif damage == "truncate":
        path.write_bytes(content[:-1])
    elif damage == "remove":
        path.unlink()
    else:
        path.with_name("manifest.json").write_text("{")
    assert checkpoints.newest() == {"n": 1}


def test_one_of_other_settings_is_refused_by_name(tmp_path: Path, settings: Settings, opened: Open) -> None:
    checkpoints = opened(settings)
    checkpoints.write({"n": 1})
    checkpoints.close()
    for name, value in (("learn_from", "pooled"), ("objective", {"play": 1.0})):
        other = opened(small_settings(tmp_path, **{name: value}))
        with pytest.raises(SettingsError, match=rf"made with other settings \({name}\)"):
            other.newest()
        other.close()


def test_two_trainers_never_share_a_state(settings: Settings, opened: Open) -> None:
    opened(settings)
    with pytest.raises(SettingsError, match="Another trainer runs"):
        opened(settings)


def test_the_format_before_is_read_and_older_ones_are_refused(
    settings: Settings, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = opened(settings)
    for number, found in ((6, 1), (5, None)):
        monkeypatch.setattr("trainer.checkpoint.FORMAT", number)
        checkpoints.write({"n": 1})
        monkeypatch.undo()
        if found:
            assert checkpoints.newest() == {"n": found}
        else:
            with pytest.raises(SettingsError, match=f"has format {number}, and this build reads 6 and 7; go back"):
                checkpoints.newest()


def test_what_is_unpacked_or_run_while_it_is_read_is_no_checkpoint(tmp_path: Path) -> None:
    written = dumps({"n": 1})
    entries = {entry.filename: zipfile.ZipFile(BytesIO(written)).read(entry) for entry in _entries(written)}
    packed = zipped(entries, zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match=r"state\.pt is compressed"):
        loads(packed)
    ran = tmp_path / "ran"
    name = next(name for name in entries if name.endswith("data.pkl"))
    for payload in (f"cos\nsystem\n(S'touch {ran}'\ntR.".encode(), b"cbuiltins\nbytearray\n(L100000000000L\ntR."):
        with pytest.raises(ValueError, match=r"state\.pt cannot be read"):
            loads(zipped(entries | {name: payload}))
    assert not ran.exists()


def _entries(content: bytes) -> list[zipfile.ZipInfo]:
    return zipfile.ZipFile(BytesIO(content)).infolist()
