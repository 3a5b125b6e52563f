"""One model as the trainer keeps it: its learner, how well it foresaw, its gate, and what is made public of it."""

import contextlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from contracts.config.settings import Settings
from contracts.features import Floats
from contracts.snapshots import delta, index
from contracts.snapshots.delta import Delta, difference
from contracts.snapshots.index import EXACT, EXACT_BELOW
from contracts.snapshots.snapshot import Manifest, Snapshot, SnapshotError, Version, live, version_name
from contracts.wire.events_pb2 import Example, Exposure
from trainer.data.batches import Batch
from trainer.data.catalogue import Catalogue
from trainer.distributed.ranks import Ranks
from trainer.evaluation.drift import DriftDetector
from trainer.evaluation.part_worth import PartWorth
from trainer.evaluation.progressive import Progress
from trainer.evaluation.ranking import Foresight
from trainer.gate.decision import Verdict
from trainer.gate.gate import Gatekeeper
from trainer.gate.trial import Trials
from trainer.learn.learner import Learner
from trainer.meters import Meters
from trainer.publish.index_queries import IndexQueries
from trainer.publish.onnx_export import TowerTemplate
from trainer.publish.snapshots import (
    EvenSample,
    manifest_of,
    next_version,
    sampling_seed,
    snapshot_of,
    versions_on_disk,
)
from trainer.regimes.regimes import Regimes

# Of `trainer.model`: what the item tower and the learning have, and no graph of a user tower.
NOT_THE_TOWERS = {"id_dim", "category_dim", "learning_rate", "page_loss", "dropout"}
DRIFT_AT = 100  # drift is looked for in recall@100: at 20 there are too few hits to see it soon


@dataclass(frozen=True)
class Ended:
    """A trial that has ended: its newest publication goes live for all, or for nobody."""

    manifest: Manifest  # of that
    promoted: bool
    reason: str
    bases: tuple[str, ...]  # full snapshots that were on trial, one in the place of the other


@dataclass(frozen=True)
class Reached:
    """How far the learning has come."""

    offsets: Mapping[str, int]  # "topic:partition" -> first offset not learned from
    event_time_ms: int


class ModelLine:
    """A learner and everything about it that is tested, judged and published."""

    def __init__(self, name: str, settings: Settings, device: torch.device, meters: Meters, ranks: Ranks) -> None:
        model = settings.trainer.model
        self._settings = settings
        self._meters = meters
        self._ranks = ranks
        self._regimes = Regimes(name, settings, device, ranks)
        self._templates: dict[tuple[str, bool], TowerTemplate] = {}
        self._progress = Progress()
        self._part = PartWorth(self.learner.served.encoder.optional_part)
        self._regimes.leave_out(part=self._leaves_out)
        self._drift = DriftDetector()
        self._gate = Gatekeeper(settings.trainer.gate, model.window, settings.seed, device, ranks)
        self._trials = Trials(name, settings.trainer.gate, live=self._live_version() is not None)
        self._index_queries = IndexQueries(model.window, device)
        gate = settings.trainer.gate
        self._by_trial = gate.enabled and gate.judge == "canary"
        self.shares: Counter[str] = Counter()  # examples by arm
        self._arrivals = EvenSample()
        self.unpublished = 0  # learned from since the last snapshot
        self.unsent = 0  # learned from since the last snapshot or delta
        self._served: Snapshot | None = None  # what the next delta is based on
        self._tried: Manifest | None = None  # what is on trial
        self.number(self._free_number())
        self._take_over()

    @property
    def learner(self) -> Learner:
        """Of the regime that leads: what is tested, judged and published."""
        return self._regimes.leading.learner

    @property
    def name(self) -> str:
        """Of the model."""
        return self.learner.name

    def number(self, version: int) -> None:
        """Give the coming snapshot its number, and with it the sampling noise that tests are made with."""
        self._version = version
        self._regimes.number(sampling_seed(self._settings.seed, version))

    def foresee(
        self, examples: Sequence[Example], batch: Batch, catalogue: Catalogue, neutral: npt.NDArray[np.bool_]
    ) -> Foresight:
        """Be tested on a batch; `examples` are the same, not encoded, and `neutral` (B,) those that may judge."""
        if self._regimes.watch(examples, batch, catalogue):
            self._change_regime()
        self._meters.show_regimes(self.name, self._regimes)
        self.learner.follow(catalogue)
        foresight = self.learner.evaluate(batch)
        if self._part.due():
            self._part.add(*self.learner.ranks_both_ways(batch, foresight))
            self._meters.show_part(self.name, self._part.part())
            self._regimes.leave_out(part=self._leaves_out)
        self._progress.add(foresight, batch.arms, self.learner.learned(batch.targets))
        self._meters.count_drifts(self.name, self._drift.add(foresight.ranks <= DRIFT_AT))
        self._gate.watch(examples, batch, foresight, catalogue, neutral)
        if len(catalogue) >= EXACT_BELOW:
            self._index_queries.note(examples)
        self._meters.show(self.name, self._progress, self._drift)
        return foresight

    def learn(self, examples: Sequence[Example], batch: Batch, weights: Floats, catalogue: Catalogue) -> None:
        """Learn from the examples whose weight (B,) is above 0, as much as it says, and from earlier ones again."""
        own = weights > 0
        if not own.any():
            return
        share = batch.only(own)
        if (weights[own] != 1).any():
            share = replace(share, weights=weights[own])
        learned = [example for example, is_own in zip(examples, own, strict=True) if is_own]
        taught = self._regimes.learn(learned, share, catalogue)
        self._meters.nan_steps.labels(self.name).inc(taught.refused)
        if not taught.taken:
            return
        for arm, places in zip(share.arms, share.places, strict=True):
            self.shares[arm] += places
        whole = sum(share.places)
        self._meters.learned.labels(self.name).inc(whole)
        self.unpublished += whole
        self.unsent += whole
        for example in learned:
            self._arrivals.offer(example.sent_at_ms)

    def show(self, exposure: Exposure) -> None:
        """Take an exposure that this model answered, in an arm that is its own."""
        self._trials.show(exposure)

    def view(self, example: Example) -> None:
        """Take an effective view, whoever showed it."""
        self._trials.view(example)

    def forget(self, user_id: int) -> None:
        """Let go of all that is a user's; what was learned and counted stays in the sums and weights."""
        self._regimes.forget(user_id)
        self._gate.forget(user_id)
        self._trials.forget(user_id)
        self._index_queries.forget(user_id)

    def trial_ended(self, *, next_is_due: bool = False) -> Ended | None:
        """How the trial has ended that was under way; None while it lasts, or where there is none."""
        outcome = self._trials.outcome(next_is_due=next_is_due)
        manifest, self._tried = (self._tried, None) if outcome else (None, self._tried)
        if outcome is None or manifest is None:
            return None
        if not outcome.promoted:
            self._keep_for_later(manifest)
            self._served = None  # deltas are based on what is served, and that is not this
        self._meters.show_trial(self.name, promoted=outcome.promoted)
        return Ended(manifest, *outcome)

    def snapshot(self, catalogue: Catalogue, reached: Reached) -> Snapshot:
        """A full snapshot of what was learned; its manifest says whether the gate has passed it."""
        self.learner.follow(catalogue)
        self._take_the_place_on_trial()
        manifest = self._manifest(manifest_of(self.learner, self._version), reached)
        candidate = self._indexed(snapshot_of(self.learner, catalogue, self._traced(), manifest), catalogue)
        verdict = self._judge(candidate, catalogue)
        candidate = replace(candidate, manifest=replace(manifest, gate=verdict.figures()))
        if verdict.passed:
            self._served = candidate
            self._tried = candidate.manifest if verdict.trial else None
        self.number(self._version + 1)
        self.unpublished = self.unsent = 0
        return candidate

    def delta(self, catalogue: Catalogue, reached: Reached) -> Delta | None:
        """What has moved since the last publication; None where nothing has. Its manifest has the gate's verdict."""
        place = Version.parse(self._served.manifest.version) if self._served else None
        if self._served is None or place is None:
            return None
        self.learner.follow(catalogue)
        self._take_the_place_on_trial()
        served = self._served
        changes = difference(
            served.item_ids,
            served.item_vectors,
            served.item_counts,
            catalogue.item_ids,
            self.learner.item_vectors(catalogue),
            self.learner.item_counts(catalogue),
            self._settings.trainer.delta_tolerance,
        )
        if not changes.item_ids.size and not changes.removed_ids.size:
            return None
        version = version_name(place.number, place.sequence + 1)
        manifest = self._manifest(replace(served.manifest, version=version), reached)
        after = delta.apply(replace(served, index=EXACT), Delta(manifest, changes))  # only replicas search
        verdict = self._judge(after, catalogue)
        manifest = replace(manifest, gate=verdict.figures())
        if verdict.passed:
            self._served = replace(after, manifest=manifest)
            self._tried = manifest if verdict.trial else None
        self.unsent = 0  # of one that is held, too: the next beat tries again, with all that this one has
        return Delta(manifest, changes)

    def renumber(self, snapshot: Snapshot) -> Snapshot:
        """The same snapshot under the next version that is free on the disk."""
        self.number(self._free_number())
        named = replace(
            snapshot.manifest, version=version_name(self._version), sampling_seed=self.learner.sampling_seed
        )
        renumbered = replace(snapshot, manifest=named)
        if self._served is snapshot:
            self._served = renumbered
        if self._tried is snapshot.manifest:
            self._tried = named
            self._trials.renamed(snapshot.manifest.version, named.version)
        self.number(self._version + 1)
        return renumbered

    def not_served(self) -> None:
        """Note that replicas do not serve what was published last.

        The next publication is a full snapshot, and what is live is what it has to be as good as.
        """
        self._served = self._tried = None
        self._trials.cancel()
        self._take_over()

    def state(self) -> dict[str, Any]:
        """All of it, for a checkpoint."""
        return {
            "regimes": self._regimes.state(),
            "progress": self._progress.state(),
            "part": self._part.state(),
            "drift": self._drift.state(),
            "gate": self._gate.state(),
            "trials": self._trials.state(),
            "tried": self._tried.version if self._tried else None,
            "askers": self._index_queries.state(),  # checkpoints have it under this name
            "shares": dict(self.shares),
            "arrivals": self._arrivals.state(),
            "version": self._version,
            "unpublished": self.unpublished,
            "unsent": self.unsent,
            "served": self._served.manifest.version if self._served else None,
        }

    def restore(self, state: dict[str, Any], catalogue: Catalogue) -> None:
        """Go on from a state."""
        self._regimes.restore(state["regimes"], catalogue)
        self._part = PartWorth(self.learner.served.encoder.optional_part)
        if "part" in state:  # earlier checkpoints have measured none
            self._part.restore(state["part"])
        self._regimes.leave_out(part=self._leaves_out)
        self._progress.restore(state["progress"])
        self._drift.restore(state["drift"])
        self._gate.restore(state["gate"])
        self._trials.restore(state["trials"])
        self._index_queries.restore(state["askers"])
        self.shares = Counter(state["shares"])
        self._arrivals.restore(state["arrivals"])
        self.number(state["version"])
        self.unpublished, self.unsent = state["unpublished"], state["unsent"]
        self._served = None if state["served"] is None else self._read(state["served"])
        tried = None if state["tried"] is None else self._read(state["tried"])
        self._tried = tried.manifest if tried else None
        if self._tried is None:
            self._trials.cancel()

    def _change_regime(self) -> None:
        """Another learner: what it publishes next is a full snapshot, for deltas are based on what is served."""
        self._served = None
        self._part = PartWorth(
            self.learner.served.encoder.optional_part
        )  # what it is worth to another learner is another matter
        self._regimes.leave_out(part=self._leaves_out)
        self._drift = DriftDetector()  # its hits are another learner's: a change between the two is no drift

    @property
    def _leaves_out(self) -> bool:
        """Whether replicas get the tower without its optional part."""
        return bool(self._part.name) and not self._part.served

    def _traced(self) -> TowerTemplate:
        """The graph of the learner's tower; regimes that differ in nothing that the tower has share one."""
        settings = self.learner.settings
        key = settings.model_dump_json(exclude=NOT_THE_TOWERS), self._leaves_out
        if key not in self._templates:
            self._templates[key] = TowerTemplate(self.learner.served.encoder, settings.dim, settings.window)
        return self._templates[key]

    def _take_over(self) -> None:
        """What is live must not give way to a worse one, whoever made it so: another trainer, or people."""
        if self._by_trial:
            return  # users compare what is made with what is live
        version = self._live_version()
        incumbent = None if version in (None, self._gate.incumbent) else self._read(version)
        if incumbent is not None:
            self._gate.set_incumbent(incumbent)

    def _live_version(self) -> str | None:
        return self._ranks.lead(lambda: live(self._settings.snapshot_root, self.name))

    def _free_number(self) -> int:
        return self._ranks.lead(lambda: next_version(versions_on_disk(self._settings.snapshot_root, self.name)))

    def _read(self, version: str) -> Snapshot | None:
        with contextlib.suppress(SnapshotError):  # replicas refuse a damaged one, too: any other is better
            return self._ranks.lead(lambda: delta.read(self._settings.snapshot_root, self.name, version))
        return None

    def _manifest(self, like: Manifest, reached: Reached) -> Manifest:
        return replace(
            like,
            examples=sum(self.shares.values()),
            shares=dict(self.shares),
            offsets=dict(reached.offsets),
            event_time_ms=reached.event_time_ms,
            metrics=self._progress.metrics() | self._part.metrics() | self._regimes.metrics(),
            sent_at_ms=self._arrivals.take(),
            learn_from=self._settings.trainer.learn_from,
            gate={},
        )

    def _indexed(self, snapshot: Snapshot, catalogue: Catalogue) -> Snapshot:
        """A snapshot with the index of its items."""
        if len(catalogue) < EXACT_BELOW:
            return snapshot

        def build() -> bytes:
            return index.build(
                snapshot.item_vectors, self._index_queries.vectors(snapshot, catalogue), seed=self._settings.seed
            )

        return replace(snapshot, index=self._ranks.lead(build))

    def _take_the_place_on_trial(self) -> None:
        """What was learned by what is on trial reaches everybody with what takes its place."""
        if self._tried is not None:
            self._keep_for_later(self._tried)

    def _keep_for_later(self, manifest: Manifest) -> None:
        for sent_at_ms in manifest.sent_at_ms:  # what it would have served is still to be served
            self._arrivals.offer(sent_at_ms)

    def _judge(self, candidate: Snapshot, catalogue: Catalogue) -> Verdict:
        verdict = self._gate.judge(candidate, self.learner, catalogue)
        if verdict.passed and self._by_trial:
            verdict = self._admitted(candidate.manifest.version)
        self._meters.show_verdict(self.name, verdict, rolled_back=self._trials.held)
        if not verdict.passed:
            self._keep_for_later(candidate.manifest)
        return verdict

    def _admitted(self, version: str) -> Verdict:
        """A delta belongs to the snapshot that it is based on, whether that is on trial or live."""
        place = Version.parse(version)
        if place is not None and place.sequence:
            return Verdict(passed=True, reason="no flaw", trial=self._trials.on_trial(version))
        trial, reason = self._trials.admit(version)
        return Verdict(passed=True, reason=reason, trial=trial)
