"""The worth of a model by segment, and no number of a broken holdout."""

import json
from collections.abc import Iterator

import numpy as np
import pytest

from monitoring.jobs.uplift import BusinessSettings, SegmentCustomers, model_uplift
from stats.uplift.effect import HoldoutBins, bins_of_customers
from stats.uplift.holdout import HoldoutCounts

INTACT = HoldoutCounts(controls=2_000, treated=18_000, share=0.1)


def draw_segment(seed: int, n: int = 20_000, value: float = 1.0) -> HoldoutBins:
    """Return customers of whom 10 % have the outcome, and 4 points more if they are acted on."""
    generator = np.random.default_rng(seed)
    holdout = generator.random(n) < 0.1
    happened = generator.random(n) < np.where(holdout, 0.10, 0.14)
    outcomes = happened.astype(np.float64) * value
    return bins_of_customers(generator.random(n).round(2), holdout, outcomes)


def values_of(node: object) -> Iterator[object]:
    """Yield every "value", "low" and "high" in JSON values."""
    if isinstance(node, dict):
        for name, content in node.items():
            if name in {"value", "low", "high"}:
                yield content
            else:
                yield from values_of(content)
    elif isinstance(node, list):
        for content in node:
            yield from values_of(content)


def test_segments_have_effect_money_and_curve() -> None:
    """Money is of the customers out of the holdout, less what the acts cost."""
    bins = draw_segment(1)
    customers = SegmentCustomers(bins, acts=5_000, acted=4_500)
    settings = BusinessSettings(value=50.0, cost=1.5)
    found = model_uplift({"": customers, "north": customers}, INTACT, settings, seed=1)
    total = found.segments[""]
    effect, low, high = total.effect.bounds()
    assert low <= 0.04 <= high
    treated = float(bins.treated.sum())
    assert total.money.value == pytest.approx(effect * treated * 50.0 - 7_500.0)
    assert total.effect_of_an_act.value == pytest.approx(effect * treated / 4_500)
    assert total.conversion["treated"].value == pytest.approx(0.14, abs=0.01)
    assert found.segments["north"] == total
    assert json.loads(json.dumps(found.definition()))["holdout"]["intact"] is True


def test_broken_holdout_shows_no_number_at_all() -> None:
    """Neither an effect, nor money, nor a conversion, nor a curve, in any segment."""
    broken = HoldoutCounts(controls=2_000, treated=18_000, share=0.1, acted_controls=40)
    customers = SegmentCustomers(draw_segment(2), acts=5_000, acted=4_500)
    found = model_uplift({"": customers}, broken, BusinessSettings(value=50.0), seed=1)
    definition = json.loads(json.dumps(found.definition()))
    assert set(values_of(definition["segments"])) == {None}
    assert definition["segments"][""]["conversion"] == {}
    assert "40 of its 2000 customers were acted on" in found.segments[""].money.lacking


def test_what_nobody_states_has_its_own_sentence() -> None:
    """Without a value there is no money, and without reports of acts no effect of one."""
    customers = SegmentCustomers(draw_segment(3))
    total = model_uplift({"": customers}, INTACT, BusinessSettings(), seed=1).segments[""]
    assert total.money.lacking == "the policy states no value of the outcome"
    assert total.effect_of_an_act.lacking == "nobody reports on whom somebody acted"
    amounts = SegmentCustomers(draw_segment(4, value=30.0))
    values = model_uplift({"": amounts}, INTACT, BusinessSettings(), seed=1).segments[""]
    assert values.effect.known
    assert values.conversion == {}
    one = SegmentCustomers(draw_segment(5, n=1))
    lacking = model_uplift({"": one}, INTACT, BusinessSettings(value=1.0), seed=1).segments[""]
    assert lacking.effect.value is None
    assert lacking.money.lacking == lacking.effect.lacking
