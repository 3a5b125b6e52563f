from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RecallRequest(_message.Message):
    __slots__ = ("user_id", "k", "context", "request_id", "exclude_item_ids", "user_key", "exclude_item_keys")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    EXCLUDE_ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    USER_KEY_FIELD_NUMBER: _ClassVar[int]
    EXCLUDE_ITEM_KEYS_FIELD_NUMBER: _ClassVar[int]
    user_id: int
    k: int
    context: Context
    request_id: str
    exclude_item_ids: _containers.RepeatedScalarFieldContainer[int]
    user_key: str
    exclude_item_keys: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, user_id: _Optional[int] = ..., k: _Optional[int] = ..., context: _Optional[_Union[Context, _Mapping]] = ..., request_id: _Optional[str] = ..., exclude_item_ids: _Optional[_Iterable[int]] = ..., user_key: _Optional[str] = ..., exclude_item_keys: _Optional[_Iterable[str]] = ...) -> None: ...

class Context(_message.Message):
    __slots__ = ("time_ms", "simulated", "explain", "recent_item_ids", "served_only", "recent_item_keys")
    TIME_MS_FIELD_NUMBER: _ClassVar[int]
    SIMULATED_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_FIELD_NUMBER: _ClassVar[int]
    RECENT_ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    SERVED_ONLY_FIELD_NUMBER: _ClassVar[int]
    RECENT_ITEM_KEYS_FIELD_NUMBER: _ClassVar[int]
    time_ms: int
    simulated: bool
    explain: bool
    recent_item_ids: _containers.RepeatedScalarFieldContainer[int]
    served_only: bool
    recent_item_keys: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, time_ms: _Optional[int] = ..., simulated: bool = ..., explain: bool = ..., recent_item_ids: _Optional[_Iterable[int]] = ..., served_only: bool = ..., recent_item_keys: _Optional[_Iterable[str]] = ...) -> None: ...

class RecallReply(_message.Message):
    __slots__ = ("request_id", "experiment", "arm", "model", "snapshot_version", "items", "fallback", "user_vector", "sources", "model_time_ms", "experiment_hash")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    EXPERIMENT_FIELD_NUMBER: _ClassVar[int]
    ARM_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_VERSION_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    FALLBACK_FIELD_NUMBER: _ClassVar[int]
    USER_VECTOR_FIELD_NUMBER: _ClassVar[int]
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    MODEL_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    EXPERIMENT_HASH_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    experiment: str
    arm: str
    model: str
    snapshot_version: str
    items: _containers.RepeatedCompositeFieldContainer[RecalledItem]
    fallback: str
    user_vector: _containers.RepeatedScalarFieldContainer[float]
    sources: _containers.RepeatedCompositeFieldContainer[SourceReport]
    model_time_ms: int
    experiment_hash: str
    def __init__(self, request_id: _Optional[str] = ..., experiment: _Optional[str] = ..., arm: _Optional[str] = ..., model: _Optional[str] = ..., snapshot_version: _Optional[str] = ..., items: _Optional[_Iterable[_Union[RecalledItem, _Mapping]]] = ..., fallback: _Optional[str] = ..., user_vector: _Optional[_Iterable[float]] = ..., sources: _Optional[_Iterable[_Union[SourceReport, _Mapping]]] = ..., model_time_ms: _Optional[int] = ..., experiment_hash: _Optional[str] = ...) -> None: ...

class RecalledItem(_message.Message):
    __slots__ = ("item_id", "score", "source", "propensity", "item_key")
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    PROPENSITY_FIELD_NUMBER: _ClassVar[int]
    ITEM_KEY_FIELD_NUMBER: _ClassVar[int]
    item_id: int
    score: float
    source: str
    propensity: float
    item_key: str
    def __init__(self, item_id: _Optional[int] = ..., score: _Optional[float] = ..., source: _Optional[str] = ..., propensity: _Optional[float] = ..., item_key: _Optional[str] = ...) -> None: ...

class SourceReport(_message.Message):
    __slots__ = ("source", "model", "snapshot_version", "user_vector")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_VERSION_FIELD_NUMBER: _ClassVar[int]
    USER_VECTOR_FIELD_NUMBER: _ClassVar[int]
    source: str
    model: str
    snapshot_version: str
    user_vector: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, source: _Optional[str] = ..., model: _Optional[str] = ..., snapshot_version: _Optional[str] = ..., user_vector: _Optional[_Iterable[float]] = ...) -> None: ...

class RecallBatchRequest(_message.Message):
    __slots__ = ("requests",)
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    requests: _containers.RepeatedCompositeFieldContainer[RecallRequest]
    def __init__(self, requests: _Optional[_Iterable[_Union[RecallRequest, _Mapping]]] = ...) -> None: ...

class RecallBatchReply(_message.Message):
    __slots__ = ("outcomes",)
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    outcomes: _containers.RepeatedCompositeFieldContainer[RecallOutcome]
    def __init__(self, outcomes: _Optional[_Iterable[_Union[RecallOutcome, _Mapping]]] = ...) -> None: ...

class RecallOutcome(_message.Message):
    __slots__ = ("reply", "code", "message")
    REPLY_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    reply: RecallReply
    code: int
    message: str
    def __init__(self, reply: _Optional[_Union[RecallReply, _Mapping]] = ..., code: _Optional[int] = ..., message: _Optional[str] = ...) -> None: ...

class StatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StatusReply(_message.Message):
    __slots__ = ("models", "waiting", "draining", "experiment")
    MODELS_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    EXPERIMENT_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[ModelStatus]
    waiting: int
    draining: bool
    experiment: ExperimentStatus
    def __init__(self, models: _Optional[_Iterable[_Union[ModelStatus, _Mapping]]] = ..., waiting: _Optional[int] = ..., draining: bool = ..., experiment: _Optional[_Union[ExperimentStatus, _Mapping]] = ...) -> None: ...

class ExperimentStatus(_message.Message):
    __slots__ = ("experiment", "experiment_hash", "state", "share", "error")
    EXPERIMENT_FIELD_NUMBER: _ClassVar[int]
    EXPERIMENT_HASH_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    experiment: str
    experiment_hash: str
    state: str
    share: float
    error: str
    def __init__(self, experiment: _Optional[str] = ..., experiment_hash: _Optional[str] = ..., state: _Optional[str] = ..., share: _Optional[float] = ..., error: _Optional[str] = ...) -> None: ...

class ModelStatus(_message.Message):
    __slots__ = ("model", "snapshot_version", "live_version", "error", "items", "index", "canary_version", "canary_share")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_VERSION_FIELD_NUMBER: _ClassVar[int]
    LIVE_VERSION_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    CANARY_VERSION_FIELD_NUMBER: _ClassVar[int]
    CANARY_SHARE_FIELD_NUMBER: _ClassVar[int]
    model: str
    snapshot_version: str
    live_version: str
    error: str
    items: int
    index: str
    canary_version: str
    canary_share: float
    def __init__(self, model: _Optional[str] = ..., snapshot_version: _Optional[str] = ..., live_version: _Optional[str] = ..., error: _Optional[str] = ..., items: _Optional[int] = ..., index: _Optional[str] = ..., canary_version: _Optional[str] = ..., canary_share: _Optional[float] = ...) -> None: ...
