"""Calibrators: from a score to the share of rows with it that have the outcome.

Three kinds are tried on rows that they were not fitted on: none (the score is the share), a sigmoid
of the log-odds, and an isotonic step function. scikit-learn, which has both, is not installed with
the control process, so they are written here and compared with it in the tests.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stats.accuracy.labelled_bins import LabelledBins, logits, merge_bins, sigmoid
from stats.accuracy.probabilities import binary_losses, fit_logistic

Floats = NDArray[np.float64]

KINDS = ("none", "sigmoid", "isotonic")
BINS_MAX = 40
"""Bins to which labels are merged before an isotonic fit; more fit noise, and that sharpens."""
CLASS_ROWS_NEEDED = 50
"""Rows of either class below which scores are taken as they are."""
GAIN_ERRORS = {"sigmoid": 0.0, "isotonic": 2.0}
"""Kind -> the standard errors of the gain that it must exceed."""
RIDGE = 1e-6


@dataclass(frozen=True, eq=False, slots=True)
class Calibrator:
    """A rising map from scores to shares of positive rows.

    kind    one of KINDS.
    knots   scores, and *shares* at them: straight lines between, and level beyond. Isotonic only.
    slope, intercept  of the log-odds. Sigmoid only.
    """

    kind: str
    knots: Floats
    shares: Floats
    slope: float = 1.0
    intercept: float = 0.0

    def shares_at(self, scores: Floats) -> Floats:
        """Return the expected share of positive rows at each score, as an array like *scores*."""
        if self.kind == "isotonic":
            return np.asarray(np.interp(scores, self.knots, self.shares))
        if self.kind == "sigmoid":
            return sigmoid(self.slope * logits(scores) + self.intercept)
        return np.clip(scores, 0.0, 1.0)


NO_CALIBRATOR = Calibrator("none", np.zeros(0), np.zeros(0))


def fit_calibrator(kind: str, bins: LabelledBins) -> Calibrator:
    """Fit a calibrator of *kind*. Raises ValueError for another kind, and for no rows at all."""
    if kind == "none":
        return NO_CALIBRATOR
    if kind not in KINDS or bins.n == 0:
        raise ValueError(f"{kind!r} on {bins.n} rows: a calibrator is one of {KINDS}, with a row")
    bins = bins.filled()
    if kind == "sigmoid":
        margins = logits(bins.scores)
        terms = np.column_stack([margins, np.ones(len(margins))])
        line, _ = fit_logistic(terms, bins.positives, bins.rows, np.zeros(len(margins)), RIDGE)
        return Calibrator("sigmoid", np.zeros(0), np.zeros(0), float(line[0]), float(line[1]))
    merged = merge_bins(bins, BINS_MAX)
    shares = pool_adjacent(merged.positives / merged.rows, merged.rows)
    return Calibrator("isotonic", merged.scores, shares)


def pool_adjacent(values: Floats, weights: Floats) -> Floats:
    """Return the rising (J,) values that are closest to *values* in weighted squares.

    It is the pool-adjacent-violators algorithm (Ayer et al., 1955). weights  (J,) above 0.
    """
    levels: list[float] = []
    masses: list[float] = []
    sizes: list[int] = []
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
        level, mass, size = value, weight, 1
        # A block that is not above the one before it joins it.
        while levels and levels[-1] >= level:
            before = masses.pop()
            level = (levels.pop() * before + level * mass) / (before + mass)
            mass += before
            size += sizes.pop()
        levels.append(level)
        masses.append(mass)
        sizes.append(size)
    return np.repeat(np.array(levels), sizes)


def choose_calibrator(bins: LabelledBins, half: LabelledBins, other: LabelledBins) -> Calibrator:
    """Return the calibrator of *bins* that judges best what it was not fitted on.

    half, other  the rows of *bins* dealt at random. Each half judges what the other fits, by the
                 log loss, which no wrong share can lower on average.

    The two numbers of a sigmoid are taken if they judge better at all: scores that are too steep
    make the expected AUC wrong by more than a fit to noise does. An isotonic fit must be better by
    two standard errors of the difference, because it makes noise look like sharpness. Without
    enough rows of both classes the scores are taken as they are.
    """
    if min(bins.positive_rows, bins.negative_rows) < CLASS_ROWS_NEEDED:
        return NO_CALIBRATOR
    best = KINDS[0]
    for kind in KINDS[1:]:
        gains = [_gain(kind, best, half, other), _gain(kind, best, other, half)]
        mean = sum(gain for gain, _ in gains) / 2
        error = math.sqrt(sum(variance for _, variance in gains)) / 2
        if mean > GAIN_ERRORS[kind] * error:
            best = kind
    return fit_calibrator(best, bins)


def _gain(
    kind: str, simpler: str, fitted: LabelledBins, judge: LabelledBins
) -> tuple[float, float]:
    """Return by how much *kind* lowers the mean log loss on *judge*, and the gain's variance."""
    positive, negative = binary_losses(fit_calibrator(kind, fitted).shares_at(judge.scores))
    others = binary_losses(fit_calibrator(simpler, fitted).shares_at(judge.scores))
    gains = np.concatenate([others[0] - positive, others[1] - negative])
    rows = np.concatenate([judge.positives, judge.negatives])
    n = float(rows.sum())
    mean = float(rows @ gains / n)
    return mean, float(rows @ (gains - mean) ** 2) / n**2


def deal_rows(bins: LabelledBins, *, seed: int) -> tuple[LabelledBins, LabelledBins]:
    """Return two halves of the rows, dealt at random. A part of a row is lost."""
    generator = np.random.default_rng(seed)
    positives, negatives = bins.positives.astype(np.int64), bins.negatives.astype(np.int64)
    hits = generator.binomial(positives, 0.5).astype(np.float64)
    misses = generator.binomial(negatives, 0.5).astype(np.float64)
    return (
        LabelledBins(bins.scores, hits, misses),
        LabelledBins(bins.scores, positives - hits, negatives - misses),
    )
