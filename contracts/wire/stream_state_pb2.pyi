from contracts.wire import events_pb2 as _events_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RequestState(_message.Message):
    __slots__ = ("exposed", "user_id", "time_ms", "arm", "item_ids", "outcomes", "event_ids", "held", "model", "snapshot_version", "propensities", "served_only", "impressions")
    class PropensitiesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: float
        def __init__(self, key: _Optional[int] = ..., value: _Optional[float] = ...) -> None: ...
    class ImpressionsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: int
        def __init__(self, key: _Optional[int] = ..., value: _Optional[int] = ...) -> None: ...
    EXPOSED_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    TIME_MS_FIELD_NUMBER: _ClassVar[int]
    ARM_FIELD_NUMBER: _ClassVar[int]
    ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    EVENT_IDS_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_VERSION_FIELD_NUMBER: _ClassVar[int]
    PROPENSITIES_FIELD_NUMBER: _ClassVar[int]
    SERVED_ONLY_FIELD_NUMBER: _ClassVar[int]
    IMPRESSIONS_FIELD_NUMBER: _ClassVar[int]
    exposed: bool
    user_id: int
    time_ms: int
    arm: str
    item_ids: _containers.RepeatedScalarFieldContainer[int]
    outcomes: _containers.RepeatedCompositeFieldContainer[OutcomeState]
    event_ids: _containers.RepeatedScalarFieldContainer[str]
    held: _containers.RepeatedCompositeFieldContainer[HeldFeedback]
    model: str
    snapshot_version: str
    propensities: _containers.ScalarMap[int, float]
    served_only: bool
    impressions: _containers.ScalarMap[int, int]
    def __init__(self, exposed: bool = ..., user_id: _Optional[int] = ..., time_ms: _Optional[int] = ..., arm: _Optional[str] = ..., item_ids: _Optional[_Iterable[int]] = ..., outcomes: _Optional[_Iterable[_Union[OutcomeState, _Mapping]]] = ..., event_ids: _Optional[_Iterable[str]] = ..., held: _Optional[_Iterable[_Union[HeldFeedback, _Mapping]]] = ..., model: _Optional[str] = ..., snapshot_version: _Optional[str] = ..., propensities: _Optional[_Mapping[int, float]] = ..., served_only: bool = ..., impressions: _Optional[_Mapping[int, int]] = ...) -> None: ...

class OutcomeState(_message.Message):
    __slots__ = ("item_id", "time_ms", "play_time_ms", "effective_view", "follow")
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    TIME_MS_FIELD_NUMBER: _ClassVar[int]
    PLAY_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    EFFECTIVE_VIEW_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    item_id: int
    time_ms: int
    play_time_ms: int
    effective_view: bool
    follow: bool
    def __init__(self, item_id: _Optional[int] = ..., time_ms: _Optional[int] = ..., play_time_ms: _Optional[int] = ..., effective_view: bool = ..., follow: bool = ...) -> None: ...

class HeldFeedback(_message.Message):
    __slots__ = ("offset", "key", "value", "timestamp_ms", "sent_at_ms")
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_MS_FIELD_NUMBER: _ClassVar[int]
    SENT_AT_MS_FIELD_NUMBER: _ClassVar[int]
    offset: int
    key: bytes
    value: bytes
    timestamp_ms: int
    sent_at_ms: int
    def __init__(self, offset: _Optional[int] = ..., key: _Optional[bytes] = ..., value: _Optional[bytes] = ..., timestamp_ms: _Optional[int] = ..., sent_at_ms: _Optional[int] = ...) -> None: ...

class UserState(_message.Message):
    __slots__ = ("history", "dropped", "next_offset", "row_us", "open")
    HISTORY_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    NEXT_OFFSET_FIELD_NUMBER: _ClassVar[int]
    ROW_US_FIELD_NUMBER: _ClassVar[int]
    OPEN_FIELD_NUMBER: _ClassVar[int]
    history: _events_pb2.History
    dropped: int
    next_offset: int
    row_us: int
    open: bool
    def __init__(self, history: _Optional[_Union[_events_pb2.History, _Mapping]] = ..., dropped: _Optional[int] = ..., next_offset: _Optional[int] = ..., row_us: _Optional[int] = ..., open: bool = ...) -> None: ...

class PartitionPosition(_message.Message):
    __slots__ = ("exposures", "feedback", "newest_exposure_ms", "newest_feedback_ms", "examples_end", "dead_letters_end", "items", "held", "imported", "erase", "keep_users_ms")
    EXPOSURES_FIELD_NUMBER: _ClassVar[int]
    FEEDBACK_FIELD_NUMBER: _ClassVar[int]
    NEWEST_EXPOSURE_MS_FIELD_NUMBER: _ClassVar[int]
    NEWEST_FEEDBACK_MS_FIELD_NUMBER: _ClassVar[int]
    EXAMPLES_END_FIELD_NUMBER: _ClassVar[int]
    DEAD_LETTERS_END_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    IMPORTED_FIELD_NUMBER: _ClassVar[int]
    ERASE_FIELD_NUMBER: _ClassVar[int]
    KEEP_USERS_MS_FIELD_NUMBER: _ClassVar[int]
    exposures: int
    feedback: int
    newest_exposure_ms: int
    newest_feedback_ms: int
    examples_end: int
    dead_letters_end: int
    items: int
    held: int
    imported: ImportPosition
    erase: bool
    keep_users_ms: int
    def __init__(self, exposures: _Optional[int] = ..., feedback: _Optional[int] = ..., newest_exposure_ms: _Optional[int] = ..., newest_feedback_ms: _Optional[int] = ..., examples_end: _Optional[int] = ..., dead_letters_end: _Optional[int] = ..., items: _Optional[int] = ..., held: _Optional[int] = ..., imported: _Optional[_Union[ImportPosition, _Mapping]] = ..., erase: bool = ..., keep_users_ms: _Optional[int] = ...) -> None: ...

class ImportPosition(_message.Message):
    __slots__ = ("digest", "events", "begun_ms", "done")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    BEGUN_MS_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    digest: str
    events: int
    begun_ms: int
    done: bool
    def __init__(self, digest: _Optional[str] = ..., events: _Optional[int] = ..., begun_ms: _Optional[int] = ..., done: bool = ...) -> None: ...

class Outbox(_message.Message):
    __slots__ = ("examples", "dead_letters", "user_ids", "forgotten_ids", "expired_ids")
    EXAMPLES_FIELD_NUMBER: _ClassVar[int]
    DEAD_LETTERS_FIELD_NUMBER: _ClassVar[int]
    USER_IDS_FIELD_NUMBER: _ClassVar[int]
    FORGOTTEN_IDS_FIELD_NUMBER: _ClassVar[int]
    EXPIRED_IDS_FIELD_NUMBER: _ClassVar[int]
    examples: _containers.RepeatedCompositeFieldContainer[OutgoingExample]
    dead_letters: _containers.RepeatedCompositeFieldContainer[OutgoingLetter]
    user_ids: _containers.RepeatedScalarFieldContainer[int]
    forgotten_ids: _containers.RepeatedScalarFieldContainer[int]
    expired_ids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, examples: _Optional[_Iterable[_Union[OutgoingExample, _Mapping]]] = ..., dead_letters: _Optional[_Iterable[_Union[OutgoingLetter, _Mapping]]] = ..., user_ids: _Optional[_Iterable[int]] = ..., forgotten_ids: _Optional[_Iterable[int]] = ..., expired_ids: _Optional[_Iterable[int]] = ...) -> None: ...

class ForgottenUsers(_message.Message):
    __slots__ = ("salt", "users")
    SALT_FIELD_NUMBER: _ClassVar[int]
    USERS_FIELD_NUMBER: _ClassVar[int]
    salt: bytes
    users: _containers.RepeatedCompositeFieldContainer[ForgottenUser]
    def __init__(self, salt: _Optional[bytes] = ..., users: _Optional[_Iterable[_Union[ForgottenUser, _Mapping]]] = ...) -> None: ...

class ForgottenUser(_message.Message):
    __slots__ = ("hash", "exposures_end", "until_ms")
    HASH_FIELD_NUMBER: _ClassVar[int]
    EXPOSURES_END_FIELD_NUMBER: _ClassVar[int]
    UNTIL_MS_FIELD_NUMBER: _ClassVar[int]
    hash: bytes
    exposures_end: int
    until_ms: int
    def __init__(self, hash: _Optional[bytes] = ..., exposures_end: _Optional[int] = ..., until_ms: _Optional[int] = ...) -> None: ...

class OutgoingExample(_message.Message):
    __slots__ = ("event_id", "key", "value", "timestamp_ms")
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_MS_FIELD_NUMBER: _ClassVar[int]
    event_id: str
    key: bytes
    value: bytes
    timestamp_ms: int
    def __init__(self, event_id: _Optional[str] = ..., key: _Optional[bytes] = ..., value: _Optional[bytes] = ..., timestamp_ms: _Optional[int] = ...) -> None: ...

class OutgoingLetter(_message.Message):
    __slots__ = ("topic", "partition", "offset", "key", "value", "timestamp_ms")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_MS_FIELD_NUMBER: _ClassVar[int]
    topic: str
    partition: int
    offset: int
    key: bytes
    value: bytes
    timestamp_ms: int
    def __init__(self, topic: _Optional[str] = ..., partition: _Optional[int] = ..., offset: _Optional[int] = ..., key: _Optional[bytes] = ..., value: _Optional[bytes] = ..., timestamp_ms: _Optional[int] = ...) -> None: ...
