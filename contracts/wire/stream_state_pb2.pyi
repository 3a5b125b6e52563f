from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RequestState(_message.Message):
    __slots__ = ("exposed", "user_id", "time_ms", "arm", "item_ids", "outcomes", "event_ids", "held")
    EXPOSED_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    TIME_MS_FIELD_NUMBER: _ClassVar[int]
    ARM_FIELD_NUMBER: _ClassVar[int]
    ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    EVENT_IDS_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    exposed: bool
    user_id: int
    time_ms: int
    arm: str
    item_ids: _containers.RepeatedScalarFieldContainer[int]
    outcomes: _containers.RepeatedCompositeFieldContainer[OutcomeState]
    event_ids: _containers.RepeatedScalarFieldContainer[str]
    held: _containers.RepeatedCompositeFieldContainer[HeldFeedback]
    def __init__(self, exposed: _Optional[bool] = ..., user_id: _Optional[int] = ..., time_ms: _Optional[int] = ..., arm: _Optional[str] = ..., item_ids: _Optional[_Iterable[int]] = ..., outcomes: _Optional[_Iterable[_Union[OutcomeState, _Mapping]]] = ..., event_ids: _Optional[_Iterable[str]] = ..., held: _Optional[_Iterable[_Union[HeldFeedback, _Mapping]]] = ...) -> None: ...

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
    def __init__(self, item_id: _Optional[int] = ..., time_ms: _Optional[int] = ..., play_time_ms: _Optional[int] = ..., effective_view: _Optional[bool] = ..., follow: _Optional[bool] = ...) -> None: ...

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
