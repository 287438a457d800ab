"""Explanations of trees and linear models add up to the score, whatever stands around the sum."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from itertools import chain, combinations
from math import factorial

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from features.contract import ModelContract
from registry.explanation.errors import NotExplainedError
from registry.explanation.explainer import ADDITIVE_MAX, VersionExplainer
from tests.registry.explanation.versions import explainer_of, total, version_files
from tests.training.learners.fits import BOOSTED, FOREST, LOGISTIC, fitted, rows_of
from tests.training.population import ALL_COLUMNS
from training.learner import Learner
from training.learners.fitted import TargetTask

TRAINED = 600
"""Rows that the small learners are fitted on."""


@cache
def version(
    kind: str, task: TargetTask = "binary", *, missing: bool = False, negatives_share: float = 1.0
) -> tuple[VersionExplainer, NDArray[np.float32]]:
    """The explainer of a small version, and rows that it was not fitted on."""
    files, rows = small_files(kind, task, missing=missing, negatives_share=negatives_share)
    return explainer_of(files), rows[TRAINED:]


def small_files(
    kind: str,
    task: TargetTask = "binary",
    *,
    missing: bool = False,
    negatives_share: float = 1.0,
    background: int = 100,
    threshold: float = 0.5,
    more: Mapping[str, bytes] | None = None,
) -> tuple[dict[str, bytes], NDArray[np.float32]]:
    """The files of a small version, and all rows."""
    graph = small_graph(kind, task, missing=missing, negatives_share=negatives_share)
    outputs = ("low", "middle", "high") if task == "multiclass" else ("churn",)
    contract = replace(ALL_COLUMNS, outputs=outputs)
    rows = rows_of(missing=missing)
    named = with_contract(graph, contract)
    files = version_files(
        named,
        rows[:TRAINED],
        contract,
        task=task,
        background=background,
        threshold=threshold,
        more=more,
    )
    return files, rows


@cache
def small_graph(kind: str, task: TargetTask, *, missing: bool, negatives_share: float) -> bytes:
    """The graph of a small learner."""
    learners = {**BOOSTED, "forest": FOREST, "logistic": LOGISTIC, "ridge": RIDGE}
    return fitted(learners[kind], task, missing=missing, negatives_share=negatives_share)[1]


RIDGE = Learner.estimator("sklearn.linear_model.Ridge")


def with_contract(graph: bytes, contract: ModelContract) -> bytes:
    """The graph with the hash of *contract* in its metadata."""
    model = onnx.load_model_from_string(graph)
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {"turnout.contract": contract.model_contract})
    return bytes(model.SerializeToString())


@pytest.mark.parametrize(
    ("kind", "task", "unit"),
    [
        ("boosting", "binary", "log-odds"),
        ("boosting", "multiclass", "log-odds"),
        ("boosting", "regression", "value"),
        ("forest", "binary", "probability"),
        ("forest", "regression", "value"),
        ("logistic", "binary", "log-odds"),
        ("logistic", "multiclass", "log-odds"),
        ("ridge", "regression", "value"),
    ],
)
def test_explanation_adds_up_to_the_score(kind: str, task: TargetTask, unit: str) -> None:
    """Base and contributions make the margin, and the margin makes the score that is served."""
    explainer, rows = version(kind, task)
    assert explainer.space == unit
    for row in rows[:20]:
        scores = explainer.score(row[np.newaxis])[0]
        for output, score in enumerate(scores.tolist()):
            explained = explainer.explain(row, output, score)
            margin = explained.base + total(explained.contributions)
            assert margin == pytest.approx(explained.margin, abs=1e-9)
            if task == "binary" and unit == "log-odds":
                assert score == pytest.approx(1 / (1 + np.exp(-margin)), abs=1e-6)
            if task != "multiclass" and unit != "log-odds":
                assert score == pytest.approx(margin, rel=1e-5, abs=ADDITIVE_MAX)


@pytest.mark.parametrize("kind", ["boosting", "forest", "logistic"])
def test_contributions_are_the_shapley_values_of_the_served_graph(kind: str) -> None:
    """By the definition: all coalitions of inputs, each scored by ONNX Runtime."""
    explainer, rows = version(kind)
    row, background = rows[3], explainer.background.rows
    columns = range(len(row))
    worth = {}
    for coalition in chain.from_iterable(combinations(columns, n) for n in range(len(row) + 1)):
        mixed = background.copy()
        mixed[:, list(coalition)] = row[list(coalition)]
        scores = explainer.score(mixed)[:, 0].astype(np.float64)
        margins = scores if explainer.space == "probability" else np.log(scores / (1 - scores))
        worth[coalition] = margins.mean()
    found = {item.name: item.contribution for item in explainer.explain(row).contributions}
    for column, name in enumerate(explainer.bundle.contract.names):
        value = 0.0
        for coalition in worth:
            if column not in coalition:
                size = len(coalition)
                share = factorial(size) * factorial(len(row) - size - 1) / factorial(len(row))
                value += share * (worth[tuple(sorted((*coalition, column)))] - worth[coalition])
        assert found[name] == pytest.approx(value, abs=5e-6)


def test_missing_values_are_explained() -> None:
    """NaN goes where the tree sends it, in the row and in the background."""
    explainer, rows = version("boosting", missing=True)
    incomplete = rows[np.isnan(rows).any(axis=1)][:20]
    for row in incomplete:
        explainer.explain(row, 0, float(explainer.score(row[np.newaxis])[0, 0]))


def test_share_of_negatives_shifts_the_log_odds() -> None:
    """The correction of the odds is a part of the base, and no input's contribution."""
    (plain, rows), (corrected, _) = version("boosting"), version("boosting", negatives_share=0.5)
    before, after = plain.explain(rows[0]), corrected.explain(rows[0])
    assert after.base - before.base == pytest.approx(np.log(0.5), abs=1e-6)
    assert [item.contribution for item in after.contributions] == pytest.approx(
        [item.contribution for item in before.contributions]
    )


def test_share_of_negatives_is_a_map_behind_a_forest() -> None:
    """A corrected probability of a forest is no sum: the forest's own is explained."""
    explainer, rows = version("forest", negatives_share=0.5)
    explained = explainer.explain(rows[0])
    learnt = explained.margin
    assert explained.score == pytest.approx(learnt / (learnt + (1 - learnt) / 0.5), abs=1e-6)


def test_score_that_was_not_this_row_is_refused() -> None:
    """A journal that holds another row than was scored is found out."""
    explainer, rows = version("boosting")
    score = float(explainer.score(rows[:1])[0, 0])
    with pytest.raises(NotExplainedError, match=r"scores this row .* and .* was served"):
        explainer.explain(rows[0], 0, score + 0.01)


def test_contributions_that_do_not_add_up_are_refused() -> None:
    """A mistake in a weight of a leaf is refused, and never rounded away."""
    explainer = explainer_of(small_files("boosting")[0])
    rows = rows_of(missing=False)[TRAINED:]
    explainer.explain(rows[0])
    trees = explainer._trees
    assert trees is not None
    trees._paths.weight[:] *= 1.01
    for row in rows[:20]:
        with pytest.raises(NotExplainedError, match="no explanation of it"):
            explainer.explain(row)


def test_version_without_a_background_is_compared_with_medians() -> None:
    """The one row is the median of each input, as training's own rows have it."""
    files, rows = small_files("boosting", background=0)
    explainer = explainer_of(files)
    assert explainer.background.origin == "medians"
    medians = np.quantile(rows[:TRAINED], 0.5, axis=0, method="inverted_cdf")
    np.testing.assert_array_equal(explainer.background.rows[0], medians)
    explained = explainer.explain(rows[TRAINED])
    assert explained.base == pytest.approx(
        explainer.explain(explainer.background.rows[0]).margin, abs=1e-9
    )


def test_explanation_id_names_version_background_and_method() -> None:
    """Another background gives other contributions, and another id."""
    one, other = (small_files("boosting", background=count)[0] for count in (100, 90))
    assert explainer_of(one).explanation_id == explainer_of(one).explanation_id
    assert explainer_of(one).explanation_id != explainer_of(other).explanation_id


def test_score_that_is_not_finite_is_refused() -> None:
    """A logistic model has no score for a missing value."""
    explainer, rows = version("logistic")
    row = rows[0].copy()
    row[0] = np.nan
    with pytest.raises(NotExplainedError, match="nan, which nothing explains"):
        explainer.explain(row)


def test_probability_that_float32_cannot_resolve_is_compared_as_a_score() -> None:
    """A logistic operator gives 1e-7 to 6e-8 only; its log-odds are allowed to be as inexact."""
    explainer, rows = version("logistic")
    row = rows[0].copy()
    for tenure in (250.0, 300.0, 500.0):
        row[0] = tenure
        explained = explainer.explain(row)
        assert explained.score < 1e-4
        assert explained.margin < -9
