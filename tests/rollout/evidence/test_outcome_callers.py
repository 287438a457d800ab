"""No single caller's outcome reports roll back, and each caller's share of them is shown."""

import random
from collections.abc import Mapping
from dataclasses import replace

import pytest

from protos import predict_pb2, window_pb2
from rollout.evidence.evidence import OUTCOME, Evidence
from rollout.evidence.inbox import ClosedSecond
from rollout.evidence.outcome_callers import CALLERS_MAX, OTHER_CALLERS, OutcomeCallers
from rollout.judge.judge import FleetView, JudgeInputs, Judgement, judge
from rollout.judge.reasons import evidence_rows
from rollout.policy.policy import ANONYMOUS, GoodOutcome
from rollout.policy.stages import Stage, StagePosition, Verdict
from tests.rollout.scripted_parts import QUICK

GOOD = GoodOutcome(name="accepted", at_least=1.0)
POSITION = StagePosition(Stage.CANARY, 1)
SHARE_BP = 5_000
POLICY = replace(
    QUICK,
    canary=(QUICK.canary[0], replace(QUICK.canary[1], share_bp=SHARE_BP)),
    outcome=GOOD,
    stage_s_max=1e9,
)
FACTS = JudgeInputs(position=POSITION, stayed_s=10.0, fleet=FleetView(workers=2))
ALL_PRODUCTION = 0.0
"""An attacker's part of good outcomes on the candidate: it reports production's only."""


def report(version: str, keys: list[int], caller: str) -> window_pb2.Window:
    """Return a window in which *caller* reports good outcomes of *version*."""
    window = window_pb2.Window(model="churn", version=version, revision=1)
    role = predict_pb2.CANARY if version == "2" else predict_pb2.PRODUCTION
    values = [1.0] * len(keys)
    window.outcomes.add(role=role, name="accepted", key_hash=keys, value=values, caller=caller)
    return window


def evidence_of(
    callers: Mapping[str, tuple[int, float]], good: GoodOutcome = GOOD
) -> tuple[Evidence, Judgement]:
    """Count good outcomes over 20 seconds, each of another customer, and judge them.

    callers  name -> (good outcomes a second, part of them on the candidate).
    """
    policy, rng = replace(POLICY, outcome=good), random.Random(3)
    evidence = Evidence("2", "1", policy)
    for second in range(20):
        windows = []
        for caller, (number, part) in callers.items():
            for _ in range(number):
                version = "2" if rng.random() < part else "1"
                windows.append(report(version, [rng.getrandbits(64)], caller))
        evidence.count_second(ClosedSecond(second, 1, tuple(windows)), POSITION, current=True)
    return evidence, judge(policy, FACTS, evidence)


def test_one_caller_that_reports_production_only_holds_and_does_not_roll_back() -> None:
    """The input of the finding: 257 good outcomes on the baseline, none on the candidate."""
    for caller in ("", "crm"):
        evidence, judgement = evidence_of({caller: (13, ALL_PRODUCTION)})
        assert evidence.metrics[OUTCOME].tilt_state.log_e_max > 10
        assert judgement.verdict == Verdict.HOLD
        name = caller or ANONYMOUS
        assert f"without those of the caller {name!r} ({name} 100%)" in judgement.reason


@pytest.mark.parametrize("attacker", ["", "evil"])
def test_attacker_beside_an_honest_caller_does_not_roll_back(attacker: str) -> None:
    """Twenty times the honest caller's reports, all on the baseline: a person decides."""
    _, judgement = evidence_of({"crm": (10, 0.5), attacker: (200, ALL_PRODUCTION)})
    assert judgement.verdict == Verdict.HOLD
    # Also where the policy trusts the honest caller.
    trusting = replace(GOOD, trusted_callers=("crm",))
    _, judgement = evidence_of({"crm": (10, 0.5), attacker: (200, ALL_PRODUCTION)}, trusting)
    assert judgement.verdict == Verdict.HOLD


def test_two_callers_that_agree_or_a_trusted_one_roll_back() -> None:
    """Each caller's reports confirm the other's; or the approved policy trusts the caller."""
    evidence, judgement = evidence_of({"crm": (20, 0.1), "nba": (20, 0.1)})
    assert judgement.verdict == Verdict.FAULTY
    assert judgement.reason.startswith("outcome: ")
    assert "reported by crm 50%, nba 50%" in judgement.reason
    row = next(row for row in evidence_rows(evidence) if row.metric == OUTCOME)
    assert row.gate_open
    assert row.gate.startswith("reported by crm 50%, nba 50%; ln e ")
    for trusting, caller in (
        (replace(GOOD, trusted_callers=("crm",)), "crm"),
        (replace(GOOD, trust_anonymous=True), ""),
    ):
        assert evidence_of({caller: (20, 0.1)}, trusting)[1].verdict == Verdict.FAULTY


def test_test_without_a_caller_is_that_of_the_others_alone() -> None:
    """It has the same bits as if the caller had never reported, also for shared customers."""
    with_both, alone = Evidence("2", "1", POLICY), Evidence("2", "1", POLICY)
    for second in range(30):
        honest = [report("12"[second % 2], [1_000 * second, 1_000 * second + 1], "crm")]
        # The other caller was first to report one of the next second's customers.
        hostile = [report("1", [1_000 * second + 1, 1_000 * (second + 1), 77 + second], "evil")]
        for evidence, windows in ((with_both, honest + hostile), (alone, honest)):
            evidence.count_second(ClosedSecond(second, 1, tuple(windows)), POSITION, current=True)
    without_evil = with_both.outcome_callers.by_name["evil"].without
    assert without_evil == alone.metrics[OUTCOME].tilt_state
    restored = OutcomeCallers.from_proto(with_both.outcome_callers.to_proto())
    assert restored == with_both.outcome_callers


def test_callers_beyond_the_bound_count_as_one() -> None:
    """Forty callers: 32 have a test of their own, and the keys are thinned as the whole test's."""
    evidence = Evidence("2", "1", replace(POLICY, keys_max=50))
    for second in range(40):
        windows = (report("1", [second * 65_537 * 3 + n * 1_201 for n in range(9)], f"c{second}"),)
        evidence.count_second(ClosedSecond(second, 1, windows), POSITION, current=True)
    callers = evidence.outcome_callers
    assert len(callers.by_name) == CALLERS_MAX + 1
    assert callers.by_name[OTHER_CALLERS].keys > 0
    assert set(callers.reporters) == evidence.metrics[OUTCOME].counted_keys.keys
