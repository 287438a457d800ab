"""What people see of the tasks: metrics with their unit, scores by name, and the client's code."""

import re

import pytest

from tests.training.tasks.rows import task_recipe
from tests.turnout.views.test_views import rendered
from training.recipe import Task
from turnout.commands.projects.first_hour import client_code
from turnout.views.cards import change_summary, fairness_lines, metric_lines
from turnout.views.scores import score_text

SPEND = {
    "data": {"values": {"unit": "EUR", "mean": 40.0}},
    "metrics": {
        "mae": {"value": 12.3456, "low": 11.0, "high": 13.0},
        "rmse": {"value": 12_345.6, "low": 11_000.0, "high": 13_000.0},
        "r2": {"value": 0.5, "low": 0.4, "high": 0.6},
        "bias": {"value": None, "low": None, "high": None},
        "note": "by hand",
    },
}


def test_metrics_of_values_have_their_unit() -> None:
    """R2 has none. A card's author may have written anything."""
    assert metric_lines(SPEND, places=2) == {
        "mae": "12.35 [11.00, 13.00] EUR",
        "rmse": "12,346 [11,000, 13,000] EUR",
        "r2": "0.50 [0.40, 0.60]",
        "bias": "-",
        "note": "by hand",
    }
    assert metric_lines({"metrics": 7, "data": []}) == {}


def test_classes_and_thresholds_are_shown_to_an_approver() -> None:
    """A class has its own name, and a threshold is shown where callers act from one on."""
    card = {"task": "multiclass", "threshold": 0.5, "metrics": {"recall.data_pack": 0.7}}
    shown = rendered(change_summary({**card, "data": {"held_out_rows": 9}}))
    assert "metrics: recall.data_pack" in shown
    assert "data: held out rows" in shown
    assert "threshold" not in shown
    assert re.search(r"threshold +0\.125", rendered(change_summary({"threshold": 0.125})))


def test_errors_of_groups_are_shown_to_an_approver() -> None:
    """The gap is beside the verdict, as ratios of decisions are."""
    gap = {"value": -5.0, "low": -6.0, "high": -4.0}
    groups = [
        {
            "value": "north",
            "counts": {"member": {"rows": 200}},
            "mean_error_gap": gap,
            "verdict": "outside band",
        }
    ]
    lines = fairness_lines({"p:region": {"groups": groups, "verdict": "outside band"}})
    shown = lines["fairness: p:region = north"]
    assert shown == "outside band, 200 rows, mean error gap -5.000 [-6.000, -4.000]"


def test_scores_have_names_where_there_are_several() -> None:
    """One score needs none, and thousands need no four places."""
    assert score_text([0.25], ["churned"]) == "0.2500"
    assert score_text([12_345.678], ["spend"]) == "12,345.68"
    assert score_text([0.2, 0.8], ["stay", "leave"]) == "stay 0.2000, leave 0.8000"
    assert score_text([0.2, 0.8], []) == "0.2000 0.8000"


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ("binary", "client.predict(\"churn\", keys='S1')"),
        ("regression", "print(prediction.scores[0][0], prediction.version)"),
        ("multiclass", "zip(['stay', 'upgrade', 'leave'], prediction.scores[0])"),
        ("ranking", "best = max(range(len(offers)), key=lambda row: prediction.scores[row][0])"),
        ("anomaly", "prediction.scores[0][0]"),
    ],
)
def test_client_code_uses_the_scores_by_the_task(task: Task, expected: str) -> None:
    """It is Python, with and without inputs and several ids."""
    recipe = task_recipe(task)
    code = client_code("127.0.0.1:1", recipe, ("S1",), {})
    assert expected in code
    for keys, inputs in (
        (("S1",), {"amount": 2.0}),
        (("S1", "O2"), {}),
        (("S1", "O2"), {"a": "b"}),
    ):
        compile(client_code("127.0.0.1:1", recipe, keys, inputs), task, "exec")
