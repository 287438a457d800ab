"""Versions of recipes that leave negatives out, split by time, or choose their threshold."""

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest

from features.contract import ModelContract
from features.offline import Spine, TrainingSet
from host.clock import DAY_MS
from registry import scoring
from tests.training.population import PopulationStore, profile_labels, profile_recipe
from training.errors import GateFailedError
from training.labelled_rows import LabelledRows
from training.learner import Calibration, Learner, LearnerKind
from training.recipe import Capacity, Cost
from training.train import train_version

pytestmark = pytest.mark.walk


@pytest.mark.parametrize(
    ("kind", "calibration", "scaling"),
    [
        ("boosting", "none", "none"),
        ("boosting", "sigmoid", "none"),
        ("forest", "none", "none"),
        ("logistic", "none", "standard"),
    ],
)
def test_scores_are_corrected_for_negatives_that_were_left_out(
    kind: LearnerKind, calibration: Calibration, scaling: str
) -> None:
    """The served file itself is corrected: the mean score is the share of positive rows."""
    parameters = {"boosting": {"max_iter": 20}, "forest": {"n_estimators": 40, "max_depth": 4}}
    learner = Learner(
        kind=kind,
        parameters=parameters.get(kind, {}),
        calibration=calibration,
        scaling=scaling,  # type: ignore[arg-type]
    )
    # Train on a quarter of the negative rows.
    recipe = replace(profile_recipe(learner), negatives_share=0.25)
    labels = profile_labels()
    trained = train_version(recipe, PopulationStore(), labels)
    bundle = trained.bundle(author="ann", created_unix_ms=1)
    served = scoring.load_session(bundle).run(trained.rows)[:, 0]
    assert served.tobytes() == trained.scores.tobytes()
    assert trained.parity.passed
    judged = trained.held_out
    assert served[judged].mean() == pytest.approx(labels.positive[judged].mean(), abs=0.05)
    # scikit-learn's model knows its own rows only, of which more are positive.
    from training.learners.fit import FittedClassifier

    assert isinstance(trained.model, FittedClassifier)
    learnt = trained.model.estimator.predict_proba(trained.rows[judged])[:, 1]
    assert learnt.mean() > labels.positive[judged].mean() + 0.1
    card = json.loads(trained.files["card.json"])
    assert card["negatives_share"] == 0.25
    assert card["data"]["fitted_rows"] < (~judged).sum()
    assert card["data"]["rows"] == len(labels)
    reference = json.loads(trained.files["reference.json"])
    assert sum(reference["features"][0]["counts"]) == (~judged).sum(), "features are as they are"


def test_trees_are_corrected_without_another_node() -> None:
    """The shift is in the trees' base value, so gateways score them as any others."""
    recipe = profile_recipe(Learner(kind="boosting", parameters={"max_iter": 3}))
    files = train_version(recipe, PopulationStore(), profile_labels()).files
    fewer = replace(recipe, negatives_share=0.5)
    corrected = train_version(fewer, PopulationStore(), profile_labels()).files
    assert "negatives_share" not in json.loads(files["card.json"])
    plain, shifted = (
        [node.op_type for node in onnx.load_model_from_string(made["model.onnx"]).graph.node]
        for made in (files, corrected)
    )
    assert plain == shifted == ["TreeEnsembleRegressor", "Sigmoid"]


@pytest.mark.parametrize(
    "threshold", [Capacity(share=0.1), Cost(false_positive=1.0, false_negative=9.0)]
)
def test_threshold_that_was_chosen_is_in_every_file(threshold: Capacity | Cost) -> None:
    """Reference and card have the number, and the metrics are at it."""
    recipe = replace(profile_recipe(Learner(kind="logistic")), threshold=threshold)
    recipe = replace(recipe, learner=Learner(kind="logistic", scaling="standard"))
    trained = train_version(recipe, PopulationStore(), profile_labels())
    card = json.loads(trained.files["card.json"])
    assert card["threshold"] == trained.threshold
    assert card["threshold_by"] == threshold.definition()
    assert json.loads(trained.files["reference.json"])["decision_threshold"] == trained.threshold
    rate = (trained.scores[trained.held_out] >= trained.threshold).mean()
    assert card["metrics"]["selection_rate"]["value"] == pytest.approx(rate)
    if isinstance(threshold, Capacity):
        assert 0.09 < rate <= 0.1
    else:
        assert trained.threshold < 0.3, "a miss costs nine times as much"


def test_split_by_time_is_in_the_card() -> None:
    """No row of the gap is judged, and none is fitted on."""
    rows = profile_labels()
    labels = LabelledRows(
        ids=rows.ids,
        as_of_ms=1_700_000_000_000 + np.arange(len(rows)) * DAY_MS,
        positive=rows.positive,
    )
    recipe = profile_recipe(Learner(kind="boosting", parameters={"max_iter": 10}))
    recipe = replace(recipe, held_out_days=300.0, gap_days=30.0)
    trained = train_version(recipe, PopulationStore(), labels)
    data = json.loads(trained.files["card.json"])["data"]
    assert (data["held_out_rows"], data["gap_rows"], data["gap_days"]) == (300, 30, 30.0)
    assert "held_out_share" not in data
    assert data["split"] == "the newest days of the labels, after a gap"
    assert trained.held_out[-300:].all()
    assert not trained.held_out[:-300].any()


def test_gate_names_a_feature_that_is_the_label() -> None:
    """Charges that are written after a customer has left tell who left."""
    rows = profile_labels()
    labels = LabelledRows(
        ids=rows.ids,
        as_of_ms=rows.as_of_ms,
        positive=np.array([int(item[1:]) for item in rows.ids["subscriber"]]) % 2 == 0,
    )
    store = PopulationStore()
    recipe = profile_recipe(Learner(kind="logistic", parameters={"max_iter": 2_000}))

    class LeakingStore(PopulationStore):
        """A store whose charges are written after the customer has left."""

        def training_set(
            self, contract: ModelContract, spine: Spine, *, with_known: bool = False
        ) -> TrainingSet:
            """The features, with charges that tell the label."""
            found = store.training_set(contract, spine, with_known=with_known)
            if "profile:charges" in contract.names:
                left = np.array([int(item[1:]) for item in spine.ids["subscriber"]]) % 2 == 0
                found.values[:, contract.names.index("profile:charges")] += 200 * left
            return found

    with pytest.raises(GateFailedError, match=r"'profile:charges' alone has an AUC of 1\.0000"):
        train_version(recipe, LeakingStore(), labels)
    meant = replace(recipe, gate=replace(recipe.gate, feature_auc_max=1.0))
    assert train_version(meant, LeakingStore(), labels).metrics["auc"].value == pytest.approx(1.0)
