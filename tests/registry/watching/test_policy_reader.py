"""Tests of reading monitoring policies: strict, canonical, and the same from what they write."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.canonical import canonical_json
from registry.watching.policy import ACTS, KINDS, MonitoringPolicy
from registry.watching.policy_reader import (
    MonitoringPolicyError,
    check_policy_names,
    read_monitoring_policy,
)
from tests.property_examples import examples

OUTCOME = {"positive_when": ">= 1", "horizon": "30d"}
FULL: dict[str, Any] = {
    "owner": "churn-watch",
    "decisions": "all",
    "sensitive": ["protected"],
    "outcomes": {"churned": {**OUTCOME, "grace": "3d", "absent": "negative", "value": 120}},
    "segments": {
        "tenure": {
            "feature": "tenure_months",
            "ranges": {"new": [0, 12], "settled": [12, float("inf")]},
        },
        "contract": {
            "feature": "contract",
            "categories": {"monthly": ["month-to-month"], "fixed": ["one year", "two year"]},
        },
    },
    "harm": {"auc_drop": 0.05},
    "acts": {"auc": "retrain", "quality": "rollback"},
}


def test_full_policy_is_read() -> None:
    """Every key has its effect, and what is left out has its default."""
    policy = read_monitoring_policy(FULL)
    churned = policy.outcomes["churned"]
    assert (churned.horizon_s, churned.final_s) == (30 * 86_400, 33 * 86_400)
    assert [churned.is_positive(value) for value in (1.0, 0.5, float("nan"))] == [
        True,
        False,
        False,
    ]
    assert policy.keeps_all_decisions
    assert (policy.act_on("auc"), policy.act_on("quality"), policy.act_on("score")) == (
        "retrain",
        "rollback",
        "note",
    )
    assert (policy.harm.auc_drop, policy.harm.fairness_ratio) == (0.05, 0.8)


def test_rows_are_cut_into_disjoint_parts() -> None:
    """A range has its first end and not its second; what is in no part is "other"."""
    segments = read_monitoring_policy(FULL).segments
    values = (0.0, 11.9, 12.0, 1e9, -1.0, float("nan"))
    parts = [segments["tenure"].part_of(value) for value in values]
    assert parts == ["new", "new", "settled", "settled", "other", "other"]
    assert segments["contract"].part_of("two year") == "fixed"
    assert segments["contract"].part_of("prepaid") == "other"


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"outcome": {}}, "outcome is not known"),
        ({"outcomes": {"churned": {**OUTCOME, "horizon": "0d"}}}, "horizon = '0d'"),
        ({"outcomes": {"churned": {"positive_when": ">= 1"}}}, "horizon = None"),
        ({"outcomes": {"churned": {**OUTCOME, "horizon": "9999d"}}}, "3 years (1098d)"),
        ({"outcomes": {"churned": {**OUTCOME, "horizon": "999999999999d"}}}, "3 years (1098d)"),
        ({"outcomes": {"churned": {**OUTCOME, "absent": "no"}}}, "absent = 'no'"),
        ({"outcomes": {"churned": {**OUTCOME, "positive_when": "1"}}}, "'>= 1'"),
        ({"outcomes": {"churned": {**OUTCOME, "positive_when": "> nan"}}}, "'>= 1'"),
        ({"outcomes": {"churned": {**OUTCOME, "value": True}}}, "value = True"),
        ({"outcomes": {"churned": {**OUTCOME, "cost": -1}}}, "at least 0"),
        ({"segments": {"t": {"feature": "a", "ranges": {"x": [0, 9], "y": [8, 20]}}}}, "overlap"),
        ({"segments": {"t": {"feature": "a", "ranges": {"x": [3, 3]}}}}, "the first one"),
        ({"segments": {"t": {"feature": "a", "ranges": {}}}}, "0 parts"),
        (
            {"segments": {"t": {"feature": "a", "categories": {"x": ["u"], "y": ["u"]}}}},
            "'u' is in x and in y",
        ),
        ({"segments": {"t": {"feature": "a"}}}, "either ranges"),
        ({"segments": {"t": {"feature": "a", "ranges": {"other": [0, 1]}}}}, "in no part"),
        ({"harm": {"auc_drop": 0}}, "above 0"),
        ({"harm": {"auc_drop": 1.5}}, "at most 1"),
        ({"harm": {"group_people_min": 3}}, "fewer than 10"),
        ({"harm": {"group_people_min": 10.5}}, "whole number"),
        ({"acts": {"auc": "delete"}}, "acts.auc = 'delete'"),
        ({"acts": {"mood": "hold"}}, "acts.mood is not known"),
        ({"budget": 0}, "above 0"),
        ({"budget": float("nan")}, "budget = nan"),
        ({"decisions": 0}, "1 to"),
        ({"decisions": "some"}, "decisions = 'some'"),
        ({"sensitive": ["a", "a"]}, "twice"),
        ({"sensitive": "protected"}, "a list of names"),
        ({"owner": "a\nb"}, "one line"),
        ([], "it is a table"),
    ],
)
def test_wrong_policy_is_refused_in_words(table: object, words: str) -> None:
    """The text names the key first and says what it may be."""
    with pytest.raises(MonitoringPolicyError, match=r"\w") as refused:
        read_monitoring_policy(table)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("outcomes", "features", "views", "words"),
    [
        (("stayed",), {}, ("protected",), "its recipes learn stayed"),
        (("churned",), {}, ("usage",), "sensitive names the view 'protected'"),
        ((), {"contract": True}, ("protected",), "the model's features are contract"),
        (
            (),
            {"contract": True, "tenure_months": True},
            ("protected",),
            "'tenure_months' is a category",
        ),
    ],
)
def test_names_that_the_project_lacks_are_refused(
    outcomes: tuple[str, ...], features: dict[str, bool], views: tuple[str, ...], words: str
) -> None:
    """A misspelt outcome, view or feature would be without effect."""
    with pytest.raises(MonitoringPolicyError) as refused:
        check_policy_names(
            read_monitoring_policy(FULL), outcomes=outcomes, features=features, views=views
        )
    assert words in str(refused.value)
    good = {"contract": True, "tenure_months": False}
    check_policy_names(
        read_monitoring_policy(FULL), outcomes=("churned",), features=good, views=("protected",)
    )


names = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True).filter(lambda name: name != "other")
outcomes = st.fixed_dictionaries(
    {
        "positive_when": st.sampled_from(["any", ">= 1", "< -0.25", "=  3"]),
        "horizon": st.integers(1, 1_000).map(lambda days: f"{days}d"),
        "absent": st.sampled_from(["negative", "unknown"]),
        "value": st.floats(-1e9, 1e9),
    }
)
cuts = st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=6, unique=True).map(sorted)
tables = st.fixed_dictionaries(
    {
        "decisions": st.one_of(st.just("all"), st.integers(1, 10**9)),
        "outcomes": st.dictionaries(names, outcomes, max_size=3),
        "segments": st.dictionaries(
            names,
            st.builds(
                lambda feature, ends: {
                    "feature": feature,
                    "ranges": {
                        f"r{n}": [low, high] for n, (low, high) in enumerate(pairwise(ends))
                    },
                },
                names,
                cuts,
            ),
            max_size=3,
        ),
        "acts": st.dictionaries(st.sampled_from(sorted(KINDS)), st.sampled_from(ACTS)),
    }
)


@examples(100)
@given(tables)
def test_definition_is_read_as_the_same_policy(table: dict[str, Any]) -> None:
    """What a policy writes, as canonical JSON, is the policy again: to the last digit."""
    policy = read_monitoring_policy(table)
    written = canonical_json(policy.definition())
    again = read_monitoring_policy(json.loads(written))
    assert again == policy
    assert canonical_json(again.definition()) == written


def test_default_policy_has_no_surprise() -> None:
    """An empty section notes drift, holds on harm, and rolls nothing back."""
    policy = read_monitoring_policy({})
    assert policy == MonitoringPolicy()
    assert set(policy.acts.values()) == {"note", "hold"}
    assert policy.act_on("features") == "note"
