"""Every command against a running system: its JSON, its exit code, its words."""

import sqlite3
from pathlib import Path

import pytest

from tests.tiny_models import linear_weights
from tests.walks.conftest import MODEL
from tests.walks.running_system import RunningSystem, poll_system_until, turnout_up

pytestmark = pytest.mark.walk

INPUTS = ("--input", "f0=1", "--input", "f1=0", "--input", "f2=0")
"""Scores 0.1 with tests.tiny_models' weights."""


def test_a_prediction_and_its_outcome(running_system: RunningSystem) -> None:
    """The score by head, who gave it, and an outcome kept on disk."""
    got = running_system.turnout("predict", MODEL, "S1", *INPUTS)

    assert got["scores"][0] == pytest.approx([0.1])
    assert (got["version"], got["role"], got["holdout"]) == ("1", "production", False)
    kept = running_system.turnout("outcome", got["prediction_id"], "churned", "1")
    assert kept == {"kept": True}


def test_a_forged_prediction_id_is_refused(running_system: RunningSystem) -> None:
    """64 bytes that no gateway of this cluster wrote: exit 1."""
    assert "INVALID_ARGUMENT" in running_system.turnout(
        "outcome", "ab" * 64, "churned", "1", exit_code=1
    )


def test_what_does_not_exist_is_said_to_be_so(running_system: RunningSystem) -> None:
    """Exit 1 and the gateway's words; a wrong option is exit 2."""
    assert "NOT_FOUND" in running_system.turnout("predict", "nobody", "S1", exit_code=1)
    assert "f0" in running_system.turnout("predict", MODEL, "S1", "--input", "f9=1", exit_code=1)
    running_system.turnout("predict", MODEL, "S1", "--input", "f0", exit_code=2)
    running_system.turnout("models", "--no-such-option", exit_code=2)


def test_models_versions_and_splits_are_told(running_system: RunningSystem) -> None:
    """Who is production, by whom, approved by whom, and who answers one customer."""
    (model,) = [one for one in running_system.turnout("models") if one["model"] == MODEL]
    assert model["deployment"]["production"] == "1"
    (version, *_) = running_system.turnout("versions", "list", MODEL)
    assert (version["author"], version["status"]) == ("dana", "PRODUCTION_STATUS")
    shown = running_system.turnout("versions", "show", MODEL, version["digest"])
    assert [one["approver"] for one in shown["approvals"]] == ["gabriel"]
    answer = running_system.turnout("splits", "which", MODEL, "S1")
    assert (answer["version"], answer["role"]) == ("1", "production")
    assert 0 <= answer["bucket"] < 10_000


def test_four_eyes_and_compare_and_set(running_system: RunningSystem, tmp_path: Path) -> None:
    """Nobody approves their own; nothing unapproved is deployed; a stale revision loses."""
    label = running_system.register(MODEL, tmp_path / "files", weights=2 * linear_weights(3))
    own = ("versions", "approve", MODEL, label, "--policy", "initial", "--yes")
    assert "dana" in running_system.turnout(*own, actor="dana", exit_code=1)

    held = running_system.turnout("splits", "preload", MODEL, label)
    move = ("splits", "set", MODEL, "--production", label)
    poll_system_until(
        lambda: "none of" not in running_system.turnout(*move, exit_code=1),
        20.0,
        "ready on a worker",
    )
    assert "approv" in running_system.turnout(*move, exit_code=1)
    stale = ("--revision", str(held["revision"] - 1))
    lost = running_system.turnout("splits", "set", MODEL, "--holdout", "5", *stale, exit_code=1)
    assert str(held["revision"]) in lost
    running_system.turnout("splits", "set", MODEL, "--holdout", "0", "--why", "nothing changes")


def test_a_version_nobody_names_is_archived_and_stays_so(
    running_system: RunningSystem, tmp_path: Path
) -> None:
    """Archived by a person; production cannot be."""
    label = running_system.register(MODEL, tmp_path / "files", weights=7 * linear_weights(3))
    gone = running_system.turnout("versions", "archive", MODEL, label, "--reason", "a try")
    assert gone["status"] == "ARCHIVED"
    assert "production" in running_system.turnout("versions", "archive", MODEL, "1", exit_code=1)


def test_a_rollout_without_approval_does_not_start(
    running_system: RunningSystem, tmp_path: Path
) -> None:
    """The words say what is missing; with it, it starts, is shown, paused, resumed and aborted."""
    label = running_system.register(MODEL, tmp_path / "files", weights=4 * linear_weights(3))
    begin = ("rollout", "start", MODEL, label, "--policy", "demo")
    assert "approv" in running_system.turnout(*begin, exit_code=1)
    assert "no_policy" in running_system.turnout(
        "versions", "approve", MODEL, label, "--policy", "no_policy", "--yes", exit_code=1
    )
    names = {policy["name"] for policy in running_system.turnout("rollout", "policies")}
    assert {"demo", "demo-direct", "standard"} <= names

    running_system.approve(MODEL, label, "demo")
    started = running_system.turnout(*begin)
    assert (started["version"], started["baseline"]) == (label, "1")
    assert running_system.turnout("rollout", "pause", MODEL)["paused"]
    assert not running_system.turnout("rollout", "resume", MODEL)["paused"]
    assert running_system.turnout("rollout", "status", MODEL)["rollout_id"] == started["rollout_id"]
    ended = running_system.turnout("rollout", "abort", MODEL, "--reason", "seen enough")
    assert ended["stage"] == "ROLLED_BACK"
    told = running_system.turnout("rollout", "explain", MODEL)
    assert "seen enough" in told["text"]
    assert running_system.turnout("splits", "show", MODEL)["production"] == "1"


def test_the_history_is_listed_and_proved(running_system: RunningSystem) -> None:
    """The newest entries, and every one of them sound, under the key we know."""
    entries = running_system.turnout("audit", "list", "--limit", "3")
    assert len(entries) == 3
    assert entries[-1]["seq"] == entries[0]["seq"] + 2
    proof = running_system.turnout("audit", "verify")
    assert proof["whole"]
    again = running_system.turnout("audit", "verify", "--key", proof["public_key"])
    assert again["entries"] >= proof["entries"]
    other = running_system.turnout("audit", "verify", "--key", "ab" * 32, exit_code=1)
    assert not other["whole"]


def test_an_entry_somebody_rewrote_is_named(tmp_path: Path) -> None:
    """Edited in the database behind the registry's back: exit 1, and its number."""
    with turnout_up(tmp_path / "state") as whole:
        for model in ("a", "b"):
            whole.register(model, tmp_path / model)
        (database,) = (tmp_path / "state" / "registry").glob("*.sqlite")
        with sqlite3.connect(database) as connection:
            connection.execute("UPDATE history SET actor = 'nobody' WHERE seq = 2")
        connection.close()
        verdict = whole.turnout("audit", "verify", exit_code=1)
        assert (verdict["whole"], verdict["broken_seq"]) == (False, 2)


def test_declared_views_are_listed(running_system: RunningSystem) -> None:
    """With the hash that every stored row carries."""
    (view,) = running_system.turnout("features", "views")
    assert (view["view"], len(view["features"])) == ("churn_profile", 19)
    unknown = running_system.turnout("features", "show", "no_view", "S1", exit_code=1)
    assert "churn_profile" in unknown
    absent = running_system.turnout("features", "show", "churn_profile", "S1")
    assert absent["flags"] == ["missing", "defaulted"]
