"""Tests of the fairness report."""

import numpy as np
import pytest

from training.evaluation.fairness import (
    Attribute,
    categories,
    compare_groups,
    numbers,
    ratio_verdict,
)
from training.evaluation.metrics import Estimate

REGIONS = ("north", "south", "west")


def in_two(member: np.ndarray) -> Attribute:
    """An attribute with the groups "no" and "yes"."""
    return Attribute("flag", member.astype(np.int64), ("no", "yes"))


def test_fairness_gives_no_verdict_on_too_few_rows() -> None:
    """With 99 members both groups have counts only."""
    member = np.arange(1_000) < 99
    report = compare_groups(in_two(member), ~member, np.full(1_000, 0.9), threshold=0.5, seed=1)
    assert report["verdict"] == "not enough data"
    no, yes = report["groups"]
    assert (no["value"], yes["value"]) == ("no", "yes")
    assert yes["counts"]["member"] == {"rows": 99, "positives": 0, "selected": 99}
    assert yes["counts"]["other"] == no["counts"]["member"]
    assert yes["selection_rate_ratio"] is None


def test_fairness_rates_follow_from_the_counts() -> None:
    """Members are selected at 1/4 and others at 1/2, so the ratio is .5 and outside the band."""
    member = np.arange(800) % 2 == 0
    scores = np.where(member, np.arange(800) % 8 < 2, np.arange(800) % 4 < 2).astype(np.float64)
    report = compare_groups(in_two(member), np.ones(800, np.bool_), scores, threshold=0.5, seed=1)
    no, yes = report["groups"]
    assert yes["selection_rate_ratio"]["value"] == pytest.approx(0.5)
    assert yes["tpr_gap"]["value"] == pytest.approx(-0.25)
    assert no["selection_rate_ratio"]["value"] == pytest.approx(2.0)
    assert report["verdict"] == yes["verdict"] == no["verdict"] == "outside band"


def test_fairness_finds_the_one_region_that_is_treated_otherwise() -> None:
    """South is selected half as often as the others; west is too small; ids without a region."""
    generator = np.random.default_rng(3)
    values = generator.choice([0.0, 1.0, 2.0, 3.0], 4_000, p=[0.5, 0.3, 0.01, 0.19])
    known = values < 3
    selected = generator.random(4_000) < np.where(values == 1, 0.2, 0.4)
    attribute = categories("p:region", values.astype(np.float32), known, REGIONS)
    report = compare_groups(
        attribute,
        generator.random(4_000) < 0.3,
        selected.astype(np.float64),
        threshold=0.5,
        seed=1,
    )
    found = {group["value"]: group for group in report["groups"]}
    assert list(found) == ["north", "south", "west", None]
    assert found["south"]["verdict"] == report["verdict"] == "outside band"
    assert found["west"]["verdict"] == "not enough data"
    assert found[None]["counts"]["member"]["rows"] == int((~known).sum())
    rows = sum(group["counts"]["member"]["rows"] for group in report["groups"])
    assert rows == 4_000


@pytest.mark.walk
def test_fairness_of_many_groups_takes_the_bands_of_each() -> None:
    """More groups than are computed at once; the groups are equal, so none is outside the band."""
    names = tuple(f"tariff {number}" for number in range(70))
    values = np.arange(42_000) % 70
    scores = np.random.default_rng(1).random(42_000)
    attribute = categories("p:tariff", values.astype(np.float32), values >= 0, names)
    report = compare_groups(attribute, scores > 0.6, scores, threshold=0.3, seed=1)
    assert len(report["groups"]) == 70
    assert {group["verdict"] for group in report["groups"]} <= {"within band", "undecided"}
    assert all(group["tpr_gap"]["value"] == 0.0 for group in report["groups"])


def test_numbers_are_in_bands_that_begin_with_their_edges() -> None:
    """NaN and defaults are the rows without a value."""
    values = np.array([18, 29.5, 30, 49, 50, np.nan, 40], dtype=np.float32)
    known = np.array([True] * 6 + [False])
    found = numbers("p:age", values, known, (30.0, 50.0))
    assert found.groups == ("below 30", "30 to below 50", "50 and above", None)
    assert found.codes.tolist() == [0, 0, 1, 1, 2, 3, 3]


def test_few_numbers_are_groups_each_and_many_are_in_four_bands() -> None:
    """A flag of 0 and 1 has two groups. Bands without edges have about equally many rows."""
    known = np.ones(400, dtype=np.bool_)
    flag = numbers("p:senior", (np.arange(400) % 2).astype(np.float32), known)
    assert flag.groups == ("0", "1", None)
    assert flag.codes.tolist() == (np.arange(400) % 2).tolist()
    age = numbers("p:age", (np.arange(400) % 100).astype(np.float32), known)
    assert age.groups == ("below 24", "24 to below 49", "49 to below 74", "74 and above", None)
    assert np.bincount(age.codes).tolist() == [96, 100, 100, 104]
    assert numbers("p:age", np.zeros(3, dtype=np.float32), known[:3] & False).groups == (None,)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.85, 1.1, "within band"),
        (0.7, 0.9, "undecided"),
        (0.5, 0.79, "outside band"),
        (1.3, 1.9, "outside band"),
        (0.5, 2.0, "undecided"),
        (None, None, "not enough data"),
    ],
)
def test_fairness_verdict_follows_from_the_interval(
    low: float | None, high: float | None, verdict: str
) -> None:
    """An interval that crosses the band is undecided."""
    assert ratio_verdict(Estimate(None if low is None else 1.0, low, high)) == verdict
