"""The item tower: from an item's id and categories to its vector. All models share it."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from contracts.config.settings import ModelSettings
from contracts.features import Ints, sampling_noise
from trainer.data.catalogue import Catalogue
from trainer.data.row_tables import Follower, moved
from trainer.data.vocabulary import Changes

ID_STREAM, CATEGORY_STREAM = 0, 1  # keep an item and a category of the same number from starting alike
INITIAL_SCALE = 0.05  # of embeddings: an item that nobody has watched yet weighs little in a history


class Followed(NamedTuple):
    """What changed in the rows of the tower's tables."""

    items: Changes
    categories: Changes


class ItemTower(nn.Module):
    """e_i = W [id embedding ‖ mean of category embeddings] + b.

    Tables follow a catalogue. A new row starts as a function of (seed, id), so neither the order nor the moment of its
    arrival matters; an item that was a positive fewer than `admit_after` times is its categories alone.
    """

    def __init__(self, settings: ModelSettings, seed: int, admit_after: int = 0) -> None:
        super().__init__()
        dim, ids = settings.dim, settings.id_dim or settings.dim
        self._seed = seed
        self._admit_after = admit_after
        self._catalogue = Catalogue()
        self._version = 0
        self._items, self._categories = Follower(), Follower()
        self._whole: tuple[Tensor, Tensor] | None = None
        self.ids = nn.Parameter(torch.empty(0, ids))
        self.categories = nn.Parameter(torch.empty(0, settings.category_dim))
        self.mix = nn.Linear(ids + settings.category_dim, dim)
        with torch.no_grad():
            # An item starts at its own embedding, so that the very first gradients already move items apart.
            self.mix.weight[:, :ids] = torch.eye(dim, ids)
            self.mix.bias.zero_()
        self.register_buffer("positives", torch.empty(0), persistent=False)
        self.positives: Tensor  # (N,) times that each row was a positive

    def follow(self, catalogue: Catalogue) -> Followed | None:
        """Move the tables' rows as the catalogue moved its own; None where nothing changed.

        The catalogue is kept: `forward` asks it for categories.
        """
        if catalogue is self._catalogue and catalogue.version == self._version:
            return None
        self._catalogue, self._version, self._whole = catalogue, catalogue.version, None
        items, categories = self._items.follow(catalogue.items), self._categories.follow(catalogue.categories)
        new = items.rows[items.sources < 0]
        _move(self.ids, items, catalogue.items.ids_at(new), self._seed, ID_STREAM)
        fresh = categories.rows[categories.sources < 0]
        _move(self.categories, categories, catalogue.categories.ids_at(fresh), self._seed, CATEGORY_STREAM)
        self.positives = moved(self.positives, items)
        return Followed(items, categories)

    def count(self, rows: Tensor) -> None:
        """Note rows (B,) as positives, each as often as it is there."""
        self.positives.index_add_(0, rows, torch.ones_like(rows, dtype=self.positives.dtype))

    def forward(self, rows: Tensor | None = None) -> Tensor:
        """Vectors of some rows, (M, d), or of the whole catalogue, (N, d).

        With `rows` (M,), which must differ, the gradient of the table of ids is sparse, and the cost is that of M.

        Raises:
            RuntimeError: the catalogue has changed since it was last followed.

        """
        if self._catalogue.version != self._version:
            raise RuntimeError("The catalogue has changed; follow it first.")
        ids: Tensor = self.ids
        positives = self.positives
        if rows is None:
            self._whole = self._whole or self._bags(np.arange(len(self.ids)))
            flat, starts = self._whole
        else:
            flat, starts = self._bags(rows.cpu().numpy())
            ids, positives = functional.embedding(rows, ids, sparse=True), positives[rows]
        if self._admit_after:
            ids = ids * (positives >= self._admit_after).unsqueeze(1)
        categories = functional.embedding_bag(flat, self.categories, starts, mode="mean")
        return functional.linear(torch.cat((ids, categories), 1), self.mix.weight, self.mix.bias)

    def state(self) -> dict[str, Any]:
        """All of it, but for the catalogue."""
        return {
            "ids": self.ids.detach().clone(),
            "categories": self.categories.detach().clone(),
            "mix": {name: weight.clone() for name, weight in self.mix.state_dict().items()},
            "positives": self.positives.clone(),
            "followed": (self._items.state(), self._categories.state()),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Become what `state` described; a catalogue that was restored with it is to be followed next."""
        device = self.ids.device
        self.ids.data, self.categories.data = (state[name].to(device).clone() for name in ("ids", "categories"))
        self.mix.load_state_dict(state["mix"])
        self.positives = state["positives"].to(device).clone()
        for follower, follower_state in zip((self._items, self._categories), state["followed"], strict=True):
            follower.restore(follower_state)
        self._catalogue, self._version, self._whole = Catalogue(), -1, None

    def _bags(self, rows: Ints) -> tuple[Tensor, Tensor]:
        flat, lengths = self._catalogue.bags(rows)
        device = self.ids.device
        return torch.from_numpy(flat).to(device), torch.from_numpy(lengths.cumsum() - lengths).to(device)


def _move(table: nn.Parameter, changes: Changes, new: list[int], seed: int, stream: int) -> None:
    """Move a table's rows in place: the parameter stays the same object, so an optimizer goes on with it."""
    table.data, table.grad = moved(table.data, changes), None
    if new:
        first = np.stack([sampling_noise(number, 2 * seed + stream, (table.shape[1],)) for number in new])
        rows = torch.from_numpy(changes.rows[changes.sources < 0])
        table.data[rows.to(table.device)] = torch.from_numpy(first).to(table.device) * INITIAL_SCALE
