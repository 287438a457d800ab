"""What a version's own files say of its scores and inputs."""

import json
from dataclasses import replace

import numpy as np
import pytest

from monitoring.looks.day_looks import DayOfVersion, facts_of_bundle
from monitoring.looks.watched_version import SCORE_STREAM, watched_version
from registry.bundle import seal_files, verify_bundle
from registry.watching.policy import MonitoringPolicy
from stats.alarms.budget import FEATURES, SCORE
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
