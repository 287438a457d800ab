"""What a version's own files say of its scores and inputs."""

import json
from dataclasses import replace

import numpy as np
import pytest

from monitoring.jobs.look import budget_of_version
from monitoring.looks.day_looks import DayOfVersion, facts_of_bundle
from monitoring.looks.watched_version import SCORE_STREAM, watched_version
from registry.bundle import seal_files, verify_bundle
from registry.watching.policy import MonitoringPolicy
from stats.alarms.budget import FEATURES, SCORE, Cadence
from tests.monitoring.watch.virtual_days import FIRST_DAY
from tests.registry.explanation.versions import version_files
from tests.tiny_models import linear_model, tiny_contract


def day_of(outputs: tuple[str, ...], task: str) -> DayOfVersion:
    """Return a day of a version that was fitted on 400 rows, of which 40 lack an input."""
    contract = tiny_contract(outputs=outputs)
    rows = np.random.default_rng(7).random((400, 3), dtype=np.float32)
    rows[:40, 1] = np.nan
    weights = np.random.default_rng(8).random((3, len(outputs)), dtype=np.float32)
    metadata = {"turnout.contract": contract.model_contract}
    onnx = linear_model(3, weights=weights, metadata=metadata)
    clean = np.nan_to_num(rows)
    files = version_files(onnx, clean, contract, task=task)
    reference = json.loads(files["reference.json"])
    reference["features"][1] |= {"missing": 40}
    files["reference.json"] = json.dumps(reference).encode()
    sealed = seal_files(files, model="churn", author="ann", created_unix_ms=1)
    facts = facts_of_bundle("7", verify_bundle(sealed, trusted_key=None))
    return DayOfVersion(facts=facts, policy=MonitoringPolicy(), day=FIRST_DAY, shadow=False)


@pytest.mark.parametrize(
    ("outputs", "task"),
    [(("churned",), "binary"), (("stay", "leave", "upgrade"), "multiclass")],
)
def test_the_score_has_the_training_rows_of_all_outputs(
    outputs: tuple[str, ...], task: str
) -> None:
    """Each row is counted once, in the bins of its predicted output."""
    day = day_of(outputs, task)
    values = {value.name: value for value in watched_version(day).values}
    assert {name: value.group for name, value in values.items()} == {
        SCORE_STREAM: SCORE,
        "f0": FEATURES,
        "f1": FEATURES,
        "f2": FEATURES,
    }
    assert values[SCORE_STREAM].reference.rows == 400
    assert len(values[SCORE_STREAM].reference.counts) == day.facts.scale.size
    assert values["f1"].reference.missing == 40


def test_a_version_without_counts_has_no_reference() -> None:
    """Releases that stored edges only cannot be compared, and nothing is made up."""
    day = day_of(("churned",), "binary")
    features = day.facts.reference["features"]
    bare = {
        "score": {"edges": day.facts.reference["score"]["edges"]},
        "features": [{"name": item["name"], "edges": item["edges"]} for item in features],
    }
    older = replace(day, facts=replace(day.facts, reference=bare))
    assert {value.reference.rows for value in watched_version(older).values} == {0}


def test_features_share_their_part_of_the_budget_by_importance() -> None:
    """An input that moves scores more has a lower threshold; the score has its own part."""
    day = day_of(("churned",), "binary")
    card = {**day.facts.card, "importances": {"f0": 0.3, "f1": 0.1, "f2": 0.0}}
    weighed = replace(day, facts=replace(day.facts, card=card))
    parts = [budget_of_version(watched_version(item)).detectors for item in (day, weighed)]
    equal, by_importance = (
        [part[name, Cadence.DAILY].alarms_max for name in ("f0", "f1", "f2")] for part in parts
    )
    assert equal == pytest.approx([equal[0]] * 3)
    assert by_importance[0] == pytest.approx(3 * by_importance[1])
    assert 0.0 < by_importance[2] < 0.02 * by_importance[1]
    assert sum(by_importance) == pytest.approx(sum(equal))
    assert parts[0][SCORE_STREAM, Cadence.DAILY] == parts[1][SCORE_STREAM, Cadence.DAILY]


@pytest.mark.parametrize(
    "importances",
    [None, [1, 2, 3], {"f0": 1.0, "f1": 1.0}, {"f0": 1.0, "f1": -1.0, "f2": 1.0}, {"f0": "much"}],
)
def test_features_have_equal_parts_where_the_card_does_not_say_it_of_all(
    importances: object,
) -> None:
    """A card is what its author wrote, and a version of an earlier release has none."""
    day = day_of(("churned",), "binary")
    card = {**day.facts.card, "importances": importances}
    watched = watched_version(replace(day, facts=replace(day.facts, card=card)))
    assert {value.importance for value in watched.values} == {1.0}
