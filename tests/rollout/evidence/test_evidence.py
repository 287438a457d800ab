"""Evidence counts the first event of each key, by arm, at the configured share."""

import json
import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protos import window_pb2
from rollout.evidence.evidence import Evidence
from rollout.evidence.inbox import ClosedSecond
from rollout.policy.stages import Stage, StagePosition
from stats import tilt
from tests.property_examples import examples
from tests.rollout.scripted_parts import QUICK, SCRIPT_START_S, make_window

CANARY = StagePosition(Stage.CANARY, 0)
VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "window.json").read_text())


def empty_evidence() -> Evidence:
    """Return evidence that has counted nothing."""
    return Evidence("2", "1", QUICK)


def closed_second(number: int, *windows: object, revision: int = 1) -> ClosedSecond:
    """Return one closed second; *number* counts from SCRIPT_START_S."""
    return ClosedSecond(SCRIPT_START_S + number, revision, tuple(windows))  # type: ignore[arg-type]


def test_evidence_counts_a_key_once_for_each_metric() -> None:
    """Ten failing calls of one customer are one event, over several seconds and both arms."""
    evidence = empty_evidence()
    for number in range(5):
        evidence.count_second(
            closed_second(number, make_window("canary", number, errors=[7, 7, 8], nan=[7])),
            CANARY,
            current=True,
        )
    evidence.count_second(
        closed_second(5, make_window("production", 5, errors=[7, 9])), CANARY, current=True
    )

    assert evidence.metrics["errors"].canary_events == 2
    assert evidence.metrics["schema"].canary_events == 1
    assert evidence.metrics["errors"].baseline_events == 1
    assert evidence.stage.failed_in_sample == 2


def test_evidence_steps_the_tilt_test_at_the_configured_share() -> None:
    """There is one step a closed second, with the split's share and never the observed one."""
    evidence = empty_evidence()
    windows = [make_window("canary", 0, errors=[1, 2, 3]), make_window("production", 0, errors=[4])]
    evidence.count_second(closed_second(0, *windows), CANARY, current=True)
    expected = tilt.step_tilt(
        tilt.MORE_EVENTS, tilt.start_tilt(tilt.MORE_EVENTS), 3, 1, 0.1, QUICK.looks_max
    )
    assert evidence.metrics["errors"].tilt_state == expected

    evidence.count_second(
        closed_second(1, make_window("promoted", 1, errors=[5]), revision=2),
        StagePosition(Stage.WATCH),
        current=True,
    )
    expected = tilt.step_tilt(tilt.MORE_EVENTS, expected, 1, 0, 0.95, QUICK.looks_max)
    assert evidence.metrics["errors"].tilt_state == expected


def test_evidence_compares_clean_keys_with_failures_in_the_key_sample() -> None:
    """The failure bar compares keys of the same sample. Each clean key counts once."""
    evidence = empty_evidence()
    keep = 32_768
    clean = [1, 2, 3, 3, 70_000]
    evidence.count_second(
        closed_second(
            0, make_window("canary", 0, clean=clean, errors=[40_000, 5], sampled_of_65536=keep)
        ),
        CANARY,
        current=True,
    )
    evidence.count_second(
        closed_second(1, make_window("canary", 1, clean=[1, 9], sampled_of_65536=keep)),
        CANARY,
        current=True,
    )

    assert len(evidence.stage.clean_keys) == 5
    assert evidence.stage.failed_in_sample == 1
    assert evidence.metrics["errors"].canary_events == 2


def test_evidence_counts_a_clean_key_that_fails_later_as_failed_too() -> None:
    """A key that has failed is never counted as clean.

    Both only lower the evidence for promotion.
    """
    evidence = empty_evidence()
    evidence.count_second(
        closed_second(0, make_window("canary", 0, clean=[1, 2], errors=[1])), CANARY, current=True
    )
    assert (len(evidence.stage.clean_keys), evidence.stage.failed_in_sample) == (1, 1)
    evidence.count_second(
        closed_second(1, make_window("canary", 1, errors=[2])), CANARY, current=True
    )
    assert (len(evidence.stage.clean_keys), evidence.stage.failed_in_sample) == (1, 2)


def test_evidence_resets_promotion_and_not_rollback_at_a_new_stage() -> None:
    """Old clean keys promote nothing new, and old failures still count."""
    evidence = empty_evidence()
    evidence.count_second(
        closed_second(0, make_window("canary", 0, clean=range(10, 500), errors=[1])),
        CANARY,
        current=True,
    )
    before = evidence.metrics["errors"].tilt_state
    assert evidence.promote_log_e > 0
    evidence.enter_stage()
    assert evidence.promote_log_e == pytest.approx(0.0)
    assert evidence.metrics["errors"].tilt_state == before


def test_evidence_of_an_older_revision_rolls_back_and_does_not_promote() -> None:
    """Calls that were in flight when the share grew count at the share of their revision."""
    evidence = empty_evidence()
    evidence.count_second(
        closed_second(0, make_window("canary", 0, clean=range(300), errors=[999])),
        CANARY,
        current=False,
    )
    assert not evidence.stage.clean_keys
    assert evidence.metrics["errors"].canary_events == 1


def test_evidence_of_600_clean_keys_promotes_at_a_failure_bar_of_half_a_percent() -> None:
    """The number is that of the method, here counted through windows."""
    evidence = Evidence("2", "1", replace(QUICK, failure_bar=0.005))
    evidence.count_second(
        closed_second(0, make_window("canary", 0, clean=range(599))), CANARY, current=True
    )
    assert evidence.promote_log_e < math.log(20)
    evidence.count_second(
        closed_second(1, make_window("canary", 1, clean=[600])), CANARY, current=True
    )
    assert evidence.promote_log_e >= math.log(20)


def test_evidence_ignores_other_versions_and_pinned_calls() -> None:
    """Only the candidate and its baseline are compared."""
    evidence = empty_evidence()
    stranger = make_window("canary", 0, errors=[1], clean=[2])
    stranger.version = "3"
    pinned = make_window("canary", 0, errors=[4])
    pinned.arm = "ARM_PINNED"  # type: ignore[assignment]
    evidence.count_second(closed_second(0, stranger, pinned), CANARY, current=True)
    assert evidence.metrics["errors"].tilt_state.looks == 0
    assert not evidence.stage.clean_keys


@examples(20)
@given(st.randoms(use_true_random=False))
def test_evidence_is_the_same_for_any_split_of_a_second_into_windows(rng: random.Random) -> None:
    """Neither the number of workers nor the order of their windows matters."""
    keys = [
        (rng.getrandbits(20), rng.choice("ce"), rng.choice(["canary", "production"]))
        for _ in range(40)
    ]
    arm_of = {key: arm for key, _, arm in keys}
    keys = [(key, what, arm_of[key]) for key, what, _ in keys]

    def evidence_of_parts(parts: int) -> Evidence:
        evidence = empty_evidence()
        shares: list[list[tuple[int, str, str]]] = [[] for _ in range(parts)]
        for key_event in rng.sample(keys, len(keys)):
            rng.choice(shares).append(key_event)
        windows = [
            make_window(
                arm,
                0,
                clean=[k for k, what, a in share if what == "c" and a == arm],
                errors=[k for k, what, a in share if what == "e" and a == arm],
            )
            for share in shares
            for arm in ("canary", "production")
        ]
        evidence.count_second(closed_second(0, *windows), CANARY, current=True)
        return evidence

    key_event, many = evidence_of_parts(1), evidence_of_parts(7)
    assert key_event.metrics["errors"] == many.metrics["errors"]
    assert key_event.stage == many.stage


def test_evidence_bounds_the_clean_keys_in_memory() -> None:
    """Clean keys stop being counted at the policy's keys_max. Failures are always counted."""
    evidence = Evidence("2", "1", replace(QUICK, keys_max=100))
    evidence.count_second(
        closed_second(0, make_window("canary", 0, clean=range(250), errors=range(900, 1100))),
        CANARY,
        current=True,
    )
    assert len(evidence.stage.clean_keys) == 100
    assert evidence.metrics["errors"].canary_events == 200


def test_evidence_totals_count_calls_by_arm() -> None:
    """A call that no version answered is a failure of the customer. A fallback is not."""
    evidence = empty_evidence()
    evidence.count_second(
        closed_second(
            0,
            make_window("canary", 0, clean=[1], errors=[2]),
            make_window("production", 0, clean=[3, 4], errors=[5]),
            make_window("shadow", 0, pairs=(9, 1, 1)),
        ),
        CANARY,
        current=True,
    )
    totals = evidence.totals
    assert (totals.canary, totals.production, totals.shadow_pairs) == (1, 2, 9)
    assert (totals.fallbacks, totals.failed) == (1, 1)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_evidence_of_the_vectors_has_the_values_of_the_vectors(
    vector: dict[str, Any],
) -> None:
    """The windows come from tests/vectors. A gateway in any language may send their bytes."""
    evidence = empty_evidence()
    windows = window_pb2.WindowBatch.FromString(bytes.fromhex(vector["batch"])).windows
    for number in sorted({window.second for window in windows}):
        of_second = tuple(window for window in windows if window.second == number)
        evidence.count_second(ClosedSecond(number, 1, of_second), CANARY, current=True)

    for name, (canary, baseline, log_e) in vector["metrics"].items():
        compared = evidence.metrics[name]
        assert (compared.canary_events, compared.baseline_events) == (canary, baseline)
        assert compared.tilt_state.log_e == pytest.approx(log_e, abs=1e-9)
    assert len(evidence.stage.clean_keys) == vector["clean"]
    assert evidence.stage.failed_in_sample == vector["failed_in_sample"]
    assert evidence.failure_bar_log_e == pytest.approx(vector["failure_bar_log_e"], abs=1e-9)
