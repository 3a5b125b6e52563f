import os
import stat
import subprocess
import sys

import pytest

from contracts.runtime.durable import LockedError, lock_file, place_directory, replace_file, write_synced

HOLDER = """
import sys
from pathlib import Path
from contracts.runtime.durable import lock_file
held = lock_file(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def synced(monkeypatch):
    """What fsync is called on, in order: "directory" or "file"."""
    kinds = []
    real = os.fsync

    def record(descriptor):
        kinds.append("directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    return kinds


def test_a_replaced_file_is_synced_before_its_name_and_the_name_after(tmp_path, synced):
    path = tmp_path / "state"
    path.write_bytes(b"old")
    replace_file(path, b"new")
    assert path.read_bytes() == b"new"
    assert synced == ["file", "directory"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["state"]


def test_a_replacement_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "state"
    path.write_bytes(b"old")

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        replace_file(path, b"new")
    assert path.read_bytes() == b"old"


def test_a_placed_directory_is_synced_itself_and_in_its_parent(tmp_path, synced):
    hidden = tmp_path / ".v1.tmp"
    hidden.mkdir()
    write_synced(hidden / "content", b"all of it")
    place_directory(hidden, tmp_path / "v1")
    assert (tmp_path / "v1" / "content").read_bytes() == b"all of it"
    assert not hidden.exists()
    assert synced == ["file", "directory", "directory"]


def test_a_lock_is_held_until_its_process_dies(tmp_path):
    path = tmp_path / "lock"
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(LockedError, match="Another process holds"):
            lock_file(path)
        holder.kill()
        lock_file(path, wait=True).close()


def test_a_lock_that_was_let_go_can_be_taken(tmp_path):
    lock_file(tmp_path / "lock").close()
    lock_file(tmp_path / "lock").close()
