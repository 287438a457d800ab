"""Evidence with thousands of keys in one second does not overflow."""

import math
import random

import pytest

from rollout.evidence.evidence import Evidence
from rollout.evidence.inbox import ClosedSecond
from rollout.judge.reasons import evidence_rows, log_e_maxima
from rollout.policy.stages import Stage, StagePosition
from tests.rollout.scripted_parts import QUICK, SCRIPT_START_S, make_window


@pytest.mark.parametrize("keys", [1, 300, 5_000])
def test_evidence_is_finite_for_any_number_of_keys_a_second(keys: int) -> None:
    """Without an approved shift, scores as production's are no constant output."""
    rng = random.Random(keys)
    evidence = Evidence("2", "1", QUICK)
    for number in range(3):
        window = make_window("canary", number)
        bins = [rng.randrange(20) for _ in range(keys)]
        names = [rng.getrandbits(64) for _ in range(keys)]
        window.records.add(metric="METRIC_SCORE", key_hash=names, bin=bins, production_bin=bins)
        window.records.add(metric="METRIC_TIMEOUT", key_hash=names, bin=[0] * keys)
        evidence.count_second(
            ClosedSecond(SCRIPT_START_S + number, 1, (window,)),
            StagePosition(Stage.CANARY),
            current=True,
        )
        assert all(math.isfinite(log_e) for log_e in log_e_maxima(evidence))
        assert all(math.isfinite(row.log_e) for row in evidence_rows(evidence, intervals=True))
    assert evidence.prediction.log_e_max < 1.0
