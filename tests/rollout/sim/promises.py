"""What must hold of every simulated world, checked against what really happened in it."""

import itertools
from collections.abc import Iterator

from protos import registry_pb2 as pb
from registry.types import Deployment
from rollout.policy.policy import Policy
from stats.rate import clean_keys_needed
from tests.rollout.sim.simulated_registry import Write
from tests.rollout.sim.simulated_world import POLICIES, SKEW_S, Told, must_end

HEARD_S = 0.5
"""A finding's way to a controller, its next look, and the way of what was decided before."""


def broken(told: Told) -> list[str]:
    """Return every promise that was not kept, in words; empty: all were."""
    assert told.registry is not None
    return [
        *_one_production(told.registry.writes),
        *_fenced(told.registry.writes),
        *_grown_on_evidence(told),
        *_back_on_evidence(told),
        *_left_to_people(told.registry.writes),
        *_held_by_monitoring(told),
        *_converged(told),
    ]


def _one_production(writes: list[Write]) -> Iterator[str]:
    for write in writes:
        if write.productions != (write.held.production,):
            yield (
                f"revision {write.held.revision} answers with {write.held.production!r}, and "
                f"{write.productions} are production"
            )


def _fenced(writes: list[Write]) -> Iterator[str]:
    for before, after in itertools.pairwise(writes):
        if after.held.revision != before.held.revision + 1:
            yield f"revision {after.held.revision} follows {before.held.revision}"
    ours = [write for write in writes if write.token]  # people need no lease
    for before, after in itertools.pairwise(ours):
        if after.token < before.token:
            yield f"lease {after.token} wrote after lease {before.token}"


def _rank(held: Deployment) -> float:
    """How far the candidate has come: preload, shadow, its shares, watched, done."""
    if held.production == "2":
        return 2.0 if held.standby else 3.0
    if held.canary:
        return 1.0 + held.canary_bp / 10_000
    return 0.5 if held.shadows else 0.0


def _grown_on_evidence(told: Told) -> Iterator[str]:
    assert told.registry is not None
    stayed: list[Write] = []  # revisions at one place: a change by hand leaves it where it is
    for write in told.registry.writes:
        if stayed and _rank(write.held) > _rank(stayed[0].held):
            yield from _enough(told, stayed, write)
        if not stayed or _rank(write.held) != _rank(stayed[0].held):
            stayed = []
        stayed.append(write)


def _enough(told: Told, stayed: list[Write], grown: Write) -> Iterator[str]:
    """Whether the place that was left had shown, and lasted, what its policy asks for."""
    assert told.registry is not None
    policy = POLICIES[told.policy]
    left, stayed_s = stayed[0], grown.at_s - stayed[0].at_s
    revisions = [write.held.revision for write in stayed]
    if {write.token for write in (*stayed, grown) if write.token} != {grown.token}:
        stayed_s += 2 * SKEW_S  # another controller's clock
    said = f"revision {grown.held.revision} grew after {stayed_s:.2f} s with"
    if left.held.preload:
        if not grown.ready:
            yield f"{said} no worker that holds it ready"
        return
    if left.held.shadows:
        assert policy.shadow is not None
        pairs = sum(told.truth.pairs.get(one, 0) for one in revisions)
        if pairs < policy.shadow.pairs_min or stayed_s < policy.shadow.bake_s - 0.1:
            yield f"{said} {pairs} pairs"
        return
    clean = len(set().union(*(told.truth.clean.get(one, set()) for one in revisions)))
    needed = clean_keys_needed(policy.failure_bar, policy.promote_log_threshold)
    relative = told.kind == "both bad"  # then fewer keys may show that both fail alike
    if clean < (1 if relative else needed) or stayed_s < _bake_s(left.held, policy) - 0.1:
        yield f"{said} {clean} clean keys of {needed}"


def _bake_s(held: Deployment, policy: Policy) -> float:
    if held.production == "2":
        return policy.watch_s
    return next(step.bake_s for step in policy.canary if step.share_bp == held.canary_bp)


def _back_on_evidence(told: Told) -> Iterator[str]:
    assert told.registry is not None
    for write in told.registry.writes:
        if write.rollback and write.token and told.truth.candidate_failed == 0:
            yield f"rolled back without one failure: {write.held.why}"


def _left_to_people(writes: list[Write]) -> Iterator[str]:
    """A split that a person took over stays as it was written."""
    for before, after in itertools.pairwise(writes):
        if not before.token and not before.held.rollout_id and after.token:
            yield f"lease {after.token} wrote over {before.held.who}'s {before.held.revision}"


def _held_by_monitoring(told: Told) -> Iterator[str]:
    """Nothing grows that monitoring holds, once the controller can have heard: from its first look
    on, where it took over later; within a moment, where nothing slows or cuts off controllers.
    """
    assert told.registry is not None
    quick = not any(word in one for one in told.events for word in ("calls take", "is cut off"))
    for hold_s, clear_s in _holds(told.registry.findings):
        for before, after in itertools.pairwise(told.registry.writes):
            if not after.token or not hold_s < after.at_s < clear_s:
                continue
            heard = told.registry.leased[after.token] >= hold_s
            heard |= quick and after.at_s > hold_s + HEARD_S
            if heard and _rank(after.held) > _rank(before.held):
                yield f"revision {after.held.revision} grew though monitoring held it"


def _holds(findings: list[pb.Finding]) -> Iterator[tuple[float, float]]:
    """Yield from when to when the model was held; seconds."""
    since_s = None
    for finding in findings:
        if finding.kind == "hold":
            since_s = finding.at_unix_ms / 1e3 if since_s is None else since_s
        elif since_s is not None:
            yield since_s, finding.at_unix_ms / 1e3
            since_s = None


def _converged(told: Told) -> Iterator[str]:
    assert told.registry is not None
    if told.kind == "both bad" and told.trial is not None and not told.trial.ended:
        if not told.trial.reason:
            yield "undecided, and nobody is told why"
        return
    if told.trial is None or not told.trial.ended or told.registry.held.rollout_id:
        place = told.trial.place if told.trial else None
        reason = told.trial.reason if told.trial else "nobody leads"
        yield f"not over after {told.took_s:.0f} s: {place}, {reason}"
        return
    if not told.obeyed:
        yield f"a worker does not serve revision {told.registry.held.revision}"
    must = must_end(told)
    if must is not None and told.trial.place.stage != must:
        yield f"a {told.kind} candidate ended {told.trial.place.stage.name}: {told.trial.reason}"
