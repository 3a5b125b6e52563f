"""Writes what the engine publishes, lets it go live, and clears away what is old."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

import structlog

from contracts.config.settings import Settings
from contracts.runtime.clock import Clock
from contracts.snapshots import canary, delta
from contracts.snapshots.delta import Delta, GapError
from contracts.snapshots.retention import prune
from contracts.snapshots.snapshot import (
    Manifest,
    Snapshot,
    SnapshotError,
    SnapshotExistsError,
    SnapshotGoneError,
    Version,
    live,
    read_manifest,
    write,
)
from trainer.distributed.ranks import ALONE, Ranks
from trainer.engine import Engine, Move
from trainer.meters import Meters
from trainer.model_line import Ended

log = structlog.get_logger()


class Publisher:
    """The snapshot directory of one trainer.

    What the gate has rejected is written and never goes live. What people hold (`driftline snapshots rollback`) stays
    live, whatever is published, and as nothing new is served then, there are no deltas either.
    """

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        meters: Meters,
        clock: Clock,
        require_mine: Callable[[], None],
        ranks: Ranks = ALONE,
    ) -> None:
        """`require_mine` raises where another trainer has taken over; the leader asks it at each move of a pointer."""
        self._root = settings.snapshot_root
        self._settings = settings.trainer
        self._engine = engine
        self._meters = meters
        self._clock = clock
        self._require_mine = require_mine
        self._ranks = ranks
        for line in engine.lines:  # before anything goes live after a restart
            self._show_live(line.name)

    def publish(self, moves: Sequence[Move]) -> None:
        """Write snapshots and deltas in their order, and let them go live or on trial; end the trials that end."""
        for move in moves:
            if isinstance(move, Ended):
                self._end(move)
            elif isinstance(move, Delta):
                self._delta(move)
            else:
                self._snapshot(move)

    def let_go(self, models: Sequence[str]) -> None:
        """End the trials of models that are no longer learned, as nobody else would: all get what is live."""
        for model in models:
            with suppress(SnapshotError):  # it cannot be read, so replicas answer nobody from it
                tried = canary.on_trial(self._root, model)
                if tried is None:
                    continue
                reason = f"{model} is no longer in trainer.models"
                with suppress(SnapshotError):  # the snapshot is gone by now
                    self._ranks.lead(
                        partial(canary.note, self._root, model, tried.version, promoted=False, reason=reason)
                    )
                self._ranks.lead(partial(canary.withdraw, self._root, model, self._require_mine))
                log.warning("snapshot rolled back", model=model, version=tried.version, reason=reason)

    def _end(self, ended: Ended) -> None:
        model, version = ended.manifest.model, ended.manifest.version
        for base in ended.bases[-1:] if ended.promoted else ended.bases:
            with suppress(SnapshotError):  # it is gone by now
                self._ranks.lead(partial(canary.note, self._root, model, base, ended.promoted, ended.reason))
        if not ended.promoted:
            self._withdraw(model)
            log.warning("snapshot rolled back", model=model, version=version, reason=ended.reason)
        elif self._moved(ended.manifest, lambda: canary.promote(self._root, model, version, self._require_mine)):
            log.info("trial ended", model=model, version=version, reason=ended.reason)
            self._went_live(ended.manifest)

    def _snapshot(self, snapshot: Snapshot) -> None:
        try:
            self._ranks.lead(lambda: write(self._root, snapshot))
        except SnapshotExistsError:  # published by the clock before a restart, so at another moment
            self._snapshot(self._engine.renumber(snapshot))
        else:
            self._settle(snapshot.manifest)

    def _delta(self, change: Delta) -> None:
        manifest = change.manifest
        if manifest.rejected:  # the next one holds what this one would have
            log.warning("delta held", model=manifest.model, version=manifest.version, reason=manifest.gate["reason"])
            return
        try:
            self._ranks.lead(lambda: delta.write(self._root, change))
        except (GapError, SnapshotExistsError) as error:
            log.warning("a delta does not fit what is on the disk; a snapshot follows", reason=str(error))
            self._engine.not_served(manifest.model)
            self.publish(self._engine.snapshots(manifest.model))
        else:
            self._settle(manifest)

    def _settle(self, manifest: Manifest) -> None:
        model, version = manifest.model, manifest.version
        if manifest.rejected:
            log.warning("snapshot rejected", model=model, version=version, reason=manifest.gate["reason"])
        elif (trial := canary.trial_of(manifest)) is not None:
            if self._moved(manifest, lambda: canary.try_out(self._root, model, trial, self._require_mine)):
                log.info("snapshot on trial", model=model, version=version, reason=manifest.gate["reason"])
        elif self._moved(manifest, lambda: canary.promote(self._root, model, version, self._require_mine)):
            self._went_live(manifest)
        self._ranks.lead(lambda: prune(self._root, model, self._settings.keep_snapshots, self._settings.keep_rejected))

    def _moved(self, manifest: Manifest, move: Callable[[], bool]) -> bool:
        """Move a pointer to what was written; False, and the next publication is a full snapshot, where it stays."""
        model, version = manifest.model, manifest.version
        try:
            if self._ranks.lead(move):
                return True
            log.warning("snapshot written, but another is held live", model=model, version=version)
        except SnapshotGoneError as error:  # people or retention took it away since it was written
            log.warning("snapshot written, but it is gone", model=model, version=version, reason=str(error))
            self._withdraw(model)
        self._engine.not_served(model)
        return False

    def _withdraw(self, model: str) -> None:
        self._ranks.lead(lambda: canary.withdraw(self._root, model, self._require_mine))

    def _went_live(self, manifest: Manifest) -> None:
        place = Version.parse(manifest.version)
        now_ms = self._clock.now_ms()
        kind = "delta" if place and place.sequence else "full"
        self._meters.published.labels(manifest.model, kind).inc()
        self._meters.version.labels(manifest.model).set(place.number if place else 0)
        self._meters.live_event_time.labels(manifest.model).set(manifest.event_time_ms / 1000)
        for sent_at_ms in manifest.sent_at_ms:
            self._meters.freshness.labels(manifest.model).observe(max(now_ms - sent_at_ms, 0) / 1000)
        log.info(
            "snapshot published",
            model=manifest.model,
            version=manifest.version,
            examples=manifest.examples,
            recall_at_100=manifest.metrics.get("recall@100/recent"),
        )

    def _show_live(self, model: str) -> None:
        with suppress(SnapshotError):  # damaged: replicas say so
            version = live(self._root, model)
            if version is not None:
                manifest = read_manifest(self._root, model, version)
                self._meters.live_event_time.labels(model).set(manifest.event_time_ms / 1000)
