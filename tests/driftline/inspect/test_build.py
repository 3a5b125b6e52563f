"""Which code this is."""

import subprocess

from driftline.inspect.build import commit


def git(root, *arguments):
    done = ["git", "-C", str(root), "-c", "user.name=x", "-c", "user.email=x@example.org", *arguments]
    return subprocess.run(done, check=True, capture_output=True, text=True).stdout.strip()


def test_a_commit_is_named_and_a_changed_tree_is_called_dirty(tmp_path):
    git(tmp_path, "init", "-q")
    (tmp_path / "a").write_text("1")
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "-qm", "x")
    head = git(tmp_path, "rev-parse", "HEAD")[:12]
    assert commit(tmp_path) == head
    commit.cache_clear()
    (tmp_path / "a").write_text("2")
    assert commit(tmp_path) == f"{head}-dirty"


def test_a_folder_that_is_no_repository_has_no_commit(tmp_path):
    found = commit(tmp_path)
    assert found is None or found.startswith("driftline ")
