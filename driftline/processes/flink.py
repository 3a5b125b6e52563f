"""Apache Flink on this machine: its environment, and a standalone cluster on the loopback interface.

For production, run your own cluster; the job is the same (`stream.flink.job`). A cluster lives in a directory:
`jobmanager/` and `taskmanager-N/` are servers as `server` knows them, `checkpoints/` is what a job goes on from.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import psutil
import yaml

import stream.flink
from contracts.config.store import StoreSettings
from contracts.runtime.durable import LockedError, lock_file
from driftline.errors import RunError, UsageError
from driftline.processes import flink_store, kafka
from driftline.processes import server as servers
from driftline.processes.server import HOST, Launch, Server

NAME = "Apache Flink"
VERSION = "2.3.0"
JAVA_VERSION = 17
CONNECTOR = "org.apache.flink:flink-sql-connector-kafka:5.0.0-2.2"
PYTHONS = ((3, 9), (3, 12))  # what PyFlink has wheels for, both included
JOBMANAGER, TASKMANAGER = "jobmanager", "taskmanager-"
JOBMANAGER_PORTS = ("jobmanager.rpc.port", "rest.port")
MARK = "DRIFTLINE_FLINK"  # in the environment of a cluster's processes: Python's outlive a killed TaskManager
CODE = Path(stream.flink.__file__).parent

# Beam, by which PyFlink starts Python, logs the whole environment of its processes, keys included, as a job ends.
LOGGING = """\
status=error
appender.out.type=Console
appender.out.name=out
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=%d %p %m (%c)%n
rootLogger.level=info
rootLogger.appenderRef.out.ref=out
logger.beam.name=org.apache.beam
logger.beam.level=error
"""


def default_home() -> Path:
    """Where Apache Flink is installed: DRIFTLINE_FLINK_HOME, or a directory in the user's home."""
    return Path(os.environ.get("DRIFTLINE_FLINK_HOME") or Path.home() / ".driftline" / "flink")


def installed(home: Path) -> bool:
    """Whether all of it is there, as this version of driftline needs it."""
    return _ready(home).exists() and _plugin(home).exists()


def python_of(home: Path) -> Path:
    """The Python of its environment."""
    return home / VERSION / "env" / "bin" / "python"


def install(home: Path, repository: str | None = None) -> Path:
    """Make the environment and fetch the connector, unless they are there. `repository`: a mirror of Maven's central.

    Raises:
        UsageError: Java, its compiler, or a Python that PyFlink runs on is missing, or `home` cannot be written to.
        RunError: an index cannot be reached, or does not have what is needed.

    """
    compiler()
    base = _python()
    target = home / VERSION
    try:
        target.mkdir(parents=True, exist_ok=True)
        with lock_file(home / "install.lock"):
            if installed(home):
                return target
            if not _ready(home).exists():
                _uv("venv", "-q", "--clear", "--python", base, str(target / "env"))
                _uv("pip", "install", "-q", "--python", str(python_of(home)), "-r", str(CODE / "requirements.txt"))
                libs = target / "jars"
                libs.mkdir(exist_ok=True)
                kafka.fetch_jar(CONNECTOR, home / ".repository", libs, repository)
                _ready(home).touch()
            plugins = _plugin(home).parent
            plugins.mkdir(parents=True, exist_ok=True)
            kafka.fetch_jar(flink_store.PLUGIN, home / ".repository", plugins, repository)
            shutil.rmtree(home / ".repository", ignore_errors=True)
    except LockedError as error:
        raise UsageError(f"{NAME} is being installed in {home} already.") from error
    except OSError as error:
        raise UsageError(f"Cannot install {NAME} in {home}: {error.strerror}.") from error
    return target


def compiler() -> str:
    """The Java compiler that goes with Java.

    Raises:
        UsageError: there is no Java, an old one, or one without a compiler.

    """
    runtime = Path(kafka.java(NAME))
    beside = runtime.with_name("javac")
    program = str(beside) if beside.exists() else shutil.which("javac")
    if not program:
        raise UsageError(f"{NAME} needs the Java compiler, and there is no javac beside {runtime}; install a JDK.")
    return program


class Cluster:
    """A cluster in a directory. A context manager: on the way out all of it is stopped."""

    def __init__(
        self, home: Path, directory: Path, *, detached: bool = False, store: StoreSettings | None = None
    ) -> None:
        """`detached`: it outlives this process. `store`: one that its processes are to reach, when they are started."""
        self.home = home
        self._store = store
        self.directory = directory.resolve()
        self._detached = detached
        self._servers: dict[Path, Server] = {}  # that this process has started
        self._ports: dict[str, Any] = {}  # the JobManager's, which others have been told of

    @property
    def address(self) -> str | None:
        """HOST:PORT of its REST interface; None where it does not run."""
        running = servers.find(self.directory / JOBMANAGER)
        return running.address if running else None

    @property
    def checkpoints(self) -> Path:
        """Where jobs keep theirs."""
        return self.directory / "checkpoints"

    @property
    def started_with(self) -> dict[str, Any]:
        """The configuration of its JobManager; empty where there was none."""
        return _read(self.directory / JOBMANAGER) or {}

    def start(self, taskmanagers: int = 2, slots: int = 1) -> None:
        """Start a JobManager and some TaskManagers, and wait until they know each other.

        Raises:
            UsageError: it is not installed, or runs already.
            RunError: it did not come up.

        """
        if not installed(self.home):
            raise UsageError(f"{NAME} {VERSION} is not installed in {self.home}; run `driftline flink install`.")
        if self.address:
            raise UsageError(f"{NAME} runs in {self.directory} already.")
        kafka.java(NAME)
        self.directory.mkdir(parents=True, exist_ok=True)
        try:
            self.start_jobmanager()
            for number in range(taskmanagers):
                self.start_taskmanager(number, slots)
        except BaseException:
            self.stop()
            raise

    def start_jobmanager(self) -> Server:
        """Start the JobManager, on the ports that it had before where there are such."""
        directory = self.directory / JOBMANAGER
        before = _read(directory) or self._ports
        settings = self._ports = {each: before.get(each) or servers.free_port() for each in JOBMANAGER_PORTS}
        own = settings | {
            "jobmanager.rpc.address": HOST,
            "jobmanager.bind-host": HOST,
            "rest.address": HOST,
            "rest.bind-address": HOST,
            "web.submit.enable": True,
        }
        address = f"{HOST}:{settings['rest.port']}"
        main = "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint"
        return self._start(directory, own, main, address, "Rest endpoint listening at", "-Xmx512m")

    def start_taskmanager(self, number: int, slots: int = 1) -> Server:
        """Start a TaskManager with an empty disk of its own."""
        directory = self.directory / f"{TASKMANAGER}{number}"
        jobmanager = _read(self.directory / JOBMANAGER) or {}
        self._end_python(directory)
        own = {
            "jobmanager.rpc.address": HOST,
            "jobmanager.rpc.port": jobmanager["jobmanager.rpc.port"],
            "taskmanager.host": HOST,
            "taskmanager.bind-host": HOST,
            "taskmanager.rpc.port": servers.free_port(),
            "taskmanager.numberOfTaskSlots": slots,
            "taskmanager.cpu.cores": float(slots),
            # All of them: Flink's own scripts reckon them, and without those it reckons none.
            "taskmanager.memory.framework.heap.size": "128m",
            "taskmanager.memory.framework.off-heap.size": "128m",
            "taskmanager.memory.jvm-metaspace.size": "256m",
            "taskmanager.memory.jvm-overhead.min": "192m",
            "taskmanager.memory.jvm-overhead.max": "192m",
            "taskmanager.memory.task.heap.size": "384m",
            "taskmanager.memory.task.off-heap.size": "0m",
            "taskmanager.memory.managed.size": f"{96 * slots}m",
            "taskmanager.memory.network.min": "64m",
            "taskmanager.memory.network.max": "64m",
        }
        address = f"{HOST}:{own['taskmanager.rpc.port']}"
        main = "org.apache.flink.runtime.taskexecutor.TaskManagerRunner"
        ready = "Successful registration at resource manager"
        return self._start(directory, own, main, address, ready, "-Xmx512m", "-XX:MaxDirectMemorySize=256m")

    def kill_jobmanager(self, *, with_disk: bool = False) -> None:
        """End the JobManager with SIGKILL. `with_disk`: delete it too; the next one that is started has its ports."""
        self._end(self.directory / JOBMANAGER, kill=True)
        if with_disk:
            shutil.rmtree(self.directory / JOBMANAGER)

    def kill_taskmanager(self, number: int) -> None:
        """End a TaskManager with SIGKILL and delete its disk; and its Python, as a lost machine would."""
        directory = self.directory / f"{TASKMANAGER}{number}"
        self._end(directory, kill=True)
        self._end_python(directory)
        shutil.rmtree(directory)

    def pythons(self, number: int) -> list[psutil.Process]:
        """The Python processes of a TaskManager."""
        return list(_marked(self.directory / f"{TASKMANAGER}{number}"))

    def runs(self, number: int) -> bool:
        """Whether a TaskManager runs."""
        return servers.find(self.directory / f"{TASKMANAGER}{number}") is not None

    def pid_of(self, name: str | int) -> int:
        """The process of a TaskManager, by its number, or of a server, by its directory's name.

        Raises:
            RunError: it does not run.

        """
        server = name if isinstance(name, str) else f"{TASKMANAGER}{name}"
        running = servers.find(self.directory / server)
        if running is None:
            raise RunError(f"{server} does not run in {self.directory}.")
        return running.process.pid

    def taskmanagers(self) -> list[int]:
        """The numbers of those that have a directory."""
        return sorted(int(each.name.removeprefix(TASKMANAGER)) for each in self.directory.glob(f"{TASKMANAGER}*"))

    def stop(self) -> bool:
        """End all its processes, Python's too; False where none ran."""
        ran = False
        for number in self.taskmanagers():
            directory = self.directory / f"{TASKMANAGER}{number}"
            ran |= self._end(directory)
            self._end_python(directory)
        return self._end(self.directory / JOBMANAGER) or ran

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _end(self, directory: Path, *, kill: bool = False) -> bool:
        """End a server; False where it did not run."""
        ran = servers.find(directory) is not None
        server = self._servers.pop(directory, None)
        if server is None:
            servers.end(directory, signal_it=psutil.Process.kill if kill else psutil.Process.terminate)
        elif kill:
            server.kill()
        else:
            server.stop()
        return ran

    def _end_python(self, directory: Path) -> None:
        for process in _marked(directory):
            with suppress(psutil.NoSuchProcess):
                process.kill()
                process.wait(servers.STOP_TIMEOUT_S)

    def _start(
        self, directory: Path, settings: Mapping[str, Any], main: str, address: str, ready: str, *memory: str
    ) -> Server:
        directory.mkdir(parents=True, exist_ok=True)
        tmp = directory / "tmp"
        shutil.rmtree(tmp, ignore_errors=True)
        tmp.mkdir()
        flink = pyflink(self.home)
        shipped = yaml.safe_load((flink / "conf" / "config.yaml").read_text())
        opens = shipped["env"]["java"]["opts"]["all"]
        common = {
            "io.tmp.dirs": str(tmp),
            "heartbeat.interval": "1 s",
            "heartbeat.timeout": "6 s",
            "env.java.opts.all": opens,  # for the client's Java, which reads this file too
        }
        reached = flink_store.configuration(self._store)
        (directory / "config.yaml").write_text(yaml.safe_dump(dict(settings) | common | reached, width=10_000))
        (directory / "log4j2.properties").write_text(LOGGING)
        (python_jar,) = (flink / "opt").glob(f"flink-python-{VERSION}.jar")
        command = (
            kafka.java(NAME),
            *memory,
            *opens.split(),
            f"-Dlog4j.configurationFile={directory / 'log4j2.properties'}",
            f"-Djava.io.tmpdir={tmp}",
            "-cp",
            f"{flink / 'lib'}/*:{python_jar}",
            main,
            "--configDir",
            str(directory),
        )
        environment = {MARK: str(directory), "FLINK_CONF_DIR": str(directory), "PYTHONDONTWRITEBYTECODE": "1"}
        environment |= flink_store.environment(_plugin(self.home).parents[1], self._store)
        launch = Launch(NAME, command, directory, address, lambda printed: ready in printed, environment)
        server = Server(launch, detached=self._detached)
        server.start()
        self._servers[directory] = server
        return server


def _ready(home: Path) -> Path:
    wanted = hashlib.sha256((CODE / "requirements.txt").read_bytes() + CONNECTOR.encode()).hexdigest()[:12]
    return home / VERSION / f".ready-{wanted}"


def _plugin(home: Path) -> Path:
    _, name, version = flink_store.PLUGIN.split(":")
    return home / VERSION / "plugins" / "s3" / f"{name}-{version}.jar"


def pyflink(home: Path) -> Path:
    """Where PyFlink, and with it Flink itself, lies."""
    (found,) = (home / VERSION / "env" / "lib").glob("python*/site-packages/pyflink")
    return found


def _python() -> str:
    """A Python that PyFlink runs on: this one, or one that uv knows."""
    if PYTHONS[0] <= sys.version_info[:2] <= PYTHONS[1]:
        return sys.executable
    for minor in (12, 11):
        found = shutil.which(f"python3.{minor}")
        if found:
            return found
    raise UsageError(f"{NAME} needs Python 3.11 or 3.12 for its environment, and there is none on the PATH.")


def _uv(*arguments: str) -> None:
    program = Path(sys.executable).with_name("uv")
    found = str(program) if program.exists() else shutil.which("uv")
    if not found:
        raise UsageError(f"{NAME} is installed by uv, and there is none; `pip install uv`.")
    done = subprocess.run([found, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RunError(f"{NAME} could not be installed: {' '.join(done.stderr.split())}")


def _read(directory: Path) -> dict[str, Any] | None:
    """The configuration that a server was started with last; its ports stay, as others have been told of them."""
    path = directory / "config.yaml"
    return yaml.safe_load(path.read_text()) if path.exists() else None


def _marked(directory: Path) -> Iterator[psutil.Process]:
    """The Python processes that a TaskManager in this directory has started."""
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if process.environ().get(MARK) == str(directory) and "python" in process.name():
                yield process
