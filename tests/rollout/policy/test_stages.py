"""The rollout table, tried whole."""

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
def test_one_step_on_or_out_or_stay(where: tuple[Policy, StagePosition], verdict: Verdict) -> None:
    """From every place on every verdict: stay, go one step on, or end. Nothing else."""
    policy, place = where
    after = next_position(place, verdict, policy)

    if verdict in (Verdict.HOLD, Verdict.UNDECIDED) or place.stage in FINAL_STAGES:
        assert after == place
    elif verdict == Verdict.FAULTY:
        refused = place.stage == Stage.PRELOAD
        assert after.stage == (Stage.REFUSED if refused else Stage.ROLLED_BACK)
        assert share_bp_at(after, policy) == 0
    else:
        steps = ORDER.index(after.stage) - ORDER.index(place.stage)
        passed_over = policy.shadow is None and place.stage == Stage.PRELOAD
        assert steps == (2 if passed_over else steps)
        assert steps in (0, 1) or passed_over
        assert (after.stage, after.step) > (place.stage, place.step)
        assert share_bp_at(after, policy) >= share_bp_at(place, policy)


@pytest.mark.parametrize("policy", POLICIES.values(), ids=lambda policy: policy.name)
def test_health_alone_leads_to_done(policy: Policy) -> None:
    """HEALTHY at each place visits every share once and ends in DONE."""
    place, shares = StagePosition(Stage.PRELOAD), []
    while place.stage not in FINAL_STAGES:
        assert min_stay_s(place, policy) >= 0
        shares.append(share_bp_at(place, policy))
        place = next_position(place, Verdict.HEALTHY, policy)
    assert place.stage == Stage.DONE
    assert [s for s in shares if s] == [
        *(step.share_bp for step in policy.canary),
        10_000 - policy.standby_bp,
    ]


def test_the_diagram_has_every_edge() -> None:
    """What the docs draw is the table: eight verdicts, the ladder, three ends."""
    drawn = stage_diagram()
    assert drawn.count("-->") == 1 + 8 + 2 + 3
    assert "CANARY --> CANARY: HEALTHY, next share" in drawn
