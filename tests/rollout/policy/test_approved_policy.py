"""A rollout goes on under its approved policy, whatever its file says now."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.canonical import canonical_json, sha256_hex
from rollout.api.explain import explanation_text
from rollout.checkpoint.codec import from_state, to_state
from rollout.errors import CheckpointError, PolicyError
from rollout.policy.approved_policy import parse_approved_policy, policy_file_note
from rollout.policy.policy import POLICIES, STANDARD, CanaryStep, GoodOutcome, Policy
from rollout.policy.stages import Stage, StagePosition
from tests.property_examples import examples
from tests.rollout.scripted_parts import QUICK, SPEC, instant_at, rollout_at

FROZEN = replace(
    STANDARD,
    name="careful@churn",
    outcome=GoodOutcome(name="churned", at_most=0.0),
    freeze=("fri 16:00 - mon 07:00",),
    exclusive_views=("*",),
    guards=(),
    replay_days=7.0,
)
ALL = [*POLICIES.values(), QUICK, FROZEN]


@pytest.mark.parametrize("policy", ALL, ids=lambda policy: policy.name)
def test_approved_policy_is_parsed_with_every_field(policy: Policy) -> None:
    """Each field has its type, so the policy has its digest."""
    again = parse_approved_policy(policy.json, policy.digest)
    assert again == policy
    assert repr(again) == repr(policy)
    assert again.digest == policy.digest


@examples(100)
@given(st.floats(1e-9, 1e300), st.floats(1e-12, 1 - 1e-12), st.integers(1, 2**62))
def test_approved_policy_is_parsed_with_every_number_bit_for_bit(
    seconds: float, bar: float, looks: int
) -> None:
    """That holds for large, small and odd numbers."""
    step = CanaryStep(share_bp=1, bake_s=seconds)
    policy = replace(STANDARD, canary=(step,), failure_bar=bar, alpha=bar, looks_max=looks)
    assert repr(parse_approved_policy(policy.json, policy.digest)) == repr(policy)


def test_approved_policy_with_a_changed_byte_is_refused() -> None:
    """The message has both digests."""
    for index in range(len(FROZEN.json)):
        damaged = bytearray(FROZEN.json)
        damaged[index] ^= 1
        with pytest.raises(PolicyError, match=f"{FROZEN.digest[:12]} was approved: it was altered"):
            parse_approved_policy(bytes(damaged), FROZEN.digest)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"patience": 3}, "cannot be read here"),
        ({"alpha": None}, "cannot be read here"),
        ({"alpha": 2}, "cannot be read here .* between 0 and 1"),
        ({"canary": [{"share_bp": 5}]}, "cannot be read here"),
        ({"guards": "BREAKER_OPEN"}, "other fields or metrics"),
        ({"weights": [["errors", 1]]}, "cannot be read here"),
        ({"weights": [["errors", 0.5], ["speed", 0.5]]}, "other fields or metrics"),
    ],
)
def test_approved_policy_of_another_edition_of_the_program_is_refused(
    change: dict[str, object], message: str
) -> None:
    """Its digest is right, but this program would read another policy."""
    policy_json = canonical_json({**json.loads(FROZEN.json), **change})
    with pytest.raises(PolicyError, match=message):
        parse_approved_policy(policy_json, sha256_hex(policy_json))


def test_approved_policy_without_a_new_field_is_refused() -> None:
    """No approval covers the default that the field has today."""
    json_fields = json.loads(FROZEN.json)
    del json_fields["keys_max"]
    policy_json = canonical_json(json_fields)
    with pytest.raises(PolicyError, match="other fields or metrics"):
        parse_approved_policy(policy_json, sha256_hex(policy_json))


def test_policy_file_note_says_how_the_file_differs() -> None:
    """It is empty if the file has the approved policy."""
    other = replace(QUICK, promote_e=30.0)
    assert policy_file_note(QUICK, {"quick": replace(QUICK)}) == ""
    assert other.digest[:12] in policy_file_note(QUICK, {"quick": other})
    assert "no policy of that name" in policy_file_note(QUICK, {"other": QUICK})


@pytest.mark.parametrize("policy", ALL, ids=lambda policy: policy.name)
def test_checkpoint_restores_the_approved_policy(policy: Policy) -> None:
    """A controller with another edition of the policy goes on under the approved one."""
    position = StagePosition(Stage.CANARY)
    rollout = rollout_at(position, spec=replace(SPEC, policy=policy))
    state = to_state(rollout)
    for policies in ({}, {policy.name: replace(policy, promote_e=30.0)}, {policy.name: policy}):
        again = from_state(state, "a1", policies, instant_at(20))
        assert repr(again.spec.policy) == repr(policy)
        assert again.evidence.policy is again.spec.policy
        assert to_state(again) == state
        changed = policies.get(policy.name) != policy
        assert bool(again.status().policy_note) is changed
        assert (
            "its policy is kept from its start" in explanation_text(again.status(), [])
        ) is changed


def test_checkpoint_with_an_altered_policy_is_refused() -> None:
    """That holds also if the file still has the right policy."""
    state = to_state(rollout_at(StagePosition(Stage.CANARY)))
    state.policy_json = state.policy_json.replace(b'"promote_e":20', b'"promote_e":02')
    with pytest.raises(
        CheckpointError, match="rollout r1: the policy in its checkpoint has the digest"
    ):
        from_state(state, "a1", {"quick": QUICK}, instant_at(20))


def test_checkpoint_without_a_policy_needs_the_file_with_its_digest() -> None:
    """With the file the rollout goes on. Without it the message names the digest."""
    state = to_state(rollout_at(StagePosition(Stage.CANARY)))
    policy_json = bytes(state.policy_json)
    state.policy_json = b""
    assert (
        to_state(from_state(state, "a1", {"quick": QUICK}, instant_at(20))).policy_json
        == policy_json
    )
    for policies in ({}, {"quick": replace(QUICK, promote_e=30.0)}):
        with pytest.raises(CheckpointError, match=f"{QUICK.digest[:12]}.*with the policy file of"):
            from_state(state, "a1", policies, instant_at(20))
