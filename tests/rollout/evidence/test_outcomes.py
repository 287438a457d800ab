"""Outcomes are counted once a key, at the share with which the key was assigned, and judged."""

import random
from collections import defaultdict
from dataclasses import replace

import pytest

from protos import predict_pb2, window_pb2
from rollout.errors import PolicyError
from rollout.evidence.evidence import Evidence
from rollout.evidence.inbox import ClosedSecond, Inbox
from rollout.judge.judge import FleetView, JudgeInputs, Judgement, judge
from rollout.policy.policy import ANONYMOUS, POLICIES, GoodOutcome
from rollout.policy.policy_files import parse_policies
from rollout.policy.stages import Stage, StagePosition, Verdict
from tests.rollout.scripted_parts import NS, QUICK, SCRIPT_START_S, make_batch, make_window

POLICY = replace(
    QUICK, canary=(replace(QUICK.canary[0], share_bp=500), QUICK.canary[1]), stage_s_max=1e9
)
FACTS = JudgeInputs(
    position=StagePosition(Stage.CANARY, 0), stayed_s=10.0, fleet=FleetView(workers=2)
)
GOOD = GoodOutcome(name="accepted", at_least=1.0, trust_anonymous=True)
LADDER = {
    1: (StagePosition(Stage.CANARY, 0), 0.05),
    2: (StagePosition(Stage.CANARY, 1), 0.50),
    3: (StagePosition(Stage.WATCH), 0.95),
}
"""Revision -> where the rollout stood, and the candidate's share there."""


def judge_outcomes(candidate: float, seed: int, keys_max: int) -> Judgement:
    """Judge as outcomes of *keys_max* customers come in, 50 a second, of any earlier revision.

    A fifth of production's customers accept, and *candidate* is the rate of the candidate's.
    Everybody is reported twice, also with outcomes that are not good.
    """
    rng, policy = random.Random(seed), replace(POLICY, outcome=GOOD)
    evidence = Evidence("2", "1", policy)
    judgement = Judgement(Verdict.UNDECIDED, "")
    for second in range(keys_max // 50):
        by_revision: dict[int, list[window_pb2.Window]] = defaultdict(list)
        for key in range(second * 50, second * 50 + 50):
            revision = rng.choice(list(LADDER))
            to_candidate = rng.random() < LADDER[revision][1]
            accepts = rng.random() < (candidate if to_candidate else 0.2)
            window = outcome_window(
                second, revision, rng, [key, key], accepts=accepts, to_candidate=to_candidate
            )
            by_revision[revision].append(window)
        for revision, windows in by_revision.items():
            closed = ClosedSecond(SCRIPT_START_S + second, revision, tuple(windows))
            evidence.count_second(closed, LADDER[revision][0], current=False)
        judgement = judge(policy, FACTS, evidence)
        if judgement.verdict == Verdict.FAULTY:
            break
    return judgement


def outcome_window(
    second: int,
    revision: int,
    rng: random.Random,
    keys: list[int],
    *,
    accepts: bool,
    to_candidate: bool,
) -> window_pb2.Window:
    """Return a gateway's window of one customer's reports. Sometimes the other arm has answered."""
    fallen_back = rng.random() < 0.1
    version = "2" if to_candidate != fallen_back else "1"
    window = window_pb2.Window(
        model="churn", version=version, revision=revision, second=SCRIPT_START_S + second
    )
    watched = LADDER[revision][0].stage == Stage.WATCH
    role = predict_pb2.CANARY if version == "2" and not watched else predict_pb2.PRODUCTION
    role = predict_pb2.FALLBACK if fallen_back else role
    values = [float(accepts)] * len(keys)
    window.outcomes.add(role=role, name="accepted", key_hash=keys, value=values)
    window.outcomes.add(role=role, name="looked at", key_hash=keys, value=[1.0] * len(keys))
    window.outcomes.add(
        role=predict_pb2.PINNED, name="accepted", key_hash=keys, value=[1.0] * len(keys)
    )
    return window


def test_judge_rolls_back_for_fewer_good_outcomes_and_not_for_equal_numbers() -> None:
    """Half the acceptances are found whatever the share of each key."""
    judgement = judge_outcomes(0.1, 5, 20_000)
    assert judgement.verdict == Verdict.FAULTY
    assert judgement.reason.startswith("outcome")
    for seed in range(3):
        assert judge_outcomes(0.2, seed, 3_000).verdict != Verdict.FAULTY


def test_evidence_counts_each_key_with_a_good_outcome_once() -> None:
    """Several reports of a key, also from two gateways, are one event and promote nothing."""
    policy = replace(POLICY, outcome=GoodOutcome(name="churned", at_most=0.0))
    evidence, position = Evidence("2", "1", policy), StagePosition(Stage.CANARY)
    for second in range(3):
        windows = []
        for version in ("1", "2"):
            window = window_pb2.Window(version=version, revision=1, second=second)
            keys = [10, 11, 12] if version == "1" else [20, 21, 22]
            window.outcomes.add(role=1, name="churned", key_hash=keys, value=[0.0, 0.0, 1.0])
            windows += [window, window]
        evidence.count_second(ClosedSecond(second, 1, tuple(windows)), position, current=True)
    counted = evidence.metrics["outcome"]
    assert (counted.canary_events, counted.baseline_events, counted.tilt_state.looks) == (2, 2, 3)
    assert evidence.promote_log_e == pytest.approx(0.0)
    assert evidence.metrics["errors"].tilt_state.looks == 0


def test_inbox_counts_a_late_outcome_in_the_next_second() -> None:
    """A window of calls that comes after its second has closed is left out. Outcomes are not."""
    inbox = Inbox("churn")
    window = window_pb2.Window(model="churn", version="2", revision=1, second=SCRIPT_START_S)
    window.outcomes.add(role=2, name="accepted", key_hash=[7], value=[1.0])
    inbox.accept(make_batch(1, make_window("canary", 5), sent_s=6.0), 6 * NS)
    assert [closed.second for closed in inbox.close_seconds(7 * NS)] == [SCRIPT_START_S + 5]
    inbox.accept(make_batch(2, window, make_window("canary", 0), sent_s=7.0), 7 * NS)
    assert (inbox.late_windows, inbox.late_at_ns) == (1, 7 * NS)
    later = inbox.close_seconds(10 * NS)
    assert [closed.windows[0].outcomes[0].key_hash[:] for closed in later] == [[7]]
    assert window.second == SCRIPT_START_S


def test_policy_file_names_the_good_outcome_of_each_model() -> None:
    """It is a table with one bound, for each model. An impossible table is refused."""
    tables = {
        "name": "careful",
        "base": "standard",
        "outcome": {"name": "accepted", "at_least": 1},
        "models": {"churn": {"outcome": {"name": "churned", "at_most": 0}}, "plain": {}},
    }
    # Each model has its own outcome, or that of the policy.
    policies = parse_policies(tables, "careful.toml", POLICIES)
    assert policies["careful@plain"].outcome == GoodOutcome(name="accepted", at_least=1.0)
    # Who may roll back alone.
    trusting = {"name": "accepted", "at_least": 1, "trusted_callers": ["nba", "crm"]}
    trusted = parse_policies({**tables, "outcome": trusting}, "", POLICIES)["careful@plain"].outcome
    assert trusted is not None
    assert trusted.trusted == {"crm", "nba"}
    assert replace(trusted, trust_anonymous=True).trusted == {"crm", "nba", ANONYMOUS}
    stays = policies["careful@churn"].outcome
    assert stays is not None
    assert (stays.description, stays.is_good(0.0), stays.is_good(1.0)) == (
        "churned <= 0",
        True,
        False,
    )
    assert POLICIES["standard"].outcome is None
    none = parse_policies({**tables, "models": {"churn": {"outcome": False}}}, "", POLICIES)
    assert none["careful@churn"].outcome is None
    # Impossible tables.
    for wrong, message in (
        ({"name": "accepted"}, "has a name, and one of them"),
        ({"name": "accepted", "at_least": 1, "at_most": 1}, "one of them as a number"),
        ({"at_least": 1}, "name is the name"),
        ({"name": "accepted", "good": 1}, "its fields are name, at_least, at_most, trusted"),
        ({"name": "accepted", "at_least": True}, "at_least is a number"),
        ({"name": "accepted", "at_least": 1, "trusted_callers": "crm"}, "a list of callers"),
        ({"name": "accepted", "at_least": 1, "trust_anonymous": 1}, "true or false"),
        ("accepted", "its fields are"),
    ):
        with pytest.raises(PolicyError, match=message):
            parse_policies({**tables, "outcome": wrong}, "careful.toml", POLICIES)
