"""Redis on this machine, for Feast's online store: the `redis-server` of the PATH, or Debian's in its own directory.

Debian's package is unpacked, not installed: no system service starts, and nobody has to be root.
"""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import redis

from contracts.runtime.durable import write_private
from driftline.errors import RunError, UsageError
from driftline.processes import server as servers
from driftline.processes.server import HOST, Launch, Server

NAME = "Redis"
PORT = 6379
BINARY = "redis-server"


def default_home() -> Path:
    """Where Redis is unpacked: DRIFTLINE_REDIS_HOME, or a directory in the user's home."""
    return Path(os.environ.get("DRIFTLINE_REDIS_HOME") or Path.home() / ".driftline" / "redis")


def binary(home: Path) -> Path | None:
    """The `redis-server` to run, if there is one: that of the PATH, else the one that was unpacked in `home`."""
    on_path = shutil.which(BINARY)
    unpacked = _unpacked(home)
    return Path(on_path) if on_path else unpacked if unpacked.exists() else None


def install(home: Path) -> Path:
    """Unpack Debian's Redis, unless there is a `redis-server` already, and return the path of the binary.

    Raises:
        UsageError: this is no Debian, or `home` cannot be written to.
        RunError: its packages cannot be had.

    """
    installed = binary(home)
    if installed:
        return installed
    if not shutil.which("apt-get"):
        raise UsageError(f"There is no {BINARY} on the PATH, and no apt-get to fetch it; install {NAME} yourself.")
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=home, prefix=".incoming-") as scratch:
            root = Path(scratch) / "root"
            for package in _download(Path(scratch)):
                _run(["dpkg-deb", "-x", str(package), str(root)], Path(scratch))
            unpacked = root / "usr" / "bin" / BINARY
            done = subprocess.run([unpacked, "--version"], env=_libraries(root), capture_output=True, check=False)
            if done.returncode:
                raise RunError(f"Debian's {BINARY} does not run here: {done.stderr.decode().strip()}.")
            _put(root, home / "root")
    except OSError as error:
        raise UsageError(f"Cannot install {NAME} in {home}: {error.strerror}.") from error
    return _unpacked(home)


def start(
    home: Path,
    data_dir: Path,
    port: int = 0,
    extra: Mapping[str, str] | None = None,
    *,
    detached: bool = False,
) -> Server:
    """Start a server on the loopback interface and wait until it answers. Nothing is kept on disk.

    Args:
        home: where it was unpacked, if it was.
        data_dir: its log and its process id.
        port: 0 for a free one.
        extra: settings of Redis, such as {"appendonly": "yes"} to keep data over restarts; they win over ours.
        detached: it outlives this process.

    Raises:
        UsageError: it is not installed, runs already, or the port is taken.
        RunError: it did not come up.

    """
    program = binary(home)
    if program is None:
        raise UsageError(f"{NAME} is not installed; run `driftline redis install`.")
    data_dir = data_dir.resolve()
    data_dir.mkdir(parents=True, exist_ok=True)
    port = port or servers.free_port()
    # It would write another command line over its own, by which it is found.
    options = {"bind": HOST, "port": str(port), "dir": str(data_dir), "set-proc-title": "no"}
    options |= {"save": "", "appendonly": "no"} | dict(extra or {})
    configuration = data_dir / "redis.conf"
    _write(configuration, options)
    server = Server(
        Launch(
            NAME,
            (str(program), str(configuration)),
            data_dir,
            f"{HOST}:{port}",
            lambda _: _answers(port),
            _libraries(home / "root") if program == _unpacked(home) else {},
        ),
        detached=detached,
    )
    server.start()
    return server


def _write(path: Path, options: Mapping[str, str]) -> None:
    """Write a configuration that its owner alone can read: a password on the command line could be read by all."""
    quoted = {name: value.replace("\\", "\\\\").replace('"', '\\"') for name, value in options.items()}
    write_private(path, "".join(f'{name} "{value}"\n' for name, value in quoted.items()).encode())


def _unpacked(home: Path) -> Path:
    return home / "root" / "usr" / "bin" / BINARY


def _answers(port: int) -> bool:
    with redis.Redis(host=HOST, port=port, socket_timeout=1) as client:
        try:
            return bool(client.ping())
        except redis.AuthenticationError:
            return True  # it wants a password: it is up
        except (redis.ConnectionError, redis.TimeoutError):  # also while it still loads its data
            return False


def _libraries(root: Path) -> dict[str, str]:
    """The environment in which a binary below `root` finds the shared libraries that came with it."""
    directories = {str(library.parent) for library in root.rglob("*.so*")}
    return {"LD_LIBRARY_PATH": os.pathsep.join(sorted(directories))}


def _download(directory: Path) -> list[Path]:
    """Download the packages of Redis, and those it needs that this machine lacks."""
    try:
        return _packages(directory)
    except RunError as error:
        if os.geteuid():
            raise RunError(f"{error} Refreshing apt's lists may help: sudo apt-get update.") from error
        _run(["apt-get", "update", "-qq"], directory)
        return _packages(directory)


def _packages(directory: Path) -> list[Path]:
    plan = _run(["apt-get", "-s", "--no-install-recommends", "install", BINARY], directory)
    names = re.findall(r"^Inst (\S+)", plan, re.MULTILINE)
    # Packages that are installed but were taken off the PATH are in no plan.
    wanted = names if BINARY in names else [BINARY, "redis-tools", *names]
    _run(["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", *wanted], directory)
    return sorted(directory.glob("*.deb"))


def _put(root: Path, target: Path) -> None:
    try:
        root.rename(target)
    except OSError:
        if not target.is_dir():  # else another installation was faster
            raise


def _run(command: Sequence[str], directory: Path) -> str:
    done = subprocess.run(
        command, cwd=directory, env=os.environ | {"LC_ALL": "C"}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        printed = (done.stderr or done.stdout).strip().splitlines() or ["it said nothing"]
        raise RunError(f"{NAME} could not be fetched: {command[0]}: {printed[-1].removeprefix('E: ').rstrip('.')}.")
    return done.stdout
