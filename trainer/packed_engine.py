"""An engine that learns packed histories: a user's examples side by side in few windows, each of them a target once.

It takes examples without features, a group at a time, and asks for the features of those alone that end a window: what
these know of the user's past is what the window shows of the examples before them. An example that is not there, as it
came late or was cut off, makes a window of its own. Windows are learned from in the order in which they end; each model
is tested on the example that ends a window, before it learns from it.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, takewhile
from typing import TypeAlias

import numpy as np

from contracts.config.settings import Settings, TrainerSettings
from contracts.config.trainer import ONE_VECTOR
from contracts.wire.events_pb2 import Example, History
from trainer.data.batches import encode
from trainer.data.catalogue import Catalogue
from trainer.data.packed import pieces, steps
from trainer.engine import Engine
from trainer.meters import Meters

GROUP = 100_000  # examples that wait for each other: their labels and the windows' features are held in memory

Histories: TypeAlias = Callable[[Sequence[Example]], list[History | None]]


class InterruptedGroupError(Exception):
    """A group was not learned to its end, so the engine's state is of no moment that its offsets could name."""


@dataclass(frozen=True)
class Window:
    """Examples of one user and one arm, one after the other; the last of them has its features."""

    examples: Sequence[Example]

    @property
    def count(self) -> int:
        """New places."""
        return len(self.examples)

    @property
    def width(self) -> int:
        """Places that it needs: its behaviours, and one before the first where that is new."""
        return max(sum(self.examples[-1].history.effective_views), self.count)


def unpackable(settings: TrainerSettings) -> str | None:
    """What keeps these settings from learning packed histories; None where nothing does.

    >>> unpackable(TrainerSettings()), unpackable(TrainerSettings(models=("bert4rec",)))
    (None, 'bert4rec makes one vector of a window')
    """
    for model in settings.models:
        if model in ONE_VECTOR:
            return f"{model} makes one vector of a window"
    if settings.learn_from == "weighted" or settings.objective.weighs:
        return "examples have weights of their own"
    if any(regime.replay.batches for regime in settings.by_regime().values()):
        return "replay draws examples with their own features"
    return None


class PackedEngine(Engine):
    """Learns in groups; a group's examples are either all in its state or none is."""

    def __init__(self, settings: Settings, meters: Meters, histories: Histories, stop: threading.Event) -> None:
        """Begin.

        Args:
            settings: for which `unpackable` is None.
            meters: of the trainer.
            histories: what the users of examples had done just before each.
            stop: ends a group before it is learned.

        """
        super().__init__(settings, meters)
        self._batch_size = GROUP
        self._histories = histories
        self._stop = stop

    def learn_rest(self) -> None:
        """Learn from the examples that wait, though they are no whole group."""
        self._step()

    def _learn(self, examples: list[Example]) -> None:
        window = self._settings.trainer.model.window
        windows = pack(examples, self._catalogue, window, self._settings.stream.history_limit, self._histories)
        for part in steps(windows, seed=self._settings.seed + self.tested):
            if self._stop.is_set():
                raise InterruptedGroupError
            ends = [one.examples[-1] for one in part]
            batch = encode(ends, self._catalogue, min(max(one.width for one in part), window))
            batch = replace(batch, last=np.array([one.count for one in part], np.int64))
            self._teach(ends, batch, np.ones(len(ends), np.float32))


def pack(
    examples: Sequence[Example], catalogue: Catalogue, window: int, limit: int, histories: Histories
) -> list[Window]:
    """All examples in windows, each in one, in the order in which these end; those that end one get their features.

    Args:
        examples: in the order of the log, without features; all items are in the catalogue.
        catalogue: behaviours with other items do not count.
        window: places of a model.
        limit: behaviours that a history holds; the oldest have gone from one that has as many.
        histories: what the users of examples had done just before each. It is asked twice at most.

    """
    order = {id(example): place for place, example in enumerate(examples)}
    wanted: list[Sequence[Example]] = []
    for _, group in groupby(sorted(examples, key=_whose), key=_whose):
        for _, run in groupby(group, key=lambda example: example.arm):
            did = [*run]
            wanted += [did[piece.end + 1 - piece.count : piece.end + 1] for piece in pieces(len(did), window)]
    made: list[Window] = []
    alone: list[Example] = []
    _give([part[-1] for part in wanted], histories)
    for part in wanted:
        known = _known(part, catalogue, window, limit)
        made.append(Window(part[-known:]))
        alone += part[:-known]
    _give(alone, histories)
    made += [Window([example]) for example in alone]
    return sorted(made, key=lambda one: order[id(one.examples[-1])])


def _give(examples: Sequence[Example], histories: Histories) -> None:
    for example, history in zip(examples, histories(examples) if examples else (), strict=True):
        if history is not None:
            example.history.CopyFrom(history)


def _known(part: Sequence[Example], catalogue: Catalogue, window: int, limit: int) -> int:
    """How many of the last of these examples a window shows that ends with the last: as far as its past has them.

    One that is at its place in the user's past is a new place of the window; at least the last is. Where the oldest
    behaviours have gone, each has half a window before it.
    """
    if len(part) == 1:
        return 1
    history = part[-1].history
    effective = np.fromiter(history.effective_views, np.bool_, len(history.effective_views))
    item_ids = np.fromiter(history.item_ids, np.int64, effective.size)[effective]
    times_ms = np.fromiter(history.times_ms, np.int64, effective.size)[effective]
    there = catalogue.rows(item_ids) >= 0
    past = [*zip(item_ids[there].tolist(), times_ms[there].tolist(), strict=True)]
    before = [(example.item_id, example.time_ms) for example in part[:-1]]
    pairs = zip(reversed(before), reversed(past), strict=False)
    known = 1 + sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    return known if effective.size < limit else max(min(known, 1 + len(past) - window // 2), 1)


def _whose(example: Example) -> int:
    return example.user_id
