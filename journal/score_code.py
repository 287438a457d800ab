"""A score in 16 bits, as prediction ids carry it.

A probability p is floor(65,535 p + 1/2), so its error is at most 1/131,070. Any other number is the
upper half of its float32, rounded to the nearest and to even: a bfloat16, with 8 bits of precision.
The largest float32 numbers would round up to infinity, and are rounded down instead.

`ingress/src/accel/score_code.rs` computes the same.
"""

import struct
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

PROBABILITY_STEPS = 65_535


class ScoreRule(NamedTuple):
    """How the scores of a version are written."""

    probability: bool
    """Whether its first output is a probability. A score outside [0, 1] is a bfloat16 anyway."""
    threshold: float
    """A score at or above it is a positive decision. A float32, as the scores are."""


def code_of_score(score: float, *, probability: bool) -> tuple[int, bool]:
    """Return the 16 bits of a float32 *score*, and whether they are a bfloat16."""
    if probability and 0.0 <= score <= 1.0:
        return int(PROBABILITY_STEPS * score + 0.5), False
    codes, _ = codes_of_scores(np.array([score], dtype=np.float32), probability=False)
    return int(codes[0]), True


def codes_of_scores(
    scores: NDArray[np.float32], *, probability: bool
) -> tuple[NDArray[np.uint16], NDArray[np.bool_]]:
    """Return (N,) codes and (N,) whether a code is a bfloat16, of (N,) scores."""
    # Every number as bfloat16. The sign and the exponent of a NaN stay, and it stays a NaN.
    bits = np.ascontiguousarray(scores, dtype=np.float32).view(np.uint32)
    rounded = (bits.astype(np.uint64) + 0x7FFF + ((bits >> 16) & 1)) >> 16
    truncated = bits >> 16
    infinite = (rounded & 0x7FFF) == 0x7F80
    codes = np.where(infinite | ~np.isfinite(scores), truncated, rounded).astype(np.uint16)
    codes[np.isnan(scores)] |= 0x40
    if not probability:
        return codes, np.ones(len(scores), dtype=np.bool_)
    # Probabilities in steps of their own.
    within = (scores >= 0) & (scores <= 1)
    steps = scores[within].astype(np.float64) * PROBABILITY_STEPS + 0.5
    codes[within] = steps.astype(np.uint16)
    return codes, ~within


def score_of_code(code: int, *, bfloat16: bool) -> float:
    """Return the score of 16 bits."""
    if bfloat16:
        return float(struct.unpack("<f", struct.pack("<I", code << 16))[0])
    return code / PROBABILITY_STEPS
