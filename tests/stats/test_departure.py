"""The test of a departure from an approved shift, and the population stability index."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from stats import departure
from stats.departure import Expectation, debiased_psi

EDGES = np.array([-1.645, -1.036, -0.674, -0.385, -0.126, 0.126, 0.385, 0.674, 1.036, 1.645])
BINS = len(EDGES) + 1
THRESHOLD = math.log(1000)

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]


def draw_pairs(rng: np.random.Generator, keys: int, likeness: float) -> tuple[Counts, Floats]:
    """Return the champion's bins, and the candidate's scores of the same rows."""
    champion = rng.normal(size=keys)
    noise = math.sqrt(1 - likeness**2) * rng.normal(size=keys)
    return np.searchsorted(EDGES, champion), likeness * champion + noise


def approved_expectation(
    rng: np.random.Generator, rows: int = 20_000, likeness: float = 0.8
) -> Expectation:
    """Return the expectation of a candidate that ranks alike, from held-out rows."""
    champion, scores = draw_pairs(rng, rows, likeness)
    joint = np.bincount(champion * BINS + np.searchsorted(EDGES, scores), minlength=BINS**2)
    return Expectation(joint.reshape(BINS, BINS))


def keys_to_fire(
    rng: np.random.Generator,
    change: Callable[[Floats], Floats],
    *,
    keys_max: int = 6_000,
    a_look: int = 5,
    psi_min: float = 0.005,
) -> int | None:
    """Return the canary keys until evidence and effect are large enough; None: they never are."""
    expected = approved_expectation(rng)
    state = departure.start_departure(expected)
    candidate, champion = np.zeros(BINS, dtype=np.int64), np.zeros(BINS, dtype=np.int64)
    for look in range(keys_max // a_look):
        bins, scores = draw_pairs(rng, a_look, 0.8)
        new_candidate = np.bincount(np.searchsorted(EDGES, change(scores)), minlength=BINS)
        new_champion = np.bincount(bins, minlength=BINS)
        candidate, champion = candidate + new_candidate, champion + new_champion
        state = departure.step_departure(
            expected, state, expected.gains(np.stack([new_candidate, new_champion])), 3_600
        )
        if state.log_e_max >= THRESHOLD:
            effect = departure.departure_effect(expected, candidate, champion)
            if effect.psi >= psi_min + effect.table_error:
                return (look + 1) * a_look
    return None


def test_departure_does_not_fire_for_a_candidate_as_approved() -> None:
    """It differs from its champion on most rows, and not from the approved shift."""
    for seed in range(6):
        rng = np.random.default_rng(seed)
        assert keys_to_fire(rng, lambda scores: scores, a_look=50) is None


@pytest.mark.parametrize(
    ("change", "keys"),
    [
        (lambda scores: scores + 1.0, 45),
        (lambda scores: scores - 1.0, 45),
        (lambda scores: 1.6 * scores, 400),
        (lambda scores: np.full_like(scores, 0.3), 20),
    ],
    ids=["one sd up", "one sd down", "spread", "constant"],
)
def test_departure_is_found_within_a_number_of_keys(
    change: Callable[[Floats], Floats], keys: int
) -> None:
    """The number is the median of five seeds, in canary keys."""
    keys_found = [
        keys_to_fire(np.random.default_rng(seed), change, keys_max=1_000) for seed in range(5)
    ]
    assert all(keys_found)
    assert sorted(filter(None, keys_found))[2] <= keys


def test_departure_of_a_tenth_of_a_deviation_is_found_within_2700_keys() -> None:
    """The approved shift has 20,000 held-out rows."""
    keys_found = [
        keys_to_fire(np.random.default_rng(seed), lambda s: s + 0.1, a_look=25) for seed in range(5)
    ]
    assert all(keys_found)
    assert sorted(filter(None, keys_found))[2] <= 2_700


def test_expectation_gains_are_fair_under_the_approved_shift() -> None:
    """Given the champion's bin, the expected gain of every tilt is exactly 1."""
    expected = approved_expectation(np.random.default_rng(1))
    gains = np.exp(expected.scores[:, None, :] - expected.log_norms[:, :, None])
    fair = (gains * expected.table[None]).sum(axis=2)
    assert fair == pytest.approx(1.0, abs=1e-12)
    assert expected.stakes.sum() == pytest.approx(1.0)


def test_two_sample_gains_are_fair_at_any_share() -> None:
    """The expected gain of every tilt is at most 1 if both arms are alike."""
    expected = approved_expectation(np.random.default_rng(1))
    alike = expected.counts.sum(axis=1) @ expected.table / expected.counts.sum()
    for share in (0.05, 0.5, 0.97):
        tilt = 1 + share * np.expm1(expected.scores)
        candidate_counts, champion_counts = (
            (np.exp(expected.scores) / tilt) @ alike,
            (1 / tilt) @ alike,
        )
        assert np.all(
            share * np.log(candidate_counts) + (1 - share) * np.log(champion_counts) <= 1e-12
        )


def test_carry_through_table_depends_on_the_key_alone() -> None:
    """Many keys fall into the bins as the table says."""
    expected = approved_expectation(np.random.default_rng(1))
    keys = np.random.default_rng(2).integers(0, 2**63, size=40_000, dtype=np.uint64)
    bins = np.full(len(keys), 3, dtype=np.int64)
    carried = expected.carry_through_table(bins, keys)
    assert np.array_equal(carried[::-1], expected.carry_through_table(bins, keys[::-1]))
    rates = np.bincount(carried, minlength=BINS) / len(keys)
    assert rates == pytest.approx(expected.table[3], abs=0.01)


def one_percent_more(rng: np.random.Generator, rows: int, edges: Floats) -> Counts:
    """Return (J, J) counts of rows by production's bin, and the bin of a value 1 % larger."""
    values = rng.random((rows, 3)) @ np.array([5.0, 2.0, 1.0])
    bins = len(edges) + 1
    pairs = np.searchsorted(edges, values) * bins + np.searchsorted(edges, 1.01 * values)
    return np.bincount(pairs, minlength=bins**2).reshape(bins, bins)


def test_departure_from_a_table_of_few_rows_is_not_found_where_there_is_none() -> None:
    """A certificate of 520 rows leaves most cells beside the diagonal empty.

    The value of 0 of 60 was 3 of 60 before chance in empty cells was counted.
    """
    rng = np.random.default_rng(7)
    bins, a_look, looks, rolled_back = 40, 50, 60, 0
    edges = np.quantile(
        rng.random((4_000, 3)) @ np.array([5.0, 2.0, 1.0]), np.arange(1, bins) / bins
    )
    for _ in range(60):
        expected = Expectation(one_percent_more(rng, 520, edges))
        state = departure.start_departure(expected)
        seen = np.zeros((2, bins), dtype=np.int64)
        for _ in range(looks):
            pairs = one_percent_more(rng, a_look, edges)
            fresh = np.stack([pairs.sum(axis=0), pairs.sum(axis=1)])
            seen += fresh
            state = departure.step_departure(expected, state, expected.gains(fresh), 3_600)
            effect = departure.departure_effect(expected, seen[0], seen[1])
            if state.log_e_max >= THRESHOLD and effect.psi >= 0.005 + effect.table_error:
                rolled_back += 1
                break
    assert rolled_back == 0


def test_departure_effect_of_a_small_table_has_a_large_error() -> None:
    """The effect must exceed its bound by the sampling error of 500 held-out rows."""
    rng = np.random.default_rng(3)
    few, many = approved_expectation(rng, rows=500), approved_expectation(rng, rows=50_000)
    counts = np.full(BINS, 200, dtype=np.int64)
    assert departure.departure_effect(few, counts, counts).table_error > 0.02
    assert departure.departure_effect(many, counts, counts).table_error < 0.005
    nothing = np.zeros(BINS, dtype=np.int64)
    assert math.isnan(departure.departure_effect(few, nothing, nothing).psi)


def test_departure_is_finite_for_a_billion_keys() -> None:
    """Overwhelming evidence is a large number and not infinite."""
    expected = approved_expectation(np.random.default_rng(1))
    state = departure.start_departure(expected)
    candidate_counts = np.zeros(BINS, dtype=np.int64)
    candidate_counts[0] = 10**9
    with np.errstate(all="raise", under="ignore"):
        for _ in range(3):
            gains = expected.gains(np.stack([candidate_counts, np.full(BINS, 10**9 // BINS)]))
            state = departure.step_departure(expected, state, gains, 10)
    assert 1e6 < state.log_e < math.inf


@pytest.mark.parametrize("counts", [np.zeros((3, 3)), np.ones((3, 2)), -np.ones((3, 3))])
def test_expectation_refuses_counts_that_are_no_table(counts: Floats) -> None:
    """They are empty, not square, or negative."""
    with pytest.raises(ValueError, match="shift"):
        Expectation(counts.astype(np.int64))


def test_departure_is_finite_long_after_the_prior_is_spent() -> None:
    """Scores are as approved, with 5,500 keys a look."""
    expected = Expectation(np.full((BINS, BINS), 1_000))
    state = departure.start_departure(expected)
    keys = np.full(BINS, 500)
    for _ in range(600):
        state = departure.step_departure(
            expected, state, expected.gains(np.stack([keys, keys])), 100
        )
    assert math.isfinite(state.log_e)
    assert state.log_e < -745.0
    assert state.log_e_max < 1.0


def test_debiased_psi_of_equal_arms_is_about_zero() -> None:
    """The mean over draws of equal arms is near zero also for few keys."""
    draw = np.random.default_rng(1)
    p = np.full(10, 0.1)
    scores = [debiased_psi(draw.multinomial(200, p), draw.multinomial(2000, p)) for _ in range(200)]
    assert abs(float(np.mean(scores))) < 0.01


def test_debiased_psi_shows_a_shift_and_is_nan_for_an_empty_arm() -> None:
    """A tenth that moves from one end to the other is a large shift."""
    before = np.full(10, 1000)
    after = before.copy()
    after[0], after[9] = 200, 1800
    assert debiased_psi(after, before) > 0.15
    assert math.isnan(debiased_psi(np.zeros(10, dtype=np.int64), before))
    with pytest.raises(ValueError, match="one table of bins"):
        debiased_psi(np.ones(3, dtype=np.int64), np.ones(4, dtype=np.int64))
