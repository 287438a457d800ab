"""A rollout with evidence of every kind is written to a checkpoint and restored."""

from dataclasses import replace

import pytest

from protos import predict_pb2, registry_pb2, window_pb2
from rollout.checkpoint.codec import from_state, to_state
from rollout.errors import CheckpointError
from rollout.evidence.approved_shift import approved_shift
from rollout.evidence.inbox import ClosedSecond
from rollout.evidence.key_sample import KeySample
from rollout.lifecycle.deploy import RolloutSpec
from rollout.lifecycle.rollout import Rollout
from rollout.policy.stages import Stage, StagePosition
from tests.rollout.scripted_parts import POLICIES, QUICK, SPEC, instant_at, make_window, rollout_at
from tests.rollout.scripted_traffic import ScriptedTraffic, approved_test_shift

CANARY = StagePosition(Stage.CANARY, 0)


def rollout_with_all_evidence() -> Rollout:
    """Return a rollout with a shadow, a canary with every kind of event, and outcomes."""
    spec: RolloutSpec = replace(SPEC, shift=approved_test_shift(2_000))
    rollout = rollout_at(StagePosition(Stage.SHADOW), spec=spec)
    shadow = make_window("shadow", 0, pairs=(90, 4, 1))
    shadow.pairs.joint_index.extend([0, 65, 66])
    shadow.pairs.joint_count.extend([40, 40, 10])
    shadow.pairs.absolute_sum = 3.5
    rollout.evidence.count_second(
        ClosedSecond(1, 1, (shadow,)), StagePosition(Stage.SHADOW), current=True
    )
    rollout.enter_position(CANARY, 2, instant_at(1), "on")
    traffic = ScriptedTraffic(share=0.1)
    traffic.error_rate, traffic.baseline_error_rate, traffic.missing_feature_rate = 0.05, 0.03, 0.1
    for _ in range(12):
        rollout.evidence.count_second(traffic.next_second(), CANARY, current=True)
    for position, version, key in ((CANARY, "2", 1), (StagePosition(Stage.CANARY, 1), "1", 2)):
        window = window_pb2.Window(model="churn", version=version, revision=2)
        window.outcomes.add(
            role=predict_pb2.PRODUCTION, name="paid", key_hash=[key], value=[1.0], caller="c" * key
        )
        rollout.evidence.count_second(ClosedSecond(13, 2, (window,)), position, current=False)
    assert sorted(rollout.evidence.metrics["outcome"].events_by_share) == [1_000, 5_000]
    return rollout


def test_codec_restores_a_rollout_bit_for_bit() -> None:
    """The restored rollout has the state that it was restored from, and both go on alike."""
    rollout = rollout_with_all_evidence()
    state = to_state(rollout)
    again = from_state(state, "a1", POLICIES, instant_at(20))
    assert to_state(again) == state
    assert again.evidence.prediction.expectation is not None
    more = ScriptedTraffic(share=0.1, seed=7).next_second()
    for either in (rollout, again):
        either.evidence.count_second(more, CANARY, current=True)
    assert to_state(again).evidence == to_state(rollout).evidence
    assert to_state(again).evidence != state.evidence
    assert to_state(again).stages[-1] == to_state(rollout).stages[-1]


def test_codec_refuses_a_state_without_evidence() -> None:
    """Another edition of the program wrote it. Empty evidence would be judged as no failures."""
    state = to_state(rollout_with_all_evidence())
    state.ClearField("evidence")
    with pytest.raises(CheckpointError, match="no evidence that this program can read"):
        from_state(state, "a1", POLICIES, instant_at(20))


def test_prediction_adds_shadow_pairs_to_the_shift_with_bounded_weight() -> None:
    """90 pairs stand beside 2,000 held-out rows. 10 million pairs count as 2,000."""
    prediction = rollout_with_all_evidence().evidence.prediction
    assert prediction.expectation is not None
    assert int(prediction.expectation.counts.sum()) == 2_090
    assert "2,000 held-out rows and 90 pairs of the shadow" in prediction.shift_text
    shift = approved_test_shift(2_000)
    flood = shift.counts * 0
    flood[3, 4] = 10_000_000
    assert int(shift.with_shadow_pairs(flood).counts.sum()) == 4_000


@pytest.mark.parametrize(
    ("change", "approved"),
    [
        ({}, True),
        ({"accepted": "other"}, False),
        ({"champion": "older"}, False),
        ({"card": "{}"}, False),
        ({"card": ""}, False),
    ],
)
def test_approved_shift_needs_the_digest_and_the_baseline_of_the_approval(
    change: dict[str, str], approved: bool
) -> None:
    """The approval has the card's digest, and the card's champion is production."""
    champion = change.get("champion", "b" * 64)
    shift_json = (
        f'"digest": "d1", "champion": "{champion}", "table": [[5, 1], [0, 4]], "flip_rate": 0.1'
    )
    card = change.get("card", f'{{"expected_shift": {{{shift_json}}}}}')
    shift = approved_shift(
        registry_pb2.Version(label="2", card_json=card),
        registry_pb2.Version(label="1", digest="b" * 64),
        registry_pb2.Approval(accepted_shift=change.get("accepted", "d1")),
    )
    assert (shift is not None) is approved


def test_key_sample_thins_by_hash_in_any_order() -> None:
    """In any order of arrival the same keys stay, and none is counted twice."""
    keys = [7919 * n % 2**64 for n in range(5_000)]
    samples = [KeySample(1_000), KeySample(1_000)]
    for sample, order in zip(samples, (keys, keys[::-1]), strict=True):
        for first in range(0, len(order), 100):
            sample.add_keys(sample.uncounted(set(order[first : first + 100])))
    assert samples[0] == samples[1]
    assert len(samples[0].keys) <= 1_000
    assert not samples[0].uncounted(set(keys))


def test_shadow_pairs_beyond_the_approved_shift_hold() -> None:
    """Decisions, bins and distances of scores each have a reason."""
    shift = approved_test_shift(2_000)
    stage = QUICK.shadow
    assert stage is not None
    rollout = rollout_at(StagePosition(Stage.SHADOW), spec=replace(SPEC, shift=shift))
    far = make_window("shadow", 0, pairs=(600, 190, 0))
    far.pairs.joint_index.extend([64 * 3 + 17])
    far.pairs.joint_count.extend([600])
    far.pairs.absolute_sum = 590.0
    for second in range(20):
        windows: tuple[window_pb2.Window, ...] = (far,)
        rollout.evidence.count_second(
            ClosedSecond(second, 1, windows), StagePosition(Stage.SHADOW), current=True
        )
    prediction = rollout.evidence.prediction
    reasons = " ".join(
        rollout.evidence.stage.shadow.hold_reasons(stage, shift, prediction.expectation)
    )
    for text in ("decisions differ", "another bin", "on average"):
        assert text in reasons
