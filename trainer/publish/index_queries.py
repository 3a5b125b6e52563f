"""Users whose vectors a snapshot's index is measured by: those of the newest examples."""

from collections import deque
from collections.abc import Sequence
from typing import Any

import torch

from contracts.features import Floats
from contracts.snapshots.index import QUERIES
from contracts.snapshots.snapshot import Snapshot
from contracts.wire.events_pb2 import Example
from trainer.data.batches import encode
from trainer.data.catalogue import Catalogue
from trainer.gate.served_model import Served


class IndexQueries:
    """Keeps the newest examples, and asks as their users would."""

    def __init__(self, window: int, device: torch.device) -> None:
        """Begin with nobody; the arguments are the model's window and where `Served` scores."""
        self._window = window
        self._device = device
        self._newest: deque[bytes] = deque(maxlen=QUERIES)

    def note(self, examples: Sequence[Example]) -> None:
        """Take the next examples."""
        self._newest.extend(example.SerializeToString() for example in examples[-QUERIES:])

    def forget(self, user_id: int) -> None:
        """Let go of a user's examples."""
        kept = [content for content in self._newest if Example.FromString(content).user_id != user_id]
        self._newest = deque(kept, maxlen=QUERIES)

    def vectors(self, snapshot: Snapshot, catalogue: Catalogue) -> Floats:
        """The user vectors (Q, d), as a replica with this snapshot makes them, of the examples whose items are there.

        Q is at most `QUERIES`, and 0 at the beginning.
        """
        examples = [Example.FromString(content) for content in self._newest]
        batch = encode([e for e in examples if e.item_id in catalogue], catalogue, self._window)
        return Served.of(snapshot, self._device).users(batch, catalogue)

    def state(self) -> dict[str, Any]:
        """The examples."""
        return {"newest": list(self._newest)}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self._newest = deque(state["newest"], maxlen=QUERIES)
