from protos import window_pb2 as _window_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Stage(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STAGE_UNSPECIFIED: _ClassVar[Stage]
    PRELOAD: _ClassVar[Stage]
    SHADOW_STAGE: _ClassVar[Stage]
    CANARY_STAGE: _ClassVar[Stage]
    WATCH: _ClassVar[Stage]
    DONE: _ClassVar[Stage]
    ROLLED_BACK: _ClassVar[Stage]
    REFUSED_STAGE: _ClassVar[Stage]

class Verdict(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    VERDICT_UNSPECIFIED: _ClassVar[Verdict]
    HEALTHY: _ClassVar[Verdict]
    UNDECIDED: _ClassVar[Verdict]
    FAULTY: _ClassVar[Verdict]
    HOLD: _ClassVar[Verdict]
STAGE_UNSPECIFIED: Stage
PRELOAD: Stage
SHADOW_STAGE: Stage
CANARY_STAGE: Stage
WATCH: Stage
DONE: Stage
ROLLED_BACK: Stage
REFUSED_STAGE: Stage
VERDICT_UNSPECIFIED: Verdict
HEALTHY: Verdict
UNDECIDED: Verdict
FAULTY: Verdict
HOLD: Verdict

class RolloutSelector(_message.Message):
    __slots__ = ("model", "rollout_id")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    ROLLOUT_ID_FIELD_NUMBER: _ClassVar[int]
    model: str
    rollout_id: str
    def __init__(self, model: _Optional[str] = ..., rollout_id: _Optional[str] = ...) -> None: ...

class StartRolloutRequest(_message.Message):
    __slots__ = ("model", "version", "policy", "approval_id", "reason")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    APPROVAL_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    policy: str
    approval_id: str
    reason: str
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., policy: _Optional[str] = ..., approval_id: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class RolloutCommand(_message.Message):
    __slots__ = ("model", "reason", "to_version", "share_bp", "full")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    TO_VERSION_FIELD_NUMBER: _ClassVar[int]
    SHARE_BP_FIELD_NUMBER: _ClassVar[int]
    FULL_FIELD_NUMBER: _ClassVar[int]
    model: str
    reason: str
    to_version: str
    share_bp: int
    full: bool
    def __init__(self, model: _Optional[str] = ..., reason: _Optional[str] = ..., to_version: _Optional[str] = ..., share_bp: _Optional[int] = ..., full: _Optional[bool] = ...) -> None: ...

class ForecastRequest(_message.Message):
    __slots__ = ("model", "policy", "failure_rate")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    FAILURE_RATE_FIELD_NUMBER: _ClassVar[int]
    model: str
    policy: str
    failure_rate: float
    def __init__(self, model: _Optional[str] = ..., policy: _Optional[str] = ..., failure_rate: _Optional[float] = ...) -> None: ...

class ForecastReply(_message.Message):
    __slots__ = ("calls_a_second", "steps", "text")
    CALLS_A_SECOND_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    calls_a_second: float
    steps: _containers.RepeatedCompositeFieldContainer[ForecastStep]
    text: str
    def __init__(self, calls_a_second: _Optional[float] = ..., steps: _Optional[_Iterable[_Union[ForecastStep, _Mapping]]] = ..., text: _Optional[str] = ...) -> None: ...

class ForecastStep(_message.Message):
    __slots__ = ("stage", "share_bp", "bake_s", "keys", "calls", "seconds", "detectable_failure_rate", "detectable_slow_rate", "failing_keys_min")
    STAGE_FIELD_NUMBER: _ClassVar[int]
    SHARE_BP_FIELD_NUMBER: _ClassVar[int]
    BAKE_S_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    CALLS_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    DETECTABLE_FAILURE_RATE_FIELD_NUMBER: _ClassVar[int]
    DETECTABLE_SLOW_RATE_FIELD_NUMBER: _ClassVar[int]
    FAILING_KEYS_MIN_FIELD_NUMBER: _ClassVar[int]
    stage: Stage
    share_bp: int
    bake_s: float
    keys: int
    calls: int
    seconds: float
    detectable_failure_rate: float
    detectable_slow_rate: float
    failing_keys_min: int
    def __init__(self, stage: _Optional[_Union[Stage, str]] = ..., share_bp: _Optional[int] = ..., bake_s: _Optional[float] = ..., keys: _Optional[int] = ..., calls: _Optional[int] = ..., seconds: _Optional[float] = ..., detectable_failure_rate: _Optional[float] = ..., detectable_slow_rate: _Optional[float] = ..., failing_keys_min: _Optional[int] = ...) -> None: ...

class RolloutStatus(_message.Message):
    __slots__ = ("rollout_id", "model", "version", "baseline", "policy", "policy_digest", "stage", "step", "share_bp", "verdict", "reason", "evidence", "times", "revision", "started_unix_ms", "stage_since_unix_ms", "paused", "waiting_for", "calls", "forecast", "approved_shift_text", "dropped_windows", "refused_senders", "policy_note", "score_differences")
    ROLLOUT_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    BASELINE_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    POLICY_DIGEST_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    SHARE_BP_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    TIMES_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    STARTED_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    STAGE_SINCE_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    PAUSED_FIELD_NUMBER: _ClassVar[int]
    WAITING_FOR_FIELD_NUMBER: _ClassVar[int]
    CALLS_FIELD_NUMBER: _ClassVar[int]
    FORECAST_FIELD_NUMBER: _ClassVar[int]
    APPROVED_SHIFT_TEXT_FIELD_NUMBER: _ClassVar[int]
    DROPPED_WINDOWS_FIELD_NUMBER: _ClassVar[int]
    REFUSED_SENDERS_FIELD_NUMBER: _ClassVar[int]
    POLICY_NOTE_FIELD_NUMBER: _ClassVar[int]
    SCORE_DIFFERENCES_FIELD_NUMBER: _ClassVar[int]
    rollout_id: str
    model: str
    version: str
    baseline: str
    policy: str
    policy_digest: str
    stage: Stage
    step: int
    share_bp: int
    verdict: Verdict
    reason: str
    evidence: _containers.RepeatedCompositeFieldContainer[Evidence]
    times: RollbackTimes
    revision: int
    started_unix_ms: int
    stage_since_unix_ms: int
    paused: bool
    waiting_for: _containers.RepeatedScalarFieldContainer[str]
    calls: CallTotals
    forecast: str
    approved_shift_text: str
    dropped_windows: int
    refused_senders: _containers.RepeatedScalarFieldContainer[str]
    policy_note: str
    score_differences: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, rollout_id: _Optional[str] = ..., model: _Optional[str] = ..., version: _Optional[str] = ..., baseline: _Optional[str] = ..., policy: _Optional[str] = ..., policy_digest: _Optional[str] = ..., stage: _Optional[_Union[Stage, str]] = ..., step: _Optional[int] = ..., share_bp: _Optional[int] = ..., verdict: _Optional[_Union[Verdict, str]] = ..., reason: _Optional[str] = ..., evidence: _Optional[_Iterable[_Union[Evidence, _Mapping]]] = ..., times: _Optional[_Union[RollbackTimes, _Mapping]] = ..., revision: _Optional[int] = ..., started_unix_ms: _Optional[int] = ..., stage_since_unix_ms: _Optional[int] = ..., paused: _Optional[bool] = ..., waiting_for: _Optional[_Iterable[str]] = ..., calls: _Optional[_Union[CallTotals, _Mapping]] = ..., forecast: _Optional[str] = ..., approved_shift_text: _Optional[str] = ..., dropped_windows: _Optional[int] = ..., refused_senders: _Optional[_Iterable[str]] = ..., policy_note: _Optional[str] = ..., score_differences: _Optional[_Iterable[str]] = ...) -> None: ...

class CallTotals(_message.Message):
    __slots__ = ("canary", "production", "shadow_pairs", "fallbacks", "failed")
    CANARY_FIELD_NUMBER: _ClassVar[int]
    PRODUCTION_FIELD_NUMBER: _ClassVar[int]
    SHADOW_PAIRS_FIELD_NUMBER: _ClassVar[int]
    FALLBACKS_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    canary: int
    production: int
    shadow_pairs: int
    fallbacks: int
    failed: int
    def __init__(self, canary: _Optional[int] = ..., production: _Optional[int] = ..., shadow_pairs: _Optional[int] = ..., fallbacks: _Optional[int] = ..., failed: _Optional[int] = ...) -> None: ...

class Evidence(_message.Message):
    __slots__ = ("metric", "canary_keys", "canary_events", "baseline_keys", "baseline_events", "log_e", "log_e_max", "log_threshold", "promote_log_e", "promote_log_threshold", "note", "effect", "interval_low", "interval_high", "gate_open", "gate", "looks", "compared_keys")
    METRIC_FIELD_NUMBER: _ClassVar[int]
    CANARY_KEYS_FIELD_NUMBER: _ClassVar[int]
    CANARY_EVENTS_FIELD_NUMBER: _ClassVar[int]
    BASELINE_KEYS_FIELD_NUMBER: _ClassVar[int]
    BASELINE_EVENTS_FIELD_NUMBER: _ClassVar[int]
    LOG_E_FIELD_NUMBER: _ClassVar[int]
    LOG_E_MAX_FIELD_NUMBER: _ClassVar[int]
    LOG_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    PROMOTE_LOG_E_FIELD_NUMBER: _ClassVar[int]
    PROMOTE_LOG_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    EFFECT_FIELD_NUMBER: _ClassVar[int]
    INTERVAL_LOW_FIELD_NUMBER: _ClassVar[int]
    INTERVAL_HIGH_FIELD_NUMBER: _ClassVar[int]
    GATE_OPEN_FIELD_NUMBER: _ClassVar[int]
    GATE_FIELD_NUMBER: _ClassVar[int]
    LOOKS_FIELD_NUMBER: _ClassVar[int]
    COMPARED_KEYS_FIELD_NUMBER: _ClassVar[int]
    metric: str
    canary_keys: int
    canary_events: int
    baseline_keys: int
    baseline_events: int
    log_e: float
    log_e_max: float
    log_threshold: float
    promote_log_e: float
    promote_log_threshold: float
    note: str
    effect: float
    interval_low: float
    interval_high: float
    gate_open: bool
    gate: str
    looks: int
    compared_keys: int
    def __init__(self, metric: _Optional[str] = ..., canary_keys: _Optional[int] = ..., canary_events: _Optional[int] = ..., baseline_keys: _Optional[int] = ..., baseline_events: _Optional[int] = ..., log_e: _Optional[float] = ..., log_e_max: _Optional[float] = ..., log_threshold: _Optional[float] = ..., promote_log_e: _Optional[float] = ..., promote_log_threshold: _Optional[float] = ..., note: _Optional[str] = ..., effect: _Optional[float] = ..., interval_low: _Optional[float] = ..., interval_high: _Optional[float] = ..., gate_open: _Optional[bool] = ..., gate: _Optional[str] = ..., looks: _Optional[int] = ..., compared_keys: _Optional[int] = ...) -> None: ...

class RollbackTimes(_message.Message):
    __slots__ = ("first_bad_unix_ns", "verdict_unix_ns", "moved_unix_ns", "last_bad_unix_ns")
    FIRST_BAD_UNIX_NS_FIELD_NUMBER: _ClassVar[int]
    VERDICT_UNIX_NS_FIELD_NUMBER: _ClassVar[int]
    MOVED_UNIX_NS_FIELD_NUMBER: _ClassVar[int]
    LAST_BAD_UNIX_NS_FIELD_NUMBER: _ClassVar[int]
    first_bad_unix_ns: int
    verdict_unix_ns: int
    moved_unix_ns: int
    last_bad_unix_ns: int
    def __init__(self, first_bad_unix_ns: _Optional[int] = ..., verdict_unix_ns: _Optional[int] = ..., moved_unix_ns: _Optional[int] = ..., last_bad_unix_ns: _Optional[int] = ...) -> None: ...

class ListRolloutsRequest(_message.Message):
    __slots__ = ("model", "after")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    model: str
    after: str
    def __init__(self, model: _Optional[str] = ..., after: _Optional[str] = ...) -> None: ...

class ListRolloutsReply(_message.Message):
    __slots__ = ("rollouts", "more")
    ROLLOUTS_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    rollouts: _containers.RepeatedCompositeFieldContainer[RolloutStatus]
    more: bool
    def __init__(self, rollouts: _Optional[_Iterable[_Union[RolloutStatus, _Mapping]]] = ..., more: _Optional[bool] = ...) -> None: ...

class ListPoliciesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListPoliciesReply(_message.Message):
    __slots__ = ("policies", "unusable", "defaults")
    class DefaultsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    POLICIES_FIELD_NUMBER: _ClassVar[int]
    UNUSABLE_FIELD_NUMBER: _ClassVar[int]
    DEFAULTS_FIELD_NUMBER: _ClassVar[int]
    policies: _containers.RepeatedCompositeFieldContainer[Policy]
    unusable: _containers.RepeatedCompositeFieldContainer[UnusablePolicy]
    defaults: _containers.ScalarMap[str, str]
    def __init__(self, policies: _Optional[_Iterable[_Union[Policy, _Mapping]]] = ..., unusable: _Optional[_Iterable[_Union[UnusablePolicy, _Mapping]]] = ..., defaults: _Optional[_Mapping[str, str]] = ...) -> None: ...

class UnusablePolicy(_message.Message):
    __slots__ = ("name", "project", "problem")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    name: str
    project: str
    problem: str
    def __init__(self, name: _Optional[str] = ..., project: _Optional[str] = ..., problem: _Optional[str] = ...) -> None: ...

class Policy(_message.Message):
    __slots__ = ("name", "digest", "json", "project")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    JSON_FIELD_NUMBER: _ClassVar[int]
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    name: str
    digest: str
    json: str
    project: str
    def __init__(self, name: _Optional[str] = ..., digest: _Optional[str] = ..., json: _Optional[str] = ..., project: _Optional[str] = ...) -> None: ...

class RolloutExplanation(_message.Message):
    __slots__ = ("status", "decisions", "text", "evidence_history", "decisions_left_out")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    DECISIONS_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_HISTORY_FIELD_NUMBER: _ClassVar[int]
    DECISIONS_LEFT_OUT_FIELD_NUMBER: _ClassVar[int]
    status: RolloutStatus
    decisions: _containers.RepeatedCompositeFieldContainer[Decision]
    text: str
    evidence_history: _containers.RepeatedCompositeFieldContainer[EvidencePoint]
    decisions_left_out: int
    def __init__(self, status: _Optional[_Union[RolloutStatus, _Mapping]] = ..., decisions: _Optional[_Iterable[_Union[Decision, _Mapping]]] = ..., text: _Optional[str] = ..., evidence_history: _Optional[_Iterable[_Union[EvidencePoint, _Mapping]]] = ..., decisions_left_out: _Optional[int] = ...) -> None: ...

class EvidencePoint(_message.Message):
    __slots__ = ("second", "stage", "share_bp", "log_e")
    SECOND_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    SHARE_BP_FIELD_NUMBER: _ClassVar[int]
    LOG_E_FIELD_NUMBER: _ClassVar[int]
    second: int
    stage: Stage
    share_bp: int
    log_e: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, second: _Optional[int] = ..., stage: _Optional[_Union[Stage, str]] = ..., share_bp: _Optional[int] = ..., log_e: _Optional[_Iterable[float]] = ...) -> None: ...

class Decision(_message.Message):
    __slots__ = ("at_unix_ns", "stage", "revision", "verdict", "reason", "evidence", "policy_digest", "first_second", "last_second")
    AT_UNIX_NS_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    POLICY_DIGEST_FIELD_NUMBER: _ClassVar[int]
    FIRST_SECOND_FIELD_NUMBER: _ClassVar[int]
    LAST_SECOND_FIELD_NUMBER: _ClassVar[int]
    at_unix_ns: int
    stage: Stage
    revision: int
    verdict: Verdict
    reason: str
    evidence: _containers.RepeatedCompositeFieldContainer[Evidence]
    policy_digest: str
    first_second: int
    last_second: int
    def __init__(self, at_unix_ns: _Optional[int] = ..., stage: _Optional[_Union[Stage, str]] = ..., revision: _Optional[int] = ..., verdict: _Optional[_Union[Verdict, str]] = ..., reason: _Optional[str] = ..., evidence: _Optional[_Iterable[_Union[Evidence, _Mapping]]] = ..., policy_digest: _Optional[str] = ..., first_second: _Optional[int] = ..., last_second: _Optional[int] = ...) -> None: ...

class RolloutState(_message.Message):
    __slots__ = ("status", "decisions", "split_salt", "closed_second", "sources", "late_windows", "duplicate_batches", "stages", "open_windows", "approved_shift", "policy_json", "evidence")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    DECISIONS_FIELD_NUMBER: _ClassVar[int]
    SPLIT_SALT_FIELD_NUMBER: _ClassVar[int]
    CLOSED_SECOND_FIELD_NUMBER: _ClassVar[int]
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    LATE_WINDOWS_FIELD_NUMBER: _ClassVar[int]
    DUPLICATE_BATCHES_FIELD_NUMBER: _ClassVar[int]
    STAGES_FIELD_NUMBER: _ClassVar[int]
    OPEN_WINDOWS_FIELD_NUMBER: _ClassVar[int]
    APPROVED_SHIFT_FIELD_NUMBER: _ClassVar[int]
    POLICY_JSON_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    status: RolloutStatus
    decisions: _containers.RepeatedCompositeFieldContainer[Decision]
    split_salt: bytes
    closed_second: int
    sources: _containers.RepeatedCompositeFieldContainer[SourceState]
    late_windows: int
    duplicate_batches: int
    stages: _containers.RepeatedCompositeFieldContainer[StageState]
    open_windows: bytes
    approved_shift: ApprovedShift
    policy_json: bytes
    evidence: EvidenceState
    def __init__(self, status: _Optional[_Union[RolloutStatus, _Mapping]] = ..., decisions: _Optional[_Iterable[_Union[Decision, _Mapping]]] = ..., split_salt: _Optional[bytes] = ..., closed_second: _Optional[int] = ..., sources: _Optional[_Iterable[_Union[SourceState, _Mapping]]] = ..., late_windows: _Optional[int] = ..., duplicate_batches: _Optional[int] = ..., stages: _Optional[_Iterable[_Union[StageState, _Mapping]]] = ..., open_windows: _Optional[bytes] = ..., approved_shift: _Optional[_Union[ApprovedShift, _Mapping]] = ..., policy_json: _Optional[bytes] = ..., evidence: _Optional[_Union[EvidenceState, _Mapping]] = ...) -> None: ...

class ApprovedShift(_message.Message):
    __slots__ = ("digest", "bins", "counts", "flip_rate")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    BINS_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    FLIP_RATE_FIELD_NUMBER: _ClassVar[int]
    digest: str
    bins: int
    counts: _containers.RepeatedScalarFieldContainer[int]
    flip_rate: float
    def __init__(self, digest: _Optional[str] = ..., bins: _Optional[int] = ..., counts: _Optional[_Iterable[int]] = ..., flip_rate: _Optional[float] = ...) -> None: ...

class SourceState(_message.Message):
    __slots__ = ("source", "sequence")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    source: str
    sequence: int
    def __init__(self, source: _Optional[str] = ..., sequence: _Optional[int] = ...) -> None: ...

class StageState(_message.Message):
    __slots__ = ("step", "promote_log_e", "clean_keys", "failed_keys", "pairs", "since_unix_ms", "stage", "flips", "pairs_faulty")
    STEP_FIELD_NUMBER: _ClassVar[int]
    PROMOTE_LOG_E_FIELD_NUMBER: _ClassVar[int]
    CLEAN_KEYS_FIELD_NUMBER: _ClassVar[int]
    FAILED_KEYS_FIELD_NUMBER: _ClassVar[int]
    PAIRS_FIELD_NUMBER: _ClassVar[int]
    SINCE_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    FLIPS_FIELD_NUMBER: _ClassVar[int]
    PAIRS_FAULTY_FIELD_NUMBER: _ClassVar[int]
    step: int
    promote_log_e: float
    clean_keys: int
    failed_keys: int
    pairs: int
    since_unix_ms: int
    stage: Stage
    flips: int
    pairs_faulty: int
    def __init__(self, step: _Optional[int] = ..., promote_log_e: _Optional[float] = ..., clean_keys: _Optional[int] = ..., failed_keys: _Optional[int] = ..., pairs: _Optional[int] = ..., since_unix_ms: _Optional[int] = ..., stage: _Optional[_Union[Stage, str]] = ..., flips: _Optional[int] = ..., pairs_faulty: _Optional[int] = ...) -> None: ...

class EvidenceState(_message.Message):
    __slots__ = ("metrics", "latency", "prediction", "validity", "stage", "canary_keys", "baseline_keys", "outcome_callers")
    METRICS_FIELD_NUMBER: _ClassVar[int]
    LATENCY_FIELD_NUMBER: _ClassVar[int]
    PREDICTION_FIELD_NUMBER: _ClassVar[int]
    VALIDITY_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    CANARY_KEYS_FIELD_NUMBER: _ClassVar[int]
    BASELINE_KEYS_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_CALLERS_FIELD_NUMBER: _ClassVar[int]
    metrics: _containers.RepeatedCompositeFieldContainer[MetricState]
    latency: LatencyState
    prediction: PredictionState
    validity: ValidityState
    stage: StageEvidenceState
    canary_keys: int
    baseline_keys: int
    outcome_callers: OutcomeCallersState
    def __init__(self, metrics: _Optional[_Iterable[_Union[MetricState, _Mapping]]] = ..., latency: _Optional[_Union[LatencyState, _Mapping]] = ..., prediction: _Optional[_Union[PredictionState, _Mapping]] = ..., validity: _Optional[_Union[ValidityState, _Mapping]] = ..., stage: _Optional[_Union[StageEvidenceState, _Mapping]] = ..., canary_keys: _Optional[int] = ..., baseline_keys: _Optional[int] = ..., outcome_callers: _Optional[_Union[OutcomeCallersState, _Mapping]] = ...) -> None: ...

class OutcomeCallersState(_message.Message):
    __slots__ = ("callers", "keys", "reporters")
    CALLERS_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    REPORTERS_FIELD_NUMBER: _ClassVar[int]
    callers: _containers.RepeatedCompositeFieldContainer[OutcomeCallerState]
    keys: bytes
    reporters: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, callers: _Optional[_Iterable[_Union[OutcomeCallerState, _Mapping]]] = ..., keys: _Optional[bytes] = ..., reporters: _Optional[_Iterable[int]] = ...) -> None: ...

class OutcomeCallerState(_message.Message):
    __slots__ = ("caller", "keys", "without")
    CALLER_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    WITHOUT_FIELD_NUMBER: _ClassVar[int]
    caller: str
    keys: int
    without: EProcessState
    def __init__(self, caller: _Optional[str] = ..., keys: _Optional[int] = ..., without: _Optional[_Union[EProcessState, _Mapping]] = ...) -> None: ...

class EProcessState(_message.Message):
    __slots__ = ("log_s", "prior_spent", "log_e", "log_e_max", "looks")
    LOG_S_FIELD_NUMBER: _ClassVar[int]
    PRIOR_SPENT_FIELD_NUMBER: _ClassVar[int]
    LOG_E_FIELD_NUMBER: _ClassVar[int]
    LOG_E_MAX_FIELD_NUMBER: _ClassVar[int]
    LOOKS_FIELD_NUMBER: _ClassVar[int]
    log_s: _containers.RepeatedScalarFieldContainer[float]
    prior_spent: float
    log_e: float
    log_e_max: float
    looks: int
    def __init__(self, log_s: _Optional[_Iterable[float]] = ..., prior_spent: _Optional[float] = ..., log_e: _Optional[float] = ..., log_e_max: _Optional[float] = ..., looks: _Optional[int] = ...) -> None: ...

class MetricState(_message.Message):
    __slots__ = ("metric", "canary_events", "baseline_events", "events_by_share", "e_process", "counted_keys")
    METRIC_FIELD_NUMBER: _ClassVar[int]
    CANARY_EVENTS_FIELD_NUMBER: _ClassVar[int]
    BASELINE_EVENTS_FIELD_NUMBER: _ClassVar[int]
    EVENTS_BY_SHARE_FIELD_NUMBER: _ClassVar[int]
    E_PROCESS_FIELD_NUMBER: _ClassVar[int]
    COUNTED_KEYS_FIELD_NUMBER: _ClassVar[int]
    metric: str
    canary_events: int
    baseline_events: int
    events_by_share: _containers.RepeatedCompositeFieldContainer[EventsByShare]
    e_process: EProcessState
    counted_keys: KeySet
    def __init__(self, metric: _Optional[str] = ..., canary_events: _Optional[int] = ..., baseline_events: _Optional[int] = ..., events_by_share: _Optional[_Iterable[_Union[EventsByShare, _Mapping]]] = ..., e_process: _Optional[_Union[EProcessState, _Mapping]] = ..., counted_keys: _Optional[_Union[KeySet, _Mapping]] = ...) -> None: ...

class EventsByShare(_message.Message):
    __slots__ = ("share_bp", "canary", "baseline")
    SHARE_BP_FIELD_NUMBER: _ClassVar[int]
    CANARY_FIELD_NUMBER: _ClassVar[int]
    BASELINE_FIELD_NUMBER: _ClassVar[int]
    share_bp: int
    canary: float
    baseline: float
    def __init__(self, share_bp: _Optional[int] = ..., canary: _Optional[float] = ..., baseline: _Optional[float] = ...) -> None: ...

class KeySet(_message.Message):
    __slots__ = ("keys", "sampled_of_65536")
    KEYS_FIELD_NUMBER: _ClassVar[int]
    SAMPLED_OF_65536_FIELD_NUMBER: _ClassVar[int]
    keys: bytes
    sampled_of_65536: int
    def __init__(self, keys: _Optional[bytes] = ..., sampled_of_65536: _Optional[int] = ...) -> None: ...

class LatencyState(_message.Message):
    __slots__ = ("metrics", "edges", "rollout_counts", "stage_counts")
    METRICS_FIELD_NUMBER: _ClassVar[int]
    EDGES_FIELD_NUMBER: _ClassVar[int]
    ROLLOUT_COUNTS_FIELD_NUMBER: _ClassVar[int]
    STAGE_COUNTS_FIELD_NUMBER: _ClassVar[int]
    metrics: _containers.RepeatedCompositeFieldContainer[MetricState]
    edges: _containers.RepeatedCompositeFieldContainer[LatencyEdge]
    rollout_counts: _containers.RepeatedScalarFieldContainer[int]
    stage_counts: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, metrics: _Optional[_Iterable[_Union[MetricState, _Mapping]]] = ..., edges: _Optional[_Iterable[_Union[LatencyEdge, _Mapping]]] = ..., rollout_counts: _Optional[_Iterable[int]] = ..., stage_counts: _Optional[_Iterable[int]] = ...) -> None: ...

class LatencyEdge(_message.Message):
    __slots__ = ("metric", "bin")
    METRIC_FIELD_NUMBER: _ClassVar[int]
    BIN_FIELD_NUMBER: _ClassVar[int]
    metric: str
    bin: int
    def __init__(self, metric: _Optional[str] = ..., bin: _Optional[int] = ...) -> None: ...

class PredictionState(_message.Message):
    __slots__ = ("candidate_keys", "standby_keys", "paired_counts", "same_bin_count", "watch_counts", "shadow_counts", "expected_counts", "departure", "constant_log_s", "constant_prior_spent", "output_bins", "swapped_log_s", "swapped_prior_spent")
    CANDIDATE_KEYS_FIELD_NUMBER: _ClassVar[int]
    STANDBY_KEYS_FIELD_NUMBER: _ClassVar[int]
    PAIRED_COUNTS_FIELD_NUMBER: _ClassVar[int]
    SAME_BIN_COUNT_FIELD_NUMBER: _ClassVar[int]
    WATCH_COUNTS_FIELD_NUMBER: _ClassVar[int]
    SHADOW_COUNTS_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_COUNTS_FIELD_NUMBER: _ClassVar[int]
    DEPARTURE_FIELD_NUMBER: _ClassVar[int]
    CONSTANT_LOG_S_FIELD_NUMBER: _ClassVar[int]
    CONSTANT_PRIOR_SPENT_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_BINS_FIELD_NUMBER: _ClassVar[int]
    SWAPPED_LOG_S_FIELD_NUMBER: _ClassVar[int]
    SWAPPED_PRIOR_SPENT_FIELD_NUMBER: _ClassVar[int]
    candidate_keys: KeySet
    standby_keys: KeySet
    paired_counts: _containers.RepeatedScalarFieldContainer[int]
    same_bin_count: int
    watch_counts: _containers.RepeatedScalarFieldContainer[int]
    shadow_counts: _containers.RepeatedScalarFieldContainer[int]
    expected_counts: _containers.RepeatedScalarFieldContainer[int]
    departure: EProcessState
    constant_log_s: _containers.RepeatedScalarFieldContainer[float]
    constant_prior_spent: float
    output_bins: _containers.RepeatedScalarFieldContainer[int]
    swapped_log_s: _containers.RepeatedScalarFieldContainer[float]
    swapped_prior_spent: float
    def __init__(self, candidate_keys: _Optional[_Union[KeySet, _Mapping]] = ..., standby_keys: _Optional[_Union[KeySet, _Mapping]] = ..., paired_counts: _Optional[_Iterable[int]] = ..., same_bin_count: _Optional[int] = ..., watch_counts: _Optional[_Iterable[int]] = ..., shadow_counts: _Optional[_Iterable[int]] = ..., expected_counts: _Optional[_Iterable[int]] = ..., departure: _Optional[_Union[EProcessState, _Mapping]] = ..., constant_log_s: _Optional[_Iterable[float]] = ..., constant_prior_spent: _Optional[float] = ..., output_bins: _Optional[_Iterable[int]] = ..., swapped_log_s: _Optional[_Iterable[float]] = ..., swapped_prior_spent: _Optional[float] = ...) -> None: ...

class ValidityState(_message.Message):
    __slots__ = ("counted_keys", "split_count", "canary_features", "baseline_features", "ordinary_keys", "ordinary_failed", "baseline_alarm_second", "newest_second", "detector_log_m")
    COUNTED_KEYS_FIELD_NUMBER: _ClassVar[int]
    SPLIT_COUNT_FIELD_NUMBER: _ClassVar[int]
    CANARY_FEATURES_FIELD_NUMBER: _ClassVar[int]
    BASELINE_FEATURES_FIELD_NUMBER: _ClassVar[int]
    ORDINARY_KEYS_FIELD_NUMBER: _ClassVar[int]
    ORDINARY_FAILED_FIELD_NUMBER: _ClassVar[int]
    BASELINE_ALARM_SECOND_FIELD_NUMBER: _ClassVar[int]
    NEWEST_SECOND_FIELD_NUMBER: _ClassVar[int]
    DETECTOR_LOG_M_FIELD_NUMBER: _ClassVar[int]
    counted_keys: KeySet
    split_count: SplitCountState
    canary_features: MissingFeaturesState
    baseline_features: MissingFeaturesState
    ordinary_keys: int
    ordinary_failed: int
    baseline_alarm_second: int
    newest_second: int
    detector_log_m: float
    def __init__(self, counted_keys: _Optional[_Union[KeySet, _Mapping]] = ..., split_count: _Optional[_Union[SplitCountState, _Mapping]] = ..., canary_features: _Optional[_Union[MissingFeaturesState, _Mapping]] = ..., baseline_features: _Optional[_Union[MissingFeaturesState, _Mapping]] = ..., ordinary_keys: _Optional[int] = ..., ordinary_failed: _Optional[int] = ..., baseline_alarm_second: _Optional[int] = ..., newest_second: _Optional[int] = ..., detector_log_m: _Optional[float] = ...) -> None: ...

class SplitCountState(_message.Message):
    __slots__ = ("canary", "baseline", "share")
    CANARY_FIELD_NUMBER: _ClassVar[int]
    BASELINE_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    canary: int
    baseline: int
    share: float
    def __init__(self, canary: _Optional[int] = ..., baseline: _Optional[int] = ..., share: _Optional[float] = ...) -> None: ...

class MissingFeaturesState(_message.Message):
    __slots__ = ("rows", "missing", "degraded")
    ROWS_FIELD_NUMBER: _ClassVar[int]
    MISSING_FIELD_NUMBER: _ClassVar[int]
    DEGRADED_FIELD_NUMBER: _ClassVar[int]
    rows: int
    missing: int
    degraded: int
    def __init__(self, rows: _Optional[int] = ..., missing: _Optional[int] = ..., degraded: _Optional[int] = ...) -> None: ...

class StageEvidenceState(_message.Message):
    __slots__ = ("non_inferiority", "clean_keys", "baseline_clean_keys", "failed_keys", "failed_in_sample", "shadow")
    NON_INFERIORITY_FIELD_NUMBER: _ClassVar[int]
    CLEAN_KEYS_FIELD_NUMBER: _ClassVar[int]
    BASELINE_CLEAN_KEYS_FIELD_NUMBER: _ClassVar[int]
    FAILED_KEYS_FIELD_NUMBER: _ClassVar[int]
    FAILED_IN_SAMPLE_FIELD_NUMBER: _ClassVar[int]
    SHADOW_FIELD_NUMBER: _ClassVar[int]
    non_inferiority: EProcessState
    clean_keys: bytes
    baseline_clean_keys: bytes
    failed_keys: bytes
    failed_in_sample: int
    shadow: ShadowPairsState
    def __init__(self, non_inferiority: _Optional[_Union[EProcessState, _Mapping]] = ..., clean_keys: _Optional[bytes] = ..., baseline_clean_keys: _Optional[bytes] = ..., failed_keys: _Optional[bytes] = ..., failed_in_sample: _Optional[int] = ..., shadow: _Optional[_Union[ShadowPairsState, _Mapping]] = ...) -> None: ...

class ShadowPairsState(_message.Message):
    __slots__ = ("pairs", "flips", "faulty", "bin_differs", "binned_pairs", "absolute_sum", "wealth", "task", "outputs")
    PAIRS_FIELD_NUMBER: _ClassVar[int]
    FLIPS_FIELD_NUMBER: _ClassVar[int]
    FAULTY_FIELD_NUMBER: _ClassVar[int]
    BIN_DIFFERS_FIELD_NUMBER: _ClassVar[int]
    BINNED_PAIRS_FIELD_NUMBER: _ClassVar[int]
    ABSOLUTE_SUM_FIELD_NUMBER: _ClassVar[int]
    WEALTH_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    pairs: int
    flips: int
    faulty: int
    bin_differs: int
    binned_pairs: int
    absolute_sum: float
    wealth: WealthState
    task: str
    outputs: _containers.RepeatedCompositeFieldContainer[_window_pb2.OutputDifference]
    def __init__(self, pairs: _Optional[int] = ..., flips: _Optional[int] = ..., faulty: _Optional[int] = ..., bin_differs: _Optional[int] = ..., binned_pairs: _Optional[int] = ..., absolute_sum: _Optional[float] = ..., wealth: _Optional[_Union[WealthState, _Mapping]] = ..., task: _Optional[str] = ..., outputs: _Optional[_Iterable[_Union[_window_pb2.OutputDifference, _Mapping]]] = ...) -> None: ...

class WealthState(_message.Message):
    __slots__ = ("log_e", "log_e_max", "looks", "total", "squares")
    LOG_E_FIELD_NUMBER: _ClassVar[int]
    LOG_E_MAX_FIELD_NUMBER: _ClassVar[int]
    LOOKS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    SQUARES_FIELD_NUMBER: _ClassVar[int]
    log_e: float
    log_e_max: float
    looks: int
    total: float
    squares: float
    def __init__(self, log_e: _Optional[float] = ..., log_e_max: _Optional[float] = ..., looks: _Optional[int] = ..., total: _Optional[float] = ..., squares: _Optional[float] = ...) -> None: ...
