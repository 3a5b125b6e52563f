"""The stream's steps on a log in memory: exposures and feedback in, examples and users' rows out."""

from dataclasses import replace
from typing import Any

import numpy as np

from contracts.config.settings import StreamSettings
from contracts.kafka import bus
from contracts.messages.events import BadEvent, decode_exposure, decode_feedback
from contracts.wire.events_pb2 import Example, Exposure, Feedback
from feature_repo.row import SEQUENCES, UserRow
from stream.deliver import row_of
from stream.join import Origin
from stream.outputs import Learned, Output, Rejected
from stream.state import MemoryState
from stream.step import on_exposure, on_feedback, on_time, watermark
from world.records import Record


class Join:
    """One partition of the stream."""

    def __init__(self, settings: StreamSettings) -> None:
        self._settings = settings
        self._state = MemoryState()
        self._offset = 0
        self.known_items: set[int] = set()
        self.rejected = 0  # events that the stream would have sent to the dead-letter topic

    def take(self, record: Record) -> Example | None:
        """Step through the next record of the log; the example that it makes, if it makes one."""
        origin = Origin(record.topic, 0, self._offset, None, record.value, record.received_ms, record.received_ms)
        self._offset += 1
        example = None
        for output in self._outputs(record, origin):
            if isinstance(output, Learned) and output.example is not None:
                example = output.example  # feedback comes after its exposure here, so there is one at most
            self.rejected += isinstance(output, Rejected)
        return example

    def forget(self) -> None:
        """Let what has expired go, as the stream does after each batch."""
        for output in on_time(self._state, watermark(self._state, self._settings), self._settings):
            self.rejected += isinstance(output, Rejected)

    def row(self, user_id: int) -> UserRow | None:
        """A user's features as Feast would give them back now."""
        user = self._state.user(user_id)
        if user is None:
            return None
        row = row_of(user_id, user)  # its sequences are the history's own, and go on growing
        read: dict[str, Any] = {name: np.array(list(getattr(row, name)), np.int64) for name in SEQUENCES}
        return replace(row, **read)

    def _outputs(self, record: Record, origin: Origin) -> list[Output]:
        try:
            event = self._decoded(record)
        except BadEvent as error:
            return [Rejected(origin, error)]
        if isinstance(event, Exposure):
            return on_exposure(self._state, event, origin, self._settings)
        return on_feedback(self._state, event, origin, self._settings, self.known_items)

    def _decoded(self, record: Record) -> Exposure | Feedback:
        decode = decode_exposure if record.topic == bus.EXPOSURES else decode_feedback
        return decode(
            record.value,
            received_ms=record.received_ms,
            future_tolerance_ms=self._settings.future_tolerance_ms,
            max_bytes=self._settings.max_event_bytes,
        )
