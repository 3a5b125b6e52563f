from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Item(_message.Message):
    __slots__ = ("schema_version", "item_id", "category_ids", "duration_ms", "expires_ms", "blocked", "item_key")
    SCHEMA_VERSION_FIELD_NUMBER: _ClassVar[int]
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    CATEGORY_IDS_FIELD_NUMBER: _ClassVar[int]
    DURATION_MS_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_MS_FIELD_NUMBER: _ClassVar[int]
    BLOCKED_FIELD_NUMBER: _ClassVar[int]
    ITEM_KEY_FIELD_NUMBER: _ClassVar[int]
    schema_version: int
    item_id: int
    category_ids: _containers.RepeatedScalarFieldContainer[int]
    duration_ms: int
    expires_ms: int
    blocked: bool
    item_key: str
    def __init__(self, schema_version: _Optional[int] = ..., item_id: _Optional[int] = ..., category_ids: _Optional[_Iterable[int]] = ..., duration_ms: _Optional[int] = ..., expires_ms: _Optional[int] = ..., blocked: bool = ..., item_key: _Optional[str] = ...) -> None: ...

class Exposure(_message.Message):
    __slots__ = ("schema_version", "event_id", "request_id", "user_id", "time_ms", "experiment", "arm", "model", "snapshot_version", "items", "simulated", "snapshot_versions", "replica", "answer_ms", "model_time_ms", "served_only", "user_key", "experiment_hash")
    class SnapshotVersionsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    SCHEMA_VERSION_FIELD_NUMBER: _ClassVar[int]
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    TIME_MS_FIELD_NUMBER: _ClassVar[int]
    EXPERIMENT_FIELD_NUMBER: _ClassVar[int]
    ARM_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_VERSION_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    SIMULATED_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_VERSIONS_FIELD_NUMBER: _ClassVar[int]
    REPLICA_FIELD_NUMBER: _ClassVar[int]
    ANSWER_MS_FIELD_NUMBER: _ClassVar[int]
    MODEL_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    SERVED_ONLY_FIELD_NUMBER: _ClassVar[int]
    USER_KEY_FIELD_NUMBER: _ClassVar[int]
    EXPERIMENT_HASH_FIELD_NUMBER: _ClassVar[int]
    schema_version: int
    event_id: str
    request_id: str
    user_id: int
    time_ms: int
    experiment: str
    arm: str
    model: str
    snapshot_version: str
    items: _containers.RepeatedCompositeFieldContainer[ExposedItem]
    simulated: bool
    snapshot_versions: _containers.ScalarMap[str, str]
    replica: str
    answer_ms: float
    model_time_ms: int
    served_only: bool
    user_key: str
    experiment_hash: str
    def __init__(self, schema_version: _Optional[int] = ..., event_id: _Optional[str] = ..., request_id: _Optional[str] = ..., user_id: _Optional[int] = ..., time_ms: _Optional[int] = ..., experiment: _Optional[str] = ..., arm: _Optional[str] = ..., model: _Optional[str] = ..., snapshot_version: _Optional[str] = ..., items: _Optional[_Iterable[_Union[ExposedItem, _Mapping]]] = ..., simulated: bool = ..., snapshot_versions: _Optional[_Mapping[str, str]] = ..., replica: _Optional[str] = ..., answer_ms: _Optional[float] = ..., model_time_ms: _Optional[int] = ..., served_only: bool = ..., user_key: _Optional[str] = ..., experiment_hash: _Optional[str] = ...) -> None: ...

class ExposedItem(_message.Message):
    __slots__ = ("item_id", "source", "score", "propensity", "item_key")
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    PROPENSITY_FIELD_NUMBER: _ClassVar[int]
    ITEM_KEY_FIELD_NUMBER: _ClassVar[int]
    item_id: int
    source: str
    score: float
    propensity: float
    item_key: str
    def __init__(self, item_id: _Optional[int] = ..., source: _Optional[str] = ..., score: _Optional[float] = ..., propensity: _Optional[float] = ..., item_key: _Optional[str] = ...) -> None: ...

class Feedback(_message.Message):
    __slots__ = ("schema_version", "event_id", "request_id", "user_id", "item_id", "time_ms", "play_time_ms", "effective_view", "follow", "simulated", "shown_item_ids", "user_key", "item_key", "shown_item_keys", "forget")
    SCHEMA_VERSION_FIELD_NUMBER: _ClassVar[int]
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    TIME_MS_FIELD_NUMBER: _ClassVar[int]
    PLAY_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    EFFECTIVE_VIEW_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    SIMULATED_FIELD_NUMBER: _ClassVar[int]
    SHOWN_ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    USER_KEY_FIELD_NUMBER: _ClassVar[int]
    ITEM_KEY_FIELD_NUMBER: _ClassVar[int]
    SHOWN_ITEM_KEYS_FIELD_NUMBER: _ClassVar[int]
    FORGET_FIELD_NUMBER: _ClassVar[int]
    schema_version: int
    event_id: str
    request_id: str
    user_id: int
    item_id: int
    time_ms: int
    play_time_ms: int
    effective_view: bool
    follow: bool
    simulated: bool
    shown_item_ids: _containers.RepeatedScalarFieldContainer[int]
    user_key: str
    item_key: str
    shown_item_keys: _containers.RepeatedScalarFieldContainer[str]
    forget: Forget
    def __init__(self, schema_version: _Optional[int] = ..., event_id: _Optional[str] = ..., request_id: _Optional[str] = ..., user_id: _Optional[int] = ..., item_id: _Optional[int] = ..., time_ms: _Optional[int] = ..., play_time_ms: _Optional[int] = ..., effective_view: bool = ..., follow: bool = ..., simulated: bool = ..., shown_item_ids: _Optional[_Iterable[int]] = ..., user_key: _Optional[str] = ..., item_key: _Optional[str] = ..., shown_item_keys: _Optional[_Iterable[str]] = ..., forget: _Optional[_Union[Forget, _Mapping]] = ...) -> None: ...

class Forget(_message.Message):
    __slots__ = ("exposures_end", "salt")
    EXPOSURES_END_FIELD_NUMBER: _ClassVar[int]
    SALT_FIELD_NUMBER: _ClassVar[int]
    exposures_end: int
    salt: bytes
    def __init__(self, exposures_end: _Optional[int] = ..., salt: _Optional[bytes] = ...) -> None: ...

class History(_message.Message):
    __slots__ = ("item_ids", "times_ms", "play_times_ms", "effective_views", "follows", "sessions")
    ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    TIMES_MS_FIELD_NUMBER: _ClassVar[int]
    PLAY_TIMES_MS_FIELD_NUMBER: _ClassVar[int]
    EFFECTIVE_VIEWS_FIELD_NUMBER: _ClassVar[int]
    FOLLOWS_FIELD_NUMBER: _ClassVar[int]
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    item_ids: _containers.RepeatedScalarFieldContainer[int]
    times_ms: _containers.RepeatedScalarFieldContainer[int]
    play_times_ms: _containers.RepeatedScalarFieldContainer[int]
    effective_views: _containers.RepeatedScalarFieldContainer[bool]
    follows: _containers.RepeatedScalarFieldContainer[bool]
    sessions: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, item_ids: _Optional[_Iterable[int]] = ..., times_ms: _Optional[_Iterable[int]] = ..., play_times_ms: _Optional[_Iterable[int]] = ..., effective_views: _Optional[_Iterable[bool]] = ..., follows: _Optional[_Iterable[bool]] = ..., sessions: _Optional[_Iterable[int]] = ...) -> None: ...

class Example(_message.Message):
    __slots__ = ("schema_version", "event_id", "request_id", "user_id", "item_id", "time_ms", "arm", "history", "sent_at_ms", "play_time_ms", "follow", "session", "page", "model", "snapshot_version", "forget")
    SCHEMA_VERSION_FIELD_NUMBER: _ClassVar[int]
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    TIME_MS_FIELD_NUMBER: _ClassVar[int]
    ARM_FIELD_NUMBER: _ClassVar[int]
    HISTORY_FIELD_NUMBER: _ClassVar[int]
    SENT_AT_MS_FIELD_NUMBER: _ClassVar[int]
    PLAY_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    PAGE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_VERSION_FIELD_NUMBER: _ClassVar[int]
    FORGET_FIELD_NUMBER: _ClassVar[int]
    schema_version: int
    event_id: str
    request_id: str
    user_id: int
    item_id: int
    time_ms: int
    arm: str
    history: History
    sent_at_ms: int
    play_time_ms: int
    follow: bool
    session: int
    page: Page
    model: str
    snapshot_version: str
    forget: Forget
    def __init__(self, schema_version: _Optional[int] = ..., event_id: _Optional[str] = ..., request_id: _Optional[str] = ..., user_id: _Optional[int] = ..., item_id: _Optional[int] = ..., time_ms: _Optional[int] = ..., arm: _Optional[str] = ..., history: _Optional[_Union[History, _Mapping]] = ..., sent_at_ms: _Optional[int] = ..., play_time_ms: _Optional[int] = ..., follow: bool = ..., session: _Optional[int] = ..., page: _Optional[_Union[Page, _Mapping]] = ..., model: _Optional[str] = ..., snapshot_version: _Optional[str] = ..., forget: _Optional[_Union[Forget, _Mapping]] = ...) -> None: ...

class Page(_message.Message):
    __slots__ = ("item_ids", "effective_views", "propensities")
    ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    EFFECTIVE_VIEWS_FIELD_NUMBER: _ClassVar[int]
    PROPENSITIES_FIELD_NUMBER: _ClassVar[int]
    item_ids: _containers.RepeatedScalarFieldContainer[int]
    effective_views: _containers.RepeatedScalarFieldContainer[bool]
    propensities: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, item_ids: _Optional[_Iterable[int]] = ..., effective_views: _Optional[_Iterable[bool]] = ..., propensities: _Optional[_Iterable[float]] = ...) -> None: ...

class DeadLetter(_message.Message):
    __slots__ = ("schema_version", "reason", "detail", "topic", "partition", "offset", "key", "value", "timestamp_ms")
    SCHEMA_VERSION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_MS_FIELD_NUMBER: _ClassVar[int]
    schema_version: int
    reason: str
    detail: str
    topic: str
    partition: int
    offset: int
    key: bytes
    value: bytes
    timestamp_ms: int
    def __init__(self, schema_version: _Optional[int] = ..., reason: _Optional[str] = ..., detail: _Optional[str] = ..., topic: _Optional[str] = ..., partition: _Optional[int] = ..., offset: _Optional[int] = ..., key: _Optional[bytes] = ..., value: _Optional[bytes] = ..., timestamp_ms: _Optional[int] = ...) -> None: ...

class ExperimentRecord(_message.Message):
    __slots__ = ("schema_version", "experiment", "experiment_hash", "told_ms", "definition", "change")
    SCHEMA_VERSION_FIELD_NUMBER: _ClassVar[int]
    EXPERIMENT_FIELD_NUMBER: _ClassVar[int]
    EXPERIMENT_HASH_FIELD_NUMBER: _ClassVar[int]
    TOLD_MS_FIELD_NUMBER: _ClassVar[int]
    DEFINITION_FIELD_NUMBER: _ClassVar[int]
    CHANGE_FIELD_NUMBER: _ClassVar[int]
    schema_version: int
    experiment: str
    experiment_hash: str
    told_ms: int
    definition: ExperimentDefinition
    change: ExperimentChange
    def __init__(self, schema_version: _Optional[int] = ..., experiment: _Optional[str] = ..., experiment_hash: _Optional[str] = ..., told_ms: _Optional[int] = ..., definition: _Optional[_Union[ExperimentDefinition, _Mapping]] = ..., change: _Optional[_Union[ExperimentChange, _Mapping]] = ...) -> None: ...

class ExperimentDefinition(_message.Message):
    __slots__ = ("json",)
    JSON_FIELD_NUMBER: _ClassVar[int]
    json: str
    def __init__(self, json: _Optional[str] = ...) -> None: ...

class ExperimentChange(_message.Message):
    __slots__ = ("kind", "from_ms", "share", "by", "why")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        KIND_UNSPECIFIED: _ClassVar[ExperimentChange.Kind]
        KIND_PAUSE: _ClassVar[ExperimentChange.Kind]
        KIND_RESUME: _ClassVar[ExperimentChange.Kind]
        KIND_RAMP: _ClassVar[ExperimentChange.Kind]
        KIND_STOP: _ClassVar[ExperimentChange.Kind]
    KIND_UNSPECIFIED: ExperimentChange.Kind
    KIND_PAUSE: ExperimentChange.Kind
    KIND_RESUME: ExperimentChange.Kind
    KIND_RAMP: ExperimentChange.Kind
    KIND_STOP: ExperimentChange.Kind
    KIND_FIELD_NUMBER: _ClassVar[int]
    FROM_MS_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    BY_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    kind: ExperimentChange.Kind
    from_ms: int
    share: float
    by: str
    why: str
    def __init__(self, kind: _Optional[_Union[ExperimentChange.Kind, str]] = ..., from_ms: _Optional[int] = ..., share: _Optional[float] = ..., by: _Optional[str] = ..., why: _Optional[str] = ...) -> None: ...
