"""The serving settings of a model that another person approves before they change. No I/O.

They decide who is in the control group, what is sampled, and how scores become decisions: the
holdout's share, the ServingPolicy, and a split salt that a person sets.
"""

import json
import math
from dataclasses import dataclass, replace

from google.protobuf.json_format import MessageToDict

from features.canonical import canonical_json, sha256_hex
from protos import registry_pb2 as pb
from registry.types import BadRequestError, Deployment

NO_SALT = bytes(16)
LATER_FIELDS = frozenset({"hide_role"})
"""Fields that ServingPolicy got after settings were first approved. A digest has them only if they
are set, so that earlier approvals stay what they were."""


@dataclass(frozen=True, slots=True)
class SettingsChange:
    """A change of settings: in words, and as options of `turnout splits`."""

    text: str
    options: str


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """The serving settings that a project gives to a model. None: the deployment's stay."""

    holdout_bp: int | None
    policy: pb.ServingPolicy | None


def with_project_settings(deployment: Deployment, settings: ModelSettings) -> Deployment:
    """Return *deployment* with the settings of its project."""
    holdout_bp, policy = settings.holdout_bp, settings.policy
    return replace(
        deployment,
        holdout_bp=deployment.holdout_bp if holdout_bp is None else holdout_bp,
        policy=deployment.policy if policy is None else policy,
    )


def check_serving_policy(policy: pb.ServingPolicy) -> None:
    """Raise BadRequestError for a number that is not finite, or a share above all."""
    for name in ("default_score", "decision_threshold"):
        if not math.isfinite(getattr(policy, name)):
            raise BadRequestError(f"policy.{name} is {getattr(policy, name)}; it must be finite")
    for name in ("evidence_sampled_of_65536", "journal_sampled_of_65536"):
        if getattr(policy, name) > 65_536:
            raise BadRequestError(
                f"policy.{name} is {getattr(policy, name)}; the most is 65536, which takes all"
            )


def settings_digest(model: str, holdout_bp: int, policy: pb.ServingPolicy, salt: bytes) -> str:
    """Return the SHA-256 (hex) of settings as canonical JSON.

    salt  16 bytes if a person sets the split salt; else empty.
    """
    values = _policy_values(policy)
    settings = {
        "model": model,
        "holdout_bp": holdout_bp,
        "policy": {
            name: value for name, value in values.items() if value or name not in LATER_FIELDS
        },
        "split_salt": salt.hex(),
    }
    return sha256_hex(canonical_json(settings))


def current_digest(current: Deployment) -> str:
    """Return the digest of the settings that a model has."""
    return settings_digest(current.model, current.holdout_bp, current.policy, b"")


def proposed_digest(current: Deployment, proposed: Deployment, *, under_lease: bool) -> str:
    """Return the digest of the settings that *proposed* sets."""
    salt = proposed.split_salt if _sets_salt(current, proposed, under_lease=under_lease) else b""
    return settings_digest(current.model, proposed.holdout_bp, proposed.policy, salt)


def settings_change(
    current: Deployment, proposed: Deployment, *, under_lease: bool
) -> SettingsChange | None:
    """Return what *proposed* changes of the settings, or None.

    proposed     as it was sent. Sixteen zero bytes mean that the registry draws the split salt.
    under_lease  the controller makes the proposal, and may set the salt of its rollout.
    """
    texts, options = [], []
    if current.holdout_bp != proposed.holdout_bp:
        texts.append(f"holdout_bp from {current.holdout_bp} to {proposed.holdout_bp}")
        options.append(f"--holdout {proposed.holdout_bp / 100:g}")
    # Every field of the policy that has another value.
    before, after = _policy_values(current.policy), _policy_values(proposed.policy)
    for name, value in after.items():
        if before[name] != value:
            texts.append(f"{name} from {json.dumps(before[name])} to {json.dumps(value)}")
            options.append(f"--setting {name}={json.dumps(value)}")
    if _sets_salt(current, proposed, under_lease=under_lease):
        texts.append("the split salt")
        options.append(f"--split-salt {proposed.split_salt.hex()}")
    return SettingsChange(", ".join(texts), " ".join(options)) if texts else None


def _sets_salt(current: Deployment, proposed: Deployment, *, under_lease: bool) -> bool:
    own = under_lease and bool(proposed.rollout_id or current.rollout_id)
    return proposed.split_salt not in (NO_SALT, current.split_salt) and not own


def _policy_values(policy: pb.ServingPolicy) -> dict[str, object]:
    return dict(
        MessageToDict(
            policy, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )
    )
