"""One regime at work: a learner and what it learns from again."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from contracts.config.settings import TrainerSettings
from contracts.wire.events_pb2 import Example
from trainer.data.batches import Batch, encode
from trainer.data.catalogue import Catalogue
from trainer.distributed.ranks import Ranks
from trainer.learn.learner import Learner
from trainer.learn.replay import Replay

DIVERGED_AFTER = 3  # new batches in a row that gave no finite step


class Taught(NamedTuple):
    """What came of a batch."""

    taken: bool  # whether the step on it was taken
    refused: int  # steps not taken, those on earlier examples among them


class Regime:
    """A learner of one regime, with its replay."""

    def __init__(self, model: str, settings: TrainerSettings, seed: int, device: torch.device, ranks: Ranks) -> None:
        self.learner = Learner(model, settings, seed, device, ranks)
        self._replay = Replay(settings.replay, settings.model.window, seed)
        self._window = settings.model.window
        self._refused = 0  # new batches in a row
        self.diverged = False  # for good: it learns no more

    def learn(self, examples: Sequence[Example], batch: Batch, catalogue: Catalogue) -> Taught:
        """Learn from a batch, and from earlier examples again; `examples` are the same as the batch, not encoded."""
        if not self.learner.learn(batch):
            self._refused += 1
            self.diverged = self._refused >= DIVERGED_AFTER
            return Taught(taken=False, refused=1)
        self._refused = refused = 0
        for earlier in self._replay.draw(len(batch)):
            known = [example for example in earlier if example.item_id in catalogue]
            refused += bool(known) and not self.learner.learn(encode(known, catalogue, self._window), again=True)
        self._replay.offer(examples, batch.weights)
        return Taught(taken=True, refused=refused)

    def forget(self, user_id: int) -> None:
        """Learn from a user's examples no more; the weights stay as they are."""
        self._replay.forget(user_id)

    def state(self) -> dict[str, Any]:
        """All of it, for a checkpoint."""
        return {
            "learner": self.learner.state(),
            "replay": self._replay.state(),
            "refused": self._refused,
            "diverged": self.diverged,
        }

    def restore(self, state: dict[str, Any], catalogue: Catalogue) -> None:
        """Go on from a state."""
        self.learner.restore(state["learner"])
        if not state["diverged"]:
            self.learner.follow(catalogue)
        self._replay.restore(state["replay"])
        self._refused, self.diverged = state["refused"], state["diverged"]
