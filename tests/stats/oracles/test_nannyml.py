"""Our figures against those of NannyML 0.13.1: equal where it is right, and where it is not."""

import math
from itertools import chain
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import wasserstein_distance

from stats.accuracy.area import curve_area
from stats.accuracy.labelled_bins import bins_of_rows, sigmoid
from stats.alarms.change_test import DAILY, histogram_test
from stats.alarms.shiryaev_roberts import look_at, start_detector
from stats.estimates.without_labels import ExpectedAccuracy, LiveRows, expect_by_calibration
from tests.stats.oracles.drawn_counts import (
    BINS,
    LIVE_ROWS,
    MOVED,
    draw_counts,
    our_figures,
    plain_distance,
    rows_of,
)
from tests.stats.oracles.oracle_environments import ask_nannyml

pytestmark = [pytest.mark.nightly, pytest.mark.walk, pytest.mark.timeout(2_400)]

Floats = NDArray[np.float64]

EQUAL = np.full(BINS, 1 / BINS)
RATES = ("accuracy", "precision", "recall")
THRESHOLD = 0.4
CHUNK = 5_000
LOG_THRESHOLD = math.log(58_240)
"""The threshold of one of 20 features that is looked at daily and weekly, at .25 a quarter."""


def draw_rows(seed: int, n: int, *, shift: float = 0.0, steepness: float = 1.0) -> Floats:
    """Return (N, 2) scores and outcomes; the scores are calibrated if *steepness* is 1."""
    generator = np.random.default_rng(seed)
    margins = generator.normal(-1.0 + shift, 1.2, n)
    positive = generator.random(n) < sigmoid(margins)
    return np.column_stack([sigmoid(steepness * margins), positive])


def cbpe_question(reference: Floats, live: Floats) -> dict[str, Any]:
    """Return a question about CBPE for nannyml_caller.py."""
    return {
        "kind": "cbpe",
        "reference": reference.tolist(),
        "live": live.tolist(),
        "chunk": CHUNK,
        "threshold": THRESHOLD,
    }


def drift_question(
    method: str, reference: list[Any], live: list[Any], chunk: int, *, categorical: bool = False
) -> dict[str, Any]:
    """Return a question about drift for nannyml_caller.py."""
    question = {"kind": "drift", "method": method, "categorical": categorical, "chunk": chunk}
    return {**question, "reference": reference, "live": live}


def our_estimate(reference: Floats, live: Floats) -> ExpectedAccuracy:
    """Return our CBPE of the live rows, with a bin for each score."""
    scores, rows = np.unique(live[:, 0], return_counts=True)
    return expect_by_calibration(
        bins_of_rows(reference[:, 1] == 1, reference[:, 0]),
        LiveRows(scores, rows.astype(np.float64)),
        threshold=THRESHOLD,
        seed=1,
    )


def test_cbpe_of_calibrated_scores_is_nannymls() -> None:
    """Both take calibrated scores as they are, and expect the same of unchanged and moved rows."""
    reference = draw_rows(11, 20_000)
    days = [draw_rows(seed, CHUNK, shift=shift) for seed, shift in ((2, 0.0), (3, 0.5), (4, -0.5))]
    (theirs,) = ask_nannyml([cbpe_question(reference, np.concatenate(days))])
    assert not theirs["calibrated"]
    for index, day in enumerate(days):
        ours = our_estimate(reference, day)
        assert ours.calibrator == "none"
        for name, metric in (("auc", "roc_auc"), *((item, item) for item in RATES)):
            assert ours.figures[name].value == pytest.approx(theirs[metric][index], abs=1e-6), name


def test_cbpe_of_uncalibrated_scores_is_nannymls_within_the_calibrators() -> None:
    """NannyML's step function and our sigmoid, both of 20,000 rows, differ by .003 AUC at most."""
    reference, today = draw_rows(5, 20_000, steepness=2.0), draw_rows(6, CHUNK, steepness=2.0)
    (theirs,) = ask_nannyml([cbpe_question(reference, today)])
    ours = our_estimate(reference, today)
    assert (theirs["calibrated"], ours.calibrator) == (True, "sigmoid")
    realised = curve_area(bins_of_rows(today[:, 1] == 1, today[:, 0])).value
    assert realised is not None
    assert ours.figures["auc"].value == pytest.approx(theirs["roc_auc"][0], abs=0.003)
    _, low, high = ours.figures["auc"].bounds()
    assert low <= realised <= high


def test_nannymls_cbpe_expects_too_much_after_few_reference_rows() -> None:
    """Its step function fits noise, and noise looks like sharpness.

    Of 500 reference rows with scores that are too steep, in 40 worlds, NannyML expects .02 AUC more
    than there is on average. Ours takes a sigmoid, and is right within .01.
    """
    worlds = [
        (draw_rows(seed, 500, steepness=1.5), draw_rows(1_000 + seed, CHUNK, steepness=1.5))
        for seed in range(40)
    ]
    theirs = ask_nannyml([cbpe_question(*world) for world in worlds])
    everybody = draw_rows(7, 500_000, steepness=1.5)
    truth = curve_area(bins_of_rows(everybody[:, 1] == 1, everybody[:, 0])).value
    expected = [our_estimate(*world).figures["auc"].value for world in worlds]
    errors = np.array([[item["roc_auc"][0] for item in theirs], expected]).astype(float) - truth
    assert errors[0].mean() > 0.012
    assert abs(errors[1].mean()) < 0.01


def test_jensen_shannon_is_nannymls_without_the_correction() -> None:
    """On the same bins they differ by the half row that ours adds to each bin, below .5 %."""
    pairs = [draw_counts(seed, MOVED) for seed in range(3)]
    answers = ask_nannyml(
        [
            drift_question(
                "jensen_shannon", rows_of(reference), rows_of(live), LIVE_ROWS, categorical=True
            )
            for reference, live in pairs
        ]
    )
    for (reference, live), theirs in zip(pairs, answers, strict=True):
        # NannyML's distance is in bits.
        ours = plain_distance(our_figures(reference, live)) / math.sqrt(math.log(2))
        assert theirs["values"][0] == pytest.approx(ours, rel=0.005)


def test_wasserstein_is_nannymls_below_10_000_reference_rows() -> None:
    """There NannyML calls SciPy, as our oracle tests do."""
    reference, live = draw_counts(1, MOVED)
    question = drift_question("wasserstein", rows_of(reference), rows_of(live), LIVE_ROWS)
    (theirs,) = ask_nannyml([question])
    ours = our_figures(reference, live).value_distance
    assert ours is not None
    assert theirs["values"][0] == pytest.approx(ours.value, rel=1e-4)


def test_nannymls_wasserstein_is_wrong_beside_one_outlier() -> None:
    """From 10,000 reference rows on it takes 10,000 bins of one width, to the largest value.

    With one reference row at a million a bin is 100 wide, and live rows below the least value of
    the reference add two bins: 283 in place of 84.
    """
    generator = np.random.default_rng(2)
    reference = np.append(generator.normal(size=11_999), 1e6)
    days = [generator.normal(shift, 1.0, LIVE_ROWS) for shift in (0.0, 0.5)]
    rows = np.concatenate(days).tolist()
    (theirs,) = ask_nannyml([drift_question("wasserstein", reference.tolist(), rows, LIVE_ROWS)])
    truth = np.array([wasserstein_distance(reference, day) for day in days])
    assert truth == pytest.approx([83.4, 83.8], abs=0.1)
    assert max(np.array(theirs["values"]) / truth) > 3


def test_nannymls_chunks_alarm_about_unchanged_rows() -> None:
    """Its threshold is the mean and three deviations of chunks that the reference itself has.

    So they are nearer to it than any later day. Of 270 unchanged days with 1,000 rows it calls
    eight or more changed, ten times what three deviations promise; our detectors, none.
    """
    # Ten days are the reference, and 90 days follow.
    worlds = [
        [rows_of(draw_counts(100 * stream + day, EQUAL, 1_000)[1], day) for day in range(100)]
        for stream in range(3)
    ]
    answers = ask_nannyml(
        [
            drift_question(
                "jensen_shannon",
                list(chain(*days[:10])),
                list(chain(*days[10:])),
                1_000,
                categorical=True,
            )
            for days in worlds
        ]
    )
    alerts = [alert for theirs in answers for alert in theirs["alerts"]]
    assert len(alerts) == 270
    assert sum(alerts) >= 8, sum(alerts)
    # Our detectors look at the same counts.
    for days in worlds:
        counts = [np.bincount(day, minlength=BINS) for day in days]
        test = histogram_test(np.sum(counts[:10], axis=0), DAILY)
        state = start_detector(test, "ten days")
        for day, live in enumerate(counts[10:]):
            state, found = look_at(test, state, live, day, LOG_THRESHOLD)
            assert found is None
