"""Tests of training with on-demand features: one file, whose nodes made the training matrix too."""

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest

from features.contract import ModelContract, RequestInput
from registry.bundle import verify_bundle
from registry.scoring import golden_test, load_session
from tests.training.population import PopulationStore, profile_labels, profile_recipe
from training.errors import RecipeError
from training.export.on_demand_graph import COLUMNS, on_demand_front
from training.labelled_rows import LabelledRows
from training.learner import Learner
from training.on_demand import OnDemand
from training.recipe import Recipe
from training.train import train_version

pytestmark = pytest.mark.walk  # models are fitted

TOP_UP = RequestInput(name="last_topup", default=0.0)
AMOUNT = RequestInput(name="amount", default=0.0)
FEATURES = (
    OnDemand(name="days_quiet", expression="(now - last_topup * 86400) / 86400", default=0.0),
    OnDemand(name="share", expression="amount / charges", default=0.0),
    OnDemand(name="large", expression="amount > 5 and tenure < 20"),
    OnDemand(name="capped", expression="clip(log1p(amount), 0, 2)", default=0.0),
    OnDemand(name="unknown", expression="is_missing(amount / 0)"),
)
DAY_MS = 86_400_000
GATE = profile_recipe(Learner(kind="boosting")).gate


def recipe(kind: str = "boosting", parameters: dict[str, int] | None = None) -> Recipe:
    """Stored features, two request inputs, and five features on demand."""
    learner = Learner(kind=kind, parameters=parameters or {"max_iter": 8})  # type: ignore[arg-type]
    return replace(
        profile_recipe(learner),
        inputs=(TOP_UP, AMOUNT),
        on_demand=FEATURES,
        withheld=("last_topup",),
        # The labels below are made from one of these features, which alone tells them.
        gate=replace(GATE, feature_auc_max=1.0),
    )


def labels() -> LabelledRows:
    """Return labels of two years: customers who did not top up for thirty days leave."""
    rows = profile_labels()
    generator = np.random.default_rng(5)
    quiet_days = generator.integers(0, 60, len(rows))
    as_of_ms = 1_700_000_000_000 + generator.integers(0, 730, len(rows)) * DAY_MS
    return LabelledRows(
        ids=rows.ids,
        as_of_ms=as_of_ms,
        positive=quiet_days > 30,
        inputs={
            "last_topup": (as_of_ms // DAY_MS - quiet_days).astype(np.float64),
            "amount": generator.uniform(0, 10, len(rows)),
        },
    )


@pytest.mark.parametrize(
    ("kind", "parameters"),
    [
        ("boosting", {"max_iter": 8}),
        ("forest", {"n_estimators": 5}),
        ("logistic", {"max_iter": 2_000}),
    ],
)
def test_training_and_the_version_run_the_same_nodes(kind: str, parameters: dict[str, int]) -> None:
    """The learner sees what the nodes in front of the served model compute; parity covers both."""
    base = recipe(kind, parameters)
    trained = train_version(base, PopulationStore(), labels())
    bundle = verify_bundle(trained.sealed(author="ada", created_unix_ms=1), trusted_key=None)
    # The contract has the inputs of a call and its time; golden rows go through the whole graph.
    assert bundle.contract.names[-4:] == ("last_topup", "amount", "now:day", "now:second")
    assert trained.rows.shape[1] == bundle.contract.width == 8
    session = load_session(bundle)
    assert golden_test(bundle, session) == 0.0
    assert trained.parity.passed
    from training.learners.fit import FittedClassifier

    assert isinstance(trained.model, FittedClassifier)
    assert trained.model.estimator.n_features_in_ == len(base.learner_columns) == 10
    assert base.learner_columns[-6:] == ("amount", *(feature.name for feature in FEATURES))
    # What the learner scores on the front's columns is what the file scores on model inputs.
    front = on_demand_front(base.contract.names, base.learner_inputs, base.on_demand_terms)
    by_learner = trained.model.outputs(front.columns(trained.rows))[:, 0]
    assert np.abs(by_learner - session.run(trained.rows)[:, 0]).max() < 1e-5
    if kind == "boosting":
        assert trained.metrics["auc"].value > 0.99
    # The card says what was computed.
    card = json.loads(trained.files["card.json"])
    assert card["on_demand"][0] == FEATURES[0].definition()
    assert card["learner_columns"] == list(base.learner_columns)
    # Its scores can be explained through the same nodes.
    assert card["explanation"]["possible"], card["explanation"]


def test_the_time_of_the_call_moves_the_score() -> None:
    """A caller who asks sixty days later gets the score of a customer who is quiet for longer."""
    base = recipe()
    trained = train_version(base, PopulationStore(), labels())
    bundle = verify_bundle(trained.sealed(author="ada", created_unix_ms=1), trusted_key=None)
    active = trained.rows[[int(np.argmin(trained.scores))]].repeat(2, axis=0)
    active[1, -2] += 60
    now, later = load_session(bundle).run(active)[:, 0]
    assert now < 0.4 < 0.6 < later


def test_one_file_holds_both_and_the_same_training_gives_the_same_bytes() -> None:
    """The tensor between both is named, for gateways that score the trees by themselves."""
    base = recipe()
    files = train_version(base, PopulationStore(), labels()).files
    assert files == train_version(base, PopulationStore(), labels()).files
    graph = onnx.load_model_from_string(files["model.onnx"]).graph
    assert [value.name for value in graph.input] == ["inputs"]
    assert [value.name for value in graph.value_info] == [COLUMNS]
    made_by = [index for index, node in enumerate(graph.node) if COLUMNS in node.output]
    assert [node.op_type for node in graph.node[made_by[0] + 1 :]] == [
        "TreeEnsembleRegressor",
        "Sigmoid",
    ]


def test_a_recipe_on_demand_survives_its_definition() -> None:
    """And recipes without have the definition that they had."""
    base = recipe()
    views = {use.view.view_hash: use.view for use in base.features}
    again = Recipe.from_definition(json.loads(json.dumps(base.definition())), views, {})
    assert again.definition() == base.definition()
    assert again.learner_columns == base.learner_columns
    contract = ModelContract.from_definition(base.contract.definition())
    assert contract == base.contract
    assert contract.request_time
    plain = profile_recipe(base.learner)
    assert plain.definition().keys().isdisjoint({"on_demand", "withheld", "inputs"})
    assert "request_time" not in plain.contract.definition()
    assert plain.contract.model_contract != base.contract.model_contract


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"withheld": ("profile.plan",)}, "'profile:plan' is withheld from the learner, and no"),
        ({"inputs": (TOP_UP, AMOUNT, RequestInput(name="now"))}, "named 'now', which is the"),
        ({"withheld": ("fee",)}, "`fee`: no such column"),
        ({"on_demand": FEATURES + FEATURES[:1]}, "'days_quiet' has the name of another column"),
        ({"on_demand": (OnDemand(name="amount", expression="amount"),)}, "'amount' has the name"),
        ({"on_demand": (OnDemand(name="x", expression="fee / 2"),)}, "'x' = 'fee / 2': `fee`: no"),
        (
            {"on_demand": tuple(OnDemand(name=f"x{i}", expression="amount") for i in range(65))},
            "65 on-demand features; the most is 64",
        ),
    ],
)
def test_recipes_that_contradict_themselves_are_refused(
    changes: dict[str, object], reason: str
) -> None:
    """The message names the recipe and the column."""
    with pytest.raises(RecipeError, match=reason) as refused:
        replace(recipe(), **changes)  # type: ignore[arg-type]  each has its type
    assert "recipe churn/test" in str(refused.value)


def test_a_learner_without_missing_values_needs_defaults() -> None:
    """A forest is refused before any data is read; a truth is never missing."""
    features = (*FEATURES, OnDemand(name="ratio", expression="amount / tenure"))
    base = replace(recipe("forest", {"n_estimators": 5}), on_demand=features)
    with pytest.raises(RecipeError, match=r"a forest fed NaN .* give \['ratio'\] a default"):
        train_version(base, PopulationStore(), labels())
