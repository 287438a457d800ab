"""`turnout splits`: its options, and which version answers which key."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.types import Deployment
from tests.property_examples import examples
from turnout.cli.deployment_changes import basis_points, parse_share, with_changes, with_settings
from turnout.commands.splits import explain_split
from turnout.errors import UsageError

CURRENT = Deployment(
    model="churn", revision=4, production="1", holdout_salt=bytes(range(16)),
    split_salt=bytes(range(16)), digests=(("1", "aa" * 32), ("2", "bb" * 32), ("3", "cc" * 32)),
)  # fmt: skip


def test_with_changes_keeps_what_is_not_given() -> None:
    """Only the canary is given, so only the canary changes."""
    proposed = with_changes(CURRENT, "", "2=12.5", "", [], None)
    assert (proposed.production, proposed.canary, proposed.canary_bp) == ("1", "2", 1250)
    assert proposed.revision == CURRENT.revision


def test_with_changes_ends_a_role_given_as_none() -> None:
    """`--canary none` ends the canary, `--shadow none` ends all shadows."""
    deployed = with_changes(CURRENT, "", "2=5", "", ["3=100"], None)
    cleared = with_changes(deployed, "", "none", "", ["none"], None)
    assert (cleared.canary, cleared.canary_bp, cleared.shadows) == ("", 0, ())


def test_with_changes_ends_the_rollout_of_a_candidate_taken_out() -> None:
    """Otherwise no rollout could start again. Another share, shadow or holdout keeps it."""
    deployed = replace(CURRENT, canary="2", canary_bp=500, rollout_id="r1")
    assert with_changes(deployed, "", "none", "", [], None).rollout_id == ""
    watched = replace(CURRENT, production="2", standby="1", standby_bp=500, rollout_id="r1")
    assert with_changes(watched, "1", "", "none", [], None).rollout_id == ""
    assert with_changes(deployed, "", "2=50", "", [], None).rollout_id == "r1"
    assert with_changes(deployed, "", "", "", ["3=100"], None).rollout_id == "r1"
    assert with_changes(replace(CURRENT, rollout_id="r1"), "", "", "", [], 5.0).rollout_id == "r1"


def test_with_changes_refuses_to_change_nothing() -> None:
    """A revision that changes nothing would clutter the history."""
    with pytest.raises(UsageError, match="nothing to change"):
        with_changes(CURRENT, "", "", "", [], None)


def test_with_settings_changes_the_named_settings_only() -> None:
    """Numbers, booleans, and zero, which puts a default back."""
    first = with_settings(CURRENT, 5.0, ["default_score=0.25", "features_required=true"])
    assert (first.holdout_bp, first.policy.default_score) == (500, 0.25)
    assert first.policy.features_required
    second = with_settings(first, None, ["default_score=0"])
    assert (second.holdout_bp, second.policy.default_score) == (500, 0.0)
    assert second.policy.features_required
    assert first.policy.default_score == 0.25


@pytest.mark.parametrize(
    "text", ["default_score", "default_score=high", "no_such=1", "rows_max=-1", "rows_max=1.5"]
)
def test_with_settings_refuses_what_it_cannot_read(text: str) -> None:
    """The error lists the settings."""
    with pytest.raises(UsageError, match="names: deadline_ms_default, "):
        with_settings(CURRENT, None, [text])


def test_parse_share_refuses_a_share_that_is_no_number() -> None:
    """The error has an example of LABEL=PERCENT."""
    with pytest.raises(UsageError, match="2=10"):
        parse_share("2=ten")


@examples(100)
@given(st.text(min_size=1, max_size=20), st.integers(0, 9_000))
def test_explain_split_gives_every_key_the_version_of_its_bucket(key: str, canary_bp: int) -> None:
    """The canary has the lowest buckets, the standby the highest, production those between."""
    share_text = f"2={canary_bp / 100}"
    deployment = with_changes(CURRENT, "", share_text, "3=10", [], 5.0)
    answer = explain_split(deployment, key)
    expected = (
        "canary" if answer["bucket"] < canary_bp
        else "standby" if answer["bucket"] >= 9_000
        else "production"
    )  # fmt: skip
    assert answer["role"] == expected
    assert answer["version"] == {"canary": "2", "standby": "3", "production": "1"}[expected]


def test_explain_split_is_exact_at_the_edges_of_shares() -> None:
    """A canary of n basis points has buckets 0 to n - 1; a standby of n has the last n."""
    bucket = explain_split(CURRENT, "S1")["bucket"]
    roles = {
        (canary, standby): explain_split(
            replace(
                CURRENT,
                canary="2" if canary else "",
                canary_bp=canary,
                standby="3" if standby else "",
                standby_bp=standby,
            ),
            "S1",
        )["role"]
        for canary, standby in (
            (bucket, 0), (bucket + 1, 0), (0, 10_000 - bucket), (0, 10_000 - bucket - 1)
        )
    }  # fmt: skip
    assert list(roles.values()) == ["production", "canary", "standby", "production"]


@pytest.mark.parametrize(
    "text", ["2=0.004", "2=0.001", "2=12.345", "2=inf", "2=-inf", "2=nan", "2=-1", "2=101", "=5"]
)
def test_share_that_no_split_can_give_is_refused(text: str) -> None:
    """It would be rounded silently, or no split could have it."""
    with pytest.raises(UsageError, match=r"0\.01 %|from 0 to 100|names no version"):
        parse_share(text)


@pytest.mark.parametrize("percent", [0.001, float("nan"), float("inf"), -1.0])
def test_holdout_that_no_split_can_give_is_refused(percent: float) -> None:
    """A holdout is read as a share is, and the message names the option."""
    with pytest.raises(UsageError, match="--holdout"):
        with_settings(CURRENT, percent, [])


@examples(100)
@given(st.integers(0, 10_000))
def test_each_basis_point_can_be_given_in_percent(share: int) -> None:
    """Also those whose percentage is no binary fraction, such as 0.07."""
    assert basis_points(float(f"{share / 100:.2f}"), "") == share
