"""The population stability index: how much two histograms differ. It is no test."""

import numpy as np
from numpy.typing import NDArray


def debiased_psi(canary: NDArray[np.int64], baseline: NDArray[np.int64]) -> float:
    """Return the population stability index of two (J,) counts, minus its mean by chance.

        p   = (count + .5) / (n + .5 J)
        PSI = sum (p_c - p_b) ln(p_c / p_b) - (J - 1)(1/n_c + 1/n_b)

    .1 is a shift of about .3 standard deviations, .25 of about .5. NaN if an arm is empty. Raises
    ValueError if the histograms have different bins.
    """
    if canary.shape != baseline.shape or canary.ndim != 1:
        raise ValueError(
            f"histograms of {canary.shape} and {baseline.shape} bins cannot be compared; count "
            "both on one table of bins"
        )
    bins = len(canary)
    canary_n, baseline_n = int(canary.sum()), int(baseline.sum())
    if canary_n == 0 or baseline_n == 0:
        return float("nan")
    p_canary = (canary + 0.5) / (canary_n + 0.5 * bins)
    p_baseline = (baseline + 0.5) / (baseline_n + 0.5 * bins)
    raw = float(np.sum((p_canary - p_baseline) * np.log(p_canary / p_baseline)))
    return raw - (bins - 1) * (1 / canary_n + 1 / baseline_n)
