"""The stream on Flink as hosts: a JobManager and two TaskManagers, with checkpoints on the run's S3 server.

A TaskManager that is killed loses its Python too, as a lost machine would; a victim of the kind `python` is that
process alone. A JobManager comes back with its address and nothing else, and the job is submitted again: standalone
clusters have no high availability without ZooKeeper or Kubernetes.
"""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from benchmarks.cluster.hosts import CLOCK
from contracts.config.settings import Settings
from driftline.errors import RunError
from driftline.processes import flink, flink_job
from driftline.processes.flink import Cluster
from driftline.processes.process import wait_until

TASKMANAGERS = 2
CHECKPOINT_MS = 1000
WAIT_S = 180.0


class Engine:
    """A cluster of Flink and its job."""

    def __init__(self, directory: Path, settings: Settings, checkpoints: str) -> None:
        """`directory`: has the hosts' directories. `settings`: of the job. `checkpoints`: an address on the store."""
        self.cluster = Cluster(flink.default_home(), directory, store=settings.store)
        self._settings = settings
        self.checkpoints = checkpoints
        self._before: dict[str, Any] = {}
        self.died = 0  # TaskManagers that ended by themselves

    def start(self) -> None:
        """Start all of it, and the job, and wait until it has committed something."""
        self.cluster.start(TASKMANAGERS)
        self.submit()
        self.wait_committed(lambda _: True)

    def submit(self) -> None:
        """Start the job from its newest checkpoint, once the TaskManagers are known."""
        self._until(lambda: flink_job.slots_of(self.cluster) >= TASKMANAGERS, "The TaskManagers did not come back")
        flink_job.submit(
            self.cluster,
            self._settings,
            checkpoints=self.checkpoints,
            parallelism=TASKMANAGERS,
            checkpoint_ms=CHECKPOINT_MS,
        )
        self._before = {"job": None, "restored": 0, "checkpoints": 0}

    def note(self) -> None:
        """Remember how the job stands before something of it is killed; it runs then."""

        def runs() -> bool:
            self._before = flink_job.overview(self.cluster)
            return bool(self._before["running"])

        self._until(runs, "The job did not run")

    def wait_restored(self) -> None:
        """Wait until the job has been restored since `note`, and has committed since."""
        self.wait_committed(lambda now: now["restored"] > self._before["restored"])

    def wait_committed(self, since: Callable[[dict[str, Any]], bool]) -> None:
        """Wait until the job runs and `since` holds, and then for a whole checkpoint: what it made is committed."""
        found: dict[str, Any] = {}

        def runs() -> bool:
            found.update(flink_job.overview(self.cluster))
            return bool(found["running"] and since(found))

        self._until(runs, "The job did not run again")
        before = found["checkpoints"]
        self._until(lambda: flink_job.overview(self.cluster)["checkpoints"] > before, "There was no checkpoint")

    def stop(self) -> None:
        """End all of it."""
        self.cluster.stop()

    def supervise(self) -> None:
        """Start TaskManagers again that have ended by themselves, as Kubernetes would.

        PyFlink 2.3.0 lets one end where another one's Python dies: while its own task is cancelled, closing the way to
        Python fails by "Reference count must not be negative", which Flink takes as fatal.
        """
        for number in range(TASKMANAGERS):
            if not self.cluster.runs(number):
                self.died += 1
                self.cluster.kill_taskmanager(number)  # what it has left: its Python, its disk
                self.cluster.start_taskmanager(number)

    def _until(self, done: Callable[[], bool], what: str) -> None:
        def answered() -> bool:
            self.supervise()
            with suppress(RunError):  # a JobManager that is busy is asked again
                return done()
            return False

        late = TimeoutError(f"{what} in {WAIT_S:.0f} s.")
        wait_until(answered, lambda: None, lambda: late, timeout_s=WAIT_S, clock=CLOCK)


class JobManager:
    """Its host."""

    name = flink.JOBMANAGER

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.directory = engine.cluster.directory / flink.JOBMANAGER

    def kill(self) -> None:
        """End it with SIGKILL and delete its disk."""
        self._engine.cluster.kill_jobmanager(with_disk=True)

    def start(self) -> None:
        """Start one with the same address and an empty disk."""
        self._engine.cluster.start_jobmanager()

    def wait_ready(self) -> None:
        """Submit the job again, and wait until it has committed."""
        self._engine.submit()
        self._engine.wait_committed(lambda _: True)

    def processes(self) -> list[psutil.Process]:
        """Its process."""
        return [psutil.Process(self._engine.cluster.pid_of(flink.JOBMANAGER))]


class TaskManager:
    """The host of one."""

    def __init__(self, engine: Engine, name: str, number: int) -> None:
        """`number`: the cluster's own, from 0."""
        self.name = name
        self._engine = engine
        self._number = number
        self.directory = engine.cluster.directory / f"{flink.TASKMANAGER}{number}"

    def kill(self) -> None:
        """End its processes with SIGKILL and delete its disk."""
        self._engine.note()
        self._engine.cluster.kill_taskmanager(self._number)

    def start(self) -> None:
        """Start it with an empty disk."""
        self._engine.cluster.start_taskmanager(self._number)

    def wait_ready(self) -> None:
        """Wait until the job has been restored and has committed."""
        self._engine.wait_restored()

    def processes(self) -> list[psutil.Process]:
        """Java's and Python's."""
        cluster = self._engine.cluster
        own = [psutil.Process(cluster.pid_of(self._number))] if cluster.runs(self._number) else []
        return own + cluster.pythons(self._number)


class PythonOf:
    """The Python of a TaskManager, which dies alone; Flink itself starts another one."""

    def __init__(self, engine: Engine, name: str, number: int) -> None:
        """`number`: the TaskManager's, from 0."""
        self.name = name
        self._engine = engine
        self._number = number

    def kill(self) -> None:
        """End it with SIGKILL.

        Raises:
            RunError: there is none, so nothing would be killed.

        """
        self._engine.note()
        found = self._engine.cluster.pythons(self._number)
        if not found:
            raise RunError(f"TaskManager {self._number} has no Python that could be killed.")
        for process in found:
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def start(self) -> None:
        """Flink does it."""

    def wait_ready(self) -> None:
        """Wait until the job has been restored and has committed."""
        self._engine.wait_restored()
