"""Tests of proposed monitoring policies: readable, with reasons, and open about what is unknown."""

import tomllib
from typing import Any

import pytest

from project.definitions import ProjectDefinitions
from project.errors import ProjectError
from registry.watching.policy_reader import read_monitoring_policy
from turnout.policy_suggestion.suggestion import policy_table, policy_toml, suggest_policy

VIEW = {
    "canonical": {
        "features": [
            {"name": "contract", "dictionary": ["Month-to-month", "Two year", "other"]},
            {"name": "charges", "dictionary": []},
        ]
    }
}
RECIPE = {
    "model": "churn",
    "setting": "small",
    "label": "churned",
    "labels": "churned",
    "features": [{"view": "usage", "features": ["contract", "charges"]}],
    "audit": [{"view": "protected", "features": ["age"]}],
}
REFERENCE = {
    "features": [
        {"name": "charges", "edges": [10.0, 20.0, 30.0], "counts": [30, 40, 20, 10], "rows": 100}
    ]
}
CARD = {"metrics": {"auc": {"value": 0.8, "low": 0.76, "high": 0.84}}}


def project(tier: str = "standard", labels: dict[str, Any] | None = None) -> ProjectDefinitions:
    """Return a project with one model."""
    return ProjectDefinitions(
        name="shop",
        views={"usage": VIEW, "protected": VIEW},
        labels={"churned": labels or {}},
        recipes={"churn/small": RECIPE},
        models={"churn": {"tier": tier}},
    )


def test_proposal_is_toml_that_reads_as_the_same_policy() -> None:
    """A person can put it into the file as it is."""
    values = suggest_policy(project(), "churn", CARD, REFERENCE)
    written = tomllib.loads(policy_toml(values))["monitoring"]
    policy = read_monitoring_policy(written)
    assert policy == read_monitoring_policy(policy_table(values))
    assert policy.sensitive == ("protected",)
    assert policy.segments["charges"].ranges["middle"] == (10.0, 20.0)
    assert policy.segments["contract"].categories == {
        "month_to_month": ("Month-to-month",),
        "two_year": ("Two year",),
        "part_2": ("other",),
    }
    assert policy.harm.auc_drop == pytest.approx(0.041)
    assert policy.act_on("auc") == "retrain"


def test_horizon_is_that_of_the_labels_or_said_to_be_unknown() -> None:
    """A number that nobody gave stands out."""
    known = suggest_policy(project(labels={"horizon_days": 45.5}), "churn", None, None)
    assert policy_table(known)["outcomes"]["churned"]["horizon"] == "46d"
    unknown = policy_toml(suggest_policy(project(), "churn", None, None))
    assert 'horizon = "30d"  # NOT KNOWN' in unknown


def test_critical_model_keeps_every_decision_and_goes_back() -> None:
    """By its tier in the project."""
    table = policy_table(suggest_policy(project("critical"), "churn", None, None))
    assert table["decisions"] == "all"
    assert table["acts"]["calibration"] == "rollback"


@pytest.mark.parametrize(
    "bins",
    [
        {},
        {"name": "charges", "edges": [], "counts": []},
        {"name": "charges", "edges": [5.0], "counts": [0, 0]},
        {"name": "charges", "edges": [5.0], "counts": [90, 10]},
    ],
)
def test_reference_that_cannot_be_cut_gives_no_segment(bins: dict[str, Any]) -> None:
    """A constant or empty reference has no thirds."""
    table = policy_table(suggest_policy(project(), "churn", CARD, {"features": [bins]}))
    assert set(table["segments"]) == {"contract"}


def test_unknown_model_is_refused() -> None:
    """With the models that there are."""
    with pytest.raises(ProjectError, match="it has churn"):
        suggest_policy(project(), "chrn", None, None)
