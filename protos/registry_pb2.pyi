from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class VersionStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    VERSION_STATUS_UNSPECIFIED: _ClassVar[VersionStatus]
    DEVELOPMENT: _ClassVar[VersionStatus]
    STAGING: _ClassVar[VersionStatus]
    PRODUCTION_STATUS: _ClassVar[VersionStatus]
    ARCHIVED: _ClassVar[VersionStatus]
VERSION_STATUS_UNSPECIFIED: VersionStatus
DEVELOPMENT: VersionStatus
STAGING: VersionStatus
PRODUCTION_STATUS: VersionStatus
ARCHIVED: VersionStatus

class Empty(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class MessageChunk(_message.Message):
    __slots__ = ("content",)
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    content: bytes
    def __init__(self, content: _Optional[bytes] = ...) -> None: ...

class ModelName(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class VersionName(_message.Message):
    __slots__ = ("model", "version")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ...) -> None: ...

class Version(_message.Message):
    __slots__ = ("model", "label", "digest", "status", "standby", "author", "created_unix_ms", "model_contract", "input_contract", "card_json", "size_bytes", "card_bytes", "views", "views_unknown", "task", "outputs")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    STANDBY_FIELD_NUMBER: _ClassVar[int]
    AUTHOR_FIELD_NUMBER: _ClassVar[int]
    CREATED_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    MODEL_CONTRACT_FIELD_NUMBER: _ClassVar[int]
    INPUT_CONTRACT_FIELD_NUMBER: _ClassVar[int]
    CARD_JSON_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    CARD_BYTES_FIELD_NUMBER: _ClassVar[int]
    VIEWS_FIELD_NUMBER: _ClassVar[int]
    VIEWS_UNKNOWN_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    model: str
    label: str
    digest: str
    status: VersionStatus
    standby: bool
    author: str
    created_unix_ms: int
    model_contract: str
    input_contract: str
    card_json: str
    size_bytes: int
    card_bytes: int
    views: _containers.RepeatedCompositeFieldContainer[VersionView]
    views_unknown: bool
    task: str
    outputs: _containers.RepeatedCompositeFieldContainer[VersionOutput]
    def __init__(self, model: _Optional[str] = ..., label: _Optional[str] = ..., digest: _Optional[str] = ..., status: _Optional[_Union[VersionStatus, str]] = ..., standby: _Optional[bool] = ..., author: _Optional[str] = ..., created_unix_ms: _Optional[int] = ..., model_contract: _Optional[str] = ..., input_contract: _Optional[str] = ..., card_json: _Optional[str] = ..., size_bytes: _Optional[int] = ..., card_bytes: _Optional[int] = ..., views: _Optional[_Iterable[_Union[VersionView, _Mapping]]] = ..., views_unknown: _Optional[bool] = ..., task: _Optional[str] = ..., outputs: _Optional[_Iterable[_Union[VersionOutput, _Mapping]]] = ...) -> None: ...

class VersionOutput(_message.Message):
    __slots__ = ("name", "spread")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SPREAD_FIELD_NUMBER: _ClassVar[int]
    name: str
    spread: float
    def __init__(self, name: _Optional[str] = ..., spread: _Optional[float] = ...) -> None: ...

class VersionView(_message.Message):
    __slots__ = ("name", "hash")
    NAME_FIELD_NUMBER: _ClassVar[int]
    HASH_FIELD_NUMBER: _ClassVar[int]
    name: str
    hash: str
    def __init__(self, name: _Optional[str] = ..., hash: _Optional[str] = ...) -> None: ...

class VersionChunk(_message.Message):
    __slots__ = ("model", "file", "content")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    model: str
    file: str
    content: bytes
    def __init__(self, model: _Optional[str] = ..., file: _Optional[str] = ..., content: _Optional[bytes] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ("after",)
    AFTER_FIELD_NUMBER: _ClassVar[int]
    after: str
    def __init__(self, after: _Optional[str] = ...) -> None: ...

class ListModelsReply(_message.Message):
    __slots__ = ("models", "more")
    MODELS_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[ModelSummary]
    more: bool
    def __init__(self, models: _Optional[_Iterable[_Union[ModelSummary, _Mapping]]] = ..., more: _Optional[bool] = ...) -> None: ...

class ModelSummary(_message.Message):
    __slots__ = ("model", "versions", "deployment", "about")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    ABOUT_FIELD_NUMBER: _ClassVar[int]
    model: str
    versions: int
    deployment: Deployment
    about: ProjectModel
    def __init__(self, model: _Optional[str] = ..., versions: _Optional[int] = ..., deployment: _Optional[_Union[Deployment, _Mapping]] = ..., about: _Optional[_Union[ProjectModel, _Mapping]] = ...) -> None: ...

class ProjectModel(_message.Message):
    __slots__ = ("project", "owner", "purpose", "tier", "score_meaning", "default_policy")
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    SCORE_MEANING_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_POLICY_FIELD_NUMBER: _ClassVar[int]
    project: str
    owner: str
    purpose: str
    tier: str
    score_meaning: str
    default_policy: str
    def __init__(self, project: _Optional[str] = ..., owner: _Optional[str] = ..., purpose: _Optional[str] = ..., tier: _Optional[str] = ..., score_meaning: _Optional[str] = ..., default_policy: _Optional[str] = ...) -> None: ...

class ListVersionsRequest(_message.Message):
    __slots__ = ("model", "after")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    model: str
    after: str
    def __init__(self, model: _Optional[str] = ..., after: _Optional[str] = ...) -> None: ...

class ListVersionsReply(_message.Message):
    __slots__ = ("versions", "more")
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    versions: _containers.RepeatedCompositeFieldContainer[Version]
    more: bool
    def __init__(self, versions: _Optional[_Iterable[_Union[Version, _Mapping]]] = ..., more: _Optional[bool] = ...) -> None: ...

class SetStatusRequest(_message.Message):
    __slots__ = ("model", "version", "status", "reason")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    status: VersionStatus
    reason: str
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., status: _Optional[_Union[VersionStatus, str]] = ..., reason: _Optional[str] = ...) -> None: ...

class ApproveRequest(_message.Message):
    __slots__ = ("model", "version", "policy_name", "policy_digest", "accepted_shift", "reason", "reject", "direct")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    POLICY_NAME_FIELD_NUMBER: _ClassVar[int]
    POLICY_DIGEST_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_SHIFT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    REJECT_FIELD_NUMBER: _ClassVar[int]
    DIRECT_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    policy_name: str
    policy_digest: str
    accepted_shift: str
    reason: str
    reject: bool
    direct: bool
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., policy_name: _Optional[str] = ..., policy_digest: _Optional[str] = ..., accepted_shift: _Optional[str] = ..., reason: _Optional[str] = ..., reject: _Optional[bool] = ..., direct: _Optional[bool] = ...) -> None: ...

class Approval(_message.Message):
    __slots__ = ("id", "model", "version", "version_digest", "policy_name", "policy_digest", "accepted_shift", "approver", "reason", "at_unix_ms", "rejected", "direct", "ended", "stopped_revision")
    ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    VERSION_DIGEST_FIELD_NUMBER: _ClassVar[int]
    POLICY_NAME_FIELD_NUMBER: _ClassVar[int]
    POLICY_DIGEST_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_SHIFT_FIELD_NUMBER: _ClassVar[int]
    APPROVER_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    AT_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    REJECTED_FIELD_NUMBER: _ClassVar[int]
    DIRECT_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    STOPPED_REVISION_FIELD_NUMBER: _ClassVar[int]
    id: str
    model: str
    version: str
    version_digest: str
    policy_name: str
    policy_digest: str
    accepted_shift: str
    approver: str
    reason: str
    at_unix_ms: int
    rejected: bool
    direct: bool
    ended: _containers.RepeatedScalarFieldContainer[str]
    stopped_revision: int
    def __init__(self, id: _Optional[str] = ..., model: _Optional[str] = ..., version: _Optional[str] = ..., version_digest: _Optional[str] = ..., policy_name: _Optional[str] = ..., policy_digest: _Optional[str] = ..., accepted_shift: _Optional[str] = ..., approver: _Optional[str] = ..., reason: _Optional[str] = ..., at_unix_ms: _Optional[int] = ..., rejected: _Optional[bool] = ..., direct: _Optional[bool] = ..., ended: _Optional[_Iterable[str]] = ..., stopped_revision: _Optional[int] = ...) -> None: ...

class ListApprovalsRequest(_message.Message):
    __slots__ = ("model", "version", "after")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    after: str
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., after: _Optional[str] = ...) -> None: ...

class ListApprovalsReply(_message.Message):
    __slots__ = ("approvals", "more")
    APPROVALS_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    approvals: _containers.RepeatedCompositeFieldContainer[Approval]
    more: bool
    def __init__(self, approvals: _Optional[_Iterable[_Union[Approval, _Mapping]]] = ..., more: _Optional[bool] = ...) -> None: ...

class SettingsRequest(_message.Message):
    __slots__ = ("model", "holdout_bp", "policy", "split_salt", "reason")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    HOLDOUT_BP_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    SPLIT_SALT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    model: str
    holdout_bp: int
    policy: ServingPolicy
    split_salt: bytes
    reason: str
    def __init__(self, model: _Optional[str] = ..., holdout_bp: _Optional[int] = ..., policy: _Optional[_Union[ServingPolicy, _Mapping]] = ..., split_salt: _Optional[bytes] = ..., reason: _Optional[str] = ...) -> None: ...

class SettingsApproval(_message.Message):
    __slots__ = ("id", "model", "digest", "replaces", "approver", "reason", "at_unix_ms")
    ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    REPLACES_FIELD_NUMBER: _ClassVar[int]
    APPROVER_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    AT_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    id: str
    model: str
    digest: str
    replaces: str
    approver: str
    reason: str
    at_unix_ms: int
    def __init__(self, id: _Optional[str] = ..., model: _Optional[str] = ..., digest: _Optional[str] = ..., replaces: _Optional[str] = ..., approver: _Optional[str] = ..., reason: _Optional[str] = ..., at_unix_ms: _Optional[int] = ...) -> None: ...

class Review(_message.Message):
    __slots__ = ("id", "model", "revision", "opened_by", "authors", "reason", "opened_unix_ms", "due_unix_ms", "closed_by", "closing_reason", "closed_unix_ms")
    ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    OPENED_BY_FIELD_NUMBER: _ClassVar[int]
    AUTHORS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    OPENED_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    DUE_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    CLOSED_BY_FIELD_NUMBER: _ClassVar[int]
    CLOSING_REASON_FIELD_NUMBER: _ClassVar[int]
    CLOSED_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    id: str
    model: str
    revision: int
    opened_by: str
    authors: _containers.RepeatedScalarFieldContainer[str]
    reason: str
    opened_unix_ms: int
    due_unix_ms: int
    closed_by: str
    closing_reason: str
    closed_unix_ms: int
    def __init__(self, id: _Optional[str] = ..., model: _Optional[str] = ..., revision: _Optional[int] = ..., opened_by: _Optional[str] = ..., authors: _Optional[_Iterable[str]] = ..., reason: _Optional[str] = ..., opened_unix_ms: _Optional[int] = ..., due_unix_ms: _Optional[int] = ..., closed_by: _Optional[str] = ..., closing_reason: _Optional[str] = ..., closed_unix_ms: _Optional[int] = ...) -> None: ...

class ListReviewsRequest(_message.Message):
    __slots__ = ("model", "open_only")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    OPEN_ONLY_FIELD_NUMBER: _ClassVar[int]
    model: str
    open_only: bool
    def __init__(self, model: _Optional[str] = ..., open_only: _Optional[bool] = ...) -> None: ...

class ListReviewsReply(_message.Message):
    __slots__ = ("reviews",)
    REVIEWS_FIELD_NUMBER: _ClassVar[int]
    reviews: _containers.RepeatedCompositeFieldContainer[Review]
    def __init__(self, reviews: _Optional[_Iterable[_Union[Review, _Mapping]]] = ...) -> None: ...

class CloseReviewRequest(_message.Message):
    __slots__ = ("id", "reason")
    ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    id: str
    reason: str
    def __init__(self, id: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class Deployment(_message.Message):
    __slots__ = ("model", "revision", "production", "standby", "canary", "shadows", "preload", "holdout_bp", "split_salt", "holdout_salt", "policy", "approval_id", "rollout_id", "who", "why", "at_unix_ns", "digests", "standby_bp")
    class DigestsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    MODEL_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    PRODUCTION_FIELD_NUMBER: _ClassVar[int]
    STANDBY_FIELD_NUMBER: _ClassVar[int]
    CANARY_FIELD_NUMBER: _ClassVar[int]
    SHADOWS_FIELD_NUMBER: _ClassVar[int]
    PRELOAD_FIELD_NUMBER: _ClassVar[int]
    HOLDOUT_BP_FIELD_NUMBER: _ClassVar[int]
    SPLIT_SALT_FIELD_NUMBER: _ClassVar[int]
    HOLDOUT_SALT_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    APPROVAL_ID_FIELD_NUMBER: _ClassVar[int]
    ROLLOUT_ID_FIELD_NUMBER: _ClassVar[int]
    WHO_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    AT_UNIX_NS_FIELD_NUMBER: _ClassVar[int]
    DIGESTS_FIELD_NUMBER: _ClassVar[int]
    STANDBY_BP_FIELD_NUMBER: _ClassVar[int]
    model: str
    revision: int
    production: str
    standby: str
    canary: Canary
    shadows: _containers.RepeatedCompositeFieldContainer[Shadow]
    preload: _containers.RepeatedScalarFieldContainer[str]
    holdout_bp: int
    split_salt: bytes
    holdout_salt: bytes
    policy: ServingPolicy
    approval_id: str
    rollout_id: str
    who: str
    why: str
    at_unix_ns: int
    digests: _containers.ScalarMap[str, str]
    standby_bp: int
    def __init__(self, model: _Optional[str] = ..., revision: _Optional[int] = ..., production: _Optional[str] = ..., standby: _Optional[str] = ..., canary: _Optional[_Union[Canary, _Mapping]] = ..., shadows: _Optional[_Iterable[_Union[Shadow, _Mapping]]] = ..., preload: _Optional[_Iterable[str]] = ..., holdout_bp: _Optional[int] = ..., split_salt: _Optional[bytes] = ..., holdout_salt: _Optional[bytes] = ..., policy: _Optional[_Union[ServingPolicy, _Mapping]] = ..., approval_id: _Optional[str] = ..., rollout_id: _Optional[str] = ..., who: _Optional[str] = ..., why: _Optional[str] = ..., at_unix_ns: _Optional[int] = ..., digests: _Optional[_Mapping[str, str]] = ..., standby_bp: _Optional[int] = ...) -> None: ...

class Canary(_message.Message):
    __slots__ = ("version", "share_bp")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SHARE_BP_FIELD_NUMBER: _ClassVar[int]
    version: str
    share_bp: int
    def __init__(self, version: _Optional[str] = ..., share_bp: _Optional[int] = ...) -> None: ...

class Shadow(_message.Message):
    __slots__ = ("version", "sample_bp")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_BP_FIELD_NUMBER: _ClassVar[int]
    version: str
    sample_bp: int
    def __init__(self, version: _Optional[str] = ..., sample_bp: _Optional[int] = ...) -> None: ...

class ServingPolicy(_message.Message):
    __slots__ = ("deadline_ms_default", "feature_budget_ms", "features_required", "nan_inputs_refused", "nan_scores_defaulted", "default_score", "canary_budget_ms", "rows_max", "evidence_sampled_of_65536", "journal_sampled_of_65536", "journal_required", "decision_threshold", "hide_role")
    DEADLINE_MS_DEFAULT_FIELD_NUMBER: _ClassVar[int]
    FEATURE_BUDGET_MS_FIELD_NUMBER: _ClassVar[int]
    FEATURES_REQUIRED_FIELD_NUMBER: _ClassVar[int]
    NAN_INPUTS_REFUSED_FIELD_NUMBER: _ClassVar[int]
    NAN_SCORES_DEFAULTED_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_SCORE_FIELD_NUMBER: _ClassVar[int]
    CANARY_BUDGET_MS_FIELD_NUMBER: _ClassVar[int]
    ROWS_MAX_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_SAMPLED_OF_65536_FIELD_NUMBER: _ClassVar[int]
    JOURNAL_SAMPLED_OF_65536_FIELD_NUMBER: _ClassVar[int]
    JOURNAL_REQUIRED_FIELD_NUMBER: _ClassVar[int]
    DECISION_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    HIDE_ROLE_FIELD_NUMBER: _ClassVar[int]
    deadline_ms_default: int
    feature_budget_ms: int
    features_required: bool
    nan_inputs_refused: bool
    nan_scores_defaulted: bool
    default_score: float
    canary_budget_ms: int
    rows_max: int
    evidence_sampled_of_65536: int
    journal_sampled_of_65536: int
    journal_required: bool
    decision_threshold: float
    hide_role: bool
    def __init__(self, deadline_ms_default: _Optional[int] = ..., feature_budget_ms: _Optional[int] = ..., features_required: _Optional[bool] = ..., nan_inputs_refused: _Optional[bool] = ..., nan_scores_defaulted: _Optional[bool] = ..., default_score: _Optional[float] = ..., canary_budget_ms: _Optional[int] = ..., rows_max: _Optional[int] = ..., evidence_sampled_of_65536: _Optional[int] = ..., journal_sampled_of_65536: _Optional[int] = ..., journal_required: _Optional[bool] = ..., decision_threshold: _Optional[float] = ..., hide_role: _Optional[bool] = ...) -> None: ...

class DeployRequest(_message.Message):
    __slots__ = ("deployment", "lease_token", "rollout_policy_digest", "rollback", "break_glass", "finding")
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    LEASE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    ROLLOUT_POLICY_DIGEST_FIELD_NUMBER: _ClassVar[int]
    ROLLBACK_FIELD_NUMBER: _ClassVar[int]
    BREAK_GLASS_FIELD_NUMBER: _ClassVar[int]
    FINDING_FIELD_NUMBER: _ClassVar[int]
    deployment: Deployment
    lease_token: int
    rollout_policy_digest: str
    rollback: bool
    break_glass: bool
    finding: int
    def __init__(self, deployment: _Optional[_Union[Deployment, _Mapping]] = ..., lease_token: _Optional[int] = ..., rollout_policy_digest: _Optional[str] = ..., rollback: _Optional[bool] = ..., break_glass: _Optional[bool] = ..., finding: _Optional[int] = ...) -> None: ...

class SignedDeployment(_message.Message):
    __slots__ = ("content", "signature")
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    content: bytes
    signature: bytes
    def __init__(self, content: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class WatchDeploymentsRequest(_message.Message):
    __slots__ = ("gateway", "slot", "boot_id")
    GATEWAY_FIELD_NUMBER: _ClassVar[int]
    SLOT_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    gateway: str
    slot: int
    boot_id: int
    def __init__(self, gateway: _Optional[str] = ..., slot: _Optional[int] = ..., boot_id: _Optional[int] = ...) -> None: ...

class DeploymentEvent(_message.Message):
    __slots__ = ("deployments", "snapshot_end", "keys")
    DEPLOYMENTS_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_END_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    deployments: _containers.RepeatedCompositeFieldContainer[SignedDeployment]
    snapshot_end: bool
    keys: ServingKeys
    def __init__(self, deployments: _Optional[_Iterable[_Union[SignedDeployment, _Mapping]]] = ..., snapshot_end: _Optional[bool] = ..., keys: _Optional[_Union[ServingKeys, _Mapping]] = ...) -> None: ...

class ServingKeys(_message.Message):
    __slots__ = ("prediction_id_key", "version_public_key")
    PREDICTION_ID_KEY_FIELD_NUMBER: _ClassVar[int]
    VERSION_PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    prediction_id_key: bytes
    version_public_key: bytes
    def __init__(self, prediction_id_key: _Optional[bytes] = ..., version_public_key: _Optional[bytes] = ...) -> None: ...

class GatewayState(_message.Message):
    __slots__ = ("gateway", "slot", "boot_id", "spare", "loads", "applied", "applied_unix_ns", "at_unix_ns", "disconnected", "alarms")
    class AppliedEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    class AppliedUnixNsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    GATEWAY_FIELD_NUMBER: _ClassVar[int]
    SLOT_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    SPARE_FIELD_NUMBER: _ClassVar[int]
    LOADS_FIELD_NUMBER: _ClassVar[int]
    APPLIED_FIELD_NUMBER: _ClassVar[int]
    APPLIED_UNIX_NS_FIELD_NUMBER: _ClassVar[int]
    AT_UNIX_NS_FIELD_NUMBER: _ClassVar[int]
    DISCONNECTED_FIELD_NUMBER: _ClassVar[int]
    ALARMS_FIELD_NUMBER: _ClassVar[int]
    gateway: str
    slot: int
    boot_id: int
    spare: bool
    loads: _containers.RepeatedCompositeFieldContainer[VersionLoad]
    applied: _containers.ScalarMap[str, int]
    applied_unix_ns: _containers.ScalarMap[str, int]
    at_unix_ns: int
    disconnected: bool
    alarms: _containers.RepeatedCompositeFieldContainer[RegistryAlarm]
    def __init__(self, gateway: _Optional[str] = ..., slot: _Optional[int] = ..., boot_id: _Optional[int] = ..., spare: _Optional[bool] = ..., loads: _Optional[_Iterable[_Union[VersionLoad, _Mapping]]] = ..., applied: _Optional[_Mapping[str, int]] = ..., applied_unix_ns: _Optional[_Mapping[str, int]] = ..., at_unix_ns: _Optional[int] = ..., disconnected: _Optional[bool] = ..., alarms: _Optional[_Iterable[_Union[RegistryAlarm, _Mapping]]] = ...) -> None: ...

class RegistryAlarm(_message.Message):
    __slots__ = ("kind", "model", "reason", "revision")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        UNSPECIFIED: _ClassVar[RegistryAlarm.Kind]
        PEER_NOT_PROVEN: _ClassVar[RegistryAlarm.Kind]
        KEY_CHANGED: _ClassVar[RegistryAlarm.Kind]
        DEPLOYMENT_REFUSED: _ClassVar[RegistryAlarm.Kind]
        REVISION_BEHIND: _ClassVar[RegistryAlarm.Kind]
    UNSPECIFIED: RegistryAlarm.Kind
    PEER_NOT_PROVEN: RegistryAlarm.Kind
    KEY_CHANGED: RegistryAlarm.Kind
    DEPLOYMENT_REFUSED: RegistryAlarm.Kind
    REVISION_BEHIND: RegistryAlarm.Kind
    KIND_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    kind: RegistryAlarm.Kind
    model: str
    reason: str
    revision: int
    def __init__(self, kind: _Optional[_Union[RegistryAlarm.Kind, str]] = ..., model: _Optional[str] = ..., reason: _Optional[str] = ..., revision: _Optional[int] = ...) -> None: ...

class VersionLoad(_message.Message):
    __slots__ = ("model", "version", "digest", "state", "reason")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        UNSPECIFIED: _ClassVar[VersionLoad.State]
        LOADING: _ClassVar[VersionLoad.State]
        READY: _ClassVar[VersionLoad.State]
        REFUSED: _ClassVar[VersionLoad.State]
    UNSPECIFIED: VersionLoad.State
    LOADING: VersionLoad.State
    READY: VersionLoad.State
    REFUSED: VersionLoad.State
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    digest: str
    state: VersionLoad.State
    reason: str
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., digest: _Optional[str] = ..., state: _Optional[_Union[VersionLoad.State, str]] = ..., reason: _Optional[str] = ...) -> None: ...

class WatchStatesRequest(_message.Message):
    __slots__ = ("those_there_are",)
    THOSE_THERE_ARE_FIELD_NUMBER: _ClassVar[int]
    those_there_are: bool
    def __init__(self, those_there_are: _Optional[bool] = ...) -> None: ...

class LeaseRequest(_message.Message):
    __slots__ = ("name", "holder", "seconds", "token")
    NAME_FIELD_NUMBER: _ClassVar[int]
    HOLDER_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    name: str
    holder: str
    seconds: int
    token: int
    def __init__(self, name: _Optional[str] = ..., holder: _Optional[str] = ..., seconds: _Optional[int] = ..., token: _Optional[int] = ...) -> None: ...

class Lease(_message.Message):
    __slots__ = ("name", "holder", "token", "until_unix_ms")
    NAME_FIELD_NUMBER: _ClassVar[int]
    HOLDER_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    UNTIL_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    name: str
    holder: str
    token: int
    until_unix_ms: int
    def __init__(self, name: _Optional[str] = ..., holder: _Optional[str] = ..., token: _Optional[int] = ..., until_unix_ms: _Optional[int] = ...) -> None: ...

class CheckpointName(_message.Message):
    __slots__ = ("rollout_id",)
    ROLLOUT_ID_FIELD_NUMBER: _ClassVar[int]
    rollout_id: str
    def __init__(self, rollout_id: _Optional[str] = ...) -> None: ...

class Checkpoint(_message.Message):
    __slots__ = ("rollout_id", "sequence", "state", "lease_token")
    ROLLOUT_ID_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    LEASE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    rollout_id: str
    sequence: int
    state: bytes
    lease_token: int
    def __init__(self, rollout_id: _Optional[str] = ..., sequence: _Optional[int] = ..., state: _Optional[bytes] = ..., lease_token: _Optional[int] = ...) -> None: ...

class Finding(_message.Message):
    __slots__ = ("sequence", "model", "version", "kind", "text", "who", "at_unix_ms", "lease_token")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    WHO_FIELD_NUMBER: _ClassVar[int]
    AT_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    LEASE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    model: str
    version: str
    kind: str
    text: str
    who: str
    at_unix_ms: int
    lease_token: int
    def __init__(self, sequence: _Optional[int] = ..., model: _Optional[str] = ..., version: _Optional[str] = ..., kind: _Optional[str] = ..., text: _Optional[str] = ..., who: _Optional[str] = ..., at_unix_ms: _Optional[int] = ..., lease_token: _Optional[int] = ...) -> None: ...

class WatchFindingsRequest(_message.Message):
    __slots__ = ("after", "those_there_are")
    AFTER_FIELD_NUMBER: _ClassVar[int]
    THOSE_THERE_ARE_FIELD_NUMBER: _ClassVar[int]
    after: int
    those_there_are: bool
    def __init__(self, after: _Optional[int] = ..., those_there_are: _Optional[bool] = ...) -> None: ...

class ProjectEffect(_message.Message):
    __slots__ = ("text",)
    TEXT_FIELD_NUMBER: _ClassVar[int]
    text: str
    def __init__(self, text: _Optional[str] = ...) -> None: ...

class ProjectRevision(_message.Message):
    __slots__ = ("name", "revision", "digest", "definitions", "plan_digest", "effects", "author", "commit", "dirty", "reason", "applied_unix_ms")
    NAME_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    DEFINITIONS_FIELD_NUMBER: _ClassVar[int]
    PLAN_DIGEST_FIELD_NUMBER: _ClassVar[int]
    EFFECTS_FIELD_NUMBER: _ClassVar[int]
    AUTHOR_FIELD_NUMBER: _ClassVar[int]
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    DIRTY_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    APPLIED_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    name: str
    revision: int
    digest: str
    definitions: bytes
    plan_digest: str
    effects: _containers.RepeatedCompositeFieldContainer[ProjectEffect]
    author: str
    commit: str
    dirty: bool
    reason: str
    applied_unix_ms: int
    def __init__(self, name: _Optional[str] = ..., revision: _Optional[int] = ..., digest: _Optional[str] = ..., definitions: _Optional[bytes] = ..., plan_digest: _Optional[str] = ..., effects: _Optional[_Iterable[_Union[ProjectEffect, _Mapping]]] = ..., author: _Optional[str] = ..., commit: _Optional[str] = ..., dirty: _Optional[bool] = ..., reason: _Optional[str] = ..., applied_unix_ms: _Optional[int] = ...) -> None: ...

class ApplyProjectRequest(_message.Message):
    __slots__ = ("name", "expected_revision", "definitions", "plan_digest", "effects", "commit", "dirty", "reason")
    NAME_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_REVISION_FIELD_NUMBER: _ClassVar[int]
    DEFINITIONS_FIELD_NUMBER: _ClassVar[int]
    PLAN_DIGEST_FIELD_NUMBER: _ClassVar[int]
    EFFECTS_FIELD_NUMBER: _ClassVar[int]
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    DIRTY_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    name: str
    expected_revision: int
    definitions: bytes
    plan_digest: str
    effects: _containers.RepeatedCompositeFieldContainer[ProjectEffect]
    commit: str
    dirty: bool
    reason: str
    def __init__(self, name: _Optional[str] = ..., expected_revision: _Optional[int] = ..., definitions: _Optional[bytes] = ..., plan_digest: _Optional[str] = ..., effects: _Optional[_Iterable[_Union[ProjectEffect, _Mapping]]] = ..., commit: _Optional[str] = ..., dirty: _Optional[bool] = ..., reason: _Optional[str] = ...) -> None: ...

class ProjectName(_message.Message):
    __slots__ = ("name", "revision")
    NAME_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    name: str
    revision: int
    def __init__(self, name: _Optional[str] = ..., revision: _Optional[int] = ...) -> None: ...

class ListProjectsRequest(_message.Message):
    __slots__ = ("name", "after", "before")
    NAME_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    name: str
    after: str
    before: int
    def __init__(self, name: _Optional[str] = ..., after: _Optional[str] = ..., before: _Optional[int] = ...) -> None: ...

class ListProjectsReply(_message.Message):
    __slots__ = ("revisions", "more")
    REVISIONS_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    revisions: _containers.RepeatedCompositeFieldContainer[ProjectRevision]
    more: bool
    def __init__(self, revisions: _Optional[_Iterable[_Union[ProjectRevision, _Mapping]]] = ..., more: _Optional[bool] = ...) -> None: ...

class Run(_message.Message):
    __slots__ = ("id", "key", "model", "setting", "cause", "actor", "attempt", "state", "begun_unix_ms", "ended_unix_ms", "version", "version_digest", "error", "inputs_json", "result_json", "heard_unix_ms", "log_bytes", "silent", "schedule", "due_unix_ms", "queued_unix_ms", "taken_unix_ms", "failures")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        UNSPECIFIED: _ClassVar[Run.State]
        RUNNING: _ClassVar[Run.State]
        REGISTERED: _ClassVar[Run.State]
        WRITTEN: _ClassVar[Run.State]
        CHAMPION_KEPT: _ClassVar[Run.State]
        GATE_FAILED: _ClassVar[Run.State]
        FAILED: _ClassVar[Run.State]
        QUEUED: _ClassVar[Run.State]
        SKIPPED: _ClassVar[Run.State]
        CANCELLED: _ClassVar[Run.State]
    UNSPECIFIED: Run.State
    RUNNING: Run.State
    REGISTERED: Run.State
    WRITTEN: Run.State
    CHAMPION_KEPT: Run.State
    GATE_FAILED: Run.State
    FAILED: Run.State
    QUEUED: Run.State
    SKIPPED: Run.State
    CANCELLED: Run.State
    ID_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SETTING_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    BEGUN_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    ENDED_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    VERSION_DIGEST_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    INPUTS_JSON_FIELD_NUMBER: _ClassVar[int]
    RESULT_JSON_FIELD_NUMBER: _ClassVar[int]
    HEARD_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    LOG_BYTES_FIELD_NUMBER: _ClassVar[int]
    SILENT_FIELD_NUMBER: _ClassVar[int]
    SCHEDULE_FIELD_NUMBER: _ClassVar[int]
    DUE_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    QUEUED_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    TAKEN_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    FAILURES_FIELD_NUMBER: _ClassVar[int]
    id: str
    key: str
    model: str
    setting: str
    cause: str
    actor: str
    attempt: int
    state: Run.State
    begun_unix_ms: int
    ended_unix_ms: int
    version: str
    version_digest: str
    error: str
    inputs_json: bytes
    result_json: bytes
    heard_unix_ms: int
    log_bytes: int
    silent: bool
    schedule: str
    due_unix_ms: int
    queued_unix_ms: int
    taken_unix_ms: int
    failures: int
    def __init__(self, id: _Optional[str] = ..., key: _Optional[str] = ..., model: _Optional[str] = ..., setting: _Optional[str] = ..., cause: _Optional[str] = ..., actor: _Optional[str] = ..., attempt: _Optional[int] = ..., state: _Optional[_Union[Run.State, str]] = ..., begun_unix_ms: _Optional[int] = ..., ended_unix_ms: _Optional[int] = ..., version: _Optional[str] = ..., version_digest: _Optional[str] = ..., error: _Optional[str] = ..., inputs_json: _Optional[bytes] = ..., result_json: _Optional[bytes] = ..., heard_unix_ms: _Optional[int] = ..., log_bytes: _Optional[int] = ..., silent: _Optional[bool] = ..., schedule: _Optional[str] = ..., due_unix_ms: _Optional[int] = ..., queued_unix_ms: _Optional[int] = ..., taken_unix_ms: _Optional[int] = ..., failures: _Optional[int] = ...) -> None: ...

class BeginRunRequest(_message.Message):
    __slots__ = ("model", "setting", "key", "cause", "inputs_json")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SETTING_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    INPUTS_JSON_FIELD_NUMBER: _ClassVar[int]
    model: str
    setting: str
    key: str
    cause: str
    inputs_json: bytes
    def __init__(self, model: _Optional[str] = ..., setting: _Optional[str] = ..., key: _Optional[str] = ..., cause: _Optional[str] = ..., inputs_json: _Optional[bytes] = ...) -> None: ...

class BeginRunReply(_message.Message):
    __slots__ = ("run", "begun")
    RUN_FIELD_NUMBER: _ClassVar[int]
    BEGUN_FIELD_NUMBER: _ClassVar[int]
    run: Run
    begun: bool
    def __init__(self, run: _Optional[_Union[Run, _Mapping]] = ..., begun: _Optional[bool] = ...) -> None: ...

class QueueRunRequest(_message.Message):
    __slots__ = ("model", "setting", "key", "cause", "schedule", "due_unix_ms", "lease_token")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SETTING_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    SCHEDULE_FIELD_NUMBER: _ClassVar[int]
    DUE_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    LEASE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    model: str
    setting: str
    key: str
    cause: str
    schedule: str
    due_unix_ms: int
    lease_token: int
    def __init__(self, model: _Optional[str] = ..., setting: _Optional[str] = ..., key: _Optional[str] = ..., cause: _Optional[str] = ..., schedule: _Optional[str] = ..., due_unix_ms: _Optional[int] = ..., lease_token: _Optional[int] = ...) -> None: ...

class CancelRunRequest(_message.Message):
    __slots__ = ("id", "reason")
    ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    id: str
    reason: str
    def __init__(self, id: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class AppliedSchedule(_message.Message):
    __slots__ = ("project", "name", "definition_json", "since_unix_ms", "last_run", "last_skipped")
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    DEFINITION_JSON_FIELD_NUMBER: _ClassVar[int]
    SINCE_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    LAST_RUN_FIELD_NUMBER: _ClassVar[int]
    LAST_SKIPPED_FIELD_NUMBER: _ClassVar[int]
    project: str
    name: str
    definition_json: str
    since_unix_ms: int
    last_run: Run
    last_skipped: Run
    def __init__(self, project: _Optional[str] = ..., name: _Optional[str] = ..., definition_json: _Optional[str] = ..., since_unix_ms: _Optional[int] = ..., last_run: _Optional[_Union[Run, _Mapping]] = ..., last_skipped: _Optional[_Union[Run, _Mapping]] = ...) -> None: ...

class ListSchedulesRequest(_message.Message):
    __slots__ = ("with_runs",)
    WITH_RUNS_FIELD_NUMBER: _ClassVar[int]
    with_runs: bool
    def __init__(self, with_runs: _Optional[bool] = ...) -> None: ...

class ListSchedulesReply(_message.Message):
    __slots__ = ("schedules",)
    SCHEDULES_FIELD_NUMBER: _ClassVar[int]
    schedules: _containers.RepeatedCompositeFieldContainer[AppliedSchedule]
    def __init__(self, schedules: _Optional[_Iterable[_Union[AppliedSchedule, _Mapping]]] = ...) -> None: ...

class Incident(_message.Message):
    __slots__ = ("id", "model", "version", "kind", "cause", "severity", "state", "title", "owner", "figures_json", "since_unix_ms", "opened_by", "opened_unix_ms", "acknowledged_by", "acknowledged_unix_ms", "mitigated_by", "mitigated_unix_ms", "closed_by", "closed_unix_ms", "resolution", "act", "finding", "run", "raised", "revision", "sequence", "notes")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        UNSPECIFIED: _ClassVar[Incident.State]
        OPEN: _ClassVar[Incident.State]
        ACKNOWLEDGED: _ClassVar[Incident.State]
        MITIGATED: _ClassVar[Incident.State]
        CLOSED: _ClassVar[Incident.State]
    UNSPECIFIED: Incident.State
    OPEN: Incident.State
    ACKNOWLEDGED: Incident.State
    MITIGATED: Incident.State
    CLOSED: Incident.State
    class Severity(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        NO_SEVERITY: _ClassVar[Incident.Severity]
        REVIEW: _ClassVar[Incident.Severity]
        WARNING: _ClassVar[Incident.Severity]
        PAGE: _ClassVar[Incident.Severity]
    NO_SEVERITY: Incident.Severity
    REVIEW: Incident.Severity
    WARNING: Incident.Severity
    PAGE: Incident.Severity
    class Resolution(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        NO_RESOLUTION: _ClassVar[Incident.Resolution]
        REAL: _ClassVar[Incident.Resolution]
        FALSE_ALARM: _ClassVar[Incident.Resolution]
        EXPECTED: _ClassVar[Incident.Resolution]
    NO_RESOLUTION: Incident.Resolution
    REAL: Incident.Resolution
    FALSE_ALARM: Incident.Resolution
    EXPECTED: Incident.Resolution
    ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    SEVERITY_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    FIGURES_JSON_FIELD_NUMBER: _ClassVar[int]
    SINCE_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    OPENED_BY_FIELD_NUMBER: _ClassVar[int]
    OPENED_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    ACKNOWLEDGED_BY_FIELD_NUMBER: _ClassVar[int]
    ACKNOWLEDGED_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    MITIGATED_BY_FIELD_NUMBER: _ClassVar[int]
    MITIGATED_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    CLOSED_BY_FIELD_NUMBER: _ClassVar[int]
    CLOSED_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    RESOLUTION_FIELD_NUMBER: _ClassVar[int]
    ACT_FIELD_NUMBER: _ClassVar[int]
    FINDING_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    RAISED_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    NOTES_FIELD_NUMBER: _ClassVar[int]
    id: str
    model: str
    version: str
    kind: str
    cause: str
    severity: Incident.Severity
    state: Incident.State
    title: str
    owner: str
    figures_json: str
    since_unix_ms: int
    opened_by: str
    opened_unix_ms: int
    acknowledged_by: str
    acknowledged_unix_ms: int
    mitigated_by: str
    mitigated_unix_ms: int
    closed_by: str
    closed_unix_ms: int
    resolution: Incident.Resolution
    act: str
    finding: int
    run: str
    raised: int
    revision: int
    sequence: int
    notes: _containers.RepeatedCompositeFieldContainer[IncidentNote]
    def __init__(self, id: _Optional[str] = ..., model: _Optional[str] = ..., version: _Optional[str] = ..., kind: _Optional[str] = ..., cause: _Optional[str] = ..., severity: _Optional[_Union[Incident.Severity, str]] = ..., state: _Optional[_Union[Incident.State, str]] = ..., title: _Optional[str] = ..., owner: _Optional[str] = ..., figures_json: _Optional[str] = ..., since_unix_ms: _Optional[int] = ..., opened_by: _Optional[str] = ..., opened_unix_ms: _Optional[int] = ..., acknowledged_by: _Optional[str] = ..., acknowledged_unix_ms: _Optional[int] = ..., mitigated_by: _Optional[str] = ..., mitigated_unix_ms: _Optional[int] = ..., closed_by: _Optional[str] = ..., closed_unix_ms: _Optional[int] = ..., resolution: _Optional[_Union[Incident.Resolution, str]] = ..., act: _Optional[str] = ..., finding: _Optional[int] = ..., run: _Optional[str] = ..., raised: _Optional[int] = ..., revision: _Optional[int] = ..., sequence: _Optional[int] = ..., notes: _Optional[_Iterable[_Union[IncidentNote, _Mapping]]] = ...) -> None: ...

class IncidentNote(_message.Message):
    __slots__ = ("kind", "text", "who", "at_unix_ms")
    KIND_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    WHO_FIELD_NUMBER: _ClassVar[int]
    AT_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    kind: str
    text: str
    who: str
    at_unix_ms: int
    def __init__(self, kind: _Optional[str] = ..., text: _Optional[str] = ..., who: _Optional[str] = ..., at_unix_ms: _Optional[int] = ...) -> None: ...

class OpenIncidentRequest(_message.Message):
    __slots__ = ("model", "version", "kind", "cause", "severity", "title", "owner", "figures_json", "since_unix_ms", "automatic", "links")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    SEVERITY_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    FIGURES_JSON_FIELD_NUMBER: _ClassVar[int]
    SINCE_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    AUTOMATIC_FIELD_NUMBER: _ClassVar[int]
    LINKS_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    kind: str
    cause: str
    severity: Incident.Severity
    title: str
    owner: str
    figures_json: str
    since_unix_ms: int
    automatic: bool
    links: _containers.RepeatedCompositeFieldContainer[IncidentNote]
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., kind: _Optional[str] = ..., cause: _Optional[str] = ..., severity: _Optional[_Union[Incident.Severity, str]] = ..., title: _Optional[str] = ..., owner: _Optional[str] = ..., figures_json: _Optional[str] = ..., since_unix_ms: _Optional[int] = ..., automatic: _Optional[bool] = ..., links: _Optional[_Iterable[_Union[IncidentNote, _Mapping]]] = ...) -> None: ...

class OpenIncidentReply(_message.Message):
    __slots__ = ("incident", "opened")
    INCIDENT_FIELD_NUMBER: _ClassVar[int]
    OPENED_FIELD_NUMBER: _ClassVar[int]
    incident: Incident
    opened: bool
    def __init__(self, incident: _Optional[_Union[Incident, _Mapping]] = ..., opened: _Optional[bool] = ...) -> None: ...

class ChangeIncidentRequest(_message.Message):
    __slots__ = ("id", "revision", "change", "text", "owner", "resolution", "link", "severity", "figures_json", "title")
    class Change(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        UNSPECIFIED: _ClassVar[ChangeIncidentRequest.Change]
        COMMENT: _ClassVar[ChangeIncidentRequest.Change]
        LINK: _ClassVar[ChangeIncidentRequest.Change]
        ASSIGN: _ClassVar[ChangeIncidentRequest.Change]
        ACKNOWLEDGE: _ClassVar[ChangeIncidentRequest.Change]
        MITIGATE: _ClassVar[ChangeIncidentRequest.Change]
        CLOSE: _ClassVar[ChangeIncidentRequest.Change]
        RAISE: _ClassVar[ChangeIncidentRequest.Change]
    UNSPECIFIED: ChangeIncidentRequest.Change
    COMMENT: ChangeIncidentRequest.Change
    LINK: ChangeIncidentRequest.Change
    ASSIGN: ChangeIncidentRequest.Change
    ACKNOWLEDGE: ChangeIncidentRequest.Change
    MITIGATE: ChangeIncidentRequest.Change
    CLOSE: ChangeIncidentRequest.Change
    RAISE: ChangeIncidentRequest.Change
    ID_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    CHANGE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    RESOLUTION_FIELD_NUMBER: _ClassVar[int]
    LINK_FIELD_NUMBER: _ClassVar[int]
    SEVERITY_FIELD_NUMBER: _ClassVar[int]
    FIGURES_JSON_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    id: str
    revision: int
    change: ChangeIncidentRequest.Change
    text: str
    owner: str
    resolution: Incident.Resolution
    link: IncidentNote
    severity: Incident.Severity
    figures_json: str
    title: str
    def __init__(self, id: _Optional[str] = ..., revision: _Optional[int] = ..., change: _Optional[_Union[ChangeIncidentRequest.Change, str]] = ..., text: _Optional[str] = ..., owner: _Optional[str] = ..., resolution: _Optional[_Union[Incident.Resolution, str]] = ..., link: _Optional[_Union[IncidentNote, _Mapping]] = ..., severity: _Optional[_Union[Incident.Severity, str]] = ..., figures_json: _Optional[str] = ..., title: _Optional[str] = ...) -> None: ...

class IncidentName(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class ListIncidentsRequest(_message.Message):
    __slots__ = ("model", "open_only", "before")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    OPEN_ONLY_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    model: str
    open_only: bool
    before: int
    def __init__(self, model: _Optional[str] = ..., open_only: _Optional[bool] = ..., before: _Optional[int] = ...) -> None: ...

class ListIncidentsReply(_message.Message):
    __slots__ = ("incidents", "more", "next")
    INCIDENTS_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    incidents: _containers.RepeatedCompositeFieldContainer[Incident]
    more: bool
    next: int
    def __init__(self, incidents: _Optional[_Iterable[_Union[Incident, _Mapping]]] = ..., more: _Optional[bool] = ..., next: _Optional[int] = ...) -> None: ...

class WatchIncidentsRequest(_message.Message):
    __slots__ = ("after", "those_there_are")
    AFTER_FIELD_NUMBER: _ClassVar[int]
    THOSE_THERE_ARE_FIELD_NUMBER: _ClassVar[int]
    after: int
    those_there_are: bool
    def __init__(self, after: _Optional[int] = ..., those_there_are: _Optional[bool] = ...) -> None: ...

class OutsideModel(_message.Message):
    __slots__ = ("model", "owner", "purpose", "place", "added_by", "added_unix_ms")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    PLACE_FIELD_NUMBER: _ClassVar[int]
    ADDED_BY_FIELD_NUMBER: _ClassVar[int]
    ADDED_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    model: str
    owner: str
    purpose: str
    place: str
    added_by: str
    added_unix_ms: int
    def __init__(self, model: _Optional[str] = ..., owner: _Optional[str] = ..., purpose: _Optional[str] = ..., place: _Optional[str] = ..., added_by: _Optional[str] = ..., added_unix_ms: _Optional[int] = ...) -> None: ...

class ListOutsideModelsRequest(_message.Message):
    __slots__ = ("after",)
    AFTER_FIELD_NUMBER: _ClassVar[int]
    after: str
    def __init__(self, after: _Optional[str] = ...) -> None: ...

class ListOutsideModelsReply(_message.Message):
    __slots__ = ("models", "more")
    MODELS_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[OutsideModel]
    more: bool
    def __init__(self, models: _Optional[_Iterable[_Union[OutsideModel, _Mapping]]] = ..., more: _Optional[bool] = ...) -> None: ...

class EndRunRequest(_message.Message):
    __slots__ = ("id", "attempt", "state", "version", "version_digest", "error", "result_json")
    ID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    VERSION_DIGEST_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    RESULT_JSON_FIELD_NUMBER: _ClassVar[int]
    id: str
    attempt: int
    state: Run.State
    version: str
    version_digest: str
    error: str
    result_json: bytes
    def __init__(self, id: _Optional[str] = ..., attempt: _Optional[int] = ..., state: _Optional[_Union[Run.State, str]] = ..., version: _Optional[str] = ..., version_digest: _Optional[str] = ..., error: _Optional[str] = ..., result_json: _Optional[bytes] = ...) -> None: ...

class RunName(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class ListRunsRequest(_message.Message):
    __slots__ = ("model", "before", "open")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    OPEN_FIELD_NUMBER: _ClassVar[int]
    model: str
    before: int
    open: bool
    def __init__(self, model: _Optional[str] = ..., before: _Optional[int] = ..., open: _Optional[bool] = ...) -> None: ...

class ListRunsReply(_message.Message):
    __slots__ = ("runs", "more", "next")
    RUNS_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    runs: _containers.RepeatedCompositeFieldContainer[Run]
    more: bool
    next: int
    def __init__(self, runs: _Optional[_Iterable[_Union[Run, _Mapping]]] = ..., more: _Optional[bool] = ..., next: _Optional[int] = ...) -> None: ...

class RunLogRequest(_message.Message):
    __slots__ = ("id", "follow")
    ID_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    id: str
    follow: bool
    def __init__(self, id: _Optional[str] = ..., follow: _Optional[bool] = ...) -> None: ...

class RunLogPart(_message.Message):
    __slots__ = ("id", "attempt", "text")
    ID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    id: str
    attempt: int
    text: bytes
    def __init__(self, id: _Optional[str] = ..., attempt: _Optional[int] = ..., text: _Optional[bytes] = ...) -> None: ...

class EntryNumber(_message.Message):
    __slots__ = ("seq",)
    SEQ_FIELD_NUMBER: _ClassVar[int]
    seq: int
    def __init__(self, seq: _Optional[int] = ...) -> None: ...

class ListHistoryRequest(_message.Message):
    __slots__ = ("after", "limit", "object")
    AFTER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    OBJECT_FIELD_NUMBER: _ClassVar[int]
    after: int
    limit: int
    object: str
    def __init__(self, after: _Optional[int] = ..., limit: _Optional[int] = ..., object: _Optional[str] = ...) -> None: ...

class HistoryEntry(_message.Message):
    __slots__ = ("seq", "at_unix_ms", "actor", "action", "object", "before", "after", "reason", "previous", "digest", "uncut_bytes")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    AT_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    OBJECT_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    UNCUT_BYTES_FIELD_NUMBER: _ClassVar[int]
    seq: int
    at_unix_ms: int
    actor: str
    action: str
    object: str
    before: str
    after: str
    reason: str
    previous: bytes
    digest: bytes
    uncut_bytes: int
    def __init__(self, seq: _Optional[int] = ..., at_unix_ms: _Optional[int] = ..., actor: _Optional[str] = ..., action: _Optional[str] = ..., object: _Optional[str] = ..., before: _Optional[str] = ..., after: _Optional[str] = ..., reason: _Optional[str] = ..., previous: _Optional[bytes] = ..., digest: _Optional[bytes] = ..., uncut_bytes: _Optional[int] = ...) -> None: ...

class SignedHead(_message.Message):
    __slots__ = ("seq", "digest", "signature", "public_key")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    seq: int
    digest: bytes
    signature: bytes
    public_key: bytes
    def __init__(self, seq: _Optional[int] = ..., digest: _Optional[bytes] = ..., signature: _Optional[bytes] = ..., public_key: _Optional[bytes] = ...) -> None: ...

class ListHistoryReply(_message.Message):
    __slots__ = ("entries", "head")
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[HistoryEntry]
    head: SignedHead
    def __init__(self, entries: _Optional[_Iterable[_Union[HistoryEntry, _Mapping]]] = ..., head: _Optional[_Union[SignedHead, _Mapping]] = ...) -> None: ...

class HistoryRange(_message.Message):
    __slots__ = ("after", "until")
    AFTER_FIELD_NUMBER: _ClassVar[int]
    UNTIL_FIELD_NUMBER: _ClassVar[int]
    after: int
    until: int
    def __init__(self, after: _Optional[int] = ..., until: _Optional[int] = ...) -> None: ...

class HistoryColumns(_message.Message):
    __slots__ = ("seq", "at_unix_ms", "actor", "action", "object", "before", "after", "reason", "previous", "digest", "left_out", "head")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    AT_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    OBJECT_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    LEFT_OUT_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    seq: _containers.RepeatedScalarFieldContainer[int]
    at_unix_ms: _containers.RepeatedScalarFieldContainer[int]
    actor: _containers.RepeatedScalarFieldContainer[str]
    action: _containers.RepeatedScalarFieldContainer[str]
    object: _containers.RepeatedScalarFieldContainer[str]
    before: _containers.RepeatedScalarFieldContainer[str]
    after: _containers.RepeatedScalarFieldContainer[str]
    reason: _containers.RepeatedScalarFieldContainer[str]
    previous: _containers.RepeatedScalarFieldContainer[bytes]
    digest: _containers.RepeatedScalarFieldContainer[bytes]
    left_out: _containers.RepeatedScalarFieldContainer[int]
    head: SignedHead
    def __init__(self, seq: _Optional[_Iterable[int]] = ..., at_unix_ms: _Optional[_Iterable[int]] = ..., actor: _Optional[_Iterable[str]] = ..., action: _Optional[_Iterable[str]] = ..., object: _Optional[_Iterable[str]] = ..., before: _Optional[_Iterable[str]] = ..., after: _Optional[_Iterable[str]] = ..., reason: _Optional[_Iterable[str]] = ..., previous: _Optional[_Iterable[bytes]] = ..., digest: _Optional[_Iterable[bytes]] = ..., left_out: _Optional[_Iterable[int]] = ..., head: _Optional[_Union[SignedHead, _Mapping]] = ...) -> None: ...

class ListStateRequest(_message.Message):
    __slots__ = ("table", "after", "prove")
    TABLE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    PROVE_FIELD_NUMBER: _ClassVar[int]
    table: str
    after: str
    prove: bool
    def __init__(self, table: _Optional[str] = ..., after: _Optional[str] = ..., prove: _Optional[bool] = ...) -> None: ...

class ListStateReply(_message.Message):
    __slots__ = ("rows", "last_page", "head", "stopped")
    ROWS_FIELD_NUMBER: _ClassVar[int]
    LAST_PAGE_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    STOPPED_FIELD_NUMBER: _ClassVar[int]
    rows: _containers.RepeatedScalarFieldContainer[bytes]
    last_page: bool
    head: SignedHead
    stopped: str
    def __init__(self, rows: _Optional[_Iterable[bytes]] = ..., last_page: _Optional[bool] = ..., head: _Optional[_Union[SignedHead, _Mapping]] = ..., stopped: _Optional[str] = ...) -> None: ...
