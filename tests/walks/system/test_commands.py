"""The commands against a running system: their JSON values, exit codes and messages."""

import asyncio
import json
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from features.contract import ModelContract, RequestInput, ViewUse
from registry.types import Deployment
from tests.gateway.gateway_fixture import SALT, gateway_fixture
from tests.telco import telco
from tests.tiny_models import linear_weights, tiny_files
from tests.walks.conftest import MODEL
from tests.walks.running_system import RunningSystem, poll_system_until, turnout_up

pytestmark = pytest.mark.walk

INPUTS = ("--input", "f0=1", "--input", "f1=0", "--input", "f2=0")
"""Inputs whose score is 0.1 by the weights of tests.tiny_models."""


def test_predict_scores_a_row_and_outcome_records_its_result(running_system: RunningSystem) -> None:
    """The score is known, the reply names version and role, and the outcome is recorded."""
    prediction = running_system.turnout("predict", MODEL, "S1", *INPUTS)

    assert prediction["scores"][0] == pytest.approx([0.1])
    assert [prediction[name] for name in ("version", "role", "holdout")] == [
        "1",
        "production",
        False,
    ]
    recorded = running_system.turnout("outcome", prediction["prediction_id"], "churned", "1")
    assert recorded == {"recorded": True, "duplicate": False}
    # The same report counts once.
    recorded = running_system.turnout("outcome", prediction["prediction_id"], "churned", "1")
    assert recorded == {"recorded": True, "duplicate": True}


def test_outcome_is_reported_by_entity(running_system: RunningSystem) -> None:
    """With model, id and time; another time is another event, and another value is refused."""
    times = [time.strftime("%FT%TZ", time.gmtime(time.time() - ago_s)) for ago_s in (0, 60)]
    by_entity = ("outcome", "--model", MODEL, "--key")
    for key, at, duplicate in (
        ("subscriber=S1", times[0], False),
        ("S1", times[0], True),
        ("S1", times[1], False),
    ):
        recorded = running_system.turnout(*by_entity, key, "--at", at, "paid", "2.5")
        assert recorded == {"recorded": True, "duplicate": duplicate}
    again = (*by_entity, "S1", "--at", times[0], "paid", "7")
    assert "ALREADY_EXISTS" in running_system.turnout(*again, exit_code=1)
    recorded = running_system.turnout(*again, "--idempotency-key", f"corrected/{times[0]}")
    assert recorded == {"recorded": True, "duplicate": False}
    # What names no row of the model, or no time that has been.
    late = ("--at", "2100-01-01", "paid", "1")
    assert "in the future" in running_system.turnout(*by_entity, "S1", *late, exit_code=1)
    unknown = ("outcome", "--model", "no-model", "--key", "S1", *late)
    assert "NOT_FOUND" in running_system.turnout(*unknown, exit_code=1)
    two = running_system.turnout(*by_entity, "S1", "--key", "O1", *late, exit_code=2)
    assert "keyed by subscriber" in " ".join(two.split())


def test_outcomes_of_a_file_are_reported(running_system: RunningSystem, tmp_path: Path) -> None:
    """By prediction id and by entity; a row that is refused fails the command, and no other row."""
    # By prediction id, as JSON lines.
    rows, file = tmp_path / "rows.csv", tmp_path / "outcomes"
    rows.write_text("subscriber,f0,f1,f2\n" + "".join(f"S{n},1,0,0\n" for n in range(100)))
    answers = running_system.turnout("predict", MODEL, "--rows", str(rows))
    ids = [answer["prediction_id"] for answer in answers]
    lines = [{"prediction_id": text, "name": "churned", "value": 1} for text in [*ids, "ab" * 64]]
    file.write_text("\n".join(map(json.dumps, lines)))
    *good, bad = running_system.turnout("outcome", "--rows", str(file), exit_code=1)
    assert good == 100 * [{"recorded": True, "duplicate": False}]
    assert (bad["recorded"], bad["error"].split(":")[0]) == (False, "INVALID_ARGUMENT")
    # By entity, as CSV. The same file again counts once.
    now_ms = time.time_ns() // 1_000_000
    lines = [f"S{n},{now_ms},churned,0" for n in range(100)]
    file.write_text("\n".join(["subscriber,time,name,value", *lines]))
    for duplicate in (False, True):
        recorded = running_system.turnout("outcome", "--model", MODEL, "--rows", str(file))
        assert recorded == 100 * [{"recorded": True, "duplicate": duplicate}]


def test_predict_scores_the_rows_of_a_file(running_system: RunningSystem, tmp_path: Path) -> None:
    """Each row in a call of its own, in the file's order; a row that is refused fails the command.

    Columns are the names that DescribeModel gives.
    """
    rows = tmp_path / "rows.csv"
    lines = [f"S{number},{number},0,0" for number in range(100)]
    rows.write_text("\n".join(["subscriber,f0,f1,f2", *lines]))
    answers = running_system.turnout("predict", MODEL, "--rows", str(rows))
    assert [answer["keys"] for answer in answers] == [[f"S{number}"] for number in range(100)]
    assert [answer["scores"][0][0] for answer in answers] == pytest.approx(
        [number / 10 for number in range(100)], abs=1e-5
    )
    assert len({answer["prediction_id"] for answer in answers}) == 100
    # The gateway refuses one id, and the others are there all the same.
    rows.write_text(
        '{"subscriber": "S1", "f0": 1}\n{"subscriber": "%s", "f0": 1}\n' % ("S" * 1_000)
    )
    good, bad = running_system.turnout("predict", MODEL, "--rows", str(rows), exit_code=1)
    assert (len(good["scores"]), bad["error"].split(":")[0]) == (1, "INVALID_ARGUMENT")
    # Options that contradict each other, and deadlines that are none.
    running_system.turnout("predict", MODEL, "S1", "--rows", str(rows), exit_code=2)
    for timeout in ("0", "-1", "nan", "inf"):
        running_system.turnout("predict", MODEL, "S1", "--timeout", timeout, exit_code=2)


def test_predict_sends_a_category_that_looks_like_a_number_as_text(
    running_system: RunningSystem,
) -> None:
    """The command scores what the Python client scores, and not the category at a position."""
    contract = ModelContract(
        entities=("subscriber",),
        inputs=(RequestInput(name="plan", dictionary=("1", "2", "3"), default=0.0),),
    )
    files = tiny_files("plans", contract=contract, weights=np.ones((1, 1), dtype=np.float32))

    async def ask() -> Any:  # noqa: ANN401  any JSON
        deployment = Deployment(
            model="plans", revision=1, production="1", split_salt=SALT, holdout_salt=SALT
        )
        async with gateway_fixture({"1": files}, deployment) as gateway:
            return await asyncio.to_thread(
                running_system.turnout,
                *("--gateway", f"127.0.0.1:{gateway.port}", "predict", "plans", "S1"),
                *("-i", "plan=2"),
            )

    answer = asyncio.run(ask())
    assert answer["scores"] == [[1.0]]


def test_outcome_refuses_a_forged_prediction_id(running_system: RunningSystem) -> None:
    """The command exits with 1 for 64 bytes that no gateway of this cluster made."""
    assert "INVALID_ARGUMENT" in running_system.turnout(
        "outcome", "ab" * 64, "churned", "1", exit_code=1
    )


def test_predict_names_an_unknown_model_and_a_missing_input(running_system: RunningSystem) -> None:
    """The command prints the gateway's message and exits with 1, or with 2 for a wrong option."""
    assert "NOT_FOUND" in running_system.turnout("predict", "no-model", "S1", exit_code=1)
    assert "f0" in running_system.turnout("predict", MODEL, "S1", "--input", "f9=1", exit_code=1)
    running_system.turnout("predict", MODEL, "S1", "--input", "f0", exit_code=2)
    running_system.turnout("models", "--no-such-option", exit_code=2)


def test_models_versions_and_splits_show_the_deployed_version(
    running_system: RunningSystem,
) -> None:
    """They show production, its author, its approver and the version that one customer gets."""
    (model,) = [row for row in running_system.turnout("models") if row["model"] == MODEL]
    assert model["deployment"]["production"] == "1"
    (version, *_) = running_system.turnout("versions", "list", MODEL)
    assert (version["author"], version["status"]) == ("dana", "PRODUCTION_STATUS")
    shown = running_system.turnout("versions", "show", MODEL, version["digest"])
    assert [approval["approver"] for approval in shown["approvals"]] == ["gabriel"]
    answer = running_system.turnout("splits", "which", MODEL, "S1")
    assert (answer["version"], answer["role"]) == ("1", "production")
    assert 0 <= answer["bucket"] < 10_000


def test_registry_refuses_own_approvals_and_stale_revisions(
    running_system: RunningSystem, tmp_path: Path
) -> None:
    """Authors may not approve, and neither unapproved versions nor stale revisions are written."""
    label = running_system.register(MODEL, tmp_path / "files", weights=2 * linear_weights(3))
    own = ("versions", "approve", MODEL, label, "--policy", "initial", "--yes")
    assert "dana" in running_system.turnout(*own, actor="dana", exit_code=1)

    deploy = ("splits", "set", MODEL, "--production", label)
    refused = " ".join(running_system.turnout(*deploy, exit_code=1).split())
    assert f"in development; turnout splits preload {MODEL} {label} stages it" in refused
    deployment = running_system.turnout("splits", "preload", MODEL, label)
    poll_system_until(
        lambda: "none of" not in running_system.turnout(*deploy, exit_code=1),
        20.0,
        "ready on a worker",
    )
    assert "approv" in running_system.turnout(*deploy, exit_code=1)
    stale = ("--revision", str(deployment["revision"] - 1))
    error = running_system.turnout("splits", "set", MODEL, "--holdout", "5", *stale, exit_code=1)
    assert str(deployment["revision"]) in error
    running_system.turnout("splits", "set", MODEL, "--holdout", "0", "--reason", "nothing changes")


def test_hidden_role_is_approved_set_and_shown(running_system: RunningSystem) -> None:
    """One person approves it, another sets it; then replies have neither role nor version."""

    def set_hidden(value: str) -> None:
        setting = (MODEL, "--setting", f"hide_role={value}", "--reason", "callers see scores only")
        refused = running_system.turnout("splits", "set", *setting, exit_code=1)
        assert f"splits approve {MODEL} --setting hide_role={value}" in " ".join(refused.split())
        running_system.turnout("splits", "approve", *setting, actor="gabriel")
        running_system.turnout("splits", "set", *setting)

    def answered_by() -> tuple[str, str]:
        answer = running_system.turnout("predict", MODEL, "S1", *INPUTS)
        return answer["role"], answer["version"]

    shown_by = answered_by()
    assert shown_by[0] == "production"
    set_hidden("true")
    poll_system_until(lambda: answered_by() == ("role_unspecified", ""), 20.0, "hidden")
    assert running_system.turnout("splits", "show", MODEL)["policy"]["hide_role"] is True
    set_hidden("false")
    poll_system_until(lambda: answered_by() == shown_by, 20.0, "shown again")


def test_versions_archive_takes_an_unused_version_and_refuses_production(
    running_system: RunningSystem, tmp_path: Path
) -> None:
    """The command exits with 1 for production."""
    label = running_system.register(MODEL, tmp_path / "files", weights=7 * linear_weights(3))
    archived = running_system.turnout("versions", "archive", MODEL, label, "--reason", "a try")
    assert archived["status"] == "ARCHIVED"
    assert "production" in running_system.turnout("versions", "archive", MODEL, "1", exit_code=1)


def test_rollout_starts_only_with_an_approval_and_follows_commands(
    running_system: RunningSystem, tmp_path: Path
) -> None:
    """With the approval it starts, and is shown, paused, resumed and aborted."""
    label = running_system.register(MODEL, tmp_path / "files", weights=4 * linear_weights(3))
    start = ("rollout", "start", MODEL, label, "--policy", "demo")
    assert "approv" in running_system.turnout(*start, exit_code=1)
    assert "no_policy" in running_system.turnout(
        "versions", "approve", MODEL, label, "--policy", "no_policy", "--yes", exit_code=1
    )
    names = {policy["name"] for policy in running_system.turnout("rollout", "policies")}
    assert {"demo", "demo-direct", "standard"} <= names

    running_system.approve(MODEL, label, "demo")
    started = running_system.turnout(*start)
    assert (started["version"], started["baseline"]) == (label, "1")
    assert running_system.turnout("rollout", "pause", MODEL)["paused"]
    assert not running_system.turnout("rollout", "resume", MODEL)["paused"]
    assert running_system.turnout("rollout", "status", MODEL)["rollout_id"] == started["rollout_id"]
    ended = running_system.turnout("rollout", "abort", MODEL, "--reason", "seen enough")
    assert ended["stage"] == "ROLLED_BACK"
    explanation = running_system.turnout("rollout", "explain", MODEL)
    assert "seen enough" in explanation["text"]
    assert running_system.turnout("splits", "show", MODEL)["production"] == "1"


def test_audit_lists_and_verifies_the_history(running_system: RunningSystem) -> None:
    """The history is intact by itself and under the right key, and not under another key."""
    entries = running_system.turnout("audit", "list", "--limit", "3")
    assert len(entries) == 3
    assert entries[-1]["seq"] == entries[0]["seq"] + 2
    proof = running_system.turnout("audit", "verify")
    assert proof["intact"]
    again = running_system.turnout("audit", "verify", "--key", proof["public_key"])
    assert again["entries"] >= proof["entries"]
    other = running_system.turnout("audit", "verify", "--key", "ab" * 32, exit_code=1)
    assert not other["intact"]


def test_audit_verify_names_an_altered_entry(tmp_path: Path) -> None:
    """The command exits with 1 and prints the number of the entry."""
    with turnout_up(tmp_path / "state") as system:
        for model in ("a", "b"):
            system.register(model, tmp_path / model)
        (database,) = (tmp_path / "state" / "registry").glob("*.sqlite")
        with sqlite3.connect(database) as connection:
            connection.execute("UPDATE history SET actor = 'other' WHERE seq = 2")
        connection.close()
        verdict = system.turnout("audit", "verify", exit_code=1)
        assert (verdict["intact"], verdict["broken_seq"]) == (False, 2)
        # The registry has found it, too, and writes nothing any more.
        assert "history entry 2 was edited" in verdict["stopped"]
        line = ("versions", "archive", "a", "1", "--reason", "it was replaced")
        assert "history entry 2 was edited" in system.turnout(*line, exit_code=3)


def test_audit_head_is_noted_and_verified(running_system: RunningSystem, tmp_path: Path) -> None:
    """In a file and by a webhook. A head that was altered, or is of nothing, is refused."""
    file = tmp_path / "heads.jsonl"
    for _ in range(2):
        head = running_system.turnout("audit", "head", "--file", str(file))
    assert [json.loads(line) for line in file.read_text().splitlines()] == [head, head]
    report = running_system.turnout("audit", "verify", "--head", str(file), "--files")
    assert report["intact"]
    assert not any("older copy" in line for line in report["unproven"])
    # The webhook gets the same JSON; a refusal fails the command.
    with webhook_server() as (address, bodies):
        assert running_system.turnout("audit", "head", "--webhook", address) in bodies
        refused = running_system.turnout("audit", "head", "--webhook", address + "/no", exit_code=1)
        assert "status 403" in refused
    # Other heads.
    file.write_text(json.dumps({**head, "seq": head["seq"] + 1}) + "\n")
    report = running_system.turnout("audit", "verify", "--head", str(file), exit_code=1)
    assert "is not signed by this registry's key" in report["problem"]
    file.write_text("a head\n")
    running_system.turnout("audit", "verify", "--head", str(file), exit_code=2)
    running_system.turnout("audit", "head", "--webhook", "file:///etc/passwd", exit_code=2)


@contextmanager
def webhook_server() -> Iterator[tuple[str, list[object]]]:
    """A server that keeps the JSON of each POST; it refuses the path /no."""
    bodies: list[object] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(403 if self.path == "/no" else 204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Replace the log line of the HTTP server."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", bodies
        finally:
            server.shutdown()
            thread.join()


def test_features_knows_the_views_of_deployed_versions(
    running_system: RunningSystem, tmp_path: Path
) -> None:
    """No project is needed: the version's contract has them. An unknown view is an error."""
    assert running_system.turnout("features", "views") == []
    # A version of another model reads a view, and workers load it.
    view = telco().view("churn_profile")
    used = tuple(feature.name for feature in view.features)
    contract = ModelContract(entities=view.entities, views=(ViewUse(view=view, features=used),))
    label = running_system.register("viewed", tmp_path / "viewed", contract=contract)
    running_system.approve("viewed", label, "initial")
    running_system.turnout("splits", "preload", "viewed", label)
    (listed,) = running_system.turnout("features", "views")
    assert (listed["view"], len(listed["features"])) == ("churn_profile", 19)
    assert (listed["in_project"], listed["read_by"]) == (False, ["viewed 1 (preloaded)"])
    # Its rows are read as a gateway reads them.
    unknown = running_system.turnout("features", "show", "no_view", "S1", exit_code=1)
    assert "churn_profile" in unknown
    absent = running_system.turnout("features", "show", "churn_profile", "S1")
    assert absent["flags"] == ["missing", "defaulted"]
    error = running_system.turnout("features", "show", "churn_profile", "S1", "S2", exit_code=2)
    assert "is keyed by subscriber: give its id; you gave 2" in error
