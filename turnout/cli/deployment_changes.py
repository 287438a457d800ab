"""Applies the options of `turnout splits` to a deployment. No I/O."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from google.protobuf.json_format import ParseDict, ParseError

from protos import registry_pb2
from registry.types import Deployment
from turnout.errors import UsageError

ROUNDING = 1e-6
"""Basis points by which a percentage may miss a whole number, as 0.07 * 100 does."""


def with_changes(
    current: Deployment,
    production: str,
    canary: str,
    standby: str,
    shadows: list[str],
    holdout: float | None,
    settings: Sequence[str] = (),
) -> Deployment:
    """Return *current* with the options of `turnout splits set` applied; empty ones change nothing.

    holdout   percent; None changes nothing.
    settings  NAME=VALUE of the serving policy.

    UsageError when an option cannot be read, and when there is nothing to change.
    """
    # Collect the fields that change; an option that is not given changes nothing.
    proposed: dict[str, Any] = {}
    if production:
        proposed["production"] = production
    if canary:
        proposed["canary"], proposed["canary_bp"] = parse_share(canary)
    if standby:
        proposed["standby"], proposed["standby_bp"] = parse_share(standby)
    if shadows:
        proposed["shadows"] = tuple(parse_share(text) for text in shadows if text != "none")
    if not proposed and holdout is None and not settings:
        raise UsageError("nothing to change: give --production, --canary, --standby, ...")
    changed = with_settings(replace(current, **proposed), holdout, settings)
    if changed.canary or changed.standby or not (production or canary or standby):
        return changed
    # The rollout's candidate has been taken out of the split, so the rollout has ended.
    return replace(changed, rollout_id="")


def with_settings(
    current: Deployment, holdout: float | None, settings: Sequence[str]
) -> Deployment:
    """Return *current* with another holdout (percent) and other settings (NAME=VALUE).

    UsageError when a setting is unknown or its value does not fit.
    """
    policy = registry_pb2.ServingPolicy()
    policy.CopyFrom(current.policy)
    for text in settings:
        name, _, value = text.partition("=")
        try:
            # Read alone first: a field that is read into a message must not be set there yet.
            read = ParseDict({name: json.loads(value)}, registry_pb2.ServingPolicy())
            setattr(policy, name, getattr(read, name))
        except (ValueError, ParseError, AttributeError) as error:
            names = ", ".join(field.name for field in policy.DESCRIPTOR.fields)
            raise UsageError(
                f"{text!r} is not NAME=VALUE, such as default_score=0.2; names: {names}"
            ) from error
    holdout_bp = current.holdout_bp if holdout is None else basis_points(holdout, "--holdout")
    return replace(current, policy=policy, holdout_bp=holdout_bp)


def parse_salt(text: str) -> bytes:
    """Read the hex digits of a salt."""
    try:
        return bytes.fromhex(text)
    except ValueError as error:
        raise UsageError(f"--split-salt {text!r}: a salt has hex digits only") from error


def parse_share(text: str) -> tuple[str, int]:
    """Read LABEL=PERCENT as (label, basis points); `none` is ("", 0)."""
    if text == "none":
        return "", 0
    label, _, percent = text.partition("=")
    try:
        share = float(percent)
    except ValueError as error:
        raise UsageError(f"{text!r} is not LABEL=PERCENT, such as 2=10") from error
    if not label:
        raise UsageError(f"{text!r} names no version: LABEL=PERCENT, such as 2=10")
    return label, basis_points(share, text)


def basis_points(percent: float, given: str) -> int:
    """Return *percent* in basis points: 0 to 10,000.

    given  what a message calls the number: the option or its text.

    UsageError for infinity and NaN, outside 0 to 100, and between two basis points, because a
    share that is rounded silently is not what was asked for.
    """
    if not 0 <= percent <= 100:  # false for NaN, too
        raise UsageError(f"{given}: {percent:g} is no percentage; it is from 0 to 100")
    share = round(percent * 100)
    if abs(percent * 100 - share) > ROUNDING:
        raise UsageError(
            f"{given}: {percent:.10g} % lies between two shares; they are multiples of 0.01 %, and "
            "0.01 % is the least"
        )
    return share
