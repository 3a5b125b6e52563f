"""Keeps what is loaded at what the pointers name: LIVE for everybody, CANARY for those who try a snapshot first.

A swap: (1) find that LIVE moved, (2) read and verify the snapshot, or the deltas that are missing, (3) load it and warm
it up, all in a thread beside the loop that answers, (4) assign one reference. What fails in (2) or (3) never serves;
the old one stays, and the load is tried again as long as the pointer names it (`swap.wait_s`). The old one goes when
the last batch that it answers has ended. What is on trial is loaded beside it in the same way; when it goes live, its
reference is assigned and nothing is loaded.
"""

import asyncio
import os
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import structlog

from contracts.config.settings import Experiment, Settings
from contracts.runtime.clock import Clock
from contracts.snapshots import delta
from contracts.snapshots.canary import Canary
from contracts.snapshots.room import Glance, open_room
from contracts.snapshots.snapshot import SnapshotError, Version
from contracts.wire.recall_pb2 import ModelStatus
from serving.metrics import ServingMetrics
from serving.model import LoadedModel, OnTrial, Want
from serving.swap import Failure, Load, plan, wait_s

log = structlog.get_logger()


def models_of(experiment: Experiment) -> list[str]:
    """The models that an experiment's arms are answered from, sorted."""
    return sorted({name for arm in experiment.arms.values() for name in arm.models})


class Swapper:
    """Swaps snapshots into `models`, and those on trial into `canaries`."""

    def __init__(
        self,
        settings: Settings,
        recorded: Callable[[], Sequence[Want]],
        metrics: ServingMetrics,
        clock: Clock,
        throw: Callable[[], float] = random.random,
    ) -> None:
        self.models: dict[str, LoadedModel] = {}
        self.canaries: dict[str, OnTrial] = {}
        self.names: list[str] = []
        self._settings = settings
        self._recorded = recorded
        self._metrics = metrics
        self._clock = clock
        self._live: dict[str, str | None] = {}
        self._trials: dict[str, Canary] = {}
        self._throw = throw  # from 0 to 1, for `wait_s`
        self._failed: dict[Load, Failure] = {}
        self._unreadable: dict[str, str] = {}
        self._no_trial: dict[str, str] = {}  # why a CANARY says nothing
        self._room = open_room(settings.snapshot_root)
        self._thread = ThreadPoolExecutor(1, "loads", initializer=_step_back)
        # A store that does not answer holds up neither requests nor a load.
        self._looks = ThreadPoolExecutor(1, "pointers")
        self.keep(models_of(settings.experiment))

    async def check(self) -> None:
        """Bring in whatever is live or on trial and not loaded; let go what is on trial no more."""
        glances = await asyncio.get_running_loop().run_in_executor(self._looks, self._glances, self.names)
        self._look({name: glances[name] for name in self.names if name in glances})
        now_s = self._clock.elapsed_s()  # of the whole check: what fails in it is tried again in a later one
        while True:
            loaded: dict[str, str] = {name: model.manifest.version for name, model in self.models.items()}
            tried: dict[str, str] = {name: each.model.manifest.version for name, each in self.canaries.items()}
            trials = {name: each.version for name, each in self._trials.items()}
            waiting = {load for load, failure in self._failed.items() if failure.due_s > now_s}
            todo = plan(self._live, trials, loaded, tried, waiting)
            for name in todo.promote:
                self._serve(name, self.canaries.pop(name).model)
                log.info("snapshot on trial went live", model=name, version=tried[name])
            for name in todo.drop:
                del self.canaries[name]
                log.info("snapshot on trial no more", model=name, version=tried[name])
            for name, each in self.canaries.items():
                self._try_out(name, each.model)  # the share may be another one
            self._tell_trials()
            if not todo.load:
                return
            await self._bring_in(todo.load[0])

    def status(self) -> list[ModelStatus]:
        """What serves of each model, and why that is not what is live where it is not."""
        return [self._status_of(name) for name in self.names]

    @property
    def any_live(self) -> bool:
        """Whether any pointer named a snapshot, or could not be read, when the pointers were last looked at."""
        return bool(self._unreadable) or any(self._live.values())

    def keep(self, names: Sequence[str]) -> None:
        """From now on keep these models loaded, and let others go."""
        self.names = sorted(names)
        for name in names:  # from 0 on: an alert on the increase would miss a series that begins at 1
            self._metrics.failed_loads.labels(name)
        for gone in self.models.keys() - set(names):
            del self.models[gone]
        for gone in self.canaries.keys() - set(names):
            del self.canaries[gone]

    def close(self) -> None:
        """Let the loading thread end with what it is at."""
        self._thread.shutdown(wait=True)
        self._looks.shutdown(wait=True)

    def serves_live(self, name: str) -> bool:
        """Whether what is live of a model serves, as far as is known; what is on trial is another matter."""
        return name in self.models and not self._problem_of_live(name)

    def _status_of(self, name: str) -> ModelStatus:
        serves, tried = self.models.get(name), self.canaries.get(name)
        problems = self._problem_of_live(name), self._problem_of_trial(name)
        return ModelStatus(
            model=name,
            snapshot_version=serves.manifest.version if serves else "",
            live_version=self._live.get(name) or "",
            error=" ".join(problem for problem in problems if problem),
            items=serves.items if serves else 0,
            index=serves.index if serves else "",
            canary_version=tried.model.manifest.version if tried else "",
            canary_share=tried.canary.share if tried else 0,
        )

    def _problem_of_live(self, name: str) -> str:
        if name in self._unreadable:
            return self._unreadable[name]
        # Where the deltas could not be applied, the whole chain may have been: then nothing is wrong any more.
        serves = self.models.get(name)
        if serves is not None and serves.manifest.version == self._live.get(name):
            return ""
        return self._why_not(name, trial=False)

    def _problem_of_trial(self, name: str) -> str:
        if name in self._no_trial:
            return f"Nothing is on trial: {self._no_trial[name]}"
        tried, wanted = self.canaries.get(name), self._trials.get(name)
        if wanted is None or (tried is not None and tried.model.manifest.version == wanted.version):
            return ""
        why = self._why_not(name, trial=True)
        return f"{wanted.version} is not on trial here: {why}" if why else ""

    def _why_not(self, name: str, *, trial: bool) -> str:
        found = [failure for load, failure in self._failed.items() if (load.model, load.trial) == (name, trial)]
        return found[-1].why if found else ""

    def _glances(self, names: Sequence[str]) -> dict[str, Glance]:
        return {name: self._room.glance(name) for name in names}

    def _look(self, glances: Mapping[str, Glance]) -> None:
        """Take in what the pointers say."""
        trials = {name: self._trial(name, each) for name, each in glances.items()}
        self._trials = {name: each for name, each in trials.items() if each is not None}
        self._live = {name: self._pointer(name, each) for name, each in glances.items()}
        for name, each in glances.items():
            if each.moved_s is not None:
                self._metrics.published.labels(name).set(each.moved_s)
        self._failed = {load: each for load, each in self._failed.items() if self._named(load) == load.version}

    def _named(self, load: Load) -> str | None:
        """What the pointer says for which something was loaded."""
        if not load.trial:
            return self._live.get(load.model)
        return self._trials[load.model].version if load.model in self._trials else None

    def _trial(self, name: str, glance: Glance) -> Canary | None:
        if glance.trial_problem:  # everybody is answered from what is live
            if self._no_trial.get(name) != glance.trial_problem:
                self._metrics.failed_loads.labels(name).inc()
                log.warning("pointer to what is on trial not readable", model=name, error=glance.trial_problem)
            self._no_trial[name] = glance.trial_problem
            return None
        self._no_trial.pop(name, None)
        return glance.trial

    def _pointer(self, name: str, glance: Glance) -> str | None:
        if glance.live_problem:  # a disk or a store that is away for a while; what is loaded serves on
            self._metrics.failed_loads.labels(name).inc()
            self._unreadable[name] = glance.live_problem
            log.warning("pointer not readable", model=name, error=glance.live_problem)
            return None
        self._unreadable.pop(name, None)
        return glance.live

    def _serve(self, name: str, model: LoadedModel) -> None:
        """From now on everybody is answered from it."""
        self.models[name] = model
        version = Version.parse(model.manifest.version) or Version(0)
        self._metrics.swaps.labels(name).inc()
        self._metrics.version.labels(name).set(version.number)
        self._metrics.sequence.labels(name).set(version.sequence)

    def _try_out(self, name: str, model: LoadedModel) -> None:
        """From now on a share of the requests is answered from it."""
        self.canaries[name] = OnTrial(model, self._trials[name]._replace(version=model.manifest.version))

    def _tell_trials(self) -> None:
        for name in self.names:
            tried = self.canaries.get(name)
            version = Version.parse(tried.canary.version) if tried else None
            self._metrics.canary_version.labels(name).set(version.number if version else 0)
            self._metrics.canary_share.labels(name).set(tried.canary.share if tried else 0)

    async def _bring_in(self, load: Load) -> None:
        began = self._clock.elapsed_s()
        kind = "delta" if load.deltas else "full"
        loop = asyncio.get_running_loop()
        self._metrics.load_attempts.labels(load.model).inc()
        try:
            model = await loop.run_in_executor(self._thread, self._load, load)
        except Exception as error:  # the old snapshot must serve on
            failure = self._note_failure(load, error)
            facts = {"model": load.model, "version": load.version, "kind": kind, "trial": load.trial}
            facts |= {"attempts": failure.attempts, "again_in_s": round(failure.due_s - self._clock.elapsed_s(), 1)}
            if isinstance(error, SnapshotError):
                log.warning("snapshot not loaded", why=failure.why, **facts)
            else:
                log.exception("snapshot not loaded", **facts)
            return
        self._failed.pop(load, None)
        if load.trial:
            self._try_out(load.model, model)
        else:
            self._serve(load.model, model)
        self._metrics.swap_seconds.labels(kind).observe(self._clock.elapsed_s() - began)
        log.info("snapshot swapped in", model=load.model, version=load.version, kind=kind, trial=load.trial)

    def _note_failure(self, load: Load, error: Exception) -> Failure:
        before = self._failed.pop(load, None)  # so that the last to fail is the last of all
        attempts = before.attempts + 1 if before else 1
        due_s = self._clock.elapsed_s() + wait_s(attempts, self._throw())
        why = " ".join(str(error).split()) or type(error).__name__
        self._failed[load] = Failure(why, attempts, due_s)
        self._metrics.failed_loads.labels(load.model).inc()
        return self._failed[load]

    def _load(self, load: Load) -> LoadedModel:
        root, serving = self._settings.snapshot_root, self._settings.serving
        if load.deltas:
            missing = [delta.read_delta(root, load.model, name) for name in load.deltas]
            held = self.canaries[load.model].model if load.trial else self.models[load.model]
            return self._ready(load, lambda: held.updated(missing))
        read = delta.read(root, load.model, load.version)
        return self._ready(load, lambda: LoadedModel(read, serving.cached_vectors))

    def _ready(self, load: Load, make: Callable[[], LoadedModel]) -> LoadedModel:
        """A model that has answered already."""
        try:
            model = make()
            if load.trial and not model.items:
                raise SnapshotError(f"The catalogue of snapshot {load.model}/{load.version} is empty.")
            model.warm_up(self._recorded(), self._settings.serving.batch_requests)
        except SnapshotError:
            raise
        except Exception as error:  # a damaged graph or index raises whatever ONNX Runtime, Faiss or NumPy raise
            why = " ".join(str(error).split()) or type(error).__name__
            raise SnapshotError(f"Snapshot {load.model}/{load.version} cannot be made to answer: {why}") from error
        return model


def _step_back() -> None:
    """Give this thread the machine's leftovers: on a busy machine a swap takes longer, and requests hardly do.

    Linux has a policy for each thread. One that is but nice keeps its core to the end of its time slice when another
    wakes, some milliseconds; an idle one gives it up at once.
    """
    if sys.platform == "linux":
        try:
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        except OSError as error:  # a container may forbid it; swaps are then felt more, and that is all
            log.warning("the loading thread keeps its priority", error=str(error))
