"""Earlier examples to learn from again: a bounded sample of all that was learned, which prefers what is recent."""

from collections.abc import Sequence
from itertools import repeat
from typing import Any

import numpy as np

from contracts.config.trainer import ReplaySettings
from contracts.features import Floats
from contracts.wire.events_pb2 import Example
from trainer.data.decayed import DecayedSample

OTHER_DRAWS = 1 << 63  # a bit of the seed that tells these draws from the sample's


class Replay:
    """A sample of one model's examples; which are drawn is a function of the seed and of what was offered."""

    def __init__(self, settings: ReplaySettings, window: int, seed: int) -> None:
        """Begin empty; of each example the newest `window` positives are kept."""
        self._settings = settings
        self._window = window
        self._seed = seed
        self._sample = DecayedSample[bytes](settings.size, settings.half_life_ms, seed)
        self._offered = 0
        self._draws = 0

    def offer(self, examples: Sequence[Example], weights: Floats | None = None) -> None:
        """Take examples that were learned from, or don't.

        Each is offered as many times as it weighs on average, so what is drawn need not be weighted again; `weights`
        (B,) are 1 where they are None.
        """
        if not self._settings.batches:
            return
        for example, weight in zip(examples, repeat(1.0) if weights is None else weights.tolist(), strict=False):
            content = trimmed(example, self._window).SerializeToString(deterministic=True)
            times = self._times(weight)
            for serial in range(self._offered, self._offered + times):
                self._sample.offer(serial, example.time_ms, content)
            self._offered += max(times, 1)

    def draw(self, size: int) -> list[list[Example]]:
        """What to learn from again beside `size` new examples: batches of so many, drawn with replacement."""
        kept = self._sample.values() if self._settings.batches and len(self._sample) else []
        batches = []
        for _ in range(self._settings.batches if kept else 0):
            random = np.random.Generator(np.random.Philox(key=[self._draws, self._seed]))
            batches.append([Example.FromString(kept[at]) for at in random.integers(0, len(kept), size).tolist()])
            self._draws += 1
        return batches

    def forget(self, user_id: int) -> None:
        """Let go of a user's examples."""
        self._sample.remove(lambda content: Example.FromString(content).user_id == user_id)

    def _times(self, weight: float) -> int:
        """A whole number whose mean is the weight, by the seed and what was offered before."""
        if weight == 1:
            return 1
        draw = np.random.Generator(np.random.Philox(key=[self._offered, self._seed ^ OTHER_DRAWS])).random()
        return int(weight + draw)

    def state(self) -> dict[str, Any]:
        """All of it, for a checkpoint."""
        return {"sample": self._sample.state(), "offered": self._offered, "draws": self._draws}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self._sample.restore(state["sample"])
        self._offered, self._draws = state["offered"], state["draws"]


def trimmed(example: Example, window: int) -> Example:
    """What a model learns from: of the history the newest `window` positives, without what no tower reads.

    >>> example = Example(item_id=3)
    >>> example.history.item_ids.extend([7, 8, 9]); example.history.times_ms.extend([1, 2, 3])
    >>> example.history.effective_views.extend([True, False, True])
    >>> list(trimmed(example, 1).history.item_ids)
    [9]
    """
    history = example.history
    columns = zip(history.item_ids, history.times_ms, history.effective_views, strict=True)
    positives = [(item_id, time_ms) for item_id, time_ms, effective in columns if effective][-window:]
    kept = Example(
        user_id=example.user_id,
        item_id=example.item_id,
        time_ms=example.time_ms,
        arm=example.arm,
        page=example.page if example.HasField("page") else None,
    )
    kept.history.item_ids.extend(item_id for item_id, _ in positives)
    kept.history.times_ms.extend(time_ms for _, time_ms in positives)
    kept.history.effective_views.extend([True] * len(positives))
    return kept
