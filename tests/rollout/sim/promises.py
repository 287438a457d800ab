"""The promises that every simulated world must keep, checked against what really happened."""

import itertools
from collections.abc import Iterator

from protos import registry_pb2 as pb
from registry.types import Deployment
from rollout.policy.policy import Policy
from stats.rate import clean_keys_needed
from tests.rollout.sim.simulated_registry import DeploymentWrite
from tests.rollout.sim.simulated_world import POLICIES, SKEW_S, WorldResult, expected_stage

FINDING_DELAY_S = 0.5
"""Seconds that a finding may need to reach the controller and be judged."""


def broken_promises(result: WorldResult) -> list[str]:
    """Return a text for each broken promise; empty if all were kept."""
    assert result.registry is not None
    return [
        *_single_production(result.registry.writes),
        *_fenced(result.registry.writes),
        *_grown_on_evidence(result),
        *_rolled_back_on_evidence(result),
        *_left_to_people(result.registry.writes),
        *_held_by_monitoring(result),
        *_converged(result),
    ]


def _single_production(writes: list[DeploymentWrite]) -> Iterator[str]:
    for write in writes:
        if write.production_versions != (write.deployment.production,):
            yield (
                f"revision {write.deployment.revision} answers with "
                f"{write.deployment.production!r}, and "
                f"{write.production_versions} are production"
            )


def _fenced(writes: list[DeploymentWrite]) -> Iterator[str]:
    for before, after in itertools.pairwise(writes):
        if after.deployment.revision != before.deployment.revision + 1:
            yield f"revision {after.deployment.revision} follows {before.deployment.revision}"
    controller_writes = [write for write in writes if write.lease_token]  # people need no lease
    for before, after in itertools.pairwise(controller_writes):
        if after.lease_token < before.lease_token:
            yield f"lease {after.lease_token} wrote after lease {before.lease_token}"


def _rank(deployment: Deployment) -> float:
    """Return a number that grows with the stage: preload, shadow, shares, watch, done."""
    if deployment.production == "2":
        return 2.0 if deployment.standby else 3.0
    if deployment.canary:
        return 1.0 + deployment.canary_bp / 10_000
    return 0.5 if deployment.shadows else 0.0


def _grown_on_evidence(result: WorldResult) -> Iterator[str]:
    assert result.registry is not None
    stayed: list[
        DeploymentWrite
    ] = []  # revisions at one place: a change by hand leaves it where it is
    for write in result.registry.writes:
        if stayed and _rank(write.deployment) > _rank(stayed[0].deployment):
            yield from _check_enough_evidence(result, stayed, write)
        if not stayed or _rank(write.deployment) != _rank(stayed[0].deployment):
            stayed = []
        stayed.append(write)


def _check_enough_evidence(
    result: WorldResult, stayed: list[DeploymentWrite], grown: DeploymentWrite
) -> Iterator[str]:
    """Yield a text if the position that was left had too little evidence or too short a stay."""
    assert result.registry is not None
    policy = POLICIES[result.policy]
    left, stayed_s = stayed[0], grown.at_s - stayed[0].at_s
    revisions = [write.deployment.revision for write in stayed]
    if {write.lease_token for write in (*stayed, grown) if write.lease_token} != {
        grown.lease_token
    }:
        stayed_s += 2 * SKEW_S  # another controller's clock
    prefix = f"revision {grown.deployment.revision} grew after {stayed_s:.2f} s with"
    if left.deployment.preload:
        if not grown.ready_workers:
            yield f"{prefix} no worker that holds it ready"
        return
    if left.deployment.shadows:
        assert policy.shadow is not None
        pairs = sum(result.truth.pairs.get(revision, 0) for revision in revisions)
        if pairs < policy.shadow.pairs_min or stayed_s < policy.shadow.bake_s - 0.1:
            yield f"{prefix} {pairs} pairs"
        return
    clean = len(set().union(*(result.truth.clean.get(revision, set()) for revision in revisions)))
    needed = clean_keys_needed(policy.failure_bar, policy.promote_log_threshold)
    relative = result.kind == "both bad"  # then fewer keys may show that both fail alike
    if clean < (1 if relative else needed) or stayed_s < _bake_s(left.deployment, policy) - 0.1:
        yield f"{prefix} {clean} clean keys of {needed}"


def _bake_s(deployment: Deployment, policy: Policy) -> float:
    if deployment.production == "2":
        return policy.watch_s
    return next(step.bake_s for step in policy.canary if step.share_bp == deployment.canary_bp)


def _rolled_back_on_evidence(result: WorldResult) -> Iterator[str]:
    assert result.registry is not None
    for write in result.registry.writes:
        if write.rollback and write.lease_token and result.truth.candidate_failed == 0:
            yield f"rolled back without one failure: {write.deployment.why}"


def _left_to_people(writes: list[DeploymentWrite]) -> Iterator[str]:
    """Yield a text if the controller wrote over a split that a person took over."""
    for before, after in itertools.pairwise(writes):
        if not before.lease_token and not before.deployment.rollout_id and after.lease_token:
            yield (
                f"lease {after.lease_token} wrote over {before.deployment.who}'s "
                f"{before.deployment.revision}"
            )


def _held_by_monitoring(result: WorldResult) -> Iterator[str]:
    """Yield a text if a share grew while monitoring held the model.

    A controller that began to lead later must know the hold. Another controller must know it after
    FINDING_DELAY_S, unless a fault slows or disconnects controllers.
    """
    assert result.registry is not None
    quick = not any(
        word in event for event in result.events for word in ("calls take", "is cut off")
    )
    for hold_s, clear_s in _holds(result.registry.findings):
        for before, after in itertools.pairwise(result.registry.writes):
            if not after.lease_token or not hold_s < after.at_s < clear_s:
                continue
            must_know = result.registry.leased_at_s[after.lease_token] >= hold_s
            must_know |= quick and after.at_s > hold_s + FINDING_DELAY_S
            if must_know and _rank(after.deployment) > _rank(before.deployment):
                yield f"revision {after.deployment.revision} grew though monitoring held it"


def _holds(findings: list[pb.Finding]) -> Iterator[tuple[float, float]]:
    """Yield the begin and the end of each hold, in seconds."""
    since_s = None
    for finding in findings:
        if finding.kind == "hold":
            since_s = finding.at_unix_ms / 1e3 if since_s is None else since_s
        elif since_s is not None:
            yield since_s, finding.at_unix_ms / 1e3
            since_s = None


def _converged(result: WorldResult) -> Iterator[str]:
    assert result.registry is not None
    if result.kind == "both bad" and result.rollout is not None and not result.rollout.ended:
        if not result.rollout.reason:
            yield "undecided, and no reason is given"
        return
    if result.rollout is None or not result.rollout.ended or result.registry.current.rollout_id:
        position = result.rollout.position if result.rollout else None
        reason = result.rollout.reason if result.rollout else "no controller leads"
        yield f"not over after {result.duration_s:.0f} s: {position}, {reason}"
        return
    if not result.all_applied:
        yield f"a worker does not serve revision {result.registry.current.revision}"
    must = expected_stage(result)
    if must is not None and result.rollout.position.stage != must:
        ended = result.rollout.position.stage.name
        yield f"a {result.kind} candidate ended {ended}: {result.rollout.reason}"
