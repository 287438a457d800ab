"""Compares two histograms on one table of bins: how far live rows are from a reference.

Each figure is corrected for what chance adds, and has a standard error. With p, q the shares of
reference and live, n, m their rows, J the bins and c = 1/n + 1/m:

    PSI   sum (p - q) ln(p/q)                      less (J - 1) c            by chance
    JS    1/2 KL(p||r) + 1/2 KL(q||r), r = (p+q)/2 less (J - 1) c / 8        by chance
    W1    sum |F - G| dx                           less sum E|noise| dx      by chance

PSI is the population stability index. JS is the Jensen-Shannon divergence in nats; its root in base
2 lies between 0 and 1. W1 is Wasserstein's distance, the mean way that a row moved: on the ranks of
the reference, 0 to 1, and with the bins' values also in the unit of the feature. F and G are the
shares of rows up to a bin.

Near p = q, PSI is c times a noncentral chi^2 with J - 1 degrees. Its variance is 2 (J - 1) c^2,
and 4 c PSI. The second part is the delta method's, less its mean by chance, and is taken in that
general form. JS is an eighth of PSI there.
"""

import math
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from stats.departure import debiased_psi
from stats.drift.bins import check_bins, join_bins, rare_bin_groups
from stats.drift.shares import ShareFigure, share_figure

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

ROWS_A_BIN = 10
ROWS_MIN = 100
"""Rows that each sample needs: ROWS_A_BIN for each bin, and ROWS_MIN in all."""
MEDIUM_PSI = 0.1
LARGE_PSI = 0.25
FOLDED_NORMAL = 2 / math.sqrt(math.pi)
"""E|z| = FOLDED_NORMAL E exp(-z^2 / 2) for a standard normal z."""


class DriftSize(StrEnum):
    """The field's names for sizes of PSI: .1 is a shift of about .3 standard deviations."""

    SMALL = "small"
    MEDIUM = "medium"
    LARGE = "large"


class Incomparable(StrEnum):
    """Why two histograms have no figures."""

    EMPTY_REFERENCE = "the reference has no rows"
    MISSING_REFERENCE = "every value of the reference is missing"
    MISSING_LIVE = "every live value is missing"
    ONE_BIN = "the table has one bin, in which nothing can move"
    CONSTANT_REFERENCE = "the reference is constant"
    NOT_ENOUGH_DATA = "not enough data"


@dataclass(frozen=True, slots=True)
class NoFigures:
    """The answer where figures would mislead."""

    reason: Incomparable
    rows: int
    """Rows of the smaller sample."""
    rows_needed: int
    moved: ShareFigure | None = None
    """With a constant reference: the live rows in any other bin."""

    def __str__(self) -> str:
        """Return the reason, and what is known nevertheless."""
        if self.reason is Incomparable.NOT_ENOUGH_DATA:
            return f"{self.reason}: {self.rows} of {self.rows_needed} rows"
        if self.moved is not None:
            return f"{self.reason}; {self.moved} of the live rows have another value"
        return str(self.reason)


@dataclass(frozen=True, slots=True)
class DriftEstimate:
    """A figure and its standard error, in the same unit. By chance it may be below 0."""

    value: float
    standard_error: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftFigures:
    """How far live rows are from a reference."""

    psi: DriftEstimate
    jensen_shannon: DriftEstimate
    """The divergence in nats, 0 to ln 2."""
    rank_distance: DriftEstimate
    """W1 in ranks of the reference: .1 means that rows moved by a tenth of all rows on average."""
    value_distance: DriftEstimate | None
    """W1 in the unit of the feature. None: no values of the bins were given."""
    reference_rows: int
    live_rows: int
    bins: int
    """Bins that PSI and JS were taken over, after rare ones were joined."""

    @property
    def jensen_shannon_distance(self) -> float:
        """The root of the divergence in base 2, 0 to 1."""
        return min(math.sqrt(max(self.jensen_shannon.value, 0.0) / math.log(2)), 1.0)

    @property
    def size(self) -> DriftSize:
        """The word for the PSI: medium from .1 on, large above .25."""
        if self.psi.value < MEDIUM_PSI:
            return DriftSize.SMALL
        return DriftSize.MEDIUM if self.psi.value <= LARGE_PSI else DriftSize.LARGE


@dataclass(frozen=True, eq=False, slots=True)
class ValueCounts:
    """The values of one feature or score among some rows."""

    counts: Counts
    """(J,) rows by bin."""
    missing: int = 0
    """Rows without a value, which are in no bin."""
    unknown: int = 0
    """Rows whose category is in no dictionary. They may be in a bin of their own as well."""

    @property
    def rows(self) -> int:
        """All rows, with a value and without."""
        return int(self.counts.sum()) + self.missing


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueDrift:
    """What is shown of one feature or score."""

    figures: DriftFigures | NoFigures
    missing: ShareFigure
    missing_reference: ShareFigure
    unknown: ShareFigure
    unknown_reference: ShareFigure


def compare_values(
    reference: ValueCounts, live: ValueCounts, positions: Floats | None = None
) -> ValueDrift:
    """Return figures, and the shares of missing values and unknown categories.

    positions  (J,) float64, not falling: a value for each bin in the unit of the feature.

    Raises ValueError for counts of different tables, negative counts and bad positions.
    """
    return ValueDrift(
        figures=_all_missing(reference, live)
        or compare_counts(reference.counts, live.counts, positions),
        missing=share_figure(live.missing, live.rows),
        missing_reference=share_figure(reference.missing, reference.rows),
        unknown=share_figure(live.unknown, live.rows),
        unknown_reference=share_figure(reference.unknown, reference.rows),
    )


def _all_missing(reference: ValueCounts, live: ValueCounts) -> NoFigures | None:
    """Tell the samples that have rows and no value from those without rows."""
    for sample, reason in (
        (reference, Incomparable.MISSING_REFERENCE),
        (live, Incomparable.MISSING_LIVE),
    ):
        if sample.missing and sample.rows == sample.missing:
            return NoFigures(reason, 0, rows_needed(len(sample.counts)))
    return None


def rows_needed(bins: int) -> int:
    """Return the rows that each sample needs for figures over *bins* bins."""
    return max(ROWS_A_BIN * bins, ROWS_MIN)


def compare_counts(
    reference: Counts, live: Counts, positions: Floats | None = None
) -> DriftFigures | NoFigures:
    """Return the figures of (J,) *live* counts against a (J,) *reference*, or why there are none.

    Raises ValueError for counts of different tables, negative counts and bad positions.
    """
    # What can be said before anything is calculated.
    check_bins(reference, live)
    if positions is not None:
        _check_positions(positions, len(reference))
    smaller = min(int(reference.sum()), int(live.sum()))
    needed = rows_needed(len(reference))
    if not reference.any():
        return NoFigures(Incomparable.EMPTY_REFERENCE, 0, needed)
    if len(reference) == 1:
        return NoFigures(Incomparable.ONE_BIN, smaller, needed)
    if smaller < needed:
        return NoFigures(Incomparable.NOT_ENOUGH_DATA, smaller, needed)
    if np.count_nonzero(reference) == 1:
        rows = int(live.sum())
        moved = share_figure(rows - int(live[reference > 0][0]), rows)
        return NoFigures(Incomparable.CONSTANT_REFERENCE, smaller, needed, moved)
    # PSI and JS over bins with enough rows, W1 over all.
    group = rare_bin_groups(reference, live)
    joined = join_bins(reference, group), join_bins(live, group)
    return DriftFigures(
        psi=_psi(*joined),
        jensen_shannon=_jensen_shannon(*joined),
        rank_distance=wasserstein(reference, live, middle_ranks(reference)),
        value_distance=None if positions is None else wasserstein(reference, live, positions),
        reference_rows=int(reference.sum()),
        live_rows=int(live.sum()),
        bins=len(joined[0]),
    )


def _psi(reference: Counts, live: Counts) -> DriftEstimate:
    p, q = _smoothed(reference), _smoothed(live)
    log_ratio = np.log(p / q)
    chance = 1 / reference.sum() + 1 / live.sum()
    delta = (
        _variance(p, log_ratio - q / p) / reference.sum()
        + _variance(q, log_ratio + p / q) / live.sum()
    )
    return DriftEstimate(debiased_psi(live, reference), _standard_error(delta, chance, len(p)))


def _jensen_shannon(reference: Counts, live: Counts) -> DriftEstimate:
    p, q = _smoothed(reference), _smoothed(live)
    middle = (p + q) / 2
    to_p, to_q = np.log(p / middle) / 2, np.log(q / middle) / 2
    chance = 1 / reference.sum() + 1 / live.sum()
    delta = _variance(p, to_p) / reference.sum() + _variance(q, to_q) / live.sum()
    raw = float(p @ to_p + q @ to_q)
    corrected = raw - (len(p) - 1) * chance / 8
    return DriftEstimate(corrected, _standard_error(delta, chance / 8, len(p)))


def _standard_error(delta: float, unit: float, bins: int) -> float:
    """Return the standard error of *unit* times a noncentral chi^2.

    delta  the delta method's variance, of which 4 (J - 1) unit^2 is there by chance.
    """
    chance = 2 * (bins - 1) * unit**2
    return math.sqrt(max(delta - 2 * chance, 0.0) + chance)


def wasserstein(reference: Counts, live: Counts, positions: Floats) -> DriftEstimate:
    """Return W1 between two (J,) counts at (J,) *positions*, corrected for chance.

    Each bin's difference D of cumulated shares has noise of standard deviation s. Where the shares
    are equal, E|D| is what chance adds, and FOLDED_NORMAL s exp(-D^2 / (2 s^2)) has the same mean.
    Far from there it vanishes, as it must. In between, at |D| of about s, it is too large by up to
    s/2; no correction is right everywhere, as |D| has a corner at 0. NaN without rows.
    """
    if not reference.any() or not live.any():
        return DriftEstimate(math.nan, math.nan)
    p, q = reference / reference.sum(), live / live.sum()
    gaps = np.diff(positions)
    both = np.cumsum(reference + live)[:-1] / (reference.sum() + live.sum())
    difference = (np.cumsum(q) - np.cumsum(p))[:-1]
    noise = np.sqrt(both * (1 - both) * (1 / reference.sum() + 1 / live.sum()))
    distance = np.divide(difference, noise, out=np.zeros_like(noise), where=noise > 0.0)
    by_chance = FOLDED_NORMAL * noise * np.exp(-0.5 * distance**2)
    # The differences may all have one sign, which noise hides; the larger variance covers both.
    variance = max(
        _variance(p, weights) / reference.sum() + _variance(q, weights) / live.sum()
        for weights in (_row_weights(gaps * np.sign(difference)), _row_weights(gaps))
    )
    value = float(gaps @ (np.abs(difference) - by_chance))
    return DriftEstimate(value, math.sqrt(variance))


def _row_weights(gap_weights: Floats) -> Floats:
    """Return (J,) what a row of each bin adds: it is in every cumulated share from its bin on."""
    return np.append(np.cumsum(gap_weights[::-1])[::-1], 0.0)


def middle_ranks(reference: Counts) -> Floats:
    """Return the (J,) middle ranks of the bins of a reference with rows, between 0 and 1."""
    return np.asarray((np.cumsum(reference) - reference / 2) / reference.sum())


def _smoothed(counts: Counts) -> Floats:
    """Return (J,) shares with half a row more in each bin, as `debiased_psi` has them."""
    return np.asarray((counts + 0.5) / (counts.sum() + 0.5 * len(counts)))


def _variance(shares: Floats, values: Floats) -> float:
    return float(shares @ (values - shares @ values) ** 2)


def _check_positions(positions: Floats, bins: int) -> None:
    if positions.shape != (bins,) or not np.isfinite(positions).all():
        raise ValueError(
            f"positions of shape {positions.shape} for {bins} bins: give each bin a finite value"
        )
    if (np.diff(positions) < 0).any():
        raise ValueError("the positions of bins fall; give them in the order of the bins")
