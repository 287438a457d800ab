"""The state machine of a rollout: its stages, and where each verdict leads, in one table."""

from dataclasses import dataclass
from enum import IntEnum

from protos import rollout_pb2
from rollout.policy.policy import Policy


class Stage(IntEnum):
    """The stages of a rollout. A rollout only moves down this list, or to a final stage."""

    PRELOAD = rollout_pb2.PRELOAD
    SHADOW = rollout_pb2.SHADOW_STAGE
    CANARY = rollout_pb2.CANARY_STAGE
    WATCH = rollout_pb2.WATCH
    DONE = rollout_pb2.DONE
    ROLLED_BACK = rollout_pb2.ROLLED_BACK
    REFUSED = rollout_pb2.REFUSED_STAGE


class Verdict(IntEnum):
    """The verdicts. UNDECIDED means that too little was seen; HOLD, that it cannot be trusted."""

    HEALTHY = rollout_pb2.HEALTHY
    UNDECIDED = rollout_pb2.UNDECIDED
    FAULTY = rollout_pb2.FAULTY
    HOLD = rollout_pb2.HOLD


FINAL_STAGES = frozenset({Stage.DONE, Stage.ROLLED_BACK, Stage.REFUSED})

# A pair that is not in the table changes nothing. In CANARY, HEALTHY first leads through all shares
# of the policy. A policy without a shadow stage skips SHADOW. The diagram in docs/rollout.md is
# drawn from the table.
NEXT_STAGE: dict[tuple[Stage, Verdict], Stage] = {
    (Stage.PRELOAD, Verdict.HEALTHY): Stage.SHADOW,
    (Stage.PRELOAD, Verdict.FAULTY): Stage.REFUSED,
    (Stage.SHADOW, Verdict.HEALTHY): Stage.CANARY,
    (Stage.SHADOW, Verdict.FAULTY): Stage.ROLLED_BACK,
    (Stage.CANARY, Verdict.HEALTHY): Stage.WATCH,
    (Stage.CANARY, Verdict.FAULTY): Stage.ROLLED_BACK,
    (Stage.WATCH, Verdict.HEALTHY): Stage.DONE,
    (Stage.WATCH, Verdict.FAULTY): Stage.ROLLED_BACK,
}


@dataclass(frozen=True, slots=True)
class StagePosition:
    """A stage and, in CANARY, the number of the policy's canary step (0, 1, ...)."""

    stage: Stage
    step: int = 0


def next_position(position: StagePosition, verdict: Verdict, policy: Policy) -> StagePosition:
    """Return the position to which *verdict* leads; the same position means: stay.

    A verdict is about one position at one revision. `deploy_position` compares that revision before
    it writes, so a verdict that is carried out twice moves the rollout once.
    """
    stage = NEXT_STAGE.get((position.stage, verdict), position.stage)
    if stage == position.stage:
        return position
    last_step = len(policy.canary) - 1
    if position.stage == Stage.CANARY and verdict == Verdict.HEALTHY and position.step < last_step:
        return StagePosition(Stage.CANARY, position.step + 1)
    if stage == Stage.SHADOW and policy.shadow is None:
        return StagePosition(Stage.CANARY)
    return StagePosition(stage)


def share_bp_at(position: StagePosition, policy: Policy) -> int:
    """Return the candidate's share of customers' traffic at *position*, in basis points."""
    if position.stage == Stage.CANARY:
        return policy.canary[position.step].share_bp
    if position.stage == Stage.WATCH:
        return 10_000 - policy.standby_bp
    return 10_000 if position.stage == Stage.DONE else 0


def min_stay_s(position: StagePosition, policy: Policy) -> float:
    """Return the minimum stay at *position* in seconds, however good the evidence."""
    if position.stage == Stage.CANARY:
        return policy.canary[position.step].bake_s
    if position.stage == Stage.WATCH:
        return policy.watch_s
    if position.stage == Stage.SHADOW and policy.shadow is not None:
        return policy.shadow.bake_s
    return 0.0


def stage_diagram() -> str:
    """Return NEXT_STAGE as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", f"    [*] --> {Stage.PRELOAD.name}"]
    for (stage, verdict), after in NEXT_STAGE.items():
        if (stage, verdict) == (Stage.CANARY, Verdict.HEALTHY):
            lines.append(f"    {stage.name} --> {stage.name}: HEALTHY, next share")
            lines.append(f"    {stage.name} --> {after.name}: HEALTHY at the last share")
        elif (stage, verdict) == (Stage.PRELOAD, Verdict.HEALTHY):
            lines.append(f"    {stage.name} --> {after.name}: HEALTHY")
            lines.append(
                f"    {stage.name} --> {Stage.CANARY.name}: HEALTHY, policy without shadow"
            )
        else:
            lines.append(f"    {stage.name} --> {after.name}: {verdict.name}")
    lines += [f"    {stage.name} --> [*]" for stage in Stage if stage in FINAL_STAGES]
    return "\n".join(lines) + "\n"
