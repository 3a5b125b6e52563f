"""A user's features in time: the store's row, or the last one known where the store does not answer soon enough."""

from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as LateError
from typing import NamedTuple

import structlog

from feature_repo.online import SequenceReader
from feature_repo.row import FeaturesUnavailable, UserRow

log = structlog.get_logger()


class Known(NamedTuple):
    """What is known of a user; `late`: it is what was known last, for the store did not answer in time."""

    row: UserRow | None
    late: bool


class Features:
    """Reads users' rows, and waits for them no longer than it may.

    The store is read by a thread of its own. While a read is late, no other is begun: what hangs does not pile up, and
    answers go on from the rows known last.
    """

    def __init__(self, reader: SequenceReader, timeout_s: float, last_known: int) -> None:
        self._reader = reader
        self._timeout_s = timeout_s
        self._limit = last_known
        self._last: OrderedDict[int, UserRow] = OrderedDict()
        self._thread = ThreadPoolExecutor(1, "features")
        self._reading: Future[list[UserRow | None]] | None = None

    def read(self, user_ids: Sequence[int]) -> list[Known]:
        """What is known of each user, in the order asked for. For one thread."""
        rows = self._in_time(user_ids)
        if rows is None:
            return [Known(self._last.get(user_id), late=True) for user_id in user_ids]
        for user_id, row in zip(user_ids, rows, strict=True):
            if row is not None:
                self._last[user_id] = row
                self._last.move_to_end(user_id)
        while len(self._last) > self._limit:
            self._last.popitem(last=False)
        return [Known(row, late=False) for row in rows]

    def close(self) -> None:
        """Let go of the store once the read that is under way has ended; it is not waited for."""
        self._thread.submit(self._reader.close)
        self._thread.shutdown(wait=False)

    def _in_time(self, user_ids: Sequence[int]) -> list[UserRow | None] | None:
        if self._reading is not None and not self._reading.done():
            return None
        self._reading = self._thread.submit(self._reader.read, user_ids)
        try:
            return self._reading.result(self._timeout_s)
        except LateError:
            return None
        except FeaturesUnavailable as error:
            log.warning("features not readable", error=str(error))
            return None
