"""The table of stages, with every position and verdict."""

from itertools import product

import pytest

from rollout.policy.policy import POLICIES, Policy
from rollout.policy.stages import (
    FINAL_STAGES,
    Stage,
    StagePosition,
    Verdict,
    min_stay_s,
    next_position,
    share_bp_at,
    stage_diagram,
)

ORDER = [Stage.PRELOAD, Stage.SHADOW, Stage.CANARY, Stage.WATCH, Stage.DONE]
PLACES = [
    (policy, StagePosition(stage, step))
    for policy in POLICIES.values()
    for stage in Stage
    for step in range(len(policy.canary) if stage == Stage.CANARY else 1)
]


@pytest.mark.parametrize(("where", "verdict"), list(product(PLACES, Verdict)), ids=str)
def test_next_position_stays_moves_one_step_or_ends(
    where: tuple[Policy, StagePosition], verdict: Verdict
) -> None:
    """That holds for every position and every verdict."""
    policy, position = where
    after = next_position(position, verdict, policy)

    if verdict in (Verdict.HOLD, Verdict.UNDECIDED) or position.stage in FINAL_STAGES:
        assert after == position
    elif verdict == Verdict.FAULTY:
        refused = position.stage == Stage.PRELOAD
        assert after.stage == (Stage.REFUSED if refused else Stage.ROLLED_BACK)
        assert share_bp_at(after, policy) == 0
    else:
        steps = ORDER.index(after.stage) - ORDER.index(position.stage)
        passed_over = policy.shadow is None and position.stage == Stage.PRELOAD
        assert steps == (2 if passed_over else steps)
        assert steps in (0, 1) or passed_over
        assert (after.stage, after.step) > (position.stage, position.step)
        assert share_bp_at(after, policy) >= share_bp_at(position, policy)


@pytest.mark.parametrize("policy", POLICIES.values(), ids=lambda policy: policy.name)
def test_next_position_with_only_healthy_verdicts_leads_to_done(policy: Policy) -> None:
    """Every share of the policy is visited once."""
    position, shares = StagePosition(Stage.PRELOAD), []
    while position.stage not in FINAL_STAGES:
        assert min_stay_s(position, policy) >= 0
        shares.append(share_bp_at(position, policy))
        position = next_position(position, Verdict.HEALTHY, policy)
    assert position.stage == Stage.DONE
    assert [s for s in shares if s] == [
        *(step.share_bp for step in policy.canary),
        10_000 - policy.standby_bp,
    ]


def test_stage_diagram_has_every_edge_of_the_table() -> None:
    """There are eight verdicts, the canary shares and three final stages."""
    diagram = stage_diagram()
    assert diagram.count("-->") == 1 + 8 + 2 + 3
    assert "CANARY --> CANARY: HEALTHY, next share" in diagram
