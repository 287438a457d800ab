from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ExplainRequest(_message.Message):
    __slots__ = ("prediction_id", "row", "reasons_max", "model", "version", "vector", "named", "named_text", "output", "language", "without_change")
    class NamedEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    class NamedTextEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    PREDICTION_ID_FIELD_NUMBER: _ClassVar[int]
    ROW_FIELD_NUMBER: _ClassVar[int]
    REASONS_MAX_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    NAMED_FIELD_NUMBER: _ClassVar[int]
    NAMED_TEXT_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    WITHOUT_CHANGE_FIELD_NUMBER: _ClassVar[int]
    prediction_id: bytes
    row: int
    reasons_max: int
    model: str
    version: str
    vector: _containers.RepeatedScalarFieldContainer[float]
    named: _containers.ScalarMap[str, float]
    named_text: _containers.ScalarMap[str, str]
    output: int
    language: str
    without_change: bool
    def __init__(self, prediction_id: _Optional[bytes] = ..., row: _Optional[int] = ..., reasons_max: _Optional[int] = ..., model: _Optional[str] = ..., version: _Optional[str] = ..., vector: _Optional[_Iterable[float]] = ..., named: _Optional[_Mapping[str, float]] = ..., named_text: _Optional[_Mapping[str, str]] = ..., output: _Optional[int] = ..., language: _Optional[str] = ..., without_change: _Optional[bool] = ...) -> None: ...

class ExplainReply(_message.Message):
    __slots__ = ("model", "version", "score", "base", "contributions", "version_digest", "output", "margin", "unit", "background", "explanation_id", "served_unix_ns", "threshold", "decision", "reasons", "reasons_note", "change", "changed_score", "change_note")
    class Decision(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        NOT_KNOWN: _ClassVar[ExplainReply.Decision]
        FAVOURABLE: _ClassVar[ExplainReply.Decision]
        ADVERSE: _ClassVar[ExplainReply.Decision]
    NOT_KNOWN: ExplainReply.Decision
    FAVOURABLE: ExplainReply.Decision
    ADVERSE: ExplainReply.Decision
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    BASE_FIELD_NUMBER: _ClassVar[int]
    CONTRIBUTIONS_FIELD_NUMBER: _ClassVar[int]
    VERSION_DIGEST_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    MARGIN_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    BACKGROUND_FIELD_NUMBER: _ClassVar[int]
    EXPLANATION_ID_FIELD_NUMBER: _ClassVar[int]
    SERVED_UNIX_NS_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    DECISION_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    REASONS_NOTE_FIELD_NUMBER: _ClassVar[int]
    CHANGE_FIELD_NUMBER: _ClassVar[int]
    CHANGED_SCORE_FIELD_NUMBER: _ClassVar[int]
    CHANGE_NOTE_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    score: float
    base: float
    contributions: _containers.RepeatedCompositeFieldContainer[Contribution]
    version_digest: str
    output: str
    margin: float
    unit: str
    background: str
    explanation_id: str
    served_unix_ns: int
    threshold: float
    decision: ExplainReply.Decision
    reasons: _containers.RepeatedCompositeFieldContainer[Reason]
    reasons_note: str
    change: _containers.RepeatedCompositeFieldContainer[ChangedInput]
    changed_score: float
    change_note: str
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., score: _Optional[float] = ..., base: _Optional[float] = ..., contributions: _Optional[_Iterable[_Union[Contribution, _Mapping]]] = ..., version_digest: _Optional[str] = ..., output: _Optional[str] = ..., margin: _Optional[float] = ..., unit: _Optional[str] = ..., background: _Optional[str] = ..., explanation_id: _Optional[str] = ..., served_unix_ns: _Optional[int] = ..., threshold: _Optional[float] = ..., decision: _Optional[_Union[ExplainReply.Decision, str]] = ..., reasons: _Optional[_Iterable[_Union[Reason, _Mapping]]] = ..., reasons_note: _Optional[str] = ..., change: _Optional[_Iterable[_Union[ChangedInput, _Mapping]]] = ..., changed_score: _Optional[float] = ..., change_note: _Optional[str] = ...) -> None: ...

class Contribution(_message.Message):
    __slots__ = ("feature", "value", "contribution", "inputs", "texts")
    FEATURE_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    CONTRIBUTION_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    feature: str
    value: float
    contribution: float
    inputs: _containers.RepeatedScalarFieldContainer[str]
    texts: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, feature: _Optional[str] = ..., value: _Optional[float] = ..., contribution: _Optional[float] = ..., inputs: _Optional[_Iterable[str]] = ..., texts: _Optional[_Iterable[str]] = ...) -> None: ...

class Reason(_message.Message):
    __slots__ = ("group", "inputs", "contribution", "share", "text", "problem")
    GROUP_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    CONTRIBUTION_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    group: str
    inputs: _containers.RepeatedScalarFieldContainer[str]
    contribution: float
    share: float
    text: str
    problem: str
    def __init__(self, group: _Optional[str] = ..., inputs: _Optional[_Iterable[str]] = ..., contribution: _Optional[float] = ..., share: _Optional[float] = ..., text: _Optional[str] = ..., problem: _Optional[str] = ...) -> None: ...

class ChangedInput(_message.Message):
    __slots__ = ("feature", "before", "after")
    FEATURE_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    feature: str
    before: str
    after: str
    def __init__(self, feature: _Optional[str] = ..., before: _Optional[str] = ..., after: _Optional[str] = ...) -> None: ...
