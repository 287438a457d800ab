"""Tests of names of people, of what a rejection ends, and of the digest of settings."""

from dataclasses import replace

import pytest

from protos import registry_pb2 as pb
from registry.rules.settings import proposed_digest, settings_change, settings_digest
from registry.types import (
    Deployment,
    rejection_ends,
    rejection_in_force,
    same_person,
    standing_approvals,
)


@pytest.mark.parametrize(
    ("name", "other", "same"),
    [
        ("amy", "Amy", True),
        ("amy", "\N{FULLWIDTH LATIN SMALL LETTER A}my", True),
        ("stra\N{LATIN SMALL LETTER SHARP S}e", "STRASSE", True),
        ("re\N{LATIN SMALL LETTER E WITH ACUTE}", "ree\N{COMBINING ACUTE ACCENT}", True),
        ("\N{MODIFIER LETTER CAPITAL A}my", "amy", True),  # NFKC gives a capital letter
        ("amy", "amyx", False),
    ],
)
def test_names_are_compared_by_nfkc_and_case_folding(name: str, other: str, same: bool) -> None:
    """One person cannot be two by spelling."""
    assert same_person(name, other) == same
    assert same_person(other, name) == same


def decision(
    policy: str, digest: str = "", *, rejected: bool = False, identity: str = ""
) -> pb.Approval:
    """An approval, or a rejection."""
    return pb.Approval(id=identity, policy_name=policy, policy_digest=digest, rejected=rejected)


@pytest.mark.parametrize(
    ("rejected_policy", "rejected_digest", "ended"),
    [
        ("", "", True),
        ("initial", "", True),
        ("careful", "", True),
        ("careful", "digest of an edited file", True),
        ("careful@churn", "", True),
        ("other", "d1", True),
        ("other", "", False),
        ("other", "d2", False),
    ],
)
def test_rejection_ends_by_name_whatever_the_policy_file_says(
    rejected_policy: str, rejected_digest: str, ended: bool
) -> None:
    """Without a name, or as the first version, it is of every policy."""
    rejection = decision(rejected_policy, rejected_digest, rejected=True)

    assert rejection_ends(rejection, decision("careful", "d1")) == ended
    assert rejection_ends(rejection, decision("careful@offer", "d1")) == ended


def test_approvals_stand_until_a_later_rejection() -> None:
    """A new approval after a rejection stands, and lifts a rejection under every policy."""
    first, second = decision("careful", "d1", identity="a"), decision("bold", "d2", identity="b")
    everything = decision("", rejected=True)
    careful = decision("careful", rejected=True)

    assert standing_approvals([first, second]) == [first, second]
    assert standing_approvals([first, second, careful]) == [second]
    assert standing_approvals([first, everything, second]) == [second]
    assert rejection_in_force([first, careful]) is None
    assert rejection_in_force([first, everything]) == everything
    assert rejection_in_force([first, everything, second]) is None
    assert rejection_in_force([everything, first, careful]) == everything


CURRENT = Deployment(model="churn", revision=3, production="1", holdout_bp=100, rollout_id="r1")


def test_settings_change_names_each_field_and_its_option() -> None:
    """Versions and shares are no settings, and a drawn salt is none either."""
    policy = pb.ServingPolicy(default_score=0.99, evidence_sampled_of_65536=1)
    changed = replace(CURRENT, holdout_bp=10_000, policy=policy)

    change = settings_change(CURRENT, changed, under_lease=False)

    assert change is not None
    assert change.options == (
        "--holdout 100 --setting default_score=0.99 --setting evidence_sampled_of_65536=1"
    )
    assert "holdout_bp from 100 to 10000, default_score from 0.0 to 0.99" in change.text
    for unchanged in (CURRENT, replace(CURRENT, preload=("2",)), replace(CURRENT, why="x")):
        assert settings_change(CURRENT, unchanged, under_lease=False) is None


def test_settings_change_lets_only_a_rollout_of_the_controller_set_the_salt() -> None:
    """A salt decides who gets the canary, so a person needs another one to change it."""
    salted = replace(CURRENT, split_salt=b"s" * 16)

    change = settings_change(CURRENT, salted, under_lease=False)

    assert change is not None
    assert change.options == f"--split-salt {'73' * 16}"
    assert settings_change(CURRENT, salted, under_lease=True) is None
    by_hand = replace(CURRENT, rollout_id="")
    alone = replace(salted, rollout_id="")
    assert settings_change(by_hand, alone, under_lease=True) is not None
    assert proposed_digest(CURRENT, salted, under_lease=False) == settings_digest(
        "churn", 100, pb.ServingPolicy(), b"s" * 16
    )


def test_digest_of_settings_has_a_later_field_only_if_it_is_set() -> None:
    """An approval that was given before the field existed is still of the same settings."""
    plain = settings_digest("churn", 100, pb.ServingPolicy(), b"")

    assert plain == "9fc6c00f8162af40d1e92e81c13eb470266337b7e41cff6e2be47a47f48a3233"
    assert settings_digest("churn", 100, pb.ServingPolicy(hide_role=True), b"") != plain


def test_settings_change_names_a_hidden_role() -> None:
    """Hiding the role is a setting, so another person approves it."""
    for before, after, option in ((False, True, "true"), (True, False, "false")):
        change = settings_change(
            replace(CURRENT, policy=pb.ServingPolicy(hide_role=before)),
            replace(CURRENT, policy=pb.ServingPolicy(hide_role=after)),
            under_lease=False,
        )
        assert change is not None
        assert change.options == f"--setting hide_role={option}"
