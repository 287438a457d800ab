from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class UnseenRole(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    UNSEEN_ROLE_UNSPECIFIED: _ClassVar[UnseenRole]
    UNSEEN_SHADOW: _ClassVar[UnseenRole]
UNSEEN_ROLE_UNSPECIFIED: UnseenRole
UNSEEN_SHADOW: UnseenRole

class ServedBatch(_message.Message):
    __slots__ = ("model", "version", "version_digest", "revision", "at_unix_ns", "role", "row_count", "prediction_ids", "key_hash", "row_flags", "width", "vectors", "outputs", "scores", "entity_ids", "model_contract", "production_scores")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    VERSION_DIGEST_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    AT_UNIX_NS_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    ROW_COUNT_FIELD_NUMBER: _ClassVar[int]
    PREDICTION_IDS_FIELD_NUMBER: _ClassVar[int]
    KEY_HASH_FIELD_NUMBER: _ClassVar[int]
    ROW_FLAGS_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    ENTITY_IDS_FIELD_NUMBER: _ClassVar[int]
    MODEL_CONTRACT_FIELD_NUMBER: _ClassVar[int]
    PRODUCTION_SCORES_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    version_digest: int
    revision: int
    at_unix_ns: bytes
    role: bytes
    row_count: bytes
    prediction_ids: bytes
    key_hash: bytes
    row_flags: bytes
    width: int
    vectors: bytes
    outputs: int
    scores: bytes
    entity_ids: _containers.RepeatedScalarFieldContainer[str]
    model_contract: str
    production_scores: bytes
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., version_digest: _Optional[int] = ..., revision: _Optional[int] = ..., at_unix_ns: _Optional[bytes] = ..., role: _Optional[bytes] = ..., row_count: _Optional[bytes] = ..., prediction_ids: _Optional[bytes] = ..., key_hash: _Optional[bytes] = ..., row_flags: _Optional[bytes] = ..., width: _Optional[int] = ..., vectors: _Optional[bytes] = ..., outputs: _Optional[int] = ..., scores: _Optional[bytes] = ..., entity_ids: _Optional[_Iterable[str]] = ..., model_contract: _Optional[str] = ..., production_scores: _Optional[bytes] = ...) -> None: ...

class OutcomeRecord(_message.Message):
    __slots__ = ("prediction_id", "model", "keys", "row", "name", "value", "event_time_ms", "idempotency_key", "received_unix_ns", "caller")
    PREDICTION_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    ROW_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    EVENT_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_UNIX_NS_FIELD_NUMBER: _ClassVar[int]
    CALLER_FIELD_NUMBER: _ClassVar[int]
    prediction_id: bytes
    model: str
    keys: _containers.RepeatedScalarFieldContainer[str]
    row: int
    name: str
    value: float
    event_time_ms: int
    idempotency_key: str
    received_unix_ns: int
    caller: str
    def __init__(self, prediction_id: _Optional[bytes] = ..., model: _Optional[str] = ..., keys: _Optional[_Iterable[str]] = ..., row: _Optional[int] = ..., name: _Optional[str] = ..., value: _Optional[float] = ..., event_time_ms: _Optional[int] = ..., idempotency_key: _Optional[str] = ..., received_unix_ns: _Optional[int] = ..., caller: _Optional[str] = ...) -> None: ...
