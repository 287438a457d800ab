"""Tests of thresholds by cost and by capacity, and of columns that alone tell labels apart."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.property_examples import examples
from training.errors import RecipeError
from training.evaluation.gate import leakage_check
from training.evaluation.leakage import strongest_column
from training.evaluation.threshold import choose_threshold
from training.recipe import Capacity, Cost, GateSettings


@examples(60)
@given(st.integers(0, 2**32 - 1), st.integers(2, 40), st.floats(0.01, 0.99))
def test_threshold_by_capacity_selects_no_more_rows_and_no_fewer(
    seed: int, rows: int, share: float
) -> None:
    """The next lower score would select too many. Rows with equal scores are decided alike."""
    scores = np.random.default_rng(seed).integers(0, 12, rows).astype(np.float32) / 12
    threshold = choose_threshold(Capacity(share=share), scores > 0.5, scores)
    assert (scores >= threshold).sum() <= share * rows
    below = scores[(scores < threshold) & (scores > 0)]
    assert not len(below) or (scores >= below.max()).sum() > share * rows


@examples(60)
@given(st.integers(0, 2**32 - 1), st.integers(2, 40), st.floats(0.1, 10))
def test_threshold_by_cost_is_the_cheapest(seed: int, rows: int, miss: float) -> None:
    """No other threshold costs less on the same rows."""
    generator = np.random.default_rng(seed)
    scores = generator.integers(0, 13, rows).astype(np.float32) / 12
    positive = generator.random(rows) < 0.4

    def cost(threshold: float) -> float:
        selected = scores >= threshold
        return float((selected & ~positive).sum() + miss * (~selected & positive).sum())

    chosen = choose_threshold(Cost(false_positive=1.0, false_negative=miss), positive, scores)
    assert 0.0 < chosen < 1.0
    assert cost(chosen) == pytest.approx(min(map(cost, np.linspace(0.001, 0.999, 500))))


def test_threshold_that_a_recipe_gives_is_taken() -> None:
    """Nothing is chosen then."""
    assert choose_threshold(0.3, np.array([True, False]), np.array([0.1, 0.2], np.float32)) == 0.3
    for wrong in (0.0, 1.0, -0.1, float("nan")):
        with pytest.raises(RecipeError, match="by capacity"):
            Capacity(share=wrong)
        with pytest.raises(RecipeError, match="by cost"):
            Cost(false_positive=wrong if wrong != 1.0 else float("inf"), false_negative=1.0)


def columns_and_labels(rows: int = 2_000) -> tuple[np.ndarray, np.ndarray]:
    """Four columns of noise, and labels that none of them tells."""
    generator = np.random.default_rng(11)
    return generator.standard_normal((rows, 4)).astype(np.float32), generator.random(rows) < 0.2


@pytest.mark.parametrize("leak", ["value", "reversed", "missing", "category"])
def test_leakage_check_names_the_column(leak: str) -> None:
    """A copy of the label, also reversed, as what is missing, and as codes in no order."""
    columns, positive = columns_and_labels()
    noise = np.random.default_rng(12).random(len(positive)).astype(np.float32)
    columns[:, 2] = {
        "value": positive + noise * 0.9,
        "reversed": noise * 0.9 - positive,
        "missing": np.where(positive, np.nan, noise),
        "category": np.where(positive, 3, (noise * 6).astype(int) % 3 + 4 * (noise > 0.5)),
    }[leak]
    everything = np.ones(len(positive), dtype=np.bool_)
    names = ("v:a", "v:b", "v:cancelled", "v:c")
    check = leakage_check(GateSettings(), names, columns, {"": positive}, everything)
    assert not check.passed
    assert "'v:cancelled' alone has an AUC of " in check.text
    assert "known only after the label's instant" in check.text
    allowed = GateSettings(feature_auc_max=1.0)
    assert leakage_check(allowed, names, columns, {"": positive}, everything).passed


def test_leakage_check_passes_what_is_learnt_honestly() -> None:
    """Noise, a strong feature, few rows of a class, and categories that most rows have alone."""
    columns, positive = columns_and_labels()
    columns[:, 1] += 2 * positive
    everything = np.ones(len(positive), dtype=np.bool_)
    assert strongest_column(columns, positive, everything) == (1, pytest.approx(0.92, abs=0.02))
    assert leakage_check(GateSettings(), tuple("abcd"), columns, {"": positive}, everything).passed
    # Forty values in sixty rows: their shares of positive rows would be those of single rows.
    few = np.arange(60)
    codes = (few % 40).astype(np.float32)[:, np.newaxis]
    labels = np.random.default_rng(1).random(60) < 0.5
    assert strongest_column(codes, labels, few >= 0)[1] < 0.8
    # Ten positive rows are told by chance.
    one = np.flatnonzero(positive)[10:]
    positive[one] = False
    columns[:, 0] = positive
    check = leakage_check(GateSettings(), tuple("abcd"), columns, {"": positive}, everything)
    assert check.passed
    assert "10 rows of one class" in check.text


def test_leakage_is_looked_for_in_the_rows_to_fit_on_only() -> None:
    """Fewer than a thousandth of many rows are positive, and all of them are looked at."""
    rows = 60_000
    positive = np.arange(rows) % 1_009 == 5
    columns = np.random.default_rng(2).random((rows, 2)).astype(np.float32)
    columns[positive, 1] = 2.0
    fitted = np.arange(rows) < 40_000
    assert strongest_column(columns, positive, fitted) == (1, 1.0)
    columns[:40_000, 1] = 0.0
    assert strongest_column(columns, positive, fitted)[1] < 0.7
