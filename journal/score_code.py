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
INFINITE = 0x7F80
"""The exponent of infinity in a bfloat16."""
QUIET_NAN = 0x40
"""The bit of a bfloat16 that keeps a NaN from becoming infinity."""
_FLOAT32, _BITS = struct.Struct("<f"), struct.Struct("<I")


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
    (bits,) = _BITS.unpack(_FLOAT32.pack(score))
    truncated: int = bits >> 16
    if score != score:
        return truncated | QUIET_NAN, True
    rounded: int = bits + 0x7FFF + (truncated & 1) >> 16
    return truncated if rounded & 0x7FFF == INFINITE else rounded, True


def codes_of_scores(
    scores: NDArray[np.float32], *, probability: bool
) -> tuple[NDArray[np.uint16], NDArray[np.bool_]]:
    """Return (N,) codes and (N,) whether a code is a bfloat16, of (N,) scores."""
    # Every number as bfloat16. The sign and the exponent of a NaN stay, and it stays a NaN.
    bits = np.ascontiguousarray(scores, dtype=np.float32).view(np.uint32)
    rounded = (bits.astype(np.uint64) + 0x7FFF + ((bits >> 16) & 1)) >> 16
    truncated = bits >> 16
    infinite = (rounded & 0x7FFF) == INFINITE
    codes = np.where(infinite | ~np.isfinite(scores), truncated, rounded).astype(np.uint16)
    codes[np.isnan(scores)] |= QUIET_NAN
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
        return float(_FLOAT32.unpack(_BITS.pack(code << 16))[0])
    return code / PROBABILITY_STEPS
