"""Why a record cannot be used, as dead letters say it."""

from enum import StrEnum


class Reason(StrEnum):
    """Why a record is in the dead-letter topic."""

    UNREADABLE_BATCH = "unreadable_batch"
    WRONG_PARTITION = "wrong_partition"
    WRONG_KEY = "wrong_key"
    ID_CONFLICT = "id_conflict"
    ID_COLLISION = "id_collision"
    UNDECODABLE = "undecodable"
    UNKNOWN_VERSION = "unknown_version"
    OVERSIZED = "oversized"
    MISSING_FIELD = "missing_field"
    OUT_OF_RANGE = "out_of_range"
    FUTURE_TIMESTAMP = "future_timestamp"
    UNKNOWN_ITEM = "unknown_item"
    TOO_LATE = "too_late"
    NO_EXPOSURE = "no_exposure"
    BEFORE_EXPOSURE = "before_exposure"
    MIXED = "mixed"


class BadEvent(Exception):
    """A record that cannot be used. `reason` is counted, `detail` is for a person."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
