"""An S3 server on this machine, for tests and `driftline s3`: versitygw over a directory.

It creates if absent and swaps by ETag, which a publication needs. It is fetched as source by Go.
"""

import os
import re
import shutil
import subprocess
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from driftline.errors import RunError, UsageError
from driftline.processes import server as servers
from driftline.processes.server import HOST, Launch, Server

NAME = "versitygw"
MODULE = "github.com/versity/versitygw/cmd/versitygw@v1.8.0"
REGION = "us-east-1"


def default_home() -> Path:
    """Where it is installed: DRIFTLINE_S3_HOME, or a directory in the user's home."""
    return Path(os.environ.get("DRIFTLINE_S3_HOME") or Path.home() / ".driftline" / "s3")


def binary(home: Path) -> Path | None:
    """The server to run, if there is one: that of the PATH, else the one in `home`."""
    on_path = shutil.which(NAME)
    return Path(on_path) if on_path else home / NAME if (home / NAME).exists() else None


def go() -> str | None:
    """The `go` to build it with: that of the PATH, else that of Go's own installer."""
    return shutil.which("go") or shutil.which("/usr/local/go/bin/go")


def install(home: Path) -> Path:
    """Build it, unless it is there already, and return the path of the binary.

    Raises:
        UsageError: there is no Go.
        RunError: it cannot be fetched or built.

    """
    if found := binary(home):
        return found
    compiler = go()
    if compiler is None:
        raise UsageError(f"There is no {NAME} on the PATH, and no go to build it; install one of them.")
    home.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [compiler, "install", MODULE],
        env=os.environ | {"GOBIN": str(home.resolve()), "GOFLAGS": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise RunError(f"{NAME} could not be built: {said.rstrip('.')}.")
    return home / NAME


def start(
    home: Path, data_dir: Path, access_key: str, secret_key: str, port: int = 0, *, detached: bool = False
) -> Server:
    """Start a server on the loopback interface and wait until it answers; directories in `data_dir`/data are buckets.

    Args:
        home: where it was installed, if it was.
        data_dir: its objects, its log and its process id.
        access_key: with the next one, whom it knows; they reach it by its environment.
        secret_key: of any length.
        port: 0 for a free one.
        detached: it outlives this process.

    Raises:
        UsageError: it is not installed, runs already, or the port is taken.
        RunError: it did not come up.

    """
    program = binary(home)
    if program is None:
        raise UsageError(f"{NAME} is not installed; run `driftline s3 install`.")
    data_dir = data_dir.resolve()
    for name in ("data", "metadata", "users"):
        (data_dir / name).mkdir(parents=True, exist_ok=True)
    port = port or servers.free_port()
    command = (
        *(str(program), "--port", f"{HOST}:{port}", "--quiet", "--keep-alive", "--iam-dir", str(data_dir / "users")),
        *("posix", "--sidecar", str(data_dir / "metadata"), str(data_dir / "data")),
    )
    environment = {"ROOT_ACCESS_KEY": access_key, "ROOT_SECRET_KEY": secret_key, "VGW_REGION": REGION}
    server = Server(
        Launch(NAME, command, data_dir, f"{HOST}:{port}", lambda _: _answers(port), environment), detached=detached
    )
    server.start()
    return server


def require_bucket(name: str) -> None:
    """See that S3 takes a name for a bucket.

    Raises:
        UsageError: it does not.

    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", name) or ".." in name:
        raise UsageError(f"{name!a} is no name for a bucket: 3 to 63 of a-z, 0-9, `-` and `.`, as in my-bucket.")


def bucket(data_dir: Path, name: str) -> None:
    """Make a bucket.

    Raises:
        UsageError: S3 takes no such name for one.

    """
    require_bucket(name)
    (data_dir / "data" / name).mkdir(parents=True, exist_ok=True)


def _answers(port: int) -> bool:
    connection = HTTPConnection(HOST, port, timeout=1)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status < 500  # it refuses whoever has no key: it is up
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()
