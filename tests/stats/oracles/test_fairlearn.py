"""Figures of groups against fairlearn 0.15.0: equal where people are enough, and refused below."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from monitoring.jobs.fairness import RATES, GroupFairness, PeopleLook, look_at_groups
from stats.fairness.groups import DeclaredAttribute
from stats.fairness.ratio_evidence import RateCounts
from stats.fairness.verdicts import GroupVerdict, ratio_figure
from tests.stats.oracles.oracle_environments import ask_libraries
from training.evaluation.fairness import Attribute, compare_decisions

pytestmark = [pytest.mark.nightly, pytest.mark.walk, pytest.mark.timeout(2_400)]

Bools = NDArray[np.bool_]
Codes = NDArray[np.int64]

REGIONS = ("North", "South", "East", "West")


def draw_people(seed: int, n: int, groups: int, *, unfair: float = 0.0) -> tuple[Codes, PeopleLook]:
    """Return the group of each person, and decisions; *unfair* moves the scores of group 0."""
    generator = np.random.default_rng(seed)
    codes = generator.integers(0, groups, n)
    scores = np.clip(generator.beta(2.0, 3.0, n) - unfair * (codes == 0), 0.01, 0.99)
    positive = generator.random(n) < scores
    return codes, PeopleLook(scores >= 0.4, scores, np.ones(n, dtype=np.bool_), positive)


def question(codes: NDArray[Any], people: PeopleLook) -> dict[str, Any]:
    """Return a question about these people for libraries_caller.py."""
    return {
        "kind": "groups",
        "positive": people.positive.astype(int).tolist(),
        "selected": people.selected.astype(int).tolist(),
        "groups": codes.tolist(),
    }


def our_groups(codes: Codes, people: PeopleLook, values: tuple[str, ...]) -> list[GroupFairness]:
    """Return what monitoring's look says of each group."""
    _, report = look_at_groups({}, people, [DeclaredAttribute("region", codes, values)])
    return list(report.groups)


def test_rates_of_each_group_are_fairlearns() -> None:
    """Selection rate, and rates of true and false positives, of a group and of all others."""
    codes, people = draw_people(1, 4_000, len(REGIONS), unfair=0.15)
    questions = [question(codes, people)]
    questions += [question(codes == code, people) for code in range(len(REGIONS))]
    by_region, *against_rest = ask_libraries(questions)
    ours = our_groups(codes, people, REGIONS)
    assert [group.name for group in ours] == [f"region={name}" for name in REGIONS]
    for code, group in enumerate(ours):
        rates = {metric.metric: metric for metric in group.metrics}
        rest = against_rest[code]["rates"]
        for name in RATES:
            assert rates[name].rate.value == pytest.approx(by_region["rates"][str(code)][name])
            assert rates[name].rate.value == pytest.approx(rest["true"][name])
            assert rates[name].rest_rate.value == pytest.approx(rest["false"][name])


def test_differences_of_two_groups_are_fairlearns() -> None:
    """Fairlearn's differences have no sign. The larger gap is that of equalised odds."""
    codes, people = draw_people(2, 3_000, 2, unfair=0.15)
    (theirs,) = ask_libraries([question(codes, people)])
    first, second = our_groups(codes, people, REGIONS[:2])
    gaps = {metric.metric: metric.gap.bounds()[0] for metric in first.metrics}
    turned = {metric.metric: metric.gap.bounds()[0] for metric in second.metrics}
    assert gaps["selection_rate"] == pytest.approx(-theirs["demographic_parity_difference"])
    assert gaps["tpr"] == pytest.approx(-theirs["equal_opportunity_difference"])
    odds = max(abs(gaps["tpr"]), abs(gaps["fpr"]))
    assert odds == pytest.approx(theirs["equalized_odds_difference"])
    assert all(turned[name] == pytest.approx(-gaps[name]) for name in RATES)


def test_ratios_of_two_groups_are_fairlearns() -> None:
    """On the card they are equal. Those of a look add half an event a side, below 1 % here.

    fairlearn divides the smaller rate by the larger one, and ours the group's by that of others.
    """
    codes, people = draw_people(3, 3_000, 2, unfair=0.15)
    (theirs,) = ask_libraries([question(codes, people)])
    first, second = our_groups(codes, people, REGIONS[:2])
    ratios = {metric.metric: metric.ratio.bounds()[0] for metric in first.metrics[:3]}
    assert ratios["selection_rate"] == pytest.approx(theirs["demographic_parity_ratio"], rel=0.01)
    odds = min(ratios["tpr"], ratios["fpr"])
    assert odds == pytest.approx(theirs["equalized_odds_ratio"], rel=0.01)
    inverse = second.metrics[0].ratio.bounds()[0]
    assert inverse == pytest.approx(1 / ratios["selection_rate"], rel=1e-9)
    # The card of a trained version.
    card = compare_decisions(
        Attribute("region", codes, REGIONS[:2]), people.positive, people.selected, seed=1
    )
    member = card["groups"][0]
    assert member["selection_rate_ratio"]["value"] == pytest.approx(
        theirs["demographic_parity_ratio"]
    )
    assert member["tpr_gap"]["value"] == pytest.approx(-theirs["equal_opportunity_difference"])


def test_fairlearn_has_a_number_for_a_group_of_one() -> None:
    """One person who is not selected makes the ratio 0 and the difference the rate of all others.

    Ours leaves the group out, because its figures would be those of one person. The card, which is
    of training rows, names it and says that there is not enough data.
    """
    codes, people = draw_people(4, 1_000, 2)
    alone = int(np.flatnonzero(~people.selected)[0])
    codes[alone] = 2
    (theirs,) = ask_libraries([question(codes, people)])
    assert theirs["demographic_parity_ratio"] == 0.0
    assert theirs["demographic_parity_difference"] > 0.3
    assert theirs["rates"]["2"]["selection_rate"] == 0.0
    names = [group.name for group in our_groups(codes, people, REGIONS[:3])]
    assert names == ["region=North", "region=South"]
    figure = ratio_figure(RateCounts(1, 0, 999, int(people.selected.sum())))
    assert (figure.value, figure.lacking) == (None, "not enough data: 1 of 10 people needed")
    card = compare_decisions(
        Attribute("region", codes, REGIONS[:3]), people.positive, people.selected, seed=1
    )
    assert [group["verdict"] for group in card["groups"]][2] == "not enough data"
    assert card["groups"][2]["selection_rate_ratio"] is None


def test_fairlearn_has_a_rate_of_nobody() -> None:
    """A group without a person who had the outcome has a true positive rate of 0 there.

    So the ratio of equalised odds is 0. Ours says that there is not enough data.
    """
    codes, people = draw_people(5, 1_000, 2)
    people.positive[codes == 1] = False
    (theirs,) = ask_libraries([question(codes, people)])
    assert theirs["rates"]["1"]["tpr"] == 0.0
    assert theirs["equalized_odds_ratio"] == 0.0
    _, south = our_groups(codes, people, REGIONS[:2])
    tpr = south.metrics[1]
    assert (tpr.metric, tpr.rate.value) == ("tpr", None)
    assert tpr.verdict == GroupVerdict.NOT_ENOUGH_DATA


def test_fairlearn_takes_chance_for_unfairness() -> None:
    """The smallest rate of twenty groups is divided by the largest, so chance goes below .8.

    In twenty drawn worlds without any unfairness, fairlearn's ratio is below four fifths in each,
    and no group of ours is outside.
    """
    names = tuple(f"region {number}" for number in range(20))
    worlds = [draw_people(100 + seed, 1_200, len(names)) for seed in range(20)]
    answers = ask_libraries([question(*world) for world in worlds])
    assert all(item["demographic_parity_ratio"] < 0.8 for item in answers)
    verdicts = [
        metric.verdict
        for world in worlds
        for group in our_groups(*world, names)
        for metric in group.metrics
    ]
    assert len(verdicts) == 20 * 20 * 4
    assert GroupVerdict.OUTSIDE not in verdicts
