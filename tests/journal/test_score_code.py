"""A score keeps its precision in 16 bits, and an id tells it to nobody without the key."""

import struct
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from journal.prediction_id import read_prediction_id, write_prediction_id
from journal.score_code import PROBABILITY_STEPS, ScoreRule, code_of_score, score_of_code
from tests.property_examples import examples

KEY = bytes(range(32))
RULE = ScoreRule(probability=True, threshold=0.5)


def written(score: float, sequence: int = 0, **fields: Any) -> bytes:  # noqa: ANN401  any field
    """Return an id with this score."""
    common = {"role": 1, "slot": 0, "model_hash": 1, "version": bytes(8), "revision": 1}
    common |= {"at_ms": 1_790_000_000_000, "key_hash": 2, "boot_id": 3, "rows": 1, "rule": RULE}
    return write_prediction_id(KEY, sequence=sequence, score=score, **{**common, **fields})


@examples(200)
@given(st.floats(0, 1, width=32))
def test_code_of_score_keeps_a_probability_to_half_a_step(score: float) -> None:
    """That is 7.7e-6, less than the tolerance that golden rows have."""
    code, bfloat16 = code_of_score(score, probability=True)
    assert not bfloat16
    assert abs(score_of_code(code, bfloat16=False) - score) <= 0.5 / PROBABILITY_STEPS


@examples(200)
@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_code_of_score_keeps_eight_bits_of_any_number(score: float) -> None:
    """It stays finite and keeps its sign; numbers too small for a normal float32 lose more."""
    code, bfloat16 = code_of_score(score, probability=False)
    decoded = score_of_code(code, bfloat16=bfloat16)
    assert bfloat16
    assert np.isfinite(decoded)
    if abs(score) >= 2.0**-126:
        assert abs(decoded - score) <= abs(score) / 256 * (2 if abs(score) > 3e38 else 1)
        assert np.sign(decoded) == np.sign(score)


def test_code_of_score_keeps_what_is_no_number() -> None:
    """A reader then sees it, whatever the rule is."""
    for probability in (False, True):
        code, bfloat16 = code_of_score(float("nan"), probability=probability)
        assert np.isnan(score_of_code(code, bfloat16=bfloat16))
        code, bfloat16 = code_of_score(float("-inf"), probability=probability)
        assert score_of_code(code, bfloat16=bfloat16) == -np.inf


@examples(100)
@given(st.floats(0, 1, width=32), st.floats(0, 1, width=32))
def test_prediction_id_keeps_the_decision_exactly(score: float, threshold: float) -> None:
    """A score next to the threshold is on the side on which it was, whatever 16 bits say."""
    for other in (score, threshold):
        prediction = read_prediction_id(
            written(other, rule=RULE._replace(threshold=threshold)), KEY
        )
        assert prediction.positive == (other >= threshold)


def test_prediction_ids_of_one_score_look_like_random_ones() -> None:
    """In 4,000 ids the score and its two bits have each value as often as chance gives.

    The bytes of a score occur 16 times each on average. A chi-square of 255 degrees of freedom is
    above 365 once in 100,000 draws; the key is fixed, so the test says the same for ever.
    """
    ids = [written(0.9, sequence) for sequence in range(4_096)]
    codes = np.array([struct.unpack_from("<H", written_id, 30)[0] for written_id in ids])
    for byte in (codes & 0xFF, codes >> 8):
        counts = np.bincount(byte, minlength=256)
        assert ((counts - 16) ** 2 / 16).sum() < 365
    flags = np.bincount([written_id[1] >> 5 & 3 for written_id in ids], minlength=4)
    assert abs(flags - 1_024).max() < 120
    # The key tells the score of each.
    assert {read_prediction_id(written_id, KEY).score for written_id in ids} == {58_982 / 65_535}


def test_prediction_ids_share_no_mask() -> None:
    """Neither neighbours, nor restarts, nor the same sequence number later."""
    masks = {written(0.0, n)[30:32] + written(0.0, n)[1:2] for n in range(64)}
    assert len(masks) > 60
    first = written(0.0)
    assert written(0.0, boot_id=4)[30:32] != first[30:32]
    assert written(0.0, at_ms=1_790_000_000_000 + (1 << 20))[30:32] != first[30:32]
