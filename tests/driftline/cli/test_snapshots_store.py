"""`driftline snapshots` on a real S3 server; credentials come from the environment."""

import json
import sys
from pathlib import Path

import pytest
import yaml

from contracts.config.store import Location
from contracts.snapshots import retention, snapshot
from contracts.snapshots.pointers import Canary, Hold
from contracts.snapshots.room import open_room
from driftline.cli import app as cli
from driftline.cli.servers import start_s3
from driftline.errors import UsageError
from driftline.processes import s3
from driftline.processes.server import free_port
from tests.conftest import S3_KEYS
from tests.contracts.snapshot_cases import make, write_line

MODEL = "two_tower"


class Command:
    def __init__(self, folder: Path, root: Location, patch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str]):
        self._patch, self._capture = patch, capture
        self.settings = folder / "settings.yaml"
        store = {"endpoint": root.store.endpoint, "region": root.store.region, "retry_for_s": 0.1}
        paths = {"feature_repo": "f", "snapshots": root.url, "state": str(folder / "state"), "store": store}
        self.settings.write_text(yaml.safe_dump({"kafka": {"bootstrap_servers": "h:1"}, **paths}))
        patch.setenv("AWS_ACCESS_KEY_ID", S3_KEYS[0])
        patch.setenv("AWS_SECRET_ACCESS_KEY", S3_KEYS[1])

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        self._patch.setattr(sys, "argv", ["driftline", "snapshots", *arguments, "-s", str(self.settings)])
        self._capture.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = self._capture.readouterr()
        return int(ended.value.code or 0), out, err


@pytest.fixture
def command(
    tmp_path: Path, s3_location: Location, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    write_line(s3_location, 1, deltas=1)
    snapshot.write(s3_location, make("v000002", rows=4))
    snapshot.publish(s3_location, MODEL, "v000002")
    return Command(tmp_path, s3_location, monkeypatch, capsys)


def test_what_people_do(command: Command, s3_location: Location) -> None:
    code, out, _ = command("list", "--json")
    listed = [json.loads(line) for line in out.splitlines()]
    assert (code, [(each["version"], each["states"]) for each in listed]) == (
        0,
        [("v000001", []), ("v000001+001", []), ("v000002", ["live"])],
    )
    assert command("verify")[:2] == (0, "4 snapshots and pointers are sound.\n")
    assert "4" in command("show", MODEL)[1]
    assert command("diff", MODEL, "v000001+001", "v000002")[0] == 0
    assert command("pin", MODEL, "v000001")[0] == 0
    assert retention.pinned(s3_location, MODEL) == ["v000001"]
    assert command("unpin", MODEL, "v000001")[0] == 0
    assert command("rollback", MODEL, "--reason", "it fell")[0] == 0
    assert snapshot.live(s3_location, MODEL) == "v000001"
    assert not snapshot.publish(s3_location, MODEL, "v000002")
    assert command("release", MODEL)[0] == 0
    assert snapshot.publish(s3_location, MODEL, "v000002")


def test_a_folder_is_copied_onto_a_store_with_all_pointers(
    tmp_path: Path, s3_location: Location, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "snapshots"
    write_line(folder, 1, deltas=2)
    snapshot.write(folder, make("v000002", rows=4))
    snapshot.publish(folder, MODEL, "v000002")
    retention.pin(folder, MODEL, "v000001+001")
    retention.roll_back(folder, MODEL, "v000001+002", "it fell")
    open_room(folder).note(MODEL, "v000002", b"{}")
    snapshot.write(s3_location, make("v000002", rows=4))  # as a copy that was cut off may have left it
    command = Command(tmp_path, s3_location, monkeypatch, capsys)
    for _ in range(2):
        assert command("copy", str(folder))[:2] == (0, f"{MODEL}: 4 snapshots are in {s3_location.url}.\n")
        here, there = open_room(folder), open_room(s3_location)
        assert there.versions(MODEL) == here.versions(MODEL)
        for each in map(str, here.versions(MODEL)):
            assert there.manifest(MODEL, each) == here.manifest(MODEL, each)
            assert snapshot.unseal(s3_location, MODEL, each) == snapshot.unseal(folder, MODEL, each)
        assert (there.live(MODEL), there.held(MODEL)) == ("v000001+002", here.held(MODEL))
        assert there.pinned(MODEL) == here.pinned(MODEL) == ["v000001+001"]
        assert there.noted(MODEL, "v000002") == b"{}"
    assert command("verify")[0] == 0


@pytest.mark.parametrize("written", range(5))
def test_a_copy_into_a_folder_that_was_cut_off_between_pointers_goes_on(command: Command, written: int) -> None:
    source, target = command.settings.parent / "snapshots", command.settings.parent / "elsewhere"
    write_line(source, 1, deltas=2)
    pointers = {
        "held": Hold("v000001", "it fell"),
        "trial": Canary("v000001+002", 0.5, "v000001+002"),
        "pinned": ("v000001+001",),
        "live": "v000001",
    }
    open_room(source).change(MODEL, lambda _: list(pointers.items()))
    settings = yaml.safe_load(command.settings.read_text())
    command.settings.write_text(yaml.safe_dump(settings | {"snapshots": str(target)}))
    done = (0, f"{MODEL}: 3 snapshots are in {target}.\n")
    assert command("copy", str(source))[:2] == done
    whole = {path.name: path.read_bytes() for path in (target / MODEL).iterdir() if path.is_file()}
    order = ("HELD", "CANARY", "PINNED", "LIVE")
    assert {*order} <= whole.keys()
    for name in order[written:]:
        (target / MODEL / name).unlink()
    assert command("copy", str(source))[:2] == done
    assert {path.name: path.read_bytes() for path in (target / MODEL).iterdir() if path.is_file()} == whole
    (target / MODEL / "LIVE").unlink()
    (target / MODEL / "PINNED").write_text("v000001+002\n")
    assert "has other pointers" in command("copy", str(source))[2]


@pytest.mark.parametrize("name", ["LIVE", "HELD", "CANARY", "PINNED"])
@pytest.mark.parametrize("content", [b"../x", b"\x96\xff", b'{"version": "x", "reason": "y"}', None])
def test_from_a_folder_with_a_damaged_pointer_nothing_is_copied(
    command: Command, s3_location: Location, tmp_path: Path, name: str, content: bytes | None
) -> None:
    folder = tmp_path / "snapshots"
    snapshot.write(folder, make("v000003"))
    snapshot.publish(folder, MODEL, "v000003")
    pointer = folder / MODEL / name
    pointer.unlink(missing_ok=True)
    if content is None:
        pointer.mkdir()
    else:
        pointer.write_bytes(content)
    code, out, err = command("copy", str(folder))
    assert (code, out, len(err.splitlines())) == (1, "", 1)
    assert MODEL in err
    assert "pointer" in err or f"{name} cannot be read" in err
    assert "v000003" not in map(str, snapshot.versions(s3_location, MODEL))


def test_a_copy_that_does_not_fit_moves_no_pointer(command: Command, s3_location: Location, tmp_path: Path) -> None:
    folder = tmp_path / "snapshots"
    assert command("copy", str(folder))[2] == f"driftline: There is no folder {folder}.\n"
    folder.mkdir()
    assert command("copy", str(folder))[2] == f"driftline: There are no snapshots in {folder}.\n"
    snapshot.write(folder, make("v000003", rows=5))
    snapshot.publish(folder, MODEL, "v000003")
    code, _, err = command("copy", str(folder))
    assert (code, err.splitlines()) == (
        1,
        [f"driftline: {MODEL} has other pointers in {s3_location.url} already, so none of them was moved."],
    )
    snapshot.write(folder, make("v000002", rows=5))
    assert "v000002 exists already, and is another one." in command("copy", str(folder))[2]
    (folder / MODEL / "v000002" / "item_ids.npy").write_bytes(b"")
    assert "item_ids.npy does not match its checksum." in command("copy", str(folder))[2]
    assert snapshot.live(s3_location, MODEL) == "v000002"


def test_what_is_wrong_is_one_sentence(command: Command) -> None:
    settings = yaml.safe_load(command.settings.read_text())
    for change, sentence in (
        ({"snapshots": "s3://no-such-bucket/x"}, "there is no such bucket"),
        ({"store": settings["store"] | {"endpoint": f"http://127.0.0.1:{free_port()}"}}, "connection was refused"),
    ):
        command.settings.write_text(yaml.safe_dump(settings | change))
        code, out, err = command("list")
        assert (code, out, len(err.splitlines())) == (1, "", 1)
        assert sentence in err


def test_secrets_are_in_no_command_line(tmp_path: Path, s3_location: Location) -> None:
    with s3.start(s3.default_home(), tmp_path / "own", "a-key", "a-secret-of-this-test") as server:
        command = Path(f"/proc/{server.pid}/cmdline").read_bytes()
        assert b"a-secret-of-this-test" not in command
        assert b"a-secret-of-this-test" not in (server.directory / "server.json").read_bytes()


@pytest.mark.parametrize("name", ["../outside", "UPPER", "a", "a..b", "a/b", ""])
def test_what_is_no_bucket_is_refused_before_anything_starts(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret")
    home = tmp_path / "home"
    with pytest.raises(UsageError, match="is no name for a bucket"):
        start_s3(home, 0, name)
    assert not home.exists()
