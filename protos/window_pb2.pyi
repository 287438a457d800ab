from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Arm(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ARM_UNSPECIFIED: _ClassVar[Arm]
    ARM_PRODUCTION: _ClassVar[Arm]
    ARM_CANARY: _ClassVar[Arm]
    ARM_SHADOW: _ClassVar[Arm]
    ARM_PINNED: _ClassVar[Arm]
    ARM_STANDBY: _ClassVar[Arm]

class Metric(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    METRIC_UNSPECIFIED: _ClassVar[Metric]
    METRIC_ERROR: _ClassVar[Metric]
    METRIC_SCHEMA: _ClassVar[Metric]
    METRIC_TIMEOUT: _ClassVar[Metric]
    METRIC_SCORE: _ClassVar[Metric]
    METRIC_LATENCY: _ClassVar[Metric]
ARM_UNSPECIFIED: Arm
ARM_PRODUCTION: Arm
ARM_CANARY: Arm
ARM_SHADOW: Arm
ARM_PINNED: Arm
ARM_STANDBY: Arm
METRIC_UNSPECIFIED: Metric
METRIC_ERROR: Metric
METRIC_SCHEMA: Metric
METRIC_TIMEOUT: Metric
METRIC_SCORE: Metric
METRIC_LATENCY: Metric

class Source(_message.Message):
    __slots__ = ("gateway", "slot", "boot_id")
    GATEWAY_FIELD_NUMBER: _ClassVar[int]
    SLOT_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    gateway: str
    slot: int
    boot_id: int
    def __init__(self, gateway: _Optional[str] = ..., slot: _Optional[int] = ..., boot_id: _Optional[int] = ...) -> None: ...

class WindowBatch(_message.Message):
    __slots__ = ("source", "sequence", "windows", "guards", "sent_unix_ns", "clock_unix_ns")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    WINDOWS_FIELD_NUMBER: _ClassVar[int]
    GUARDS_FIELD_NUMBER: _ClassVar[int]
    SENT_UNIX_NS_FIELD_NUMBER: _ClassVar[int]
    CLOCK_UNIX_NS_FIELD_NUMBER: _ClassVar[int]
    source: Source
    sequence: int
    windows: _containers.RepeatedCompositeFieldContainer[Window]
    guards: _containers.RepeatedCompositeFieldContainer[HardGuard]
    sent_unix_ns: int
    clock_unix_ns: int
    def __init__(self, source: _Optional[_Union[Source, _Mapping]] = ..., sequence: _Optional[int] = ..., windows: _Optional[_Iterable[_Union[Window, _Mapping]]] = ..., guards: _Optional[_Iterable[_Union[HardGuard, _Mapping]]] = ..., sent_unix_ns: _Optional[int] = ..., clock_unix_ns: _Optional[int] = ...) -> None: ...

class WindowAck(_message.Message):
    __slots__ = ("sequence", "refusal")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    refusal: str
    def __init__(self, sequence: _Optional[int] = ..., refusal: _Optional[str] = ...) -> None: ...

class Window(_message.Message):
    __slots__ = ("model", "version", "version_digest", "arm", "revision", "second", "start_unix_ns", "end_unix_ns", "calls", "rows", "features", "latency", "scores", "pairs", "outcomes", "records", "sampled_of_65536", "output_bins", "first_bad_unix_ns", "last_bad_unix_ns")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    VERSION_DIGEST_FIELD_NUMBER: _ClassVar[int]
    ARM_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    SECOND_FIELD_NUMBER: _ClassVar[int]
    START_UNIX_NS_FIELD_NUMBER: _ClassVar[int]
    END_UNIX_NS_FIELD_NUMBER: _ClassVar[int]
    CALLS_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    LATENCY_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    PAIRS_FIELD_NUMBER: _ClassVar[int]
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    SAMPLED_OF_65536_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_BINS_FIELD_NUMBER: _ClassVar[int]
    FIRST_BAD_UNIX_NS_FIELD_NUMBER: _ClassVar[int]
    LAST_BAD_UNIX_NS_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    version_digest: int
    arm: Arm
    revision: int
    second: int
    start_unix_ns: int
    end_unix_ns: int
    calls: CallCounts
    rows: int
    features: FeatureCounts
    latency: SparseHistogram
    scores: SparseHistogram
    pairs: PairCounts
    outcomes: _containers.RepeatedCompositeFieldContainer[OutcomeReports]
    records: _containers.RepeatedCompositeFieldContainer[KeyRecords]
    sampled_of_65536: int
    output_bins: _containers.RepeatedScalarFieldContainer[int]
    first_bad_unix_ns: int
    last_bad_unix_ns: int
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., version_digest: _Optional[int] = ..., arm: _Optional[_Union[Arm, str]] = ..., revision: _Optional[int] = ..., second: _Optional[int] = ..., start_unix_ns: _Optional[int] = ..., end_unix_ns: _Optional[int] = ..., calls: _Optional[_Union[CallCounts, _Mapping]] = ..., rows: _Optional[int] = ..., features: _Optional[_Union[FeatureCounts, _Mapping]] = ..., latency: _Optional[_Union[SparseHistogram, _Mapping]] = ..., scores: _Optional[_Union[SparseHistogram, _Mapping]] = ..., pairs: _Optional[_Union[PairCounts, _Mapping]] = ..., outcomes: _Optional[_Iterable[_Union[OutcomeReports, _Mapping]]] = ..., records: _Optional[_Iterable[_Union[KeyRecords, _Mapping]]] = ..., sampled_of_65536: _Optional[int] = ..., output_bins: _Optional[_Iterable[int]] = ..., first_bad_unix_ns: _Optional[int] = ..., last_bad_unix_ns: _Optional[int] = ...) -> None: ...

class CallCounts(_message.Message):
    __slots__ = ("answered", "refused", "faulty", "fallbacks", "late", "nan", "holdout", "dropped", "bad_input")
    ANSWERED_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    FAULTY_FIELD_NUMBER: _ClassVar[int]
    FALLBACKS_FIELD_NUMBER: _ClassVar[int]
    LATE_FIELD_NUMBER: _ClassVar[int]
    NAN_FIELD_NUMBER: _ClassVar[int]
    HOLDOUT_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    BAD_INPUT_FIELD_NUMBER: _ClassVar[int]
    answered: int
    refused: int
    faulty: int
    fallbacks: int
    late: int
    nan: int
    holdout: int
    dropped: int
    bad_input: int
    def __init__(self, answered: _Optional[int] = ..., refused: _Optional[int] = ..., faulty: _Optional[int] = ..., fallbacks: _Optional[int] = ..., late: _Optional[int] = ..., nan: _Optional[int] = ..., holdout: _Optional[int] = ..., dropped: _Optional[int] = ..., bad_input: _Optional[int] = ...) -> None: ...

class FeatureCounts(_message.Message):
    __slots__ = ("missing", "stale", "defaulted", "degraded", "broken")
    MISSING_FIELD_NUMBER: _ClassVar[int]
    STALE_FIELD_NUMBER: _ClassVar[int]
    DEFAULTED_FIELD_NUMBER: _ClassVar[int]
    DEGRADED_FIELD_NUMBER: _ClassVar[int]
    BROKEN_FIELD_NUMBER: _ClassVar[int]
    missing: int
    stale: int
    defaulted: int
    degraded: int
    broken: int
    def __init__(self, missing: _Optional[int] = ..., stale: _Optional[int] = ..., defaulted: _Optional[int] = ..., degraded: _Optional[int] = ..., broken: _Optional[int] = ...) -> None: ...

class SparseHistogram(_message.Message):
    __slots__ = ("index", "count")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    index: _containers.RepeatedScalarFieldContainer[int]
    count: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, index: _Optional[_Iterable[int]] = ..., count: _Optional[_Iterable[int]] = ...) -> None: ...

class KeyRecords(_message.Message):
    __slots__ = ("metric", "key_hash", "bin", "production_bin", "batch_calls")
    METRIC_FIELD_NUMBER: _ClassVar[int]
    KEY_HASH_FIELD_NUMBER: _ClassVar[int]
    BIN_FIELD_NUMBER: _ClassVar[int]
    PRODUCTION_BIN_FIELD_NUMBER: _ClassVar[int]
    BATCH_CALLS_FIELD_NUMBER: _ClassVar[int]
    metric: Metric
    key_hash: _containers.RepeatedScalarFieldContainer[int]
    bin: _containers.RepeatedScalarFieldContainer[int]
    production_bin: _containers.RepeatedScalarFieldContainer[int]
    batch_calls: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, metric: _Optional[_Union[Metric, str]] = ..., key_hash: _Optional[_Iterable[int]] = ..., bin: _Optional[_Iterable[int]] = ..., production_bin: _Optional[_Iterable[int]] = ..., batch_calls: _Optional[_Iterable[int]] = ...) -> None: ...

class OutcomeReports(_message.Message):
    __slots__ = ("role", "name", "key_hash", "value", "caller")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    KEY_HASH_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    CALLER_FIELD_NUMBER: _ClassVar[int]
    role: int
    name: str
    key_hash: _containers.RepeatedScalarFieldContainer[int]
    value: _containers.RepeatedScalarFieldContainer[float]
    caller: str
    def __init__(self, role: _Optional[int] = ..., name: _Optional[str] = ..., key_hash: _Optional[_Iterable[int]] = ..., value: _Optional[_Iterable[float]] = ..., caller: _Optional[str] = ...) -> None: ...

class PairCounts(_message.Message):
    __slots__ = ("pairs", "flips", "absolute_sum", "square_sum", "production_bins", "joint_index", "joint_count", "faulty", "task", "outputs")
    PAIRS_FIELD_NUMBER: _ClassVar[int]
    FLIPS_FIELD_NUMBER: _ClassVar[int]
    ABSOLUTE_SUM_FIELD_NUMBER: _ClassVar[int]
    SQUARE_SUM_FIELD_NUMBER: _ClassVar[int]
    PRODUCTION_BINS_FIELD_NUMBER: _ClassVar[int]
    JOINT_INDEX_FIELD_NUMBER: _ClassVar[int]
    JOINT_COUNT_FIELD_NUMBER: _ClassVar[int]
    FAULTY_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    pairs: int
    flips: int
    absolute_sum: float
    square_sum: float
    production_bins: SparseHistogram
    joint_index: _containers.RepeatedScalarFieldContainer[int]
    joint_count: _containers.RepeatedScalarFieldContainer[int]
    faulty: int
    task: str
    outputs: _containers.RepeatedCompositeFieldContainer[OutputDifference]
    def __init__(self, pairs: _Optional[int] = ..., flips: _Optional[int] = ..., absolute_sum: _Optional[float] = ..., square_sum: _Optional[float] = ..., production_bins: _Optional[_Union[SparseHistogram, _Mapping]] = ..., joint_index: _Optional[_Iterable[int]] = ..., joint_count: _Optional[_Iterable[int]] = ..., faulty: _Optional[int] = ..., task: _Optional[str] = ..., outputs: _Optional[_Iterable[_Union[OutputDifference, _Mapping]]] = ...) -> None: ...

class OutputDifference(_message.Message):
    __slots__ = ("name", "absolute_sum", "spread")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ABSOLUTE_SUM_FIELD_NUMBER: _ClassVar[int]
    SPREAD_FIELD_NUMBER: _ClassVar[int]
    name: str
    absolute_sum: float
    spread: float
    def __init__(self, name: _Optional[str] = ..., absolute_sum: _Optional[float] = ..., spread: _Optional[float] = ...) -> None: ...

class HardGuard(_message.Message):
    __slots__ = ("model", "version", "revision", "kind", "reason", "at_unix_ns", "first_bad_unix_ns")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        UNSPECIFIED: _ClassVar[HardGuard.Kind]
        BREAKER_OPEN: _ClassVar[HardGuard.Kind]
        PROCESS_DIED: _ClassVar[HardGuard.Kind]
        LOAD_REFUSED: _ClassVar[HardGuard.Kind]
    UNSPECIFIED: HardGuard.Kind
    BREAKER_OPEN: HardGuard.Kind
    PROCESS_DIED: HardGuard.Kind
    LOAD_REFUSED: HardGuard.Kind
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    AT_UNIX_NS_FIELD_NUMBER: _ClassVar[int]
    FIRST_BAD_UNIX_NS_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    revision: int
    kind: HardGuard.Kind
    reason: str
    at_unix_ns: int
    first_bad_unix_ns: int
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., revision: _Optional[int] = ..., kind: _Optional[_Union[HardGuard.Kind, str]] = ..., reason: _Optional[str] = ..., at_unix_ns: _Optional[int] = ..., first_bad_unix_ns: _Optional[int] = ...) -> None: ...
