"""A table that follows a catalogue, as models' tables do."""

import torch

from trainer.data.row_tables import Follower, moved
from trainer.data.vocabulary import Vocabulary


class Table:
    """A table that follows a vocabulary, each of whose rows says which arrival it was made for."""

    def __init__(self) -> None:
        self.follower, self.content, self.arrivals = Follower(), torch.zeros(0, 2, dtype=torch.int64), 0

    def follow(self, vocabulary: Vocabulary) -> int:
        """Take the changes over; how many rows were touched."""
        changes = self.follower.follow(vocabulary)
        self.content = moved(self.content, changes)
        new = changes.sources < 0
        self.content[changes.rows[new], 0] = torch.from_numpy(changes.serials[new])
        self.content[changes.rows[new], 1] = torch.from_numpy(vocabulary.ids[changes.rows[new]])
        self.arrivals += int(new.sum())
        return len(changes.rows)
