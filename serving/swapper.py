"""Keeps what is loaded at what the LIVE pointers name.

A swap: (1) find that LIVE moved, (2) read and verify the snapshot, or the deltas that are missing, (3) load it and warm
it up, all in a thread beside the loop that answers, (4) assign one reference. What fails in (2) or (3) never serves;
the old one stays. The old one goes when the last batch that it answers has ended.
"""

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import structlog

from contracts.config.settings import Settings
from contracts.runtime.clock import Clock
from contracts.snapshots import delta, snapshot
from contracts.snapshots.snapshot import Version
from contracts.wire.recall_pb2 import ModelStatus
from serving.metrics import ServingMetrics
from serving.model import LoadedModel, Want
from serving.swap import Load, to_load

log = structlog.get_logger()


class Swapper:
    """Swaps snapshots into `models`."""

    def __init__(
        self, settings: Settings, recorded: Callable[[], Sequence[Want]], metrics: ServingMetrics, clock: Clock
    ) -> None:
        self.models: dict[str, LoadedModel] = {}
        self.names = sorted({name for arm in settings.experiment.arms.values() for name in arm.models})
        self._settings = settings
        self._recorded = recorded
        self._metrics = metrics
        self._clock = clock
        self._live: dict[str, str | None] = {}
        self._failed: dict[Load, str] = {}
        self._unreadable: dict[str, str] = {}
        self._thread = ThreadPoolExecutor(1, "loads", initializer=_step_back)

    async def check(self) -> None:
        """Bring in whatever is live and not loaded."""
        self._live = {name: self._pointer(name) for name in self.names}
        for name in self.names:
            with contextlib.suppress(OSError):  # there is none yet, or the disk is away
                moved_s = (self._settings.snapshots / name / snapshot.LIVE).stat().st_mtime
                self._metrics.published.labels(name).set(moved_s)
        self._failed = {load: why for load, why in self._failed.items() if self._live[load.model] == load.version}
        while True:
            loaded: dict[str, str] = {name: model.manifest.version for name, model in self.models.items()}
            loads = to_load(self._live, loaded, self._failed.keys())
            if not loads:
                return
            await self._bring_in(loads[0])

    def status(self) -> list[ModelStatus]:
        """What serves of each model, and why that is not what is live where it is not."""
        return [self._status_of(name) for name in self.names]

    def close(self) -> None:
        """Let the loading thread end with what it is at."""
        self._thread.shutdown(wait=True)

    def _status_of(self, name: str) -> ModelStatus:
        serves, live = self.models.get(name), self._live.get(name)
        version = serves.manifest.version if serves else ""
        # Where the deltas could not be applied, the whole chain may have been: then nothing is wrong any more.
        why = [why for load, why in self._failed.items() if load.model == name and version != live]
        return ModelStatus(
            model=name,
            snapshot_version=version,
            live_version=live or "",
            error=self._unreadable.get(name) or (why[-1] if why else ""),
            items=serves.items if serves else 0,
            index=serves.index if serves else "",
        )

    def _pointer(self, name: str) -> str | None:
        try:
            version = snapshot.live(self._settings.snapshots, name)
        except OSError as error:  # a disk that is away for a while; what is loaded serves on
            self._metrics.failed_loads.labels(name).inc()
            self._unreadable[name] = f"the pointer cannot be read: {error.strerror}"
            log.warning("pointer not readable", model=name, error=str(error))
            return None
        self._unreadable.pop(name, None)
        return version

    async def _bring_in(self, load: Load) -> None:
        began = self._clock.elapsed_s()
        kind = "delta" if load.deltas else "full"
        loop = asyncio.get_running_loop()
        try:
            model = await loop.run_in_executor(self._thread, self._load, load)
        # A damaged ONNX or Faiss file raises whatever those libraries raise; the old snapshot must serve on.
        except Exception as error:
            self._failed[load] = " ".join(str(error).split())
            self._metrics.failed_loads.labels(load.model).inc()
            log.exception("snapshot not loaded", model=load.model, version=load.version, kind=kind)
            return
        self.models[load.model] = model
        version = Version.parse(load.version) or Version(0)
        self._metrics.swaps.labels(load.model).inc()
        self._metrics.version.labels(load.model).set(version.number)
        self._metrics.sequence.labels(load.model).set(version.sequence)
        self._metrics.swap_seconds.labels(kind).observe(self._clock.elapsed_s() - began)
        log.info("snapshot swapped in", model=load.model, version=load.version, kind=kind)

    def _load(self, load: Load) -> LoadedModel:
        root, serving = self._settings.snapshots, self._settings.serving
        if load.deltas:
            missing = [delta.read_delta(root, load.model, name) for name in load.deltas]
            model = self.models[load.model].updated(missing)
        else:
            model = LoadedModel(delta.read(root, load.model, load.version), serving.cached_vectors)
        model.warm_up(self._recorded(), serving.batch_requests)
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
