"""How much each example counts by what came of it: `trainer.objective`, calibrated against the log.

With the weights e (`effective_view`), p (`play`) and f (`follow`), an example whose play took t counts

    (e + p · min(t, T) / m + f · follow) / (e + p + f · r),

where T is `play_cap_ms`, m the mean of min(t, T) and r the share of follows, over the examples so far under exponential
forgetting; no play counts more than ten times m. So the weights of these have the mean 1, and the step of an optimizer
means what it means without. Weighting a positive by its play time makes a softmax learn odds of expected play time
instead of odds of an effective view (weighted logistic regression of Covington, Adams and Sargin, Deep Neural Networks
for YouTube Recommendations, RecSys 2016); e and p mix the two.

m and r are over all examples that are tested, whoever showed them, a batch among its own; they are one and the same for
all models. `play_time_ms` and `follow` are those of the example: what the stream knew when it made it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from contracts.config.objective import ObjectiveSettings
from contracts.features import Floats
from contracts.wire.events_pb2 import Example

HALF_LIFE = 10_000  # examples after which one counts half in the means
MOST = 10.0  # mean plays that one counts at most: where few are reported, one would outweigh thousands


class Objective:
    """Weights of examples; a function of the settings and of the examples in order.

    >>> objective = Objective(ObjectiveSettings(effective_view=1, play=1, play_cap_ms=60_000))
    >>> plays = [Example(play_time_ms=play_ms) for play_ms in (10_000, 20_000, 90_000, 30_000)]
    >>> print(objective.weigh(plays))  # one half of each weight is alike, the other as 10, 20, 60 and 30 are
    [0.6666667 0.8333333 1.5       1.       ]
    """

    def __init__(self, settings: ObjectiveSettings) -> None:
        self._settings = settings
        self._count = self._play_ms = self._follows = 0.0  # decayed sums

    def weigh(self, examples: Sequence[Example]) -> Floats:
        """Weights (B,) of the next batch, which takes part in its own calibration."""
        if not self._settings.weighs or not examples:
            return np.ones(len(examples), np.float32)
        play_ms = np.array([example.play_time_ms for example in examples], np.float64)
        play_ms = np.clip(play_ms, 0, self._settings.play_cap_ms)
        follows = np.array([example.follow for example in examples], np.float64)
        memory = 2.0 ** (-len(examples) / HALF_LIFE)
        self._count = memory * self._count + len(examples)
        self._play_ms = memory * self._play_ms + float(play_ms.sum())
        self._follows = memory * self._follows + float(follows.sum())
        wanted = self._settings
        mean_ms = self._play_ms / self._count
        plays = np.minimum(play_ms / mean_ms, MOST) if mean_ms else np.ones(len(examples))  # none reported: all alike
        values = wanted.effective_view + wanted.play * plays + wanted.follow * follows
        mean = wanted.effective_view + wanted.play + wanted.follow * self._follows / self._count
        return (values / mean).astype(np.float32)

    def state(self) -> dict[str, float]:
        """All of it, for a checkpoint."""
        return {"count": self._count, "play_ms": self._play_ms, "follows": self._follows}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self._count, self._play_ms, self._follows = state["count"], state["play_ms"], state["follows"]
