from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class JournalName(_message.Message):
    __slots__ = ("gateway", "journal")
    GATEWAY_FIELD_NUMBER: _ClassVar[int]
    JOURNAL_FIELD_NUMBER: _ClassVar[int]
    gateway: str
    journal: str
    def __init__(self, gateway: _Optional[str] = ..., journal: _Optional[str] = ...) -> None: ...

class SegmentPosition(_message.Message):
    __slots__ = ("segment", "offset", "check", "complete", "gone")
    SEGMENT_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    CHECK_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    GONE_FIELD_NUMBER: _ClassVar[int]
    segment: str
    offset: int
    check: int
    complete: bool
    gone: bool
    def __init__(self, segment: _Optional[str] = ..., offset: _Optional[int] = ..., check: _Optional[int] = ..., complete: _Optional[bool] = ..., gone: _Optional[bool] = ...) -> None: ...

class ReaderState(_message.Message):
    __slots__ = ("sequence", "positions", "decisions_of_65536", "decisions_by_model", "segments")
    class DecisionsByModelEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    POSITIONS_FIELD_NUMBER: _ClassVar[int]
    DECISIONS_OF_65536_FIELD_NUMBER: _ClassVar[int]
    DECISIONS_BY_MODEL_FIELD_NUMBER: _ClassVar[int]
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    positions: _containers.RepeatedCompositeFieldContainer[SegmentPosition]
    decisions_of_65536: int
    decisions_by_model: _containers.ScalarMap[str, int]
    segments: _containers.RepeatedCompositeFieldContainer[ModelSegments]
    def __init__(self, sequence: _Optional[int] = ..., positions: _Optional[_Iterable[_Union[SegmentPosition, _Mapping]]] = ..., decisions_of_65536: _Optional[int] = ..., decisions_by_model: _Optional[_Mapping[str, int]] = ..., segments: _Optional[_Iterable[_Union[ModelSegments, _Mapping]]] = ...) -> None: ...

class ModelSegments(_message.Message):
    __slots__ = ("model", "segmentations")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SEGMENTATIONS_FIELD_NUMBER: _ClassVar[int]
    model: str
    segmentations: _containers.RepeatedCompositeFieldContainer[Segmentation]
    def __init__(self, model: _Optional[str] = ..., segmentations: _Optional[_Iterable[_Union[Segmentation, _Mapping]]] = ...) -> None: ...

class Segmentation(_message.Message):
    __slots__ = ("name", "feature", "parts")
    NAME_FIELD_NUMBER: _ClassVar[int]
    FEATURE_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    name: str
    feature: str
    parts: _containers.RepeatedCompositeFieldContainer[SegmentPart]
    def __init__(self, name: _Optional[str] = ..., feature: _Optional[str] = ..., parts: _Optional[_Iterable[_Union[SegmentPart, _Mapping]]] = ...) -> None: ...

class SegmentPart(_message.Message):
    __slots__ = ("name", "low", "high", "categories")
    NAME_FIELD_NUMBER: _ClassVar[int]
    LOW_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    CATEGORIES_FIELD_NUMBER: _ClassVar[int]
    name: str
    low: float
    high: float
    categories: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., low: _Optional[float] = ..., high: _Optional[float] = ..., categories: _Optional[_Iterable[str]] = ...) -> None: ...

class VersionBinsRequest(_message.Message):
    __slots__ = ("model", "version", "version_digest")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    VERSION_DIGEST_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    version_digest: int
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., version_digest: _Optional[int] = ...) -> None: ...

class VersionBins(_message.Message):
    __slots__ = ("model", "version", "version_digest", "problem", "outputs", "features")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    VERSION_DIGEST_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    version_digest: int
    problem: str
    outputs: _containers.RepeatedCompositeFieldContainer[OutputBins]
    features: _containers.RepeatedCompositeFieldContainer[FeatureBins]
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., version_digest: _Optional[int] = ..., problem: _Optional[str] = ..., outputs: _Optional[_Iterable[_Union[OutputBins, _Mapping]]] = ..., features: _Optional[_Iterable[_Union[FeatureBins, _Mapping]]] = ...) -> None: ...

class OutputBins(_message.Message):
    __slots__ = ("name", "probability", "edges")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    EDGES_FIELD_NUMBER: _ClassVar[int]
    name: str
    probability: bool
    edges: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, name: _Optional[str] = ..., probability: _Optional[bool] = ..., edges: _Optional[_Iterable[float]] = ...) -> None: ...

class FeatureBins(_message.Message):
    __slots__ = ("name", "edges", "categories", "dictionary")
    NAME_FIELD_NUMBER: _ClassVar[int]
    EDGES_FIELD_NUMBER: _ClassVar[int]
    CATEGORIES_FIELD_NUMBER: _ClassVar[int]
    DICTIONARY_FIELD_NUMBER: _ClassVar[int]
    name: str
    edges: _containers.RepeatedScalarFieldContainer[float]
    categories: int
    dictionary: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., edges: _Optional[_Iterable[float]] = ..., categories: _Optional[int] = ..., dictionary: _Optional[_Iterable[str]] = ...) -> None: ...

class Cell(_message.Message):
    __slots__ = ("model", "version", "version_digest", "role", "holdout", "segment", "hour", "columns")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    VERSION_DIGEST_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    HOLDOUT_FIELD_NUMBER: _ClassVar[int]
    SEGMENT_FIELD_NUMBER: _ClassVar[int]
    HOUR_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    version_digest: int
    role: int
    holdout: bool
    segment: str
    hour: int
    columns: _containers.RepeatedCompositeFieldContainer[CountColumn]
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., version_digest: _Optional[int] = ..., role: _Optional[int] = ..., holdout: _Optional[bool] = ..., segment: _Optional[str] = ..., hour: _Optional[int] = ..., columns: _Optional[_Iterable[_Union[CountColumn, _Mapping]]] = ...) -> None: ...

class CountColumn(_message.Message):
    __slots__ = ("name", "index", "count", "sum")
    NAME_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    SUM_FIELD_NUMBER: _ClassVar[int]
    name: str
    index: _containers.RepeatedScalarFieldContainer[int]
    count: _containers.RepeatedScalarFieldContainer[int]
    sum: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, name: _Optional[str] = ..., index: _Optional[_Iterable[int]] = ..., count: _Optional[_Iterable[int]] = ..., sum: _Optional[_Iterable[float]] = ...) -> None: ...

class CellColumns(_message.Message):
    __slots__ = ("columns",)
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    columns: _containers.RepeatedCompositeFieldContainer[CountColumn]
    def __init__(self, columns: _Optional[_Iterable[_Union[CountColumn, _Mapping]]] = ...) -> None: ...

class JournalDamage(_message.Message):
    __slots__ = ("segment", "offset", "next_offset", "kind")
    SEGMENT_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    NEXT_OFFSET_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    segment: str
    offset: int
    next_offset: int
    kind: str
    def __init__(self, segment: _Optional[str] = ..., offset: _Optional[int] = ..., next_offset: _Optional[int] = ..., kind: _Optional[str] = ...) -> None: ...

class OutcomeEvent(_message.Message):
    __slots__ = ("id_digest", "model_hash", "version_digest", "role", "holdout", "predicted_unix_ms", "key_hash", "score", "row", "name", "value", "event_unix_ms", "received_unix_ms", "model", "forged", "prediction_id", "segments", "keys")
    ID_DIGEST_FIELD_NUMBER: _ClassVar[int]
    MODEL_HASH_FIELD_NUMBER: _ClassVar[int]
    VERSION_DIGEST_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    HOLDOUT_FIELD_NUMBER: _ClassVar[int]
    PREDICTED_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    KEY_HASH_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    ROW_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    EVENT_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    FORGED_FIELD_NUMBER: _ClassVar[int]
    PREDICTION_ID_FIELD_NUMBER: _ClassVar[int]
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    id_digest: bytes
    model_hash: int
    version_digest: int
    role: int
    holdout: bool
    predicted_unix_ms: int
    key_hash: int
    score: float
    row: int
    name: str
    value: float
    event_unix_ms: int
    received_unix_ms: int
    model: str
    forged: bool
    prediction_id: bytes
    segments: _containers.RepeatedScalarFieldContainer[str]
    keys: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, id_digest: _Optional[bytes] = ..., model_hash: _Optional[int] = ..., version_digest: _Optional[int] = ..., role: _Optional[int] = ..., holdout: _Optional[bool] = ..., predicted_unix_ms: _Optional[int] = ..., key_hash: _Optional[int] = ..., score: _Optional[float] = ..., row: _Optional[int] = ..., name: _Optional[str] = ..., value: _Optional[float] = ..., event_unix_ms: _Optional[int] = ..., received_unix_ms: _Optional[int] = ..., model: _Optional[str] = ..., forged: _Optional[bool] = ..., prediction_id: _Optional[bytes] = ..., segments: _Optional[_Iterable[str]] = ..., keys: _Optional[_Iterable[str]] = ...) -> None: ...

class DecisionBlock(_message.Message):
    __slots__ = ("model", "version", "version_digest", "day", "rows", "width", "outputs", "entities", "content")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    VERSION_DIGEST_FIELD_NUMBER: _ClassVar[int]
    DAY_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    ENTITIES_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    version_digest: int
    day: int
    rows: int
    width: int
    outputs: int
    entities: int
    content: bytes
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., version_digest: _Optional[int] = ..., day: _Optional[int] = ..., rows: _Optional[int] = ..., width: _Optional[int] = ..., outputs: _Optional[int] = ..., entities: _Optional[int] = ..., content: _Optional[bytes] = ...) -> None: ...

class CellBatch(_message.Message):
    __slots__ = ("journal", "sequence", "positions", "cells", "damages", "outcomes", "decisions", "backlog_bytes", "newest_unix_ns")
    JOURNAL_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    POSITIONS_FIELD_NUMBER: _ClassVar[int]
    CELLS_FIELD_NUMBER: _ClassVar[int]
    DAMAGES_FIELD_NUMBER: _ClassVar[int]
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    DECISIONS_FIELD_NUMBER: _ClassVar[int]
    BACKLOG_BYTES_FIELD_NUMBER: _ClassVar[int]
    NEWEST_UNIX_NS_FIELD_NUMBER: _ClassVar[int]
    journal: JournalName
    sequence: int
    positions: _containers.RepeatedCompositeFieldContainer[SegmentPosition]
    cells: _containers.RepeatedCompositeFieldContainer[Cell]
    damages: _containers.RepeatedCompositeFieldContainer[JournalDamage]
    outcomes: _containers.RepeatedCompositeFieldContainer[OutcomeEvent]
    decisions: _containers.RepeatedCompositeFieldContainer[DecisionBlock]
    backlog_bytes: int
    newest_unix_ns: int
    def __init__(self, journal: _Optional[_Union[JournalName, _Mapping]] = ..., sequence: _Optional[int] = ..., positions: _Optional[_Iterable[_Union[SegmentPosition, _Mapping]]] = ..., cells: _Optional[_Iterable[_Union[Cell, _Mapping]]] = ..., damages: _Optional[_Iterable[_Union[JournalDamage, _Mapping]]] = ..., outcomes: _Optional[_Iterable[_Union[OutcomeEvent, _Mapping]]] = ..., decisions: _Optional[_Iterable[_Union[DecisionBlock, _Mapping]]] = ..., backlog_bytes: _Optional[int] = ..., newest_unix_ns: _Optional[int] = ...) -> None: ...

class MonitoringStatusRequest(_message.Message):
    __slots__ = ("since_hour", "until_hour")
    SINCE_HOUR_FIELD_NUMBER: _ClassVar[int]
    UNTIL_HOUR_FIELD_NUMBER: _ClassVar[int]
    since_hour: int
    until_hour: int
    def __init__(self, since_hour: _Optional[int] = ..., until_hour: _Optional[int] = ...) -> None: ...

class MonitoringStatus(_message.Message):
    __slots__ = ("versions", "readers", "store", "at_unix_ms", "decision_rows", "decisions_problem", "decision_shares", "outcome_backlogs")
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    READERS_FIELD_NUMBER: _ClassVar[int]
    STORE_FIELD_NUMBER: _ClassVar[int]
    AT_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    DECISION_ROWS_FIELD_NUMBER: _ClassVar[int]
    DECISIONS_PROBLEM_FIELD_NUMBER: _ClassVar[int]
    DECISION_SHARES_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_BACKLOGS_FIELD_NUMBER: _ClassVar[int]
    versions: _containers.RepeatedCompositeFieldContainer[VersionCoverage]
    readers: _containers.RepeatedCompositeFieldContainer[ReaderStatus]
    store: str
    at_unix_ms: int
    decision_rows: int
    decisions_problem: str
    decision_shares: _containers.RepeatedCompositeFieldContainer[DecisionShare]
    outcome_backlogs: _containers.RepeatedCompositeFieldContainer[OutcomeBacklog]
    def __init__(self, versions: _Optional[_Iterable[_Union[VersionCoverage, _Mapping]]] = ..., readers: _Optional[_Iterable[_Union[ReaderStatus, _Mapping]]] = ..., store: _Optional[str] = ..., at_unix_ms: _Optional[int] = ..., decision_rows: _Optional[int] = ..., decisions_problem: _Optional[str] = ..., decision_shares: _Optional[_Iterable[_Union[DecisionShare, _Mapping]]] = ..., outcome_backlogs: _Optional[_Iterable[_Union[OutcomeBacklog, _Mapping]]] = ...) -> None: ...

class OutcomeBacklog(_message.Message):
    __slots__ = ("model", "number", "oldest_unix_ms")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    OLDEST_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    model: str
    number: int
    oldest_unix_ms: int
    def __init__(self, model: _Optional[str] = ..., number: _Optional[int] = ..., oldest_unix_ms: _Optional[int] = ...) -> None: ...

class DecisionShare(_message.Message):
    __slots__ = ("model", "of_65536", "keys_a_day")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    OF_65536_FIELD_NUMBER: _ClassVar[int]
    KEYS_A_DAY_FIELD_NUMBER: _ClassVar[int]
    model: str
    of_65536: int
    keys_a_day: int
    def __init__(self, model: _Optional[str] = ..., of_65536: _Optional[int] = ..., keys_a_day: _Optional[int] = ...) -> None: ...

class ForgetRequest(_message.Message):
    __slots__ = ("ids", "models", "id_digests", "dry_run")
    class IdsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    IDS_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    ID_DIGESTS_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    ids: _containers.ScalarMap[str, str]
    models: _containers.RepeatedCompositeFieldContainer[ForgetModel]
    id_digests: bytes
    dry_run: bool
    def __init__(self, ids: _Optional[_Mapping[str, str]] = ..., models: _Optional[_Iterable[_Union[ForgetModel, _Mapping]]] = ..., id_digests: _Optional[bytes] = ..., dry_run: _Optional[bool] = ...) -> None: ...

class ForgetModel(_message.Message):
    __slots__ = ("model", "versions", "key_hashes")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    KEY_HASHES_FIELD_NUMBER: _ClassVar[int]
    model: str
    versions: _containers.RepeatedCompositeFieldContainer[VersionEntities]
    key_hashes: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, model: _Optional[str] = ..., versions: _Optional[_Iterable[_Union[VersionEntities, _Mapping]]] = ..., key_hashes: _Optional[_Iterable[int]] = ...) -> None: ...

class VersionEntities(_message.Message):
    __slots__ = ("versions", "entities")
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    ENTITIES_FIELD_NUMBER: _ClassVar[int]
    versions: _containers.RepeatedScalarFieldContainer[str]
    entities: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, versions: _Optional[_Iterable[str]] = ..., entities: _Optional[_Iterable[str]] = ...) -> None: ...

class ScoresPart(_message.Message):
    __slots__ = ("model", "content_digest", "number", "version", "keys", "predictions", "at_unix_ms", "scores", "edges")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    CONTENT_DIGEST_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    PREDICTIONS_FIELD_NUMBER: _ClassVar[int]
    AT_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    EDGES_FIELD_NUMBER: _ClassVar[int]
    model: str
    content_digest: bytes
    number: int
    version: str
    keys: _containers.RepeatedScalarFieldContainer[str]
    predictions: _containers.RepeatedScalarFieldContainer[str]
    at_unix_ms: bytes
    scores: bytes
    edges: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, model: _Optional[str] = ..., content_digest: _Optional[bytes] = ..., number: _Optional[int] = ..., version: _Optional[str] = ..., keys: _Optional[_Iterable[str]] = ..., predictions: _Optional[_Iterable[str]] = ..., at_unix_ms: _Optional[bytes] = ..., scores: _Optional[bytes] = ..., edges: _Optional[_Iterable[float]] = ...) -> None: ...

class OutcomesPart(_message.Message):
    __slots__ = ("model", "content_digest", "number", "keys", "predictions", "at_unix_ms", "names", "values", "entities")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    CONTENT_DIGEST_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    PREDICTIONS_FIELD_NUMBER: _ClassVar[int]
    AT_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    ENTITIES_FIELD_NUMBER: _ClassVar[int]
    model: str
    content_digest: bytes
    number: int
    keys: _containers.RepeatedScalarFieldContainer[str]
    predictions: _containers.RepeatedScalarFieldContainer[str]
    at_unix_ms: bytes
    names: _containers.RepeatedScalarFieldContainer[str]
    values: bytes
    entities: int
    def __init__(self, model: _Optional[str] = ..., content_digest: _Optional[bytes] = ..., number: _Optional[int] = ..., keys: _Optional[_Iterable[str]] = ..., predictions: _Optional[_Iterable[str]] = ..., at_unix_ms: _Optional[bytes] = ..., names: _Optional[_Iterable[str]] = ..., values: _Optional[bytes] = ..., entities: _Optional[int] = ...) -> None: ...

class ImportReply(_message.Message):
    __slots__ = ("known", "rows", "unattributed", "waiting")
    KNOWN_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    UNATTRIBUTED_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    known: bool
    rows: int
    unattributed: int
    waiting: int
    def __init__(self, known: _Optional[bool] = ..., rows: _Optional[int] = ..., unattributed: _Optional[int] = ..., waiting: _Optional[int] = ...) -> None: ...

class ForgetReply(_message.Message):
    __slots__ = ("outcomes", "calls", "rows", "files", "unknown_rows")
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    CALLS_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_ROWS_FIELD_NUMBER: _ClassVar[int]
    outcomes: int
    calls: int
    rows: int
    files: int
    unknown_rows: int
    def __init__(self, outcomes: _Optional[int] = ..., calls: _Optional[int] = ..., rows: _Optional[int] = ..., files: _Optional[int] = ..., unknown_rows: _Optional[int] = ...) -> None: ...

class VersionCoverage(_message.Message):
    __slots__ = ("model", "version", "rows", "window_rows", "outcomes", "newest_hour", "windows_incomplete")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    WINDOW_ROWS_FIELD_NUMBER: _ClassVar[int]
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    NEWEST_HOUR_FIELD_NUMBER: _ClassVar[int]
    WINDOWS_INCOMPLETE_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    rows: int
    window_rows: int
    outcomes: int
    newest_hour: int
    windows_incomplete: bool
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., rows: _Optional[int] = ..., window_rows: _Optional[int] = ..., outcomes: _Optional[int] = ..., newest_hour: _Optional[int] = ..., windows_incomplete: _Optional[bool] = ...) -> None: ...

class ReaderStatus(_message.Message):
    __slots__ = ("journal", "pushed_unix_ms", "sequence", "backlog_bytes", "newest_unix_ns", "damages", "lost_bytes", "newest_damages")
    JOURNAL_FIELD_NUMBER: _ClassVar[int]
    PUSHED_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    BACKLOG_BYTES_FIELD_NUMBER: _ClassVar[int]
    NEWEST_UNIX_NS_FIELD_NUMBER: _ClassVar[int]
    DAMAGES_FIELD_NUMBER: _ClassVar[int]
    LOST_BYTES_FIELD_NUMBER: _ClassVar[int]
    NEWEST_DAMAGES_FIELD_NUMBER: _ClassVar[int]
    journal: JournalName
    pushed_unix_ms: int
    sequence: int
    backlog_bytes: int
    newest_unix_ns: int
    damages: int
    lost_bytes: int
    newest_damages: _containers.RepeatedCompositeFieldContainer[JournalDamage]
    def __init__(self, journal: _Optional[_Union[JournalName, _Mapping]] = ..., pushed_unix_ms: _Optional[int] = ..., sequence: _Optional[int] = ..., backlog_bytes: _Optional[int] = ..., newest_unix_ns: _Optional[int] = ..., damages: _Optional[int] = ..., lost_bytes: _Optional[int] = ..., newest_damages: _Optional[_Iterable[_Union[JournalDamage, _Mapping]]] = ...) -> None: ...

class FiguresRequest(_message.Message):
    __slots__ = ("model", "kind", "since_day", "until_day", "limit", "page_token", "name", "version", "newest")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    SINCE_DAY_FIELD_NUMBER: _ClassVar[int]
    UNTIL_DAY_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    NEWEST_FIELD_NUMBER: _ClassVar[int]
    model: str
    kind: str
    since_day: int
    until_day: int
    limit: int
    page_token: str
    name: str
    version: str
    newest: bool
    def __init__(self, model: _Optional[str] = ..., kind: _Optional[str] = ..., since_day: _Optional[int] = ..., until_day: _Optional[int] = ..., limit: _Optional[int] = ..., page_token: _Optional[str] = ..., name: _Optional[str] = ..., version: _Optional[str] = ..., newest: _Optional[bool] = ...) -> None: ...

class FiguresPage(_message.Message):
    __slots__ = ("figures", "next_page_token", "note")
    FIGURES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    figures: _containers.RepeatedCompositeFieldContainer[FigureOfPeriod]
    next_page_token: str
    note: str
    def __init__(self, figures: _Optional[_Iterable[_Union[FigureOfPeriod, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., note: _Optional[str] = ...) -> None: ...

class FigureOfPeriod(_message.Message):
    __slots__ = ("model", "version", "kind", "name", "segment", "last_day", "days", "value", "low", "high", "n", "lacking", "details_json")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    SEGMENT_FIELD_NUMBER: _ClassVar[int]
    LAST_DAY_FIELD_NUMBER: _ClassVar[int]
    DAYS_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    LOW_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    N_FIELD_NUMBER: _ClassVar[int]
    LACKING_FIELD_NUMBER: _ClassVar[int]
    DETAILS_JSON_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    kind: str
    name: str
    segment: str
    last_day: int
    days: int
    value: float
    low: float
    high: float
    n: int
    lacking: str
    details_json: str
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., kind: _Optional[str] = ..., name: _Optional[str] = ..., segment: _Optional[str] = ..., last_day: _Optional[int] = ..., days: _Optional[int] = ..., value: _Optional[float] = ..., low: _Optional[float] = ..., high: _Optional[float] = ..., n: _Optional[int] = ..., lacking: _Optional[str] = ..., details_json: _Optional[str] = ...) -> None: ...

class AlarmsRequest(_message.Message):
    __slots__ = ("model", "since_unix_s", "until_unix_s", "limit", "page_token")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SINCE_UNIX_S_FIELD_NUMBER: _ClassVar[int]
    UNTIL_UNIX_S_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    model: str
    since_unix_s: int
    until_unix_s: int
    limit: int
    page_token: str
    def __init__(self, model: _Optional[str] = ..., since_unix_s: _Optional[int] = ..., until_unix_s: _Optional[int] = ..., limit: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class AlarmsPage(_message.Message):
    __slots__ = ("alarms", "next_page_token", "note")
    ALARMS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    alarms: _containers.RepeatedCompositeFieldContainer[RaisedAlarm]
    next_page_token: str
    note: str
    def __init__(self, alarms: _Optional[_Iterable[_Union[RaisedAlarm, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., note: _Optional[str] = ...) -> None: ...

class RaisedAlarm(_message.Message):
    __slots__ = ("number", "model", "version", "kind", "stream", "view", "host", "shadow", "at_unix_s", "since_unix_s", "incident_id", "details_json", "severity")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    VIEW_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    SHADOW_FIELD_NUMBER: _ClassVar[int]
    AT_UNIX_S_FIELD_NUMBER: _ClassVar[int]
    SINCE_UNIX_S_FIELD_NUMBER: _ClassVar[int]
    INCIDENT_ID_FIELD_NUMBER: _ClassVar[int]
    DETAILS_JSON_FIELD_NUMBER: _ClassVar[int]
    SEVERITY_FIELD_NUMBER: _ClassVar[int]
    number: int
    model: str
    version: str
    kind: str
    stream: str
    view: str
    host: str
    shadow: bool
    at_unix_s: int
    since_unix_s: int
    incident_id: str
    details_json: str
    severity: int
    def __init__(self, number: _Optional[int] = ..., model: _Optional[str] = ..., version: _Optional[str] = ..., kind: _Optional[str] = ..., stream: _Optional[str] = ..., view: _Optional[str] = ..., host: _Optional[str] = ..., shadow: _Optional[bool] = ..., at_unix_s: _Optional[int] = ..., since_unix_s: _Optional[int] = ..., incident_id: _Optional[str] = ..., details_json: _Optional[str] = ..., severity: _Optional[int] = ...) -> None: ...

class LooksRequest(_message.Message):
    __slots__ = ("model", "limit", "page_token")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    model: str
    limit: int
    page_token: str
    def __init__(self, model: _Optional[str] = ..., limit: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class LooksPage(_message.Message):
    __slots__ = ("looks", "next_page_token", "references")
    LOOKS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    REFERENCES_FIELD_NUMBER: _ClassVar[int]
    looks: _containers.RepeatedCompositeFieldContainer[LookProgress]
    next_page_token: str
    references: _containers.RepeatedCompositeFieldContainer[ReferenceDays]
    def __init__(self, looks: _Optional[_Iterable[_Union[LookProgress, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., references: _Optional[_Iterable[_Union[ReferenceDays, _Mapping]]] = ...) -> None: ...

class LookProgress(_message.Message):
    __slots__ = ("model", "version", "name", "position", "until_unix_s", "unwatched")
    class UnwatchedEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    UNTIL_UNIX_S_FIELD_NUMBER: _ClassVar[int]
    UNWATCHED_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    name: str
    position: int
    until_unix_s: int
    unwatched: _containers.ScalarMap[str, str]
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., name: _Optional[str] = ..., position: _Optional[int] = ..., until_unix_s: _Optional[int] = ..., unwatched: _Optional[_Mapping[str, str]] = ...) -> None: ...

class ReferenceDays(_message.Message):
    __slots__ = ("model", "version", "finding", "first_day", "last_day")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    FINDING_FIELD_NUMBER: _ClassVar[int]
    FIRST_DAY_FIELD_NUMBER: _ClassVar[int]
    LAST_DAY_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    finding: int
    first_day: int
    last_day: int
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., finding: _Optional[int] = ..., first_day: _Optional[int] = ..., last_day: _Optional[int] = ...) -> None: ...

class CellsRequest(_message.Message):
    __slots__ = ("model", "since_hour", "until_hour", "limit", "page_token")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SINCE_HOUR_FIELD_NUMBER: _ClassVar[int]
    UNTIL_HOUR_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    model: str
    since_hour: int
    until_hour: int
    limit: int
    page_token: str
    def __init__(self, model: _Optional[str] = ..., since_hour: _Optional[int] = ..., until_hour: _Optional[int] = ..., limit: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class CellsPage(_message.Message):
    __slots__ = ("cells", "next_page_token")
    CELLS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    cells: _containers.RepeatedCompositeFieldContainer[CellTotals]
    next_page_token: str
    def __init__(self, cells: _Optional[_Iterable[_Union[CellTotals, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class CellTotals(_message.Message):
    __slots__ = ("model", "version", "role", "holdout", "segment", "hour", "hours", "calls", "rows", "row_flags")
    class RowFlagsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    HOLDOUT_FIELD_NUMBER: _ClassVar[int]
    SEGMENT_FIELD_NUMBER: _ClassVar[int]
    HOUR_FIELD_NUMBER: _ClassVar[int]
    HOURS_FIELD_NUMBER: _ClassVar[int]
    CALLS_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    ROW_FLAGS_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    role: int
    holdout: bool
    segment: str
    hour: int
    hours: int
    calls: int
    rows: int
    row_flags: _containers.ScalarMap[str, int]
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., role: _Optional[int] = ..., holdout: _Optional[bool] = ..., segment: _Optional[str] = ..., hour: _Optional[int] = ..., hours: _Optional[int] = ..., calls: _Optional[int] = ..., rows: _Optional[int] = ..., row_flags: _Optional[_Mapping[str, int]] = ...) -> None: ...
