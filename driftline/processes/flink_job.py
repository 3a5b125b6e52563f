"""The stream's job on a Flink cluster: submit it, ask how it is, take a savepoint. By Flink's REST interface."""

import json
import os
import subprocess
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from contracts.config.settings import KafkaSettings, Settings, dump
from contracts.config.store import StoreSettings
from contracts.kafka import bus
from contracts.runtime.clock import SystemClock
from driftline.errors import RunError, UsageError
from driftline.processes import flink, flink_code, flink_store, process
from driftline.processes.flink import Cluster
from stream.flink import options

JOB = "driftline stream"
CHECKPOINT_MS = 2000
START_TIMEOUT_S = 120.0
SAVEPOINT_TIMEOUT_S = 120.0
REST_TIMEOUT_S = 10.0
ENDED = ("FAILED", "CANCELED", "FINISHED", "SUSPENDED")


def submit(
    cluster: Cluster,
    settings: Settings,
    *,
    checkpoints: str | None = None,
    restore: str | None = None,
    fresh: bool = False,
    parallelism: int = 1,
    checkpoint_ms: int = CHECKPOINT_MS,
    conf: Mapping[str, str] | None = None,
) -> str:
    """Submit the job and wait until all of it runs; its id.

    Args:
        cluster: a local one, which runs.
        settings: of the deployment.
        checkpoints: a folder or a store's address that all TaskManagers reach; None: the cluster's own directory.
        restore: a savepoint or checkpoint to go on from; None: the newest checkpoint in the folder.
        fresh: begin without any.
        parallelism: tasks, each of which has its share of the partitions.
        checkpoint_ms: how often what was made becomes visible to those who read what is committed.
        conf: more of Flink's settings for this job.

    Raises:
        UsageError: no cluster runs, a job runs already, there are too few slots, the savepoint is not there, or the
            cluster cannot reach the store.
        SettingsError: a job cannot use the settings, or topics are missing.
        RunError: it did not come to run, or the store cannot be asked.

    """
    options.require_usable(settings)
    address = _running(cluster)
    if job_of(cluster):
        raise UsageError(f"The job runs in {cluster.directory} already.")
    slots = slots_of(cluster)
    if slots < parallelism:
        raise UsageError(f"The cluster has {slots} slots, and --parallelism is {parallelism}.")
    prepare_topics(settings.kafka)
    place = checkpoints or cluster.checkpoints.as_uri()
    _require_reached(cluster, settings.store, [place, *([restore] if restore else [])])
    start_from = None if fresh else restore or newest(place, settings.store)
    if restore and not _whole(restore, settings.store):
        raise UsageError(f"There is no savepoint in {restore}.")
    settings_file = cluster.directory / "settings.yaml"
    dump(settings, settings_file)
    code = flink_code.code_zip(cluster.directory)
    entries = _configuration(cluster, code, place, start_from, checkpoint_ms) | dict(conf or {})
    command = [
        str(flink.python_of(cluster.home)),
        "-m",
        "stream.flink.job",
        f"--settings={settings_file}",
        f"--rest={address}",
        f"--parallelism={parallelism}",
        *(f"--conf={key}={value}" for key, value in entries.items()),
        *(f"--jar={path}" for path in flink_code.jars(cluster.home)),
    ]
    environment = os.environ | {"PYTHONPATH": str(code), "FLINK_CONF_DIR": str(cluster.directory / flink.JOBMANAGER)}
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        cwd=cluster.directory,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode:
        raise RunError(f"The job could not be submitted.\n{_why(done.stderr or done.stdout)}")
    job: str = json.loads(done.stdout.strip().splitlines()[-1])["job"]
    _await_running(address, job)
    return job


def job_of(cluster: Cluster) -> str | None:
    """The id of the job that runs or is being restarted; None where there is none."""
    jobs = _get(_running(cluster), "/jobs/overview")["jobs"]
    return next((each["jid"] for each in jobs if each["name"] == JOB and each["state"] not in ENDED), None)


def slots_of(cluster: Cluster) -> int:
    """How many tasks the TaskManagers that are there can run."""
    return int(_get(_running(cluster), "/overview")["slots-total"])


def overview(cluster: Cluster) -> dict[str, Any]:
    """What is known of the job: its state, its restarts and its newest checkpoint.

    Raises:
        UsageError: no cluster or no job runs.

    """
    address, job = _running(cluster), job_of(cluster)
    if job is None:
        raise UsageError(f"No job runs in {cluster.directory}; `driftline flink submit` starts it.")
    found = _get(address, f"/jobs/{job}")
    counts = _get(address, f"/jobs/{job}/checkpoints")
    return {
        "job": job,
        "state": found["state"],
        "running": _all_run(found),
        "checkpoints": counts.get("counts", {}).get("completed", 0),
        "restored": counts.get("counts", {}).get("restored", 0),
        "newest": ((counts.get("latest") or {}).get("completed") or {}).get("external_path"),
    }


def stop_with_savepoint(cluster: Cluster, target: str) -> str:
    """Stop the job where it stands; the savepoint to go on from, with any number of tasks.

    Raises:
        UsageError: no cluster or no job runs.
        RunError: it could not be taken.

    """
    address, job = _running(cluster), overview(cluster)["job"]
    trigger = _post(address, f"/jobs/{job}/stop", {"targetDirectory": target, "drain": False})["request-id"]
    found: dict[str, Any] = {}

    def done() -> bool:
        found.update(_get(address, f"/jobs/{job}/savepoints/{trigger}"))
        return bool(found["status"]["id"] == "COMPLETED")

    late = RunError(f"The savepoint was not there after {SAVEPOINT_TIMEOUT_S:.0f} s.")
    process.wait_until(done, lambda: None, lambda: late, timeout_s=SAVEPOINT_TIMEOUT_S, clock=SystemClock())
    operation = found["operation"]
    if "location" not in operation:
        raise RunError(f"The savepoint failed: {_first_line(operation['failure-cause']['stack-trace'])}")
    return str(operation["location"])


def address_of(place: str) -> str:
    """A folder or a store's address as Flink names it.

    >>> address_of("s3://bucket/savepoints"), address_of("/data/savepoints")
    ('s3://bucket/savepoints', 'file:///data/savepoints')
    """
    return place if flink_store.on_store(place) else _path(place).absolute().as_uri()


def newest(place: str, store: StoreSettings) -> str | None:
    """The newest whole checkpoint in a folder or on a store; None where there is none.

    Raises:
        RunError: the store cannot be asked.

    """
    if flink_store.on_store(place):
        return flink_store.newest(place, store)
    found = list(_path(place).glob("*/chk-*/_metadata"))
    return max(found, key=lambda each: each.stat().st_mtime_ns).parent.as_uri() if found else None


def _configuration(
    cluster: Cluster, code: Path, place: str, start_from: str | None, checkpoint_ms: int
) -> dict[str, str]:
    python = str(flink.python_of(cluster.home))
    found = {
        "execution.attached": "false",
        "pipeline.name": JOB,
        "python.executable": python,
        "python.client.executable": python,
        "python.files": str(code),
        "python.execution-mode": "process",
        "python.fn-execution.bundle.size": "1000",
        "python.fn-execution.bundle.time": "100",
        "execution.checkpointing.interval": f"{checkpoint_ms} ms",
        "execution.checkpointing.mode": "EXACTLY_ONCE",
        "execution.checkpointing.dir": place,
        "execution.checkpointing.storage": "filesystem",
        "execution.checkpointing.externalized-checkpoint-retention": "RETAIN_ON_CANCELLATION",
        "execution.checkpointing.tolerable-failed-checkpoints": "100",
        # A fixed delay gives up after some attempts, which burn out while a machine is away.
        "restart-strategy.type": "exponential-delay",
        "restart-strategy.exponential-delay.initial-backoff": "200 ms",
        "restart-strategy.exponential-delay.max-backoff": "10 s",
    }
    return found | ({"execution.state-recovery.path": start_from} if start_from else {})


def prepare_topics(kafka: KafkaSettings) -> None:
    """See that the topics are there, and make the one that is Flink's own."""
    bus.check_topics(kafka)
    client = bus.admin(kafka)
    try:
        bus.ensure_rows(kafka, client)
    finally:
        client.close()


def _running(cluster: Cluster) -> str:
    address = cluster.address
    if address is None:
        raise UsageError(f"No Flink cluster runs in {cluster.directory}; `driftline flink start` starts one.")
    return address


def _await_running(address: str, job: str) -> None:
    found: dict[str, Any] = {}

    def failure() -> RunError:
        causes = _get(address, f"/jobs/{job}/exceptions").get("exceptionHistory", {}).get("entries", [])
        why = _root(causes[0]["stacktrace"]) if causes else "it is still being started"
        return RunError(f"The job does not run: {why}")

    def done() -> bool:
        found.update(_get(address, f"/jobs/{job}"))
        return _all_run(found)

    def check() -> None:
        if found["state"] in ENDED:
            raise failure()

    process.wait_until(done, check, failure, timeout_s=START_TIMEOUT_S, clock=SystemClock())


def _all_run(found: Mapping[str, Any]) -> bool:
    return bool(found["vertices"]) and all(each["status"] == "RUNNING" for each in found["vertices"])


def _why(printed: str) -> str:
    """What a program that failed has said of it: without the calls of Java and Python."""
    said = [line for line in printed.splitlines() if line.strip() and not line.startswith(("\tat ", "  ", "\t..."))]
    return process.tail("\n".join(said), 4)


def _root(trace: str) -> str:
    causes = [line for line in trace.splitlines() if line.startswith("Caused by: ")]
    return (causes[-1].removeprefix("Caused by: ") if causes else _first_line(trace)).strip()


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]


def _require_reached(cluster: Cluster, store: StoreSettings, places: Sequence[str]) -> None:
    for place in filter(flink_store.on_store, places):
        flink_store.require_address(place)
        flink_store.require_reached(cluster.started_with, store, cluster.directory)


def _whole(place: str, store: StoreSettings) -> bool:
    if flink_store.on_store(place):
        return flink_store.is_whole(place, store)
    return (_path(place) / flink_store.METADATA).exists()


def _path(place: str) -> Path:
    return Path(urlparse(place).path)


def _get(address: str, path: str) -> dict[str, Any]:
    return _asked(address, urllib.request.Request(f"http://{address}{path}"))


def _post(address: str, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
    headers = {"Content-Type": "application/json"}
    data = json.dumps(body).encode()
    return _asked(address, urllib.request.Request(f"http://{address}{path}", data, headers, method="POST"))


def _asked(address: str, request: urllib.request.Request) -> dict[str, Any]:
    try:
        with urllib.request.urlopen(request, timeout=REST_TIMEOUT_S) as answer:  # noqa: S310
            found: dict[str, Any] = json.load(answer)
            return found
    except (urllib.error.URLError, OSError) as error:
        raise RunError(f"Flink at {address} does not answer: {error}.") from error
