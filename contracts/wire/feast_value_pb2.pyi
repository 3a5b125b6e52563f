from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class FeastValue(_message.Message):
    __slots__ = ("int64_val", "int64_list_val")
    INT64_VAL_FIELD_NUMBER: _ClassVar[int]
    INT64_LIST_VAL_FIELD_NUMBER: _ClassVar[int]
    int64_val: int
    int64_list_val: FeastInt64List
    def __init__(self, int64_val: _Optional[int] = ..., int64_list_val: _Optional[_Union[FeastInt64List, _Mapping]] = ...) -> None: ...

class FeastInt64List(_message.Message):
    __slots__ = ("val",)
    VAL_FIELD_NUMBER: _ClassVar[int]
    val: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, val: _Optional[_Iterable[int]] = ...) -> None: ...

class FeastRegistry(_message.Message):
    __slots__ = ("feature_views",)
    FEATURE_VIEWS_FIELD_NUMBER: _ClassVar[int]
    feature_views: _containers.RepeatedCompositeFieldContainer[FeastFeatureView]
    def __init__(self, feature_views: _Optional[_Iterable[_Union[FeastFeatureView, _Mapping]]] = ...) -> None: ...

class FeastFeatureView(_message.Message):
    __slots__ = ("spec",)
    SPEC_FIELD_NUMBER: _ClassVar[int]
    spec: FeastFeatureViewSpec
    def __init__(self, spec: _Optional[_Union[FeastFeatureViewSpec, _Mapping]] = ...) -> None: ...

class FeastFeatureViewSpec(_message.Message):
    __slots__ = ("name", "project", "features", "entity_columns")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    ENTITY_COLUMNS_FIELD_NUMBER: _ClassVar[int]
    name: str
    project: str
    features: _containers.RepeatedCompositeFieldContainer[FeastFeature]
    entity_columns: _containers.RepeatedCompositeFieldContainer[FeastFeature]
    def __init__(self, name: _Optional[str] = ..., project: _Optional[str] = ..., features: _Optional[_Iterable[_Union[FeastFeature, _Mapping]]] = ..., entity_columns: _Optional[_Iterable[_Union[FeastFeature, _Mapping]]] = ...) -> None: ...

class FeastFeature(_message.Message):
    __slots__ = ("name", "value_type")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_TYPE_FIELD_NUMBER: _ClassVar[int]
    name: str
    value_type: int
    def __init__(self, name: _Optional[str] = ..., value_type: _Optional[int] = ...) -> None: ...
