"""Keeps what the gate asks for: the incumbent beside the learner, their fresh hits, and the anchor.

With the judge `canary` it looks for flaws and loud users only; what users do decides in `trainer.gate.trial`.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from contracts.config.settings import GateSettings
from contracts.features import Ints
from contracts.snapshots.snapshot import Snapshot
from contracts.wire.events_pb2 import Example
from trainer.data.batches import Batch, encode
from trainer.data.catalogue import Catalogue
from trainer.data.decayed import DecayedSample
from trainer.distributed.ranks import ALONE, Ranks
from trainer.evaluation.ranking import Foresight
from trainer.gate.decision import Comparison, Verdict, compare, dominated_by_one_user, flaw, judge, recovered
from trainer.gate.served_model import Served
from trainer.learn.learner import Learner

ASKED_AT_ONCE = 256
HALF_LIVES = 2  # after which an example is no longer asked, however few have come since

_Pair = tuple[int, bool, bool]  # user, whether the learner hit, whether the incumbent did


class Gatekeeper:
    """One model's gate. Fed with every tested batch, it judges the snapshots that fall due.

    An incumbent that people chose (a snapshot that was live at the start, or one that they rolled back to) is given to
    `set_incumbent`.
    """

    def __init__(
        self, settings: GateSettings, window: int, seed: int, device: torch.device, ranks: Ranks = ALONE
    ) -> None:
        """Open a gate without an incumbent.

        Args:
            settings: of the gate.
            window: of the model.
            seed: of the anchor.
            device: where the incumbent scores.
            ranks: the processes that share the work.

        """
        self._settings = settings
        self._window = window
        self._device = device
        self._ranks = ranks
        self._incumbent: Served | None = None
        self._hits: dict[int, bool] = {}  # of the incumbent on the anchor, by serial number
        self._fresh: deque[_Pair] = deque(maxlen=settings.window)
        self._anchor, self._waiting = (
            DecayedSample[bytes](settings.anchor, settings.anchor_half_life_ms, seed) for _ in range(2)
        )
        self._users: deque[int] = deque(maxlen=settings.window)  # of the newest examples
        self._offered = 0  # neutral examples
        self._now_ms = 0  # event time
        self._held_from_ms: int | None = None
        self._recovered_from: int | None = None  # how many examples had been offered then
        self._usual: float | None = None  # recall of incumbents on fresh examples, while candidates passed

    @property
    def held(self) -> bool:
        """Whether the newest candidate was held."""
        return self._held_from_ms is not None

    @property
    def _out_of_patience(self) -> bool:
        return self._held_from_ms is not None and self._now_ms - self._held_from_ms >= self._settings.patience_ms

    @property
    def incumbent(self) -> str | None:
        """Version of the snapshot that candidates are compared with."""
        return None if self._incumbent is None else self._incumbent.version

    def set_incumbent(self, snapshot: Snapshot) -> None:
        """Make a snapshot the incumbent, whatever it is worth."""
        self._set_incumbent(Served.of(snapshot, self._device), {})

    def watch(
        self,
        examples: Sequence[Example],
        batch: Batch,
        foresight: Foresight,
        catalogue: Catalogue,
        neutral: npt.NDArray[np.bool_] | None = None,
    ) -> None:
        """Take what the learner foresaw of a batch, before it learns from it.

        Args:
            examples: B.
            batch: the same, encoded.
            foresight: the learner's.
            catalogue: whose rows the batch has.
            neutral: (B,) which examples may judge; all, if it is not given. An item that the incumbent itself chose to
                show is one that it ranks high: on such examples nobody else can win.

        """
        if not self._settings.enabled:
            return
        self._users.extend(batch.user_ids.tolist())
        self._now_ms = max(self._now_ms, *(example.time_ms for example in examples))
        if self._settings.judge != "recall":
            return
        if neutral is not None:
            batch, ranks = batch.only(neutral), foresight.ranks[neutral]
            examples = [example for example, may_judge in zip(examples, neutral, strict=True) if may_judge]
        else:
            ranks = foresight.ranks
        if not examples:
            return
        if self._incumbent is not None:
            theirs = self._hit(self._incumbent, batch, catalogue)
            self._fresh.extend(zip(batch.user_ids.tolist(), self._among_k(ranks), theirs, strict=True))
        for example in examples:
            self._waiting.offer(self._offered, example.time_ms, example.SerializeToString())
            self._offered += 1

    def forget(self, user_id: int) -> None:
        """Judge by a user's examples no more."""

        def is_theirs(content: bytes) -> bool:
            return Example.FromString(content).user_id == user_id

        self._waiting.remove(is_theirs)
        gone = self._anchor.remove(is_theirs)
        self._hits = {serial: hit for serial, hit in self._hits.items() if serial not in gone}
        self._fresh = deque((pair for pair in self._fresh if pair[0] != user_id), maxlen=self._settings.window)
        self._users = deque((user for user in self._users if user != user_id), maxlen=self._settings.window)

    def judge(self, candidate: Snapshot, learner: Learner, catalogue: Catalogue) -> Verdict:
        """Whether the snapshot that was just made of the learner goes live; one that does may be the next incumbent."""
        if not self._settings.enabled:
            return Verdict(passed=True, reason="the gate is off")
        wrong = self._wrong(candidate, learner)
        if wrong is not None:
            self._hold()
            return Verdict(passed=False, reason=wrong)
        if self._settings.judge != "recall":
            self._held_from_ms = None
            return Verdict(passed=True, reason="no flaw")
        served, hits = Served.of(candidate, self._device), dict[int, bool]()
        verdict = self._verdict(served, hits, catalogue)
        if verdict.passed:
            self._pass(served, hits, verdict)
        else:
            self._hold()
        return verdict

    def _set_incumbent(self, served: Served, hits: dict[int, bool]) -> None:
        self._incumbent, self._hits = served, hits
        self._fresh.clear()

    def _pass(self, candidate: Served, hits: dict[int, bool], verdict: Verdict) -> None:
        if self.held:
            self._waiting.clear()  # nobody knows which of these were poison
        self._anchor.absorb(self._waiting)
        if verdict.fresh is not None:
            recall = verdict.fresh.incumbent
            self._usual = recall if self._usual is None else (self._usual + recall) / 2
        if self._incumbent is None or self.held or verdict.anchor is None or verdict.anchor.difference >= 0:
            self._set_incumbent(candidate, hits)
        self._held_from_ms = None

    def _hold(self) -> None:
        if self._held_from_ms is None:
            self._held_from_ms, self._recovered_from = self._now_ms, None
        if self._out_of_patience:
            self._anchor.absorb(self._waiting)

    def state(self) -> dict[str, Any]:
        """The incumbent too, as it is served."""
        return {
            "incumbent": None if self._incumbent is None else self._incumbent.state(),
            "hits": np.array([*self._hits.items()], np.int64).reshape(-1, 2),
            "fresh": list(self._fresh),
            "users": list(self._users),
            "anchor": self._anchor.state(),
            "waiting": self._waiting.state(),
            "offered": self._offered,
            "now_ms": self._now_ms,
            "held_from_ms": self._held_from_ms,
            "heals_from": self._recovered_from,  # checkpoints have it under this name
            "usual": self._usual,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        incumbent = state["incumbent"]
        self._incumbent = None if incumbent is None else Served(**incumbent, device=self._device)
        self._hits = {serial: hit > 0 for serial, hit in state["hits"].tolist()}
        self._fresh = deque(map(tuple, state["fresh"]), maxlen=self._settings.window)
        self._users = deque(state["users"], maxlen=self._settings.window)
        self._anchor.restore(state["anchor"])
        self._waiting.restore(state["waiting"])
        self._offered, self._now_ms = state["offered"], state["now_ms"]
        self._held_from_ms, self._recovered_from = state["held_from_ms"], state["heals_from"]
        self._usual = state["usual"]

    def _wrong(self, candidate: Snapshot, learner: Learner) -> str | None:
        wrong = flaw(candidate.item_vectors)
        if wrong is None and not all(bool(weight.isfinite().all()) for weight in learner.served.parameters()):
            wrong = "a weight is not finite"
        return wrong or dominated_by_one_user(np.array(self._users, np.int64), self._settings)

    def _verdict(self, candidate: Served, hits: dict[int, bool], catalogue: Catalogue) -> Verdict:
        """Judge a candidate without a flaw; its `hits` on the anchor are noted by serial number."""
        if self._incumbent is None:
            return Verdict(passed=True, reason="it is the first")
        fresh = self._compare(self._fresh)
        anchor = self._compare(self._ask(candidate, hits, self._incumbent, catalogue))
        has_recovered = self._has_recovered(fresh)
        suspect = self.held and not self._out_of_patience
        return judge(self._incumbent.version, fresh, anchor, self._settings, held=suspect, has_recovered=has_recovered)

    def _has_recovered(self, fresh: Comparison | None) -> bool:
        """Whether the stream has been itself again for a whole window."""
        if not recovered(fresh, self._usual):
            self._recovered_from = None
        elif self._recovered_from is None:
            self._recovered_from = self._offered
        return self._recovered_from is not None and self._offered - self._recovered_from >= self._settings.window

    def _ask(
        self, candidate: Served, hits: dict[int, bool], incumbent: Served, catalogue: Catalogue
    ) -> Iterable[_Pair]:
        """Ask both for the anchor, as far as it is not too old and its items are there; the incumbent what is new."""
        # While a hold is young nothing new comes in, so nothing grows too old.
        young = None if self._out_of_patience else self._held_from_ms
        until_ms = self._now_ms if young is None else young
        since_ms = until_ms - HALF_LIVES * self._settings.anchor_half_life_ms
        everything = ((serial, Example.FromString(content)) for serial, content in self._anchor.entries())
        entries = [(n, e) for n, e in everything if e.time_ms >= since_ms and e.item_id in catalogue]
        for start in range(0, len(entries), ASKED_AT_ONCE):
            serials, examples = zip(*entries[start : start + ASKED_AT_ONCE], strict=True)
            batch = encode(examples, catalogue, self._window)
            hits.update(zip(serials, self._hit(candidate, batch, catalogue), strict=True))
            new = np.array([serial not in self._hits for serial in serials])
            new_hits = self._hit(incumbent, batch.only(new), catalogue) if new.any() else []
            self._hits.update(zip(np.array(serials)[new].tolist(), new_hits, strict=True))
        self._hits = {serial: self._hits[serial] for serial, _ in entries}
        return ((example.user_id, hits[serial], self._hits[serial]) for serial, example in entries)

    def _hit(self, served: Served, batch: Batch, catalogue: Catalogue) -> list[bool]:
        return self._among_k(self._ranks.spread(batch, lambda part: served.ranks(part, catalogue)))

    def _among_k(self, ranks: Ints) -> list[bool]:
        hits: list[bool] = (ranks <= self._settings.k).tolist()
        return hits

    def _compare(self, pairs: Iterable[_Pair]) -> Comparison | None:
        table = np.array([*pairs], np.int64).reshape(-1, 3)
        return compare(table[:, 0], table[:, 1] > 0, table[:, 2] > 0, self._settings.confidence)
