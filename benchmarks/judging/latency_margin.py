"""Compares two places for latency's margin of 10 %: a gate beside the e-value, or inside the test.

    python -m benchmarks.judging.latency_margin

The command prints how many calls of the canary each way takes to find a slower version. Latencies
are lognormal (sigma .5), the canary has 5 % of 100 calls/s, and each call has another key. With the
margin inside, the null hypothesis is that the canary has at most as many slow answers as a version
that is 10 % slower. How many these are depends on the shape of the distribution and is assumed.
"""

import argparse
import math
from statistics import NormalDist, median

import numpy as np

from rollout.evidence.latency import QUANTILES
from rollout.policy.policy import STANDARD
from stats import tilt

SIGMA = 0.5
CANARY_SHARE = 0.05
CALLS_A_SECOND = 100
MARGIN = 1.10
SECONDS_MAX = 40_000
NORMAL = NormalDist()


def slow_share(quantile: float, slower: float) -> float:
    """Return the share of answers beyond production's *quantile* if all are *slower* x as slow."""
    return 1.0 - NORMAL.cdf(NORMAL.inv_cdf(quantile) - math.log(slower) / SIGMA)


def calls_until_found(rng: np.random.Generator, slower: float, *, inside: bool) -> float:
    """Return the canary's calls until one of the three quantiles rolls back."""
    grids, states = {}, {}
    for name, quantile in QUANTILES.items():
        margin = math.log(slow_share(quantile, MARGIN) / (1 - quantile)) if inside else 0.0
        grids[name] = tilt.Grid(tuple(margin + delta for delta in tilt.LATENCY.deltas), margin)
        states[name] = tilt.start_tilt(grids[name])
    calls = 0
    for _ in range(SECONDS_MAX):
        canary = int(rng.poisson(CALLS_A_SECOND * CANARY_SHARE))
        baseline = int(rng.poisson(CALLS_A_SECOND * (1 - CANARY_SHARE)))
        calls += canary
        for name, quantile in QUANTILES.items():
            events = (
                int(rng.binomial(canary, slow_share(quantile, slower))),
                int(rng.binomial(baseline, 1 - quantile)),
            )
            states[name] = tilt.step_tilt(grids[name], states[name], *events, CANARY_SHARE, 3_600)
            if states[name].log_e_max >= STANDARD.log_threshold(name):
                return calls
    return math.inf


def main() -> None:
    """Measure both ways for two degrees of slowness, and print a line for each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=60)
    arguments = parser.parse_args()
    for slower in (1.2, 1.5):
        for inside in (False, True):
            calls = [
                calls_until_found(np.random.default_rng(seed), slower, inside=inside)
                for seed in range(arguments.runs)
            ]
            way = "margin inside" if inside else "gate beside"
            print(
                f"latency x {slower}: {way}: median {median(calls):,.0f} calls of the canary, "
                f"nine in ten {np.quantile(calls, 0.9):,.0f}"
            )


if __name__ == "__main__":
    main()
