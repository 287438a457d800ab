"""Figures of drift: corrected for chance, with standard errors that cover, and named where none."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.distance import jensenshannon
from scipy.stats import beta, norm, wasserstein_distance

from stats.departure import debiased_psi
from stats.drift.bins import join_bins, quantile_groups, rare_bin_groups
from stats.drift.figures import (
    DriftFigures,
    DriftSize,
    Incomparable,
    NoFigures,
    ValueCounts,
    compare_counts,
    compare_values,
    middle_ranks,
    wasserstein,
)
from stats.drift.shares import regularised_beta, share_figure, upper_share
from tests.property_examples import examples

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

EDGES = norm.ppf(np.arange(1, 10) / 10)
ROUNDS = 300


def deciles(shift: float = 0.0) -> Floats:
    """Return the shares of ten bins of normal values that moved by *shift* deviations."""
    return np.diff(np.concatenate([[0.0], norm.cdf(EDGES - shift), [1.0]]))


def figures(reference: Counts, live: Counts) -> DriftFigures:
    """Return figures that must exist."""
    found = compare_counts(reference, live, np.arange(len(reference), dtype=np.float64))
    assert isinstance(found, DriftFigures)
    return found


def simulated(p: Floats, q: Floats, n: int, m: int) -> tuple[Floats, Floats]:
    """Return (ROUNDS, 3) PSI, JS and W1 of samples, and their standard errors."""
    rng = np.random.default_rng(1)
    found = [figures(rng.multinomial(n, p), rng.multinomial(m, q)) for _ in range(ROUNDS)]
    estimates = [(item.psi, item.jensen_shannon, item.rank_distance) for item in found]
    return (
        np.array([[estimate.value for estimate in row] for row in estimates]),
        np.array([[estimate.standard_error for estimate in row] for row in estimates]),
    )


@pytest.mark.walk
@pytest.mark.parametrize(("n", "m"), [(250, 250), (20_000, 500), (20_000, 5_000)])
@pytest.mark.parametrize("bins", [2, 10, 20])
def test_drift_figures_have_no_bias_where_nothing_moved(bins: int, n: int, m: int) -> None:
    """The mean over samples is 0 but for a fifth of one sample's own deviation."""
    for shares in (np.full(bins, 1 / bins), np.arange(1, bins + 1) ** 2.0):
        p = shares / shares.sum()
        values, _ = simulated(p, p, n, m)
        noise = 3 / math.sqrt(ROUNDS)
        assert np.all(np.abs(values.mean(axis=0)) < (0.2 + noise) * values.std(axis=0))


@pytest.mark.walk
@pytest.mark.parametrize("shift", [0.0, 0.1, 0.3, 0.5, 1.0])
def test_drift_standard_errors_cover_the_true_figure(shift: float) -> None:
    """At least 90 % of the 95 % intervals cover, at 20,000 reference rows and 5,000 live ones."""
    p, q = deciles(), deciles(shift)
    middle = (p + q) / 2
    truth = np.array(
        [
            (p - q) @ np.log(p / q),
            (p @ np.log(p / middle) + q @ np.log(q / middle)) / 2,
            np.abs(np.cumsum(q - p))[:-1] @ np.diff(np.cumsum(p) - p / 2),
        ]
    )
    values, errors = simulated(p, q, 20_000, 5_000)
    assert np.all((np.abs(values - truth) <= 1.96 * errors).mean(axis=0) >= 0.90)
    # An interval that is far too wide would cover too, and be of no use.
    assert np.all(errors.mean(axis=0) <= 1.6 * values.std(axis=0))


def test_drift_figures_match_scipy_without_the_corrections() -> None:
    """With 10^9 rows the corrections vanish. SciPy's distances have no correction and no error."""
    p, q = deciles(), deciles(0.3)
    reference, live = (np.round(shares * 10**9).astype(np.int64) for shares in (p, q))
    found = figures(reference, live)
    assert found.jensen_shannon_distance == pytest.approx(jensenshannon(p, q, base=2), rel=1e-5)
    ranks = middle_ranks(reference)
    assert found.rank_distance.value == pytest.approx(
        wasserstein_distance(ranks, ranks, p, q), rel=1e-5
    )
    positions = np.arange(10.0)
    assert found.value_distance is not None
    assert found.value_distance.value == pytest.approx(
        wasserstein_distance(positions, positions, p, q), rel=1e-5
    )
    assert found.psi.value == pytest.approx(((p - q) * np.log(p / q)).sum(), rel=1e-5)


counts_of_bins = st.lists(st.integers(120, 5_000), min_size=2, max_size=12)


@examples(60)
@given(counts_of_bins)
def test_drift_figures_do_not_depend_on_the_side_or_the_order(reference: list[int]) -> None:
    """PSI and JS are symmetric, and do not know the order of bins; W1 is mirrored with it."""
    first = np.array(reference)
    second = np.roll(first, 1) + 17
    there, back = figures(first, second), figures(second, first)
    assert there.psi.value == pytest.approx(back.psi.value, abs=1e-12)
    assert there.jensen_shannon.value == pytest.approx(back.jensen_shannon.value, abs=1e-12)
    if there.bins == len(first):
        assert there.psi.value == pytest.approx(debiased_psi(second, first), abs=1e-12)
    mirrored = figures(first[::-1], second[::-1])
    assert mirrored.rank_distance.value == pytest.approx(there.rank_distance.value, abs=1e-9)
    assert mirrored.psi.value == pytest.approx(there.psi.value, abs=1e-12)


def test_drift_of_values_is_in_the_unit_of_the_feature() -> None:
    """All rows move by one bin of 10 euros: the distance is 10 euros."""
    reference = np.array([0, 5_000, 0, 0])
    live = np.array([0, 0, 5_000, 0])
    moved = wasserstein(reference, live, np.array([0.0, 10.0, 20.0, 30.0]))
    assert moved.value == pytest.approx(10.0)


@pytest.mark.parametrize(
    ("psi", "size"), [(0.0, DriftSize.SMALL), (0.3, DriftSize.MEDIUM), (0.7, DriftSize.LARGE)]
)
def test_drift_size_is_the_word_for_a_shift(psi: float, size: DriftSize) -> None:
    """Shifts of 0, .33 and .7 deviations have the PSI 0, .1 to .25, and more."""
    shift = {0.0: 0.0, 0.3: 0.4, 0.7: 0.7}[psi]
    live = np.random.default_rng(2).multinomial(20_000, deciles(shift))
    assert figures((deciles() * 20_000).astype(np.int64), live).size is size


FLAT = np.full(10, 100)
NOTHING = np.zeros(10, dtype=np.int64)


@pytest.mark.parametrize(
    ("reference", "live", "reason", "text"),
    [
        (NOTHING, FLAT, Incomparable.EMPTY_REFERENCE, "the reference has no rows"),
        (FLAT, NOTHING, Incomparable.NOT_ENOUGH_DATA, "not enough data: 0 of 100 rows"),
        (FLAT, FLAT // 25, Incomparable.NOT_ENOUGH_DATA, "not enough data: 40 of 100 rows"),
        (np.array([900]), np.array([800]), Incomparable.ONE_BIN, "the table has one bin, in which"),
        (
            np.array([0, 500, 0]),
            np.array([0, 400, 100]),
            Incomparable.CONSTANT_REFERENCE,
            "the reference is constant; 20.00% (16.58% to 23.78%) of the live rows have another",
        ),
    ],
)
def test_drift_without_data_is_a_named_answer(
    reference: Counts, live: Counts, reason: Incomparable, text: str
) -> None:
    """None of them is a number that looks right."""
    found = compare_counts(reference, live)
    assert isinstance(found, NoFigures)
    assert found.reason is reason
    assert str(found).startswith(text)


def test_drift_of_missing_values_is_named_and_counted() -> None:
    """A column without any value has no figures, and its share of missing values is 100 %."""
    found = compare_values(ValueCounts(FLAT, 10, 5), ValueCounts(NOTHING, 400))
    assert isinstance(found.figures, NoFigures)
    assert found.figures.reason is Incomparable.MISSING_LIVE
    assert (found.missing.share, found.missing.rows) == (1.0, 400)
    assert (found.missing_reference.hits, found.missing_reference.rows) == (10, 1_010)
    assert found.unknown_reference.hits == 5
    empty = compare_values(ValueCounts(NOTHING, 300), ValueCounts(FLAT))
    assert isinstance(empty.figures, NoFigures)
    assert empty.figures.reason is Incomparable.MISSING_REFERENCE


@pytest.mark.parametrize(
    ("reference", "live", "positions"),
    [
        (FLAT, FLAT[:5], None),
        (FLAT, -FLAT, None),
        (FLAT / 10, FLAT, None),
        (FLAT, FLAT, np.arange(9.0)),
        (FLAT, FLAT, np.full(10, np.nan)),
        (FLAT, FLAT, np.arange(10.0)[::-1]),
        (NOTHING[:0], NOTHING[:0], None),
    ],
)
def test_drift_refuses_impossible_histograms(
    reference: Counts, live: Counts, positions: Floats | None
) -> None:
    """Other tables, negative or broken counts and positions that fall are errors."""
    with pytest.raises(ValueError, match=r"histogram|position|count"):
        compare_counts(reference, live, positions)


@examples(100)
@given(st.lists(st.integers(0, 300), min_size=1, max_size=40), st.integers(1, 25))
def test_groups_of_bins_keep_order_and_rows(counts: list[int], groups: int) -> None:
    """A group is neighbouring bins; no group is left out, and no row is lost."""
    reference = np.array([*counts, 1])
    group = quantile_groups(reference, groups)
    assert np.array_equal(np.unique(group), np.arange(group[-1] + 1))
    assert np.all(np.diff(group) >= 0)
    assert group[-1] < groups
    assert join_bins(reference, group).sum() == reference.sum()


@examples(100)
@given(
    st.lists(st.integers(0, 60), min_size=1, max_size=30),
    st.lists(st.integers(0, 60), min_size=30, max_size=30),
)
def test_joined_bins_expect_five_rows_in_the_smaller_sample(
    first: list[int], second: list[int]
) -> None:
    """Unless all bins together are too few for it."""
    reference, live = np.array(first), np.array(second[: len(first)])
    group = rare_bin_groups(reference, live)
    joined = join_bins(reference + live, group)
    smaller = min(reference.sum(), live.sum())
    expected = joined * smaller / max(joined.sum(), 1)
    assert len(joined) == 1 or expected.min() >= 5 - 1e-9


@examples(100)
@given(st.integers(1, 10**7), st.floats(0, 1), st.sampled_from([0.0001, 0.001, 0.025, 0.25]))
def test_upper_share_matches_scipy(rows: int, part: float, error: float) -> None:
    """Clopper and Pearson's end is a quantile of a beta distribution."""
    hits = int(part * rows)
    expected = 1.0 if hits == rows else beta.ppf(1 - error, hits + 1, rows - hits)
    assert upper_share(np.array([hits]), rows, error)[0] == pytest.approx(expected, rel=1e-6)


def test_regularised_beta_matches_scipy() -> None:
    """Over the square of small and large parameters, at both ends and between."""
    for a, b in itertools.product([0.5, 1.0, 3.0, 40.0, 900.0], [0.5, 2.0, 7.0, 300.0]):
        for x in (0.0, 1e-6, 0.1, 0.5, 0.9, 1.0):
            assert regularised_beta(x, a, b) == pytest.approx(beta.cdf(x, a, b), abs=1e-10)


def test_share_interval_covers_by_enumeration() -> None:
    """For each true share the counts whose interval has it have 95 % of the probability."""
    rows = 30
    intervals = [share_figure(hits, rows) for hits in range(rows + 1)]
    for share in np.linspace(0.01, 0.99, 50):
        covered = [
            math.comb(rows, hits) * share**hits * (1 - share) ** (rows - hits)
            for hits, interval in enumerate(intervals)
            if interval.low <= share <= interval.high
        ]
        assert sum(covered) >= 0.95
    assert str(share_figure(0, 0)) == "not enough data: 0 of 1 rows"
    assert str(share_figure(3, 200)) == "1.50% (0.31% to 4.32%)"


@pytest.mark.parametrize(("hits", "rows", "level"), [(3, 2, 0.95), (-1, 2, 0.95), (1, 2, 1.0)])
def test_share_figure_refuses_impossible_counts(hits: int, rows: int, level: float) -> None:
    """An interval at level 1 would be everything."""
    with pytest.raises(ValueError, match="level"):
        share_figure(hits, rows, level)
