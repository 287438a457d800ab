"""Every command against a running system: its JSON, its exit code, its words."""

import sqlite3
from pathlib import Path

import pytest

from tests.tiny_models import linear_weights
from tests.walks.conftest import MODEL
from tests.walks.running_system import Whole, until, up

pytestmark = pytest.mark.walk

INPUTS = ("--input", "f0=1", "--input", "f1=0", "--input", "f2=0")
"""Scores 0.1 with tests.tiny_models' weights."""


def test_a_prediction_and_its_outcome(whole: Whole) -> None:
    """The score by head, who gave it, and an outcome kept on disk."""
    got = whole.turnout("predict", MODEL, "S1", *INPUTS)

    assert got["scores"][0] == pytest.approx([0.1])
    assert (got["version"], got["role"], got["holdout"]) == ("1", "production", False)
    kept = whole.turnout("outcome", got["prediction_id"], "churned", "1")
    assert kept == {"kept": True}


def test_a_forged_prediction_id_is_refused(whole: Whole) -> None:
    """64 bytes that no gateway of this cluster wrote: exit 1."""
    assert "INVALID_ARGUMENT" in whole.turnout("outcome", "ab" * 64, "churned", "1", exit_code=1)


def test_what_does_not_exist_is_said_to_be_so(whole: Whole) -> None:
    """Exit 1 and the gateway's words; a wrong option is exit 2."""
    assert "NOT_FOUND" in whole.turnout("predict", "nobody", "S1", exit_code=1)
    assert "f0" in whole.turnout("predict", MODEL, "S1", "--input", "f9=1", exit_code=1)
    whole.turnout("predict", MODEL, "S1", "--input", "f0", exit_code=2)
    whole.turnout("models", "--no-such-option", exit_code=2)


def test_models_versions_and_splits_are_told(whole: Whole) -> None:
    """Who is production, by whom, approved by whom, and who answers one customer."""
    (model,) = [one for one in whole.turnout("models") if one["model"] == MODEL]
    assert model["deployment"]["production"] == "1"
    (version, *_) = whole.turnout("versions", "list", MODEL)
    assert (version["author"], version["status"]) == ("dana", "PRODUCTION_STATUS")
    shown = whole.turnout("versions", "show", MODEL, version["digest"])
    assert [one["approver"] for one in shown["approvals"]] == ["gabriel"]
    answer = whole.turnout("splits", "which", MODEL, "S1")
    assert (answer["version"], answer["role"]) == ("1", "production")
    assert 0 <= answer["bucket"] < 10_000


def test_four_eyes_and_compare_and_set(whole: Whole, tmp_path: Path) -> None:
    """Nobody approves their own; nothing unapproved is deployed; a stale revision loses."""
    label = whole.register(MODEL, tmp_path / "files", weights=2 * linear_weights(3))
    own = ("versions", "approve", MODEL, label, "--policy", "initial", "--yes")
    assert "dana" in whole.turnout(*own, actor="dana", exit_code=1)

    held = whole.turnout("splits", "preload", MODEL, label)
    move = ("splits", "set", MODEL, "--production", label)
    until(lambda: "none of" not in whole.turnout(*move, exit_code=1), 20.0, "ready on a worker")
    assert "approv" in whole.turnout(*move, exit_code=1)
    stale = ("--revision", str(held["revision"] - 1))
    lost = whole.turnout("splits", "set", MODEL, "--holdout", "5", *stale, exit_code=1)
    assert str(held["revision"]) in lost
    whole.turnout("splits", "set", MODEL, "--holdout", "0", "--why", "nothing changes")


def test_a_version_nobody_names_is_archived_and_stays_so(whole: Whole, tmp_path: Path) -> None:
    """Archived by a person; production cannot be."""
    label = whole.register(MODEL, tmp_path / "files", weights=7 * linear_weights(3))
    gone = whole.turnout("versions", "archive", MODEL, label, "--reason", "a try")
    assert gone["status"] == "ARCHIVED"
    assert "production" in whole.turnout("versions", "archive", MODEL, "1", exit_code=1)


def test_a_rollout_without_approval_does_not_start(whole: Whole, tmp_path: Path) -> None:
    """The words say what is missing; with it, it starts, is shown, paused, resumed and aborted."""
    label = whole.register(MODEL, tmp_path / "files", weights=4 * linear_weights(3))
    begin = ("rollout", "start", MODEL, label, "--policy", "demo")
    assert "approv" in whole.turnout(*begin, exit_code=1)
    assert "no_policy" in whole.turnout(
        "versions", "approve", MODEL, label, "--policy", "no_policy", "--yes", exit_code=1
    )
    names = {policy["name"] for policy in whole.turnout("rollout", "policies")}
    assert {"demo", "demo-direct", "standard"} <= names

    whole.approve(MODEL, label, "demo")
    started = whole.turnout(*begin)
    assert (started["version"], started["baseline"]) == (label, "1")
    assert whole.turnout("rollout", "pause", MODEL)["paused"]
    assert not whole.turnout("rollout", "resume", MODEL)["paused"]
    assert whole.turnout("rollout", "status", MODEL)["rollout_id"] == started["rollout_id"]
    ended = whole.turnout("rollout", "abort", MODEL, "--reason", "seen enough")
    assert ended["stage"] == "ROLLED_BACK"
    told = whole.turnout("rollout", "explain", MODEL)
    assert "seen enough" in told["text"]
    assert whole.turnout("splits", "show", MODEL)["production"] == "1"


def test_the_history_is_listed_and_proved(whole: Whole) -> None:
    """The newest entries, and every one of them sound, under the key we know."""
    entries = whole.turnout("audit", "list", "--limit", "3")
    assert len(entries) == 3
    assert entries[-1]["seq"] == entries[0]["seq"] + 2
    proof = whole.turnout("audit", "verify")
    assert proof["whole"]
    again = whole.turnout("audit", "verify", "--key", proof["public_key"])
    assert again["entries"] >= proof["entries"]
    other = whole.turnout("audit", "verify", "--key", "ab" * 32, exit_code=1)
    assert not other["whole"]


def test_an_entry_somebody_rewrote_is_named(tmp_path: Path) -> None:
    """Edited in the database behind the registry's back: exit 1, and its number."""
    with up(tmp_path / "state") as whole:
        for model in ("a", "b"):
            whole.register(model, tmp_path / model)
        (database,) = (tmp_path / "state" / "registry").glob("*.sqlite")
        with sqlite3.connect(database) as connection:
            connection.execute("UPDATE history SET actor = 'nobody' WHERE seq = 2")
        connection.close()
        verdict = whole.turnout("audit", "verify", exit_code=1)
        assert (verdict["whole"], verdict["broken_seq"]) == (False, 2)


def test_declared_views_are_listed(whole: Whole) -> None:
    """With the hash that every stored row carries."""
    (view,) = whole.turnout("features", "views")
    assert (view["view"], len(view["features"])) == ("churn_profile", 19)
    unknown = whole.turnout("features", "show", "no_view", "S1", exit_code=1)
    assert "churn_profile" in unknown
    absent = whole.turnout("features", "show", "churn_profile", "S1")
    assert absent["flags"] == ["missing", "defaulted"]
