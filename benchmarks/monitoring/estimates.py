"""Measures whether estimates keep what they promise, on made-up customers with known truth.

    python -m benchmarks.monitoring --only estimates

- Accuracy without labels: the AUC that is expected, against the one that came true, under shifts
  of the features that the score sees and that it does not see.
- Uplift against the holdout: how often the interval covers the true effect.
- Fairness: how often a version that treats groups alike is called "outside", at any of its looks.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from benchmarks.monitoring.bars import MeasuredBar, MonitoringOptions
from benchmarks.monitoring.estimate_worlds import (
    SHIFTS,
    UPLIFT_WORLDS,
    CovariateShift,
    UpliftWorld,
    draw_holdout,
    draw_rows,
    rows_by_score,
    true_effect,
)
from stats.accuracy.area import curve_area
from stats.accuracy.labelled_bins import bins_of_rows
from stats.estimates.without_labels import expect_by_calibration, expect_by_weights
from stats.fairness.ratio_evidence import RateCounts, add_look, start_ratio_evidence
from stats.fairness.verdicts import ALPHA, GroupVerdict, ratio_verdict_of
from stats.figure import wilson_figure
from stats.uplift.effect import effect_figure
from stats.uplift.qini import qini_curve

ROUNDS = 400
QUICK_ROUNDS = 6
CUSTOMERS_OF_THE_TRUTH = 1_000_000
ESTIMATE_PART = 10
"""One world of accuracy, which takes longer, for so many of uplift and fairness."""
REFERENCE_ROWS, LIVE_ROWS, SAMPLE_ROWS = 12_000, 20_000, 6_000
AREA_ERROR_MAX = 0.01
COVER_MIN, UPLIFT_COVER_MIN = 0.90, 0.93
FALSE_OUTSIDE_MAX = 0.01
THRESHOLD = 0.3


def main(options: MonitoringOptions) -> list[MeasuredBar]:
    """Return the bars of accuracy without labels, of uplift, and of fairness."""
    rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
    bars: list[MeasuredBar] = []
    for number, shift in enumerate(SHIFTS):
        generator = np.random.default_rng((options.seed, 1, number))
        bars += accuracy_bars(generator, max(rounds // ESTIMATE_PART, 2), shift)
    for number, world in enumerate(UPLIFT_WORLDS):
        generator = np.random.default_rng((options.seed, 2, number))
        bars += uplift_bars(generator, rounds, world)
    for number, quiet in enumerate(FAIR_WORLDS):
        generator = np.random.default_rng((options.seed, 3, number))
        bars.append(fairness_bar(generator, rounds, quiet))
    bars += list(found_bars(np.random.default_rng((options.seed, 4)), rounds))
    return bars


def accuracy_bars(
    generator: np.random.Generator, rounds: int, shift: CovariateShift
) -> list[MeasuredBar]:
    """Return the error of the expected AUC and the cover of its interval, of both methods."""
    errors: dict[str, list[float]] = {"calibrated": [], "weighted": []}
    covered = dict.fromkeys(errors, 0)
    for _ in range(rounds):
        reference = draw_rows(generator, REFERENCE_ROWS, SHIFTS[0])
        today = draw_rows(generator, LIVE_ROWS, shift)
        live, seed = rows_by_score(today), int(generator.integers(1 << 30))
        labelled = bins_of_rows(reference.positive, reference.scores)
        found = (
            expect_by_calibration(labelled, live, threshold=THRESHOLD, seed=seed),
            expect_by_weights(
                reference, live, today.features[:SAMPLE_ROWS], threshold=THRESHOLD, seed=seed
            ),
        )
        realised = curve_area(bins_of_rows(today.positive, today.scores)).value
        for expected in found:
            value, low, high = expected.figures["auc"].bounds()
            errors[expected.method].append(value - realised)
            covered[expected.method] += low <= realised <= high
    return [
        bar
        for method in errors
        for bar in _accuracy_bars(method, shift, np.array(errors[method]), covered[method])
    ]


def _accuracy_bars(
    method: str,
    shift: CovariateShift,
    errors: "np.ndarray[tuple[int], np.dtype[np.float64]]",
    covered: int,
) -> Iterator[MeasuredBar]:
    """Yield the error and the cover. Calibration alone promises nothing where it is blind."""
    promised = method == "weighted" or shift.unseen == 0.0
    error, share = float(np.abs(errors).mean()), covered / len(errors)
    subject = f"expected AUC, {method}: {shift.name}"
    yield MeasuredBar(
        subject=subject,
        measured=f"mean error {error:.4f}, bias {errors.mean():+.4f}",
        promised=f"at most {AREA_ERROR_MAX}" if promised else "",
        passed=error <= AREA_ERROR_MAX if promised else None,
        numbers={
            "mean_absolute_error": error,
            "bias": float(errors.mean()),
            "p95": float(np.quantile(np.abs(errors), 0.95)),
            "worlds": len(errors),
        },
    )
    yield MeasuredBar(
        subject=subject,
        measured=f"interval covers {share:.1%} of {len(errors)} worlds",
        promised=f"at least {COVER_MIN:.0%}" if promised else "",
        passed=share >= COVER_MIN if promised else None,
        numbers={"covered": covered, "worlds": len(errors)},
    )


def uplift_bars(
    generator: np.random.Generator, rounds: int, world: UpliftWorld
) -> Iterator[MeasuredBar]:
    """Yield the cover of the effect's interval and, where the effect goes by score, of Qini's."""
    covered = curves = shown = 0
    area = _true_area(generator, world) if world.knowing else 0.0
    for _ in range(rounds):
        bins = draw_holdout(generator, world)
        figure = effect_figure(bins)
        if figure.known:
            _, low, high = figure.bounds()
            covered += low <= true_effect(world) <= high
            shown += 1
        if world.knowing:
            _, low, high = qini_curve(bins, seed=1).area.bounds()
            curves += low <= area <= high
    for name, hits in [("effect", covered), *([("Qini area", curves)] if world.knowing else [])]:
        share = hits / max(shown, 1)
        yield MeasuredBar(
            subject=f"{name}: {world.name}",
            measured=f"interval covers {share:.1%} of {shown} worlds",
            promised=f"at least {UPLIFT_COVER_MIN:.0%}",
            passed=share >= UPLIFT_COVER_MIN,
            numbers={"covered": hits, "worlds": shown},
        )


def _true_area(generator: np.random.Generator, world: UpliftWorld) -> float:
    """Return the area of a world with so many customers that its error does not matter."""
    large = UpliftWorld(
        world.name, CUSTOMERS_OF_THE_TRUTH, 0.5, world.base_rate, world.effect, knowing=True
    )
    return qini_curve(draw_holdout(generator, large), seed=1).area.bounds()[0]


@dataclass(frozen=True, slots=True)
class FairWorld:
    """A version that treats eight groups alike, looked at by month for two years.

    rate, ratio  of the event among others, and of each group's rate to it; at .8 a group is at the
                 edge of what is still within.
    people       people of a group in a month; the smallest group has a twentieth of the largest.
    """

    name: str
    rate: float
    ratio: float
    people: int


FAIR_WORLDS = (
    FairWorld("groups alike, rate 10 %", 0.10, 1.0, 400),
    FairWorld("groups alike, rate 60 %", 0.60, 1.0, 400),
    FairWorld("groups at the edge of .8, rate 10 %", 0.10, 0.8, 400),
    FairWorld("groups alike, few people", 0.03, 1.0, 30),
)
GROUPS, MONTHS = 8, 24
FAIR_METRICS = 3


def fairness_bar(generator: np.random.Generator, rounds: int, world: FairWorld) -> MeasuredBar:
    """Return how many versions are ever called outside, in any group, metric or month."""
    false = sum(
        GroupVerdict.OUTSIDE in _verdicts(generator, world, world.ratio) for _ in range(rounds)
    )
    _, _, high = wilson_figure(false, rounds).bounds()
    return MeasuredBar(
        subject=f"fairness: {world.name}",
        measured=f"{false} of {rounds} versions ever outside (95 % end {high:.2%})",
        promised=f"at most {FALSE_OUTSIDE_MAX:.0%}",
        passed=false / rounds <= FALSE_OUTSIDE_MAX,
        numbers={"outside": false, "versions": rounds, "alpha": ALPHA},
    )


def _verdicts(generator: np.random.Generator, world: FairWorld, ratio: float) -> list[GroupVerdict]:
    """Return the last verdict on each group and metric; "outside" stays once it is reached."""
    verdicts = []
    sizes = np.maximum(world.people * np.linspace(1.0, 0.05, GROUPS), 10).astype(int)
    for size in np.repeat(sizes, FAIR_METRICS).tolist():
        evidence = start_ratio_evidence()
        for month in range(MONTHS):
            # Campaigns change the rate of everybody from month to month.
            rate = world.rate * (1.0 + 0.4 * math.sin(month))
            rest = 4 * world.people
            own, other = generator.binomial([size, rest], [rate * ratio, rate]).tolist()
            evidence = add_look(evidence, RateCounts(size, own, rest, other))
        verdicts.append(ratio_verdict_of("tpr", evidence, GROUPS * FAIR_METRICS).verdict)
    return verdicts


def found_bars(generator: np.random.Generator, rounds: int) -> Iterator[MeasuredBar]:
    """Yield, without a promise, how often an unfair group is found and a fair one is within."""
    worlds = max(rounds // ESTIMATE_PART, 2)
    for ratio in (0.5, 0.65, 1.0):
        world = FairWorld(f"ratio {ratio}", 0.10, ratio, 1_000)
        verdicts = [v for _ in range(worlds) for v in _verdicts(generator, world, ratio)]
        shares = {kind: verdicts.count(kind) / len(verdicts) for kind in GroupVerdict}
        yield MeasuredBar(
            subject=f"fairness after two years: {world.name}, 50 to 1,000 people a month",
            measured=", ".join(f"{kind} {share:.0%}" for kind, share in shares.items()),
            numbers={str(kind): share for kind, share in shares.items()},
        )
