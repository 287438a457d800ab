from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Criticality(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CRITICALITY_UNSPECIFIED: _ClassVar[Criticality]
    CRITICAL: _ClassVar[Criticality]
    DEFAULT: _ClassVar[Criticality]
    SHEDDABLE: _ClassVar[Criticality]

class Role(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ROLE_UNSPECIFIED: _ClassVar[Role]
    PRODUCTION: _ClassVar[Role]
    CANARY: _ClassVar[Role]
    PINNED: _ClassVar[Role]
    FALLBACK: _ClassVar[Role]

class RowFlag(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ROW_OK: _ClassVar[RowFlag]
    MISSING: _ClassVar[RowFlag]
    STALE: _ClassVar[RowFlag]
    DEFAULTED: _ClassVar[RowFlag]
    DEGRADED: _ClassVar[RowFlag]
    NOT_STICKY: _ClassVar[RowFlag]
CRITICALITY_UNSPECIFIED: Criticality
CRITICAL: Criticality
DEFAULT: Criticality
SHEDDABLE: Criticality
ROLE_UNSPECIFIED: Role
PRODUCTION: Role
CANARY: Role
PINNED: Role
FALLBACK: Role
ROW_OK: RowFlag
MISSING: RowFlag
STALE: RowFlag
DEFAULTED: RowFlag
DEGRADED: RowFlag
NOT_STICKY: RowFlag

class PredictRequest(_message.Message):
    __slots__ = ("model", "rows", "version", "sticky_key", "contract", "request_id", "criticality")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STICKY_KEY_FIELD_NUMBER: _ClassVar[int]
    CONTRACT_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    CRITICALITY_FIELD_NUMBER: _ClassVar[int]
    model: str
    rows: _containers.RepeatedCompositeFieldContainer[Row]
    version: str
    sticky_key: str
    contract: int
    request_id: str
    criticality: Criticality
    def __init__(self, model: _Optional[str] = ..., rows: _Optional[_Iterable[_Union[Row, _Mapping]]] = ..., version: _Optional[str] = ..., sticky_key: _Optional[str] = ..., contract: _Optional[int] = ..., request_id: _Optional[str] = ..., criticality: _Optional[_Union[Criticality, str]] = ...) -> None: ...

class Row(_message.Message):
    __slots__ = ("keys", "inputs", "named", "named_text")
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
    KEYS_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    NAMED_FIELD_NUMBER: _ClassVar[int]
    NAMED_TEXT_FIELD_NUMBER: _ClassVar[int]
    keys: _containers.RepeatedScalarFieldContainer[str]
    inputs: _containers.RepeatedScalarFieldContainer[float]
    named: _containers.ScalarMap[str, float]
    named_text: _containers.ScalarMap[str, str]
    def __init__(self, keys: _Optional[_Iterable[str]] = ..., inputs: _Optional[_Iterable[float]] = ..., named: _Optional[_Mapping[str, float]] = ..., named_text: _Optional[_Mapping[str, str]] = ...) -> None: ...

class PredictReply(_message.Message):
    __slots__ = ("request_id", "model", "version", "role", "prediction_id", "holdout", "scores", "outputs", "row_flags")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    PREDICTION_ID_FIELD_NUMBER: _ClassVar[int]
    HOLDOUT_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    ROW_FLAGS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    model: str
    version: str
    role: Role
    prediction_id: bytes
    holdout: bool
    scores: _containers.RepeatedScalarFieldContainer[float]
    outputs: int
    row_flags: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, request_id: _Optional[str] = ..., model: _Optional[str] = ..., version: _Optional[str] = ..., role: _Optional[_Union[Role, str]] = ..., prediction_id: _Optional[bytes] = ..., holdout: _Optional[bool] = ..., scores: _Optional[_Iterable[float]] = ..., outputs: _Optional[int] = ..., row_flags: _Optional[_Iterable[int]] = ...) -> None: ...

class StreamReply(_message.Message):
    __slots__ = ("request_id", "reply", "status")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    REPLY_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    reply: PredictReply
    status: StreamStatus
    def __init__(self, request_id: _Optional[str] = ..., reply: _Optional[_Union[PredictReply, _Mapping]] = ..., status: _Optional[_Union[StreamStatus, _Mapping]] = ...) -> None: ...

class StreamStatus(_message.Message):
    __slots__ = ("code", "message")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    code: int
    message: str
    def __init__(self, code: _Optional[int] = ..., message: _Optional[str] = ...) -> None: ...

class OutcomeRequest(_message.Message):
    __slots__ = ("prediction_id", "model", "keys", "row", "name", "value", "event_time_ms", "idempotency_key")
    PREDICTION_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    ROW_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    EVENT_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    prediction_id: bytes
    model: str
    keys: _containers.RepeatedScalarFieldContainer[str]
    row: int
    name: str
    value: float
    event_time_ms: int
    idempotency_key: str
    def __init__(self, prediction_id: _Optional[bytes] = ..., model: _Optional[str] = ..., keys: _Optional[_Iterable[str]] = ..., row: _Optional[int] = ..., name: _Optional[str] = ..., value: _Optional[float] = ..., event_time_ms: _Optional[int] = ..., idempotency_key: _Optional[str] = ...) -> None: ...

class OutcomeReply(_message.Message):
    __slots__ = ("attribution", "duplicate")
    class Attribution(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        UNSPECIFIED: _ClassVar[OutcomeReply.Attribution]
        BY_PREDICTION_ID: _ClassVar[OutcomeReply.Attribution]
        BY_ENTITY_LATER: _ClassVar[OutcomeReply.Attribution]
    UNSPECIFIED: OutcomeReply.Attribution
    BY_PREDICTION_ID: OutcomeReply.Attribution
    BY_ENTITY_LATER: OutcomeReply.Attribution
    ATTRIBUTION_FIELD_NUMBER: _ClassVar[int]
    DUPLICATE_FIELD_NUMBER: _ClassVar[int]
    attribution: OutcomeReply.Attribution
    duplicate: bool
    def __init__(self, attribution: _Optional[_Union[OutcomeReply.Attribution, str]] = ..., duplicate: _Optional[bool] = ...) -> None: ...

class DescribeRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class ModelDescription(_message.Message):
    __slots__ = ("model", "entities", "inputs", "input_contract", "outputs", "versions", "revision", "rows_max", "deadline_ms_default")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    ENTITIES_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    INPUT_CONTRACT_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    ROWS_MAX_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_MS_DEFAULT_FIELD_NUMBER: _ClassVar[int]
    model: str
    entities: _containers.RepeatedScalarFieldContainer[str]
    inputs: _containers.RepeatedCompositeFieldContainer[RequestInput]
    input_contract: bytes
    outputs: _containers.RepeatedScalarFieldContainer[str]
    versions: _containers.RepeatedCompositeFieldContainer[DeployedVersion]
    revision: int
    rows_max: int
    deadline_ms_default: int
    def __init__(self, model: _Optional[str] = ..., entities: _Optional[_Iterable[str]] = ..., inputs: _Optional[_Iterable[_Union[RequestInput, _Mapping]]] = ..., input_contract: _Optional[bytes] = ..., outputs: _Optional[_Iterable[str]] = ..., versions: _Optional[_Iterable[_Union[DeployedVersion, _Mapping]]] = ..., revision: _Optional[int] = ..., rows_max: _Optional[int] = ..., deadline_ms_default: _Optional[int] = ...) -> None: ...

class RequestInput(_message.Message):
    __slots__ = ("name", "dictionary", "default_value")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DICTIONARY_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_VALUE_FIELD_NUMBER: _ClassVar[int]
    name: str
    dictionary: _containers.RepeatedScalarFieldContainer[str]
    default_value: float
    def __init__(self, name: _Optional[str] = ..., dictionary: _Optional[_Iterable[str]] = ..., default_value: _Optional[float] = ...) -> None: ...

class DeployedVersion(_message.Message):
    __slots__ = ("version", "digest", "role", "share_bp", "model_contract")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    SHARE_BP_FIELD_NUMBER: _ClassVar[int]
    MODEL_CONTRACT_FIELD_NUMBER: _ClassVar[int]
    version: str
    digest: str
    role: str
    share_bp: int
    model_contract: str
    def __init__(self, version: _Optional[str] = ..., digest: _Optional[str] = ..., role: _Optional[str] = ..., share_bp: _Optional[int] = ..., model_contract: _Optional[str] = ...) -> None: ...
