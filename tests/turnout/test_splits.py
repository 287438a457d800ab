"""`turnout splits`: reading the options, and saying who answers whom."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.types import Deployment
from tests.property_examples import examples
from turnout.commands.splits import explain_split, parse_share, with_changes
from turnout.errors import UsageError

HELD = Deployment(
    model="churn", revision=4, production="1", holdout_salt=bytes(range(16)),
    split_salt=bytes(range(16)), digests=(("1", "aa" * 32), ("2", "bb" * 32), ("3", "cc" * 32)),
)  # fmt: skip


def test_what_is_left_out_stays() -> None:
    """Only the canary was named, so only the canary changes."""
    proposed = with_changes(HELD, "", "2=12.5", "", [], None)
    assert (proposed.production, proposed.canary, proposed.canary_bp) == ("1", "2", 1250)
    assert proposed.revision == HELD.revision


def test_none_takes_a_role_away() -> None:
    """--canary none ends it; --shadow none ends them all."""
    held = with_changes(HELD, "", "2=5", "", ["3=100"], None)
    cleared = with_changes(held, "", "none", "", ["none"], None)
    assert (cleared.canary, cleared.canary_bp, cleared.shadows) == ("", 0, ())


def test_a_candidate_taken_out_by_hand_ends_its_rollout() -> None:
    """Or none could ever begin again; another share, shadow or holdout is the rollout's matter."""
    held = replace(HELD, canary="2", canary_bp=500, rollout_id="r1")
    assert with_changes(held, "", "none", "", [], None).rollout_id == ""
    watched = replace(HELD, production="2", standby="1", standby_bp=500, rollout_id="r1")
    assert with_changes(watched, "1", "", "none", [], None).rollout_id == ""
    assert with_changes(held, "", "2=50", "", [], None).rollout_id == "r1"
    assert with_changes(held, "", "", "", ["3=100"], None).rollout_id == "r1"
    assert with_changes(replace(HELD, rollout_id="r1"), "", "", "", [], 5.0).rollout_id == "r1"


def test_nothing_to_change_is_a_usage_error() -> None:
    """A revision that changes nothing would only confuse the history."""
    with pytest.raises(UsageError, match="nothing to change"):
        with_changes(HELD, "", "", "", [], None)


def test_a_share_that_is_no_number_is_refused_with_an_example() -> None:
    """LABEL=PERCENT."""
    with pytest.raises(UsageError, match="2=10"):
        parse_share("2=ten")


@examples(100)
@given(st.text(min_size=1, max_size=20), st.integers(0, 9_000))
def test_every_key_has_exactly_one_version(key: str, canary_bp: int) -> None:
    """Canary at the bottom, standby at the top, production between; shadows and holdout beside."""
    share_text = f"2={canary_bp / 100}"
    deployment = with_changes(HELD, "", share_text, "3=10", [], 5.0)
    answer = explain_split(deployment, key)
    expected = (
        "canary" if answer["bucket"] < canary_bp
        else "standby" if answer["bucket"] >= 9_000
        else "production"
    )  # fmt: skip
    assert answer["role"] == expected
    assert answer["version"] == {"canary": "2", "standby": "3", "production": "1"}[expected]


def test_a_key_on_the_edge_of_a_share_is_placed_exactly() -> None:
    """A canary of n basis points has buckets 0 to n - 1; a standby of n has the last n."""
    bucket = explain_split(HELD, "S1")["bucket"]
    roles = {
        (canary, standby): explain_split(
            replace(
                HELD,
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
