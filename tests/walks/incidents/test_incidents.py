"""`turnout incidents`, `report`, `models add` and `incidents notify` against a running system."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from protos import registry_pb2 as pb
from registry.types import NotAllowedError
from tests.walks.conftest import MODEL
from tests.walks.running_system import RunningSystem

pytestmark = pytest.mark.walk


def test_incident_goes_through_its_states(running_system: RunningSystem) -> None:
    """Opened, acknowledged, assigned, mitigated, closed: each by a command, all in the history."""
    turnout = running_system.turnout
    line = ("incidents", "open", MODEL, "--title", "scores look odd", "--severity", "page")
    opened = turnout(*line, "--figures", '{"psi": 0.3}')
    assert (opened["opened"], opened["severity"], opened["figures"]) == (True, "PAGE", {"psi": 0.3})
    incident = opened["id"]
    assert turnout(*line)["opened"] is False
    # A page that nobody has seen is the answer "no".
    listed = turnout("incidents", "list", MODEL, exit_code=1)
    assert [row["id"] for row in listed] == [incident]
    assert turnout("incidents", "ack", incident[:4], actor="dana")["owner"] == "dana"
    assert turnout("incidents", "list", MODEL)[0]["state"] == "ACKNOWLEDGED"
    assert turnout("incidents", "assign", incident, "gabriel")["owner"] == "gabriel"
    turnout("incidents", "comment", incident, "the file was late")
    turnout("incidents", "link", incident, "url=https://wiki.example.org/1")
    turnout("incidents", "mitigate", incident, "-r", "file loaded")
    # What its state does not allow is refused with exit code 1, a wrong word with 2.
    assert "already" in turnout("incidents", "ack", incident, exit_code=1)
    turnout("incidents", "link", incident, "moon=1", exit_code=2)
    assert "https://" in turnout("incidents", "link", incident, "url=javascript:1", exit_code=1)
    # A model that is not there, and texts that are empty or too long, open nothing.
    refused = turnout("incidents", "open", "nomodel", "--title", "x", exit_code=1)
    assert "there is no model 'nomodel'" in refused
    assert "--title is empty" in turnout("incidents", "open", MODEL, "--title", " ", exit_code=2)
    refused = turnout("incidents", "open", MODEL, "--title", "x" * 5_000, exit_code=1)
    assert "--title has 5000 bytes; the most is 512" in refused
    turnout("incidents", "close", incident, "--resolution", "odd", "-r", "x", exit_code=2)
    closed = turnout("incidents", "close", incident, "--resolution", "false-alarm", "-r", "late")
    assert (closed["state"], closed["resolution"]) == ("CLOSED", "FALSE_ALARM")
    shown = turnout("incidents", "show", incident)
    assert [note["kind"] for note in shown["notes"]] == ["comment", "url", "mitigate", "close"]
    assert turnout("incidents", "list", MODEL) == []
    # The history has every step, and proves the rows.
    entries = turnout("audit", "list", "--object", f"model/{MODEL}/incident/{incident}")
    assert [entry["action"] for entry in entries].count("change incident") == 4
    assert turnout("audit", "verify")["intact"] is True


def test_policy_acts_only_for_monitoring_and_people_end_incidents(
    running_system: RunningSystem,
) -> None:
    """Without an identities file every name has every role, so the rule itself is tried here."""
    from registry.watching.incidents import Change, check_may_change

    with pytest.raises(NotAllowedError, match="a person"):
        check_may_change(Change.CLOSE, "watch", person=False, program=True)
    with pytest.raises(NotAllowedError, match="monitoring or the controller"):
        check_may_change(Change.RAISE, "sam", person=True, program=False)

    async def raise_once() -> pb.Incident:
        async with running_system.registry_client("watch") as client:
            opened = await client.open_incident(
                MODEL, "score", "score/1", severity=pb.Incident.REVIEW, title="x", automatic=True
            )
            request = Change(
                id=opened.incident.id,
                revision=1,
                change=Change.RAISE,
                severity=pb.Incident.WARNING,
                figures_json='{"psi": 0.4}',
            )
            return await client.change_incident(request)

    raised = asyncio.run(raise_once())
    assert (raised.raised, raised.severity) == (1, pb.Incident.WARNING)
    line = ("incidents", "close", raised.id, "--resolution", "expected", "-r", "a campaign")
    running_system.turnout(*line)


def test_report_has_five_measures_with_their_entries(running_system: RunningSystem) -> None:
    """Models elsewhere are known; what nobody measured is not a number."""
    line = ("models", "add", "fraud", "--elsewhere", "mainframe", "--owner", "risk")
    added = running_system.turnout(*line, "--purpose", "stops payments")
    assert added["place"] == "mainframe"
    assert "known already" in running_system.turnout(*line, "--purpose", "again", exit_code=1)
    report = running_system.turnout("report", "--entries")
    versions = report["time_to_production"]["versions"]
    assert (versions[0]["model"], versions[0]["version"]) == (MODEL, "1")
    assert versions[0]["stages"]["waiting for approval"] >= 0
    known = {item["model"]: item for item in report["monitored_models"]["models"]}
    assert known["fraud"]["elsewhere"] == "mainframe"
    assert known[MODEL]["monitored"] is False
    assert {item["measured"] for item in report["uplift"]} == {False}
    seqs = {entry["seq"]: entry for entry in running_system.turnout("audit", "list")}
    assert seqs[known["fraud"]["entries"][0]]["action"] == "add outside model"


def test_report_is_drawn(running_system: RunningSystem, tmp_path: Path) -> None:
    """As SVG, whose text can be searched."""
    pytest.importorskip("matplotlib", reason="the plots extra is not installed")
    picture = tmp_path / "report.svg"
    running_system.turnout("report", "--plot", str(picture))
    assert "From the first training" in picture.read_text()
    running_system.turnout("report", "--plot", str(tmp_path / "report.jpg"), exit_code=1)


def test_test_notice_says_which_target_takes_it(
    running_system: RunningSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is signed with the secret in a file; a target that does not answer makes it fail."""
    with hook() as (url, bodies):
        project = tmp_path / "shop"
        (project / "environments").mkdir(parents=True)
        (project / "secret").write_text("s3cret")
        (project / "turnout.toml").write_text(
            '[project]\nname = "shop"\nformat = 1\nowner = "network-ds"\n'
        )
        environment = project / "environments" / "dev.toml"
        good = f'[notices.ops]\nurl = "{url}"\nsecret = "${{file:secret}}"\n'
        environment.write_text(good)
        monkeypatch.chdir(project)
        sent = running_system.turnout("incidents", "notify", "--test")
        assert sent == [{"target": "ops", "taken": True, "problem": ""}]
        headers, body = bodies[0]
        assert json.loads(body)["type"] == "test"
        assert headers["webhook-signature"].startswith("v1,")
        environment.write_text(f'{good}[notices.gone]\nurl = "http://127.0.0.1:9/"\n')
        results = running_system.turnout("incidents", "notify", "--test", exit_code=1)
        assert [item["taken"] for item in results] == [True, False]
        running_system.turnout("incidents", "notify", exit_code=2)


@contextmanager
def hook() -> Iterator[tuple[str, list[tuple[dict[str, str], bytes]]]]:
    """Yield the address of a receiver on loopback, and what came."""
    received: list[tuple[dict[str, str], bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            received.append((dict(self.headers), body))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Print no line of a request."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/hook", received
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
