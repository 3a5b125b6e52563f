"""A user's features in time: the store's row, or the last one known where the store does not answer soon enough."""

import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

import structlog

from contracts.runtime.clock import Clock
from feature_repo.online import SequenceReader
from feature_repo.row import FeaturesUnavailable, UserRow

log = structlog.get_logger()
LEFT_ALONE_S = 0.5  # ten times what a read may take: a store that hangs costs a tenth of the time


class Known(NamedTuple):
    """What is known of a user; `late`: it is what was known last, for the store did not answer in time."""

    row: UserRow | None
    late: bool


class Features:
    """Reads users' rows. A store that was late, or is away, is left alone for a while and not asked by every batch.

    How late it may be is the reader's affair: it raises `FeaturesUnavailable` then.
    """

    def __init__(self, reader: SequenceReader, last_known: int, clock: Clock) -> None:
        self._reader = reader
        self._limit = last_known
        self._clock = clock
        self._last: OrderedDict[int, UserRow] = OrderedDict()
        self._ask_again_s = -math.inf

    def read(self, user_ids: Sequence[int]) -> list[Known]:
        """What is known of each user, in the order asked for. Not for several threads at once."""
        rows = self._rows(user_ids)
        if rows is None:
            return [Known(self._last.get(user_id), late=True) for user_id in user_ids]
        for user_id, row in zip(user_ids, rows, strict=True):
            if row is not None:
                self._last[user_id] = row
                self._last.move_to_end(user_id)
            else:
                self._last.pop(user_id, None)  # forgotten: not what was known last either
        while len(self._last) > self._limit:
            self._last.popitem(last=False)
        return [Known(row, late=False) for row in rows]

    def close(self) -> None:
        """Let go of the store."""
        self._reader.close()

    def _rows(self, user_ids: Sequence[int]) -> list[UserRow | None] | None:
        if self._clock.elapsed_s() < self._ask_again_s:
            return None
        try:
            return self._reader.read(user_ids)
        except FeaturesUnavailable as error:
            self._ask_again_s = self._clock.elapsed_s() + LEFT_ALONE_S
            log.warning("features not readable", error=str(error))
            return None
