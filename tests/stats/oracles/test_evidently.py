"""Our figures of drift against Evidently's 0.7.23: equal where it is right, and where it is not."""

import math
from typing import Any

import numpy as np
import pytest

from stats.drift.figures import compare_counts
from tests.stats.oracles.drawn_counts import (
    BINS,
    MOVED,
    REFERENCE_ROWS,
    draw_counts,
    our_figures,
    plain_distance,
    plain_psi,
    rows_of,
)
from tests.stats.oracles.oracle_environments import ask_evidently

pytestmark = [pytest.mark.nightly, pytest.mark.walk, pytest.mark.timeout(2_400)]

EQUAL = np.full(BINS, 1 / BINS)
ALARM_AT = 0.1
"""Evidently's own threshold of PSI."""


def question(method: str, reference: list[Any], live: list[Any], **options: bool) -> dict[str, Any]:
    """Return a question for evidently_caller.py; rows are categories unless options say other."""
    return {
        "method": method,
        "reference": reference,
        "live": live,
        "categorical": options.get("categorical", True),
    }


def test_psi_distance_and_wasserstein_are_evidentlys_without_the_corrections() -> None:
    """On the same bins they differ by the half row that ours adds to each bin, below .5 %.

    Evidently's Jensen-Shannon is the distance in nats, and its Wasserstein is in standard
    deviations of the reference. Both have no standard error.
    """
    pairs = [draw_counts(seed, MOVED) for seed in range(3)]
    questions = [
        question(method, rows_of(reference), rows_of(live), categorical=method != "wasserstein")
        for reference, live in pairs
        for method in ("psi", "jensenshannon", "wasserstein")
    ]
    theirs = np.array(ask_evidently(questions)).reshape(len(pairs), 3)
    for (reference, live), (psi, distance, moved) in zip(pairs, theirs, strict=True):
        ours = our_figures(reference, live)
        assert psi == pytest.approx(plain_psi(ours), rel=0.005)
        assert distance == pytest.approx(plain_distance(ours), rel=0.005)
        assert ours.value_distance is not None
        deviation = np.std(rows_of(reference))
        assert moved == pytest.approx(ours.value_distance.value / deviation, rel=1e-4)


def test_evidently_takes_chance_for_drift() -> None:
    """300 rows in 30 bins have a PSI of .1 by chance, which is Evidently's threshold of drift.

    The mean of 40 samples of an unchanged world is (J - 1) (1/n + 1/m), and half of them are called
    drift. Ours is 0 on average, and no sample is called drift.
    """
    bins, rows = 30, 300
    pairs = [draw_counts(seed, np.full(bins, 1 / bins), rows) for seed in range(40)]
    theirs = np.array(
        ask_evidently(
            [question("psi", rows_of(reference), rows_of(live)) for reference, live in pairs]
        )
    )
    ours = np.array([our_figures(reference, live).psi.value for reference, live in pairs])
    by_chance = (bins - 1) * (1 / REFERENCE_ROWS + 1 / rows)
    assert theirs.mean() == pytest.approx(by_chance, rel=0.1)
    assert (theirs >= ALARM_AT).mean() > 0.3
    assert abs(ours.mean()) < 0.01
    assert (ours < ALARM_AT).all()


def test_evidently_makes_drift_of_one_empty_bin() -> None:
    """An empty bin gets the share .0001, so a bin with 2 % of the reference adds .1 alone.

    Of 150 unchanged rows none falls into it in one sample of twenty. Ours joins such a bin with its
    neighbour.
    """
    shares = np.append(np.full(BINS - 1, 0.98 / (BINS - 1)), 0.02)
    reference = np.round(REFERENCE_ROWS * shares).astype(np.int64)
    live = np.append(np.round(150 * shares[:-1] / 0.98), 0).astype(np.int64)
    (theirs,) = ask_evidently([question("psi", rows_of(reference), rows_of(live))])
    added = 0.02 * math.log(0.02 / 0.0001)
    assert theirs == pytest.approx(added, rel=0.05)
    assert theirs > ALARM_AT
    ours = our_figures(reference, live)
    assert ours.bins == BINS - 1
    assert abs(ours.psi.value) < 2 * ours.psi.standard_error


def test_evidently_misses_drift_beside_one_outlier() -> None:
    """Its bins are equally wide and reach from the least to the largest value of both samples.

    A shift of one deviation has a PSI of .9. With one row at a million all others are in one bin,
    and the PSI is below .001. Ours counts by the deciles of the training rows.
    """
    generator = np.random.default_rng(1)
    reference, live = generator.normal(size=9_000), generator.normal(1.0, 1.0, 5_000)
    with_outlier = np.append(live[1:], 1e6)
    plain, blind = ask_evidently(
        [
            question("psi", reference.tolist(), rows.tolist(), categorical=False)
            for rows in (live, with_outlier)
        ]
    )
    assert plain > 0.8
    assert blind < 0.001
    edges = np.quantile(reference, np.arange(1, BINS) / BINS)
    counted = [
        np.bincount(np.searchsorted(edges, rows), minlength=BINS)
        for rows in (reference, live, with_outlier)
    ]
    assert our_figures(counted[0], counted[2]).psi.value == pytest.approx(
        our_figures(counted[0], counted[1]).psi.value, rel=0.01
    )


def test_evidently_answers_where_ours_says_that_there_is_not_enough_data() -> None:
    """It makes a PSI above its threshold of 20 rows in ten bins; ours asks for 100 rows."""
    reference, live = draw_counts(3, EQUAL, live_rows=20)
    (theirs,) = ask_evidently([question("psi", rows_of(reference), rows_of(live))])
    assert theirs > ALARM_AT
    assert str(compare_counts(reference, live)) == "not enough data: 20 of 100 rows"
