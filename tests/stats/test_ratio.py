"""Sample ratio mismatch, and intervals of the rate ratio."""

import math
import random

import pytest

from stats.ratio import log_e_mismatch, rate_ratio_interval


def test_log_e_mismatch_gives_the_published_p_value() -> None:
    """Lindon and Malek: counts (156, 212) at even shares, Dirichlet 100, p = .075."""
    assert math.exp(-log_e_mismatch(156, 212, 0.5)) == pytest.approx(0.075, abs=0.0005)


def test_log_e_mismatch_fires_only_for_a_split_that_loses_keys() -> None:
    """It is computed after each of 50,000 keys. The canary loses a tenth of its keys."""
    rng = random.Random(1)
    for keep, fires in ((1.0, False), (0.9, True)):
        canary = baseline = 0
        highest = 0.0
        for _ in range(50_000):
            if rng.random() < 0.25:
                canary += rng.random() < keep
            else:
                baseline += 1
            highest = max(highest, log_e_mismatch(canary, baseline, 0.25))
        assert (highest >= math.log(1000)) is fires


def test_log_e_mismatch_of_a_billion_keys_is_finite() -> None:
    """Beta functions of large counts lose no more than rounding."""
    assert math.isfinite(log_e_mismatch(10**9, 10**9, 0.5))
    assert log_e_mismatch(10**9, 10**9, 0.5) < 0


@pytest.mark.walk
def test_rate_ratio_interval_covers_the_ratio_at_every_look() -> None:
    """In 200 runs base rate and share change. At most 5 % ever exclude the truth."""
    rng, missed = random.Random(4), 0
    for _ in range(200):
        by_share: dict[int, tuple[int, int]] = {}
        outside = False
        for second in range(60):
            share = 500 if second < 30 else 5_000
            events = round(4 + 3 * math.sin(second / 9) + second / 10)
            odds = share / 10_000 * 2.0 / (1 - share / 10_000 + share / 10_000 * 2.0)
            canary = sum(rng.random() < odds for _ in range(events))
            before = by_share.get(share, (0, 0))
            by_share[share] = (before[0] + canary, before[1] + events - canary)
            if second % 10 == 9:
                interval = rate_ratio_interval(by_share)
                outside |= not interval.low <= 2.0 <= interval.high
        missed += outside
    assert missed <= 10


def test_rate_ratio_interval_narrows_with_events() -> None:
    """Without events it has no bounds, and with events of the canary alone no upper bound."""
    assert rate_ratio_interval({}) == rate_ratio_interval({500: (0, 0)})
    assert (rate_ratio_interval({}).low, rate_ratio_interval({}).high) == (0.0, math.inf)
    only = rate_ratio_interval({500: (9, 0)})
    assert only.low > 1.0
    assert only.high == math.inf
    much = rate_ratio_interval({5_000: (3_000, 1_500)})
    assert 1.7 < much.low < 2.0 < much.high < 2.3
