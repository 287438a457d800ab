"""Audited features are read from a real store, and rows without a value are their own group."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from features.contract import ViewUse
from features.offline import OfflineStore
from features.pushed import PushedRow
from tests.training.population import VIEW, profile_recipe
from training.audit import fairness_report
from training.labelled_rows import LabelledRows
from training.learner import Learner
from training.tasks.binary import BinaryOutcomes

pytestmark = pytest.mark.walk

NOW_MS = 1_800_000_000_000
IDS = [f"S{number:05d}" for number in range(600)]


def test_each_value_is_compared_and_unknown_is_a_group(tmp_path: Path) -> None:
    """A text that the dictionary lacks, an absent value and an absent row are all unknown."""
    # Every fifth row has a plan that the dictionary lacks, every fifth none; 30 ids have no row.
    store = OfflineStore(tmp_path)
    rows = []
    for number, item in enumerate(IDS[:-30]):
        plan = ("month", "year", "two", "weekly", None)[number % 5]
        tenure = None if number % 10 == 0 else float(number % 70)
        values = {"tenure": tenure, "charges": 1.0, "plan": plan, "senior": 0.0}
        rows.append(PushedRow((item,), NOW_MS, values))
    store.append_pushed(VIEW, rows, created_ms=NOW_MS)
    # The model itself reads neither the plan nor the bands.
    recipe = replace(
        profile_recipe(Learner(kind="logistic")),
        audit=(ViewUse(view=VIEW, features=("plan", "tenure")),),
        audit_bands={"tenure": (12.0, 36.0)},
    )
    labels = LabelledRows(
        ids={"subscriber": IDS},
        as_of_ms=np.full(len(IDS), NOW_MS, dtype=np.int64),
        positive=np.arange(len(IDS)) % 3 == 0,
    )
    outcomes, scores = BinaryOutcomes(recipe, labels), np.full((len(IDS), 1), 0.9)
    report = fairness_report(
        recipe,
        store,
        labels,
        lambda attribute: outcomes.compare_groups(attribute, scores, threshold=0.5),
    )
    assert list(report) == ["profile:plan", "profile:tenure"]
    counts = {
        name: {group["value"]: group["counts"]["member"]["rows"] for group in item["groups"]}
        for name, item in report.items()
    }
    assert counts["profile:plan"] == {"month": 114, "year": 114, "two": 114, None: 258}
    # 57 of the rows have no tenure, and 30 ids no row.
    assert counts["profile:tenure"][None] == 87
    assert list(counts["profile:tenure"]) == ["below 12", "12 to below 36", "36 and above", None]
    assert sum(counts["profile:tenure"].values()) == 600
