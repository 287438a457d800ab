from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PushRequest(_message.Message):
    __slots__ = ("view", "view_hash", "rows")
    VIEW_FIELD_NUMBER: _ClassVar[int]
    VIEW_HASH_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    view: str
    view_hash: str
    rows: _containers.RepeatedCompositeFieldContainer[PushRow]
    def __init__(self, view: _Optional[str] = ..., view_hash: _Optional[str] = ..., rows: _Optional[_Iterable[_Union[PushRow, _Mapping]]] = ...) -> None: ...

class PushRow(_message.Message):
    __slots__ = ("event_id", "ids", "event_time_ms", "numbers", "texts")
    class NumbersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    class TextsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    EVENT_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    NUMBERS_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    event_id: str
    ids: _containers.RepeatedScalarFieldContainer[str]
    event_time_ms: int
    numbers: _containers.ScalarMap[str, float]
    texts: _containers.ScalarMap[str, str]
    def __init__(self, event_id: _Optional[str] = ..., ids: _Optional[_Iterable[str]] = ..., event_time_ms: _Optional[int] = ..., numbers: _Optional[_Mapping[str, float]] = ..., texts: _Optional[_Mapping[str, str]] = ...) -> None: ...

class PushReply(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[PushResult]
    def __init__(self, results: _Optional[_Iterable[_Union[PushResult, _Mapping]]] = ...) -> None: ...

class PushResult(_message.Message):
    __slots__ = ("status", "reason")
    class Status(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        UNSPECIFIED: _ClassVar[PushResult.Status]
        WRITTEN: _ClassVar[PushResult.Status]
        OLDER: _ClassVar[PushResult.Status]
        DUPLICATE: _ClassVar[PushResult.Status]
        REFUSED: _ClassVar[PushResult.Status]
    UNSPECIFIED: PushResult.Status
    WRITTEN: PushResult.Status
    OLDER: PushResult.Status
    DUPLICATE: PushResult.Status
    REFUSED: PushResult.Status
    STATUS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    status: PushResult.Status
    reason: str
    def __init__(self, status: _Optional[_Union[PushResult.Status, str]] = ..., reason: _Optional[str] = ...) -> None: ...
