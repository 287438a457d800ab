"""Reads the approved policy of a rollout from the JSON in its checkpoint."""

import json
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from features.canonical import sha256_hex
from rollout.errors import PolicyError
from rollout.policy.policy import JUDGED_METRICS, CanaryStep, GoodOutcome, Policy, ShadowStage

FLOAT_TYPES = (float, float | None)
TUPLE_FIELDS = ("guards", "freeze", "exclusive_views")


def parse_approved_policy(policy_json: bytes, digest: str) -> Policy:
    """Return the policy whose canonical JSON is *policy_json*, every number as it was approved.

    digest  SHA-256 of the JSON, hex, as the approval names it.

    Raises PolicyError if the JSON has another digest, or if this edition of the program would read
    another policy than was written.
    """
    actual_digest = sha256_hex(policy_json)
    if actual_digest != digest:
        raise PolicyError(
            f"the policy in its checkpoint has the digest {actual_digest[:12]}, and "
            f"{digest[:12]} was approved: it was altered or damaged since"
        )
    try:
        policy = _policy_from_json(json.loads(policy_json))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise PolicyError(
            f"the policy in its checkpoint cannot be read here ({type(error).__name__}: {error}): "
            "another edition of this program wrote it"
        ) from error
    if policy.json != policy_json or {metric for metric, _ in policy.weights} != set(
        JUDGED_METRICS
    ):
        raise PolicyError(
            "the policy in its checkpoint has other fields or metrics than policies have here: "
            "another edition of this program wrote it"
        )
    return policy


def policy_file_note(approved: Policy, policies: Mapping[str, Policy]) -> str:
    """Return how the policy of this name differs now from *approved*; empty if it does not."""
    current = policies.get(approved.name)
    if current is None:
        return "kept from its start; there is no policy of that name any more"
    if current.digest != approved.digest:
        return f"kept from its start; there is now another edition ({current.digest[:12]})"
    return ""


def _policy_from_json(json_fields: Mapping[str, Any]) -> Policy:
    policy_fields = dict(json_fields)
    policy_fields |= {name: tuple(json_fields[name]) for name in TUPLE_FIELDS}
    policy_fields["canary"] = tuple(
        _dataclass_from_json(CanaryStep, step) for step in json_fields["canary"]
    )
    policy_fields["weights"] = tuple(
        (metric, float(weight)) for metric, weight in json_fields["weights"]
    )
    for name, kind in (("shadow", ShadowStage), ("outcome", GoodOutcome)):
        policy_fields[name] = (
            None if json_fields[name] is None else _dataclass_from_json(kind, json_fields[name])
        )
    outcome = policy_fields["outcome"]
    if outcome is not None:
        trusted = tuple(outcome.trusted_callers)
        policy_fields["outcome"] = replace(outcome, trusted_callers=trusted)
    policy: Policy = _dataclass_from_json(Policy, policy_fields)
    return policy


def _dataclass_from_json(kind: Any, json_fields: Mapping[str, Any]) -> Any:  # noqa: ANN401  any of four dataclasses
    """Return an instance of *kind*. Canonical JSON writes 10.0 as 10, so floats are converted."""
    floats = {field.name for field in fields(kind) if field.type in FLOAT_TYPES}
    return kind(
        **{
            name: float(value) if name in floats and value is not None else value
            for name, value in json_fields.items()
        }
    )
