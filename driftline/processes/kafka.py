"""Apache Kafka on this machine: fetch it, and run one node of it (KRaft). For production, run your own cluster.

The brokers' jars come from a Maven repository; Java is the only other thing that it needs.
"""

import base64
import os
import re
import shutil
import subprocess
import tempfile
import uuid
import zipfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from xml.etree import ElementTree as ET

from contracts.runtime.durable import write_private
from driftline.errors import RunError, UsageError
from driftline.processes import server as servers
from driftline.processes.server import HOST, Launch, Server

NAME = "Apache Kafka"
VERSION = "4.3.1"
JAVA_VERSION = 17
PORT = 9092
DOWNLOADS = 8
FETCH_TIMEOUT_S = 60

# To standard output, which is the server's log; quiet, but for the line that says that it has started.
LOGGING = """\
status=error
appender.out.type=Console
appender.out.name=out
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=%d %p %m (%c)%n
rootLogger.level=warn
rootLogger.appenderRef.out.ref=out
logger.started.name=kafka.server.KafkaRaftServer
logger.started.level=info
"""
STARTED = "Kafka Server started"


def default_home() -> Path:
    """Where Apache Kafka is installed: DRIFTLINE_KAFKA_HOME, or a directory in the user's home."""
    return Path(os.environ.get("DRIFTLINE_KAFKA_HOME") or Path.home() / ".driftline" / "kafka")


def jars(home: Path) -> Path:
    """The directory of the jars; it is there only when all of them are."""
    return home / VERSION


def install(home: Path, repository: str | None = None) -> Path:
    """Fetch the jars, unless they are there, and return their directory. `repository`: a mirror of Maven's central one.

    Raises:
        UsageError: there is no Java, or an old one, or `home` cannot be written to.
        RunError: the repository cannot be reached, or does not have what is needed.

    """
    java()
    target = jars(home)
    if target.is_dir():
        return target
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=home, prefix=".incoming-") as scratch:
            libs = Path(scratch) / "libs"
            libs.mkdir()
            _fetch(Path(scratch) / "repository", libs, repository)
            _put(libs, target)
    except OSError as error:
        raise UsageError(f"Cannot install {NAME} in {home}: {error.strerror}.") from error
    return target


def start(
    home: Path,
    data_dir: Path,
    port: int = 0,
    extra: Mapping[str, str] | None = None,
    *,
    detached: bool = False,
) -> Server:
    """Start one node on the loopback interface and wait until it answers; the storage is formatted at first.

    Args:
        home: where it is installed.
        data_dir: its log, its configuration and its process id.
        port: 0 for a free one.
        extra: server properties; they win over ours. The listener for clients is called CLIENTS.
        detached: it outlives this process.

    Raises:
        UsageError: it is not installed, runs already, or the port is taken.
        RunError: it did not come up.

    """
    if not jars(home).is_dir():
        raise UsageError(f"{NAME} {VERSION} is not installed in {home}; run `driftline kafka install`.")
    runtime = java()
    data_dir = data_dir.resolve()
    data_dir.mkdir(parents=True, exist_ok=True)
    if servers.find(data_dir):
        raise UsageError(f"{NAME} runs in {data_dir} already.")
    address = f"{HOST}:{port or servers.free_port()}"
    configuration = data_dir / "server.properties"
    _write(configuration, _properties(data_dir, address) | dict(extra or {}))
    (data_dir / "log4j2.properties").write_text(LOGGING)
    base = (runtime, f"-Dlog4j2.configurationFile={data_dir / 'log4j2.properties'}", "-cp", f"{jars(home)}/*")
    if not (data_dir / "kraft" / "meta.properties").exists():
        _format(base, configuration)
    server = Server(
        Launch(
            NAME,
            (base[0], "-Xmx512m", *base[1:], "kafka.Kafka", str(configuration)),
            data_dir,
            address,
            lambda printed: STARTED in printed,
        ),
        detached=detached,
    )
    server.start()
    return server


def java(name: str = NAME) -> str:
    """The Java that runs it, or what else is called `name`.

    Raises:
        UsageError: there is none, or it is too old.

    """
    home = os.environ.get("JAVA_HOME")
    program = shutil.which("java", path=f"{home}/bin") if home else shutil.which("java")
    if not program:
        where = f"JAVA_HOME ({home}) has none" if home else "there is none on the PATH"
        raise UsageError(f"{name} needs Java {JAVA_VERSION} or newer, and {where}.")
    printed = subprocess.run([program, "-version"], capture_output=True, text=True, check=False).stderr
    version = re.search(r'version "(\d+)', printed)
    if not version or int(version[1]) < JAVA_VERSION:
        raise UsageError(
            f"{name} needs Java {JAVA_VERSION} or newer, and {program} is {version[1] if version else '?'}."
        )
    return program


def _fetch(cache: Path, libs: Path, repository: str | None) -> None:
    """Fetch Kafka and everything that it needs at run time, whole, into `libs`."""
    import requests
    from jgo.maven import MavenContext

    # A cache of its own: a file that an interrupted download left in the user's would be taken for whole.
    remote = {"mirror": repository} if repository else None
    context = MavenContext(repo_cache=cache, local_repos=[], remote_repos=remote, timeout=FETCH_TIMEOUT_S)
    try:
        inputs, needed = context.resolver.resolve([context.create_dependency(f"org.apache.kafka:kafka_2.13:{VERSION}")])
        at_run_time = [one for one in needed if one.scope in {"compile", "runtime"}]
        artifacts = [one.artifact for one in (*inputs, *at_run_time)]
        # Kafka logs through slf4j, and leaves it to its packagers where that goes.
        logging = next(one.version for one in artifacts if one.artifactId == "log4j-core")
        binding = context.project("org.apache.logging.log4j", "log4j-slf4j-impl").at_version(logging)
        with ThreadPoolExecutor(DOWNLOADS) as pool:
            fetched = list(pool.map(lambda artifact: artifact.resolve(), [*artifacts, binding.artifact()]))
        for path in fetched:
            with zipfile.ZipFile(path) as jar:
                if jar.testzip():
                    raise zipfile.BadZipFile(f"{path.name} is damaged")
            path.rename(libs / path.name)
    except requests.RequestException as error:
        raise RunError(
            f"{NAME} could not be fetched: the Maven repository does not answer ({type(error).__name__}); is there a"
            " network? DRIFTLINE_MAVEN_REPOSITORY names a mirror."
        ) from error
    except (RuntimeError, ValueError, StopIteration, zipfile.BadZipFile, ET.ParseError) as error:
        raise RunError(f"{NAME} could not be fetched: {' '.join(str(error).split())}.") from error


def fetch_jar(coordinates: str, cache: Path, libs: Path, repository: str | None) -> None:
    """Fetch one jar by its coordinates, without what it depends on, into `libs`.

    Raises:
        RunError: the repository cannot be reached, or does not have it.

    """
    import requests
    from jgo.maven import MavenContext

    remote = {"mirror": repository} if repository else None
    context = MavenContext(repo_cache=cache, local_repos=[], remote_repos=remote, timeout=FETCH_TIMEOUT_S)
    try:
        group, artifact, version = coordinates.split(":")
        path = context.project(group, artifact).at_version(version).artifact().resolve()
        with zipfile.ZipFile(path) as jar:
            if jar.testzip():
                raise zipfile.BadZipFile(f"{path.name} is damaged")
        path.rename(libs / path.name)
    except requests.RequestException as error:
        raise RunError(
            f"{coordinates} could not be fetched: the Maven repository does not answer ({type(error).__name__}); is"
            " there a network? DRIFTLINE_MAVEN_REPOSITORY names a mirror."
        ) from error
    except (RuntimeError, ValueError, zipfile.BadZipFile, ET.ParseError) as error:
        raise RunError(f"{coordinates} could not be fetched: {' '.join(str(error).split())}.") from error


def _put(libs: Path, target: Path) -> None:
    try:
        libs.rename(target)
    except OSError:
        if not target.is_dir():  # else another installation was faster
            raise


def _format(base: tuple[str, ...], configuration: Path) -> None:
    cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    # With "=": one id in 64 begins with a dash, which would be read as an option.
    command = [*base, "kafka.tools.StorageTool", "format", f"--cluster-id={cluster}", "-c", str(configuration)]
    done = subprocess.run(
        [command[0], "-Xmx256m", "-XX:TieredStopAtLevel=1", *command[1:]], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RunError(f"{NAME} could not format its storage.\n{(done.stderr or done.stdout).strip()}")


def _properties(data_dir: Path, address: str) -> dict[str, str]:
    controller = f"{HOST}:{servers.free_port()}"
    return {
        "process.roles": "broker,controller",
        "node.id": "1",
        # A fixed list of voters, not one kept in the log: the controller's port may differ from start to start.
        "controller.quorum.voters": f"1@{controller}",
        "listeners": f"CLIENTS://{address},CONTROLLER://{controller}",
        "advertised.listeners": f"CLIENTS://{address}",
        "listener.security.protocol.map": "CLIENTS:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "CLIENTS",
        "log.dirs": str(data_dir / "kraft"),
        "auto.create.topics.enable": "false",
        # One node: its own topics have one replica.
        "offsets.topic.replication.factor": "1",
        "offsets.topic.num.partitions": "1",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        # Groups of a few consumers that come and go fast.
        "group.initial.rebalance.delay.ms": "0",
        "group.min.session.timeout.ms": "1000",
        "log.cleaner.dedupe.buffer.size": str(32 * 1024 * 1024),  # the default would take a quarter of the heap
    }


def _write(path: Path, properties: Mapping[str, str]) -> None:
    """Write a file of Java properties that its owner alone can read: there may be passwords in it."""
    escaped = {key: value.replace("\\", "\\\\").replace("\n", "\\n") for key, value in properties.items()}
    write_private(path, "".join(f"{key}={value}\n" for key, value in escaped.items()).encode())
