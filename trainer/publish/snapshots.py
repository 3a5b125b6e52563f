"""When to publish, under which version, and what a snapshot consists of. Writing it is the worker's."""

from typing import Any

import numpy as np

from contracts.config.store import Root
from contracts.snapshots.index import EXACT
from contracts.snapshots.snapshot import Manifest, Snapshot, version_name, versions
from trainer.data.catalogue import Catalogue
from trainer.learn.learner import Learner
from trainer.publish.onnx_export import TowerTemplate

SAMPLE = 256  # of arrival times that a manifest carries


class Boundaries:
    """Publication is due when event time enters another interval: snapshots are then a function of the log.

    The first example only tells where time stands. Examples that come late never call for a publication, and a gap
    of several intervals calls for one.

    >>> boundaries = Boundaries(every_ms=10)
    >>> [boundaries.crossed(t) for t in (3, 9, 10, 8, 19, 45)]
    [False, False, True, False, False, True]
    """

    def __init__(self, every_ms: int) -> None:
        self._every_ms = every_ms
        self._newest_ms: int | None = None

    def crossed(self, time_ms: int) -> bool:
        """Whether this event time is the first in an interval later than any before."""
        before = self._newest_ms
        self._newest_ms = time_ms if before is None else max(time_ms, before)
        return before is not None and time_ms // self._every_ms > before // self._every_ms

    def state(self) -> dict[str, Any]:
        """Where time stands."""
        return {"newest_ms": self._newest_ms}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self._newest_ms = state["newest_ms"]


class EvenSample:
    """At most `limit` of the values offered, evenly spread over them; no randomness, bounded memory.

    >>> sample = EvenSample(limit=4)
    >>> for value in range(9):
    ...     sample.offer(value)
    >>> sample.take(), sample.take()
    ((0, 4, 8), ())
    """

    def __init__(self, limit: int = SAMPLE) -> None:
        self._limit = limit
        self._kept: list[int] = []
        self._offered, self._stride = 0, 1

    def offer(self, value: int) -> None:
        """Keep every stride-th value; when there are too many, every second of them at twice the stride."""
        if self._offered % self._stride == 0:
            self._kept.append(value)
            if len(self._kept) > self._limit:
                self._kept = self._kept[::2]
                self._stride *= 2
        self._offered += 1

    def take(self) -> tuple[int, ...]:
        """The sample; the next one starts from nothing."""
        sample = tuple(self._kept)
        self._kept = []
        self._offered, self._stride = 0, 1
        return sample

    def state(self) -> dict[str, Any]:
        """What has been kept, and how."""
        return {"kept": list(self._kept), "offered": self._offered, "stride": self._stride}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self._kept = list(state["kept"])
        self._offered, self._stride = state["offered"], state["stride"]


def next_version(existing: list[str]) -> int:
    """The number after the highest version among directory names; names that are no versions don't count.

    >>> next_version([]), next_version(["v000002", "v000010", ".v000011.tmp", "LIVE"])
    (1, 11)
    """
    numbers = [int(name[1:]) for name in existing if name[:1] == "v" and name[1:].isdigit()]
    return max(numbers, default=0) + 1


def versions_on_disk(root: Root, model: str) -> list[str]:
    """The names of a model's versions; none where it has no home yet."""
    return [str(version) for version in versions(root, model)]


def sampling_seed(seed: int, version: int) -> int:
    """The seed of a snapshot's sampling noise, below 2⁶³: a function of the run's seed and the version.

    >>> sampling_seed(0, 1) == sampling_seed(0, 1), sampling_seed(0, 1) == sampling_seed(0, 2)
    (True, False)
    """
    return int(np.random.SeedSequence([seed, version]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def manifest_of(learner: Learner, version: int) -> Manifest:
    """The manifest of a learner's snapshot, as far as it is known without what was learned and foreseen."""
    return Manifest(
        model=learner.name,
        version=version_name(version),
        dim=learner.settings.dim,
        window=learner.settings.window,
        sampling_seed=learner.sampling_seed,
        noise_shape=learner.served.encoder.noise_shape,
        examples=0,
        shares={},
        offsets={},
        event_time_ms=0,
        metrics={},
    )


def snapshot_of(learner: Learner, catalogue: Catalogue, template: TowerTemplate, manifest: Manifest) -> Snapshot:
    """Everything that a replica needs to answer with what the learner knows now; it is searched exactly."""
    return Snapshot(
        manifest=manifest,
        tower=template.fill(learner.served.encoder),
        item_ids=catalogue.item_ids,
        item_vectors=learner.item_vectors(catalogue),
        item_counts=learner.item_counts(catalogue),
        index=EXACT,
    )
