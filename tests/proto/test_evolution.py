"""proto/driftline/v1 only ever grows: what has been published is in proto/published/v1.json, and holds.

`make proto-publish` adds what is there now to the published file, and refuses where something has broken. A change that
`buf breaking` refuses needs a package driftline.v2 beside v1.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROTO = Path(__file__).parents[2] / "proto"
BUF = Path(sys.executable).with_name("buf")

SCRATCH = """
syntax = "proto3";
package p.v1;
message Ask {
  int64 user_id = 1;
  repeated string tags = 2;
  oneof by { int64 row = 3; string name = 4; }
  Kind kind = 5;
}
message Reply {}
enum Kind { KIND_NONE = 0; KIND_SOME = 1; }
service S {
  rpc Get(Ask) returns (Reply);
  rpc List(Ask) returns (stream Reply);
}
"""


def buf(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([BUF, *map(str, arguments)], check=False, capture_output=True, text=True, timeout=60)


def test_nothing_published_has_broken() -> None:
    done = buf("breaking", PROTO, "--against", PROTO / "published" / "v1.json")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_what_is_published_is_the_interface(tmp_path: Path) -> None:
    """A removal of a published message is seen: the published file is not of something else."""
    here = tmp_path / "proto"
    shutil.copytree(PROTO, here)
    recall = here / "driftline" / "v1" / "recall.proto"
    recall.write_text(recall.read_text().replace("rpc Status(", "rpc Condition("))
    done = buf("breaking", here, "--against", PROTO / "published" / "v1.json")
    assert done.returncode == 100
    assert '"Status" on service "RecallService" was deleted' in done.stdout


@pytest.mark.parametrize(
    ("before", "after", "broken"),
    [
        ("  int64 user_id = 1;\n", "", 'field "1" with name "user_id" on message "Ask" was deleted'),
        ("int64 user_id = 1", "int64 uid = 1", 'changed name from "user_id" to "uid"'),
        ("int64 user_id = 1", "string user_id = 1", 'changed type from "int64" to "string"'),
        ("int64 user_id = 1", "int32 user_id = 1", 'changed type from "int64" to "int32"'),
        ("int64 user_id = 1", "int64 user_id = 7", 'field "1" with name "user_id" on message "Ask" was deleted'),
        ("repeated string tags", "string tags", 'changed cardinality from "repeated" to "optional with implicit'),
        ("int64 user_id = 1", "optional int64 user_id = 1", 'cardinality from "optional with implicit presence" to'),
        ("oneof by { int64 row = 3;", "int64 row = 3; oneof by {", "moved from inside to outside a oneof"),
        ("int64 user_id = 1;", "oneof who { int64 user_id = 1; }", "moved from outside to inside a oneof"),
        ("Reply", "Answer", 'message "Reply" was deleted'),
        (" KIND_SOME = 1;", "", 'enum value "1" on enum "Kind" was deleted'),
        ("KIND_SOME", "KIND_ANY", 'changed name from "KIND_SOME" to "KIND_ANY"'),
        ("  rpc Get(Ask) returns (Reply);\n", "", '"Get" on service "S" was deleted'),
        ("Get(Ask) returns (Reply)", "Get(Ask) returns (stream Reply)", "server unary to server streaming"),
        ("Get(Ask) returns (Reply)", "Get(Ask) returns (Ask)", 'changed response type from "p.v1.Reply" to "p.v1.Ask"'),
    ],
)
def test_each_kind_of_break_is_named(tmp_path: Path, before: str, after: str, broken: str) -> None:
    scratch = tmp_path / "proto"
    (scratch / "p" / "v1").mkdir(parents=True)
    shutil.copyfile(PROTO / "buf.yaml", scratch / "buf.yaml")
    file = scratch / "p" / "v1" / "p.proto"
    file.write_text(SCRATCH)
    assert buf("build", scratch, "--exclude-source-info", "-o", tmp_path / "published.json").returncode == 0
    assert before in SCRATCH
    file.write_text(SCRATCH.replace(before, after))
    done = buf("breaking", scratch, "--against", tmp_path / "published.json")
    assert done.returncode == 100, done.stderr
    assert broken.lower() in done.stdout.lower()


def publish(tmp_path: Path, before: str, after: str) -> tuple[subprocess.CompletedProcess[str], bytes, bytes]:
    """`make proto-publish` on a copy in which `before` is `after`, with the published file as it was and is then."""
    root = PROTO.parent
    here = tmp_path / "proto"
    shutil.copytree(PROTO, here)
    shutil.copyfile(root / "Makefile", tmp_path / "Makefile")
    recall = here / "driftline" / "v1" / "recall.proto"
    assert before in recall.read_text()
    recall.write_text(recall.read_text().replace(before, after))
    published = here / "published" / "v1.json"
    was = published.read_bytes()
    for name in ("pyproject.toml", "constraints.txt", "ready"):  # in this order, so that nothing is to be set up
        (tmp_path / name).touch()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    done = subprocess.run(
        ["make", "proto-publish", f"BIN={BUF.parent}", "READY=ready"],
        cwd=tmp_path,
        env=environment,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done, was, published.read_bytes()


def test_what_breaks_the_published_interface_is_not_published(tmp_path: Path) -> None:
    done, was, now = publish(tmp_path, "rpc Status(", "rpc Condition(")
    assert done.returncode == 2
    assert '"Status" on service "RecallService" was deleted' in done.stdout
    assert now == was
    assert sorted(path.name for path in (tmp_path / "proto" / "published").iterdir()) == ["v1.json"]


def test_what_is_added_is_published(tmp_path: Path) -> None:
    done, was, now = publish(tmp_path, "service RecallService", "message New { int64 a = 1; }\nservice RecallService")
    assert (done.returncode, done.stderr) == (0, "")
    assert b'"New"' in now
    assert b'"New"' not in was


def test_additions_are_no_breaks(tmp_path: Path) -> None:
    here = tmp_path / "proto"
    shutil.copytree(PROTO, here)
    recall = here / "driftline" / "v1" / "recall.proto"
    recall.write_text(recall.read_text() + "\nmessage New { int64 a = 1; }\nenum Other { OTHER_NONE = 0; }\n")
    done = buf("breaking", here, "--against", PROTO / "published" / "v1.json")
    assert (done.returncode, done.stdout) == (0, "")


def test_the_public_files_are_as_strangers_tools_expect_them() -> None:
    done = buf("lint", PROTO)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("name", ["events", "recall"])
def test_a_public_file_compiles_alone_for_strangers(tmp_path: Path, name: str) -> None:
    """As `protoc -I proto driftline/v1/NAME.proto` has it: no private file is needed."""
    public = tmp_path / "driftline" / "v1" / f"{name}.proto"
    public.parent.mkdir(parents=True)
    shutil.copy(PROTO / "driftline" / "v1" / f"{name}.proto", public)
    done = buf("build", tmp_path, "-o", "-#format=json")
    assert (done.returncode, done.stderr) == (0, "")
    assert '"goPackage":"driftline/v1;driftlinev1"' in done.stdout
