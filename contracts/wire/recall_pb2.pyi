from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RecallRequest(_message.Message):
    __slots__ = ("user_id", "k", "context", "request_id")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    user_id: int
    k: int
    context: Context
    request_id: str
    def __init__(self, user_id: _Optional[int] = ..., k: _Optional[int] = ..., context: _Optional[_Union[Context, _Mapping]] = ..., request_id: _Optional[str] = ...) -> None: ...

class Context(_message.Message):
    __slots__ = ("time_ms", "simulated", "explain")
    TIME_MS_FIELD_NUMBER: _ClassVar[int]
    SIMULATED_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_FIELD_NUMBER: _ClassVar[int]
    time_ms: int
    simulated: bool
    explain: bool
    def __init__(self, time_ms: _Optional[int] = ..., simulated: _Optional[bool] = ..., explain: _Optional[bool] = ...) -> None: ...

class RecallReply(_message.Message):
    __slots__ = ("request_id", "experiment", "arm", "model", "snapshot_version", "items", "fallback", "user_vector")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    EXPERIMENT_FIELD_NUMBER: _ClassVar[int]
    ARM_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_VERSION_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    FALLBACK_FIELD_NUMBER: _ClassVar[int]
    USER_VECTOR_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    experiment: str
    arm: str
    model: str
    snapshot_version: str
    items: _containers.RepeatedCompositeFieldContainer[RecalledItem]
    fallback: str
    user_vector: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, request_id: _Optional[str] = ..., experiment: _Optional[str] = ..., arm: _Optional[str] = ..., model: _Optional[str] = ..., snapshot_version: _Optional[str] = ..., items: _Optional[_Iterable[_Union[RecalledItem, _Mapping]]] = ..., fallback: _Optional[str] = ..., user_vector: _Optional[_Iterable[float]] = ...) -> None: ...

class RecalledItem(_message.Message):
    __slots__ = ("item_id", "score", "source")
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    item_id: int
    score: float
    source: str
    def __init__(self, item_id: _Optional[int] = ..., score: _Optional[float] = ..., source: _Optional[str] = ...) -> None: ...
