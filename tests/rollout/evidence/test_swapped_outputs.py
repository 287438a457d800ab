"""Tests of swapped outputs: a swap is found, and a healthy candidate is not called swapped."""

import math
from dataclasses import replace

import numpy as np
import pytest

from protos import window_pb2
from rollout.evidence.approved_shift import ApprovedShift
from rollout.evidence.evidence import Evidence
from rollout.evidence.inbox import ClosedSecond
from rollout.evidence.swapped_outputs import SwapTest, output_counts, swapped_outputs
from rollout.judge.judge import FleetView, JudgeInputs, judge
from rollout.policy.policy import DEMO
from rollout.policy.stages import Stage, StagePosition, Verdict
from tests.rollout.scripted_parts import SCRIPT_START_S, make_window

OUTPUT_BINS = (0, 4, 8)
"""Three outputs, the first two with four bins each."""
THRESHOLD = DEMO.log_threshold("prediction")
SHADOW, CANARY = StagePosition(Stage.SHADOW), StagePosition(Stage.CANARY, 0)


def joint_of(outputs: np.ndarray) -> np.ndarray:
    """Return (64, 64) keys of (3, 3) *outputs*, each in the first bin of its output."""
    joint = np.zeros((64, 64), dtype=np.int64)
    joint[np.ix_(OUTPUT_BINS, OUTPUT_BINS)] = outputs
    return joint


def swap_test() -> SwapTest:
    """Return a test of three outputs."""
    test = SwapTest(looks_max=3_600)
    test.learn_outputs(OUTPUT_BINS)
    return test


def shadow_second(second: int, outputs: np.ndarray) -> ClosedSecond:
    """Return a second of a shadow with (3, 3) pairs of outputs."""
    window = make_window("shadow", second, pairs=(int(outputs.sum()), 0, 0))
    joint = joint_of(outputs)
    window.output_bins.extend(OUTPUT_BINS)
    index = np.flatnonzero(joint)
    window.pairs.joint_index.extend(index.tolist())
    window.pairs.joint_count.extend(joint.reshape(-1)[index].tolist())
    for name in ("low", "middle", "high"):
        window.pairs.outputs.add(name=name, spread=1.0)
    return ClosedSecond(SCRIPT_START_S + second, 1, (window,))


def canary_second(second: int, outputs: np.ndarray) -> ClosedSecond:
    """Return a second of a canary with (3, 3) keys by output, and as many of production."""
    keys = int(outputs.sum())
    first = second * 10_000
    canary = make_window("canary", second)
    canary.output_bins.extend(OUTPUT_BINS)
    production, candidate = np.nonzero(outputs)
    repeats = outputs[production, candidate]
    bins = np.array(OUTPUT_BINS)
    canary.records.add(
        metric="METRIC_SCORE",
        key_hash=range(first, first + keys),
        bin=np.repeat(bins[candidate], repeats).tolist(),
        production_bin=np.repeat(bins[production], repeats).tolist(),
    )
    baseline = make_window("production", second, clean=range(first + keys, first + 10 * keys))
    return ClosedSecond(SCRIPT_START_S + second, 1, (canary, baseline))


SAME = np.diag([40, 40, 20])
SWAPPED = SAME[[0, 2, 1]]
MERGED = np.array([[40, 0, 0], [40, 0, 0], [0, 0, 20]])
"""The candidate predicts the first output wherever production predicts the second."""


def test_output_counts_add_the_bins_of_each_output() -> None:
    """NaN and the infinities lie behind the last output."""
    joint = np.arange(16).reshape(4, 4)
    assert output_counts(joint, (0, 1)).tolist() == [[0, 6], [24, 90]]


@pytest.mark.parametrize(("counts", "swaps"), [(SAME, []), (MERGED, []), (SWAPPED * 2, [(1, 2)])])
def test_shadow_has_swapped_outputs_if_both_are_put_to_the_other(
    counts: np.ndarray, swaps: list[tuple[int, int]]
) -> None:
    """One output that is always put to another is a difference, and no swap."""
    assert swapped_outputs(counts) == swaps


def test_swap_test_finds_a_swap_with_few_keys() -> None:
    """20 keys of either output are enough at the weight of predictions."""
    test = swap_test()
    for _ in range(20):
        test.count(joint_of(np.array([[3, 0, 0], [0, 0, 1], [0, 1, 0]])))
    assert test.log_e > THRESHOLD + math.log(2)


def test_swap_test_knows_one_direction_from_a_swap() -> None:
    """A candidate that never predicts one output is held, not rolled back."""
    test = swap_test()
    for _ in range(100):
        test.count(joint_of(MERGED))
    assert test.log_e < 1


def test_swap_test_is_valid_where_half_of_the_keys_are_swapped() -> None:
    """At the bound of the null hypothesis at most one rollout in 1,000 reaches e = 1,000."""
    rng = np.random.default_rng(11)
    reached = 0
    for _ in range(150):
        test, highest = swap_test(), 0.0
        for _ in range(80):
            swapped = rng.binomial(10, 0.5, 2)
            outputs = np.diag([9, 10 - swapped[0], 10 - swapped[1]])
            outputs[1, 2], outputs[2, 1] = swapped
            test.count(joint_of(outputs))
            highest = max(highest, test.log_e)
        reached += highest >= math.log(1_000)
    assert reached <= 1


def test_swap_test_counts_nothing_for_one_output() -> None:
    """Models of one output are judged as ever."""
    test = SwapTest(looks_max=3_600)
    test.learn_outputs([])
    test.count(joint_of(SWAPPED))
    assert (test.output_bins, test.log_e) == ((), 0.0)


def test_canary_with_swapped_outputs_is_rolled_back_without_an_approved_shift() -> None:
    """A difference that is no swap holds."""
    inputs = JudgeInputs(position=CANARY, stayed_s=60.0, fleet=FleetView(workers=2))
    policy = replace(DEMO, shadow=None)
    verdicts = {}
    for name, outputs in (("same", SAME), ("swapped", SWAPPED), ("merged", MERGED)):
        evidence = Evidence("2", "1", policy)
        for second in range(5):
            evidence.count_second(canary_second(second, outputs), CANARY, current=True)
        verdicts[name] = judge(policy, inputs, evidence)
    assert verdicts["same"].verdict == Verdict.HEALTHY
    assert verdicts["swapped"].verdict == Verdict.FAULTY
    assert "two outputs of the candidate are swapped" in verdicts["swapped"].reason
    assert verdicts["merged"].verdict == Verdict.HOLD
    assert "turnout versions certify" in verdicts["merged"].reason


def test_shadow_with_swapped_outputs_is_faulty_unless_the_swap_was_approved() -> None:
    """The reason names both outputs. A candidate that mends production's order is approved so."""
    inputs = JudgeInputs(position=SHADOW, stayed_s=60.0, fleet=FleetView(workers=2))
    approved = ApprovedShift("d1", joint_of(SWAPPED * 10)[:12, :12], 0.6)
    held_out = ApprovedShift("d2", joint_of(SAME * 10)[:12, :12], 0.0)
    for shift, faulty in ((None, True), (held_out, True), (approved, False)):
        evidence = Evidence("2", "1", DEMO, shift)
        for second in range(4):
            evidence.count_second(shadow_second(second, SWAPPED), SHADOW, current=True)
        verdict = judge(DEMO, inputs, evidence)
        assert (verdict.verdict == Verdict.FAULTY) is faulty, verdict
        if faulty:
            assert "outputs 'middle' and 'high' are swapped" in verdict.reason


def test_swap_test_is_restored_from_a_checkpoint() -> None:
    """The restored evidence goes on alike."""
    evidence = Evidence("2", "1", DEMO)
    evidence.count_second(canary_second(1, SAME), CANARY, current=True)
    again = Evidence.from_proto(evidence.to_proto(), "2", "1", DEMO, None)
    for either in (evidence, again):
        either.count_second(canary_second(2, SWAPPED), CANARY, current=True)
    assert again.to_proto() == evidence.to_proto()
    assert again.prediction.swap_test.output_bins == OUTPUT_BINS
    assert again.prediction.swap_test.log_e != 0.0


def test_shadow_pairs_have_the_units_of_each_output() -> None:
    """Explanations have a line an output, and the reason to hold names the worst one."""
    evidence = Evidence("2", "1", DEMO)
    for second in range(20):
        window = make_window("shadow", second, pairs=(100, 90, 0))
        window.pairs.task, window.pairs.absolute_sum = "regression", 60.0
        window.pairs.outputs.add(name="spend", spread=1_000.0, absolute_sum=60_000.0)
        window.pairs.outputs.add(name="visits", spread=4.0, absolute_sum=8.0)
        closed = ClosedSecond(SCRIPT_START_S + second, 1, (window,))
        evidence.count_second(closed, SHADOW, current=True)
    pairs = evidence.stage.shadow
    assert pairs.output_texts() == [
        "output 'spend': 600 from production's on average, 60.00% of its spread 1,000",
        "output 'visits': 0.08 from production's on average, 2.00% of its spread 4",
    ]
    assert DEMO.shadow is not None
    moved, far = pairs.hold_reasons(DEMO.shadow, None, None)
    assert moved.startswith("90.0% of values moved by over 0.25 of their spread from production's")
    assert "0.600 of the reference's spread (output 'spend': 600 of 1,000)" in far
    again = type(pairs).from_proto(pairs.to_proto())
    assert again == pairs


@pytest.mark.parametrize("outputs", [[], [window_pb2.OutputDifference(name="score", spread=1)]])
def test_shadow_pairs_of_one_probability_read_as_ever(
    outputs: list[window_pb2.OutputDifference],
) -> None:
    """Older gateways send no outputs."""
    evidence = Evidence("2", "1", DEMO)
    for second in range(20):
        window = make_window("shadow", second, pairs=(100, 0, 0))
        window.pairs.absolute_sum = 60.0
        window.pairs.outputs.extend(outputs)
        closed = ClosedSecond(SCRIPT_START_S + second, 1, (window,))
        evidence.count_second(closed, SHADOW, current=True)
    assert DEMO.shadow is not None
    assert evidence.stage.shadow.hold_reasons(DEMO.shadow, None, None) == (
        "scores differ from production's by 0.600 on average; the policy allows 0.25",
    )
