"""A snapshot that is tested beside the learner, by the graph and the vectors that replicas serve."""

from typing import Any

import numpy as np
import torch

from contracts.features import Floats, Ints, gather, rows_of
from contracts.snapshots.snapshot import Snapshot
from contracts.snapshots.tower import Tower
from trainer.data.batches import Batch
from trainer.data.catalogue import Catalogue
from trainer.evaluation.ranking import ranks_of

NEVER = 2**62  # the rank of an item that the snapshot does not have
_KEPT = ("version", "sampling_seed", "noise_shape", "tower", "item_ids", "item_vectors")


class Served:
    """Answers examples as a replica with this snapshot would, whatever the learner has become since."""

    def __init__(
        self,
        version: str,
        sampling_seed: int,
        noise_shape: tuple[int, ...],
        tower: bytes,
        item_ids: Ints,
        item_vectors: Floats,
        device: torch.device,
    ) -> None:
        """Load the graph; the arguments are those of a snapshot, the device is where items are scored."""
        self.version = version
        self._state = dict(
            zip(_KEPT, (version, sampling_seed, noise_shape, tower, item_ids, item_vectors), strict=True)
        )
        self._item_ids, self._item_vectors = item_ids, item_vectors
        self._device = device
        self._matrix = torch.from_numpy(item_vectors).to(device)
        self._tower = Tower(tower, sampling_seed, noise_shape, torch.get_num_threads())

    @classmethod
    def of(cls, snapshot: Snapshot, device: torch.device) -> "Served":
        """A snapshot, as a replica has it."""
        manifest = snapshot.manifest
        return cls(
            manifest.version,
            manifest.sampling_seed,
            manifest.noise_shape,
            snapshot.tower,
            snapshot.item_ids,
            snapshot.item_vectors,
            device,
        )

    def state(self) -> dict[str, Any]:
        """The snapshot, as far as it is needed here; `Served(**state, device=…)` is the same one again."""
        return dict(self._state)

    def ranks(self, batch: Batch, catalogue: Catalogue) -> Ints:
        """As those of `Learner.evaluate`, (B,), over the snapshot's own items; what is not among them is never found.

        Args:
            batch: B examples in rows of the catalogue.
            catalogue: the one of now, which may have items that the snapshot lacks, and lack some that it has.

        """
        if not self._item_ids.size:
            return np.full(len(batch), NEVER)
        column_of = self._columns(catalogue)
        targets = column_of[batch.targets]
        seen = tuple(columns[columns >= 0] for columns in (column_of[rows] for rows in batch.seen))
        scores = torch.from_numpy(self._users(batch, column_of)).to(self._device) @ self._matrix.T
        own_ranks = ranks_of(scores, torch.from_numpy(np.maximum(targets, 0)).to(self._device), seen)
        return np.where(targets >= 0, own_ranks, NEVER)

    def users(self, batch: Batch, catalogue: Catalogue) -> Floats:
        """The user vectors (B, d) that find the answers; the arguments are those of `ranks`."""
        return self._users(batch, self._columns(catalogue))

    def _columns(self, catalogue: Catalogue) -> Ints:
        """(N,) the snapshot's row of each of the catalogue's, -1 where it has none."""
        column_of = np.empty(len(catalogue), np.int64)
        column_of[catalogue.arrival] = rows_of(catalogue.item_ids, self._item_ids)
        return column_of

    def _users(self, batch: Batch, column_of: Ints) -> Floats:
        columns = np.where(batch.mask > 0, column_of[np.maximum(batch.rows, 0)], -1)
        order = np.argsort(columns >= 0, axis=1, kind="stable")  # behaviours of unknown items give way to padding
        columns, lag = np.take_along_axis(columns, order, 1), np.take_along_axis(batch.served_lag, order, 1)
        mask = (columns >= 0).astype(np.float32)
        return self._tower.users(gather(columns, self._item_vectors), mask, lag * mask, batch.user_ids.tolist())
