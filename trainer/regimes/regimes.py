"""The regimes of one model: all learn from the same examples, one of them leads, and the stream says which.

The evidence is how well each foresees which item of a page is watched, before it learns from it. What a page showed
favours whoever chose it, in every measure that was tried (docs/trainer.md), so only pages that no snapshot of the model
chose count: those outside any experiment, and those of arms that other models serve.

With `share` below 1 the regimes are taught and compared by the examples of that share of the users, so that all have
learned equally much; beside them the one that leads learns from everybody's, and a new leader begins with what it has
learned from its share.
"""

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt
import structlog
import torch

from contracts.config.regimes import DEFAULT
from contracts.config.settings import Arm, Settings
from contracts.features import Floats, Ints
from contracts.wire.events_pb2 import Example
from trainer.data.batches import Batch
from trainer.data.catalogue import Catalogue
from trainer.distributed.ranks import Ranks
from trainer.regimes.choice import Choice, choose
from trainer.regimes.evidence import Evidence
from trainer.regimes.regime import Regime, Taught

log = structlog.get_logger()
_SPACE = 2.0**64


class Regimes:
    """All regimes of a model. Without variants: the trainer's own, alone, which nothing is compared with."""

    def __init__(self, model: str, settings: Settings, device: torch.device, ranks: Ranks) -> None:
        self._model = model
        self._seed, self._device, self._ranks = settings.seed, device, ranks
        self._arms = settings.experiment.arms
        self._settings = settings.trainer.regimes
        self._by_regime = settings.trainer.by_regime()
        self.names = tuple(self._by_regime)
        self._regimes = {name: self._new(name) for name in self.names}
        self._evidence = Evidence(len(self.names), self._settings.half_life)
        self._choice = Choice(DEFAULT)
        self.leading = self._promoted(DEFAULT)

    @property
    def leader(self) -> str:
        """Name of the regime that leads."""
        return self._choice.leader

    @property
    def changes(self) -> int:
        """Of the leader, so far."""
        return self._choice.changes

    @property
    def losses(self) -> dict[str, float]:
        """Mean loss of each regime within the page, nats, where several are compared."""
        return dict(zip(self.names, self._evidence.losses.tolist(), strict=True)) if len(self.names) > 1 else {}

    def metrics(self) -> dict[str, float]:
        """As a manifest carries them: "leads/regime:pages" 1 or 0, "page_loss/regime:pages" in nats."""
        leads = {f"leads/regime:{name}": float(name == self.leader) for name in self.losses}
        return leads | {f"page_loss/regime:{name}": loss for name, loss in self.losses.items()}

    @property
    def diverged(self) -> list[str]:
        """Regimes that learn no more, as their steps were no numbers."""
        return [name for name, regime in self._regimes.items() if regime.diverged]

    def number(self, sampling_seed: int) -> None:
        """Test all with the sampling noise of the coming snapshot."""
        for regime in self._all():
            regime.learner.sampling_seed = sampling_seed

    def leave_out(self, *, part: bool) -> None:
        """Whether those whose encoder has an optional part go without it, as far as they are served or tested."""
        for regime in self._all():
            encoder = regime.learner.served.encoder
            encoder.left_out = part and bool(encoder.optional_part)

    def watch(self, examples: Sequence[Example], batch: Batch, catalogue: Catalogue) -> bool:
        """Compare all on a batch that none has learned from; whether another one leads now.

        Args:
            examples: B.
            batch: the same, encoded.
            catalogue: whose rows the batch has.

        """
        if len(self.names) == 1:
            return False
        for regime in self._all():
            if not regime.diverged:
                regime.learner.follow(catalogue)
        unchosen = not_chosen_by(self._model, examples, self._arms) & (batch.passed >= 0).any(1)
        pages = batch.only(unchosen & in_share(batch.user_ids, self._settings.share))
        if not len(pages):
            return self._choose(0, catalogue) if self._out() else False
        losses = [_losses(regime, pages) for regime in self._regimes.values()]
        self._evidence.add(np.stack(losses, 1), pages.user_ids)
        return self._choose(len(pages), catalogue)

    def learn(self, examples: Sequence[Example], batch: Batch, catalogue: Catalogue) -> Taught:
        """Teach all; what came of it in the regime that leads. `examples` are those of the batch, not encoded."""
        taught = self.leading.learn(examples, batch, catalogue)
        others = {name: regime for name, regime in self._regimes.items() if regime is not self.leading}
        if others:
            mine = in_share(batch.user_ids, self._settings.share)
            share = batch.only(mine)
            kept = [example for example, is_mine in zip(examples, mine, strict=True) if is_mine]
            for name, regime in others.items():
                if len(share) and not regime.diverged:
                    regime.learn(kept, share, catalogue)
                    if name in self.diverged:
                        log.error("a regime has diverged and learns no more", model=self._model, regime=name)
        return taught

    def forget(self, user_id: int) -> None:
        """Learn from a user's examples no more; weights and evidence, which are sums, stay as they are."""
        for regime in self._all():
            regime.forget(user_id)

    def state(self) -> dict[str, Any]:
        """All of it, for a checkpoint."""
        return {
            "leading": self.leading.state(),
            "regimes": {name: regime.state() for name, regime in self._regimes.items() if regime is not self.leading},
            "evidence": self._evidence.state(),
            "choice": {
                "leader": self._choice.leader,
                "ahead": dict(self._choice.ahead),
                "changes": self._choice.changes,
            },
        }

    def restore(self, state: dict[str, Any], catalogue: Catalogue) -> None:
        """Go on from a state."""
        self._choice = Choice(**state["choice"])
        self._evidence.restore(state["evidence"])
        self.leading = self._promoted(self.leader)
        self.leading.restore(state["leading"], catalogue)
        for name, regime_state in state["regimes"].items():
            self._regimes[name].restore(regime_state, catalogue)

    def _new(self, name: str) -> Regime:
        return Regime(self._model, self._by_regime[name], self._seed, self._device, self._ranks)

    def _promoted(self, name: str) -> Regime:
        """What leads from now on: the regime itself where it has learned from everybody, else one that will."""
        return self._regimes[name] if self._settings.share == 1 or len(self.names) == 1 else self._new(name)

    def _all(self) -> list[Regime]:
        regimes = [*self._regimes.values()]
        return regimes if any(regime is self.leading for regime in regimes) else [*regimes, self.leading]

    def _out(self) -> bool:
        """Whether the leader has diverged, here or on its share."""
        return self.leading.diverged or self._regimes[self.leader].diverged

    def _choose(self, pages: int, catalogue: Catalogue) -> bool:
        at = {name: place for place, name in enumerate(self.names)}
        before = self._choice
        gains = {
            name: self._evidence.gain(at[name], at[before.leader])
            for name, regime in self._regimes.items()
            if name != before.leader and not regime.diverged
        }
        loss = float(self._evidence.losses[at[before.leader]])
        self._choice = choose(before, loss, gains, pages, self._settings, leader_is_out=self._out())
        if self._choice.leader == before.leader:
            return False
        winner = self._regimes[self._choice.leader]
        self.leading = self._promoted(self._choice.leader)
        if self.leading is not winner:
            self.leading.restore(winner.state(), catalogue)
        return True


def _losses(regime: Regime, pages: Batch) -> Floats:
    """(B,) of a regime; no numbers of one that has diverged."""
    return np.full(len(pages), np.nan, np.float32) if regime.diverged else regime.learner.page_losses(pages)


def not_chosen_by(model: str, examples: Sequence[Example], definitions: Mapping[str, Arm]) -> npt.NDArray[np.bool_]:
    """Which examples' pages no snapshot of a model has chosen, as far as the examples and the experiment say; (B,).

    >>> arms = {"a": Arm(weight=1, model="t2diff"), "b": Arm(weight=1, model="two_tower")}
    >>> examples = [Example(), Example(arm="a"), Example(arm="b"), Example(model="t2diff")]
    >>> not_chosen_by("t2diff", examples, arms).tolist()
    [True, False, True, False]
    """
    own = {arm for arm, definition in definitions.items() if model in definition.models}
    return np.array([example.arm not in own and example.model != model for example in examples], bool)


def in_share(user_ids: Ints, share: float) -> npt.NDArray[np.bool_]:
    """Which users are among a share of all: the same ones at any time, and in a larger share all of a smaller one.

    >>> int(in_share(np.arange(1000), 0.25).sum()), bool(in_share(np.arange(9), 1.0).all())
    (260, True)
    """
    if share == 1:
        return np.ones(len(user_ids), bool)
    digests = (blake2b(f"regimes:{user}".encode(), digest_size=8).digest() for user in user_ids.tolist())
    return np.array([int.from_bytes(digest, "big") < share * _SPACE for digest in digests], bool)
