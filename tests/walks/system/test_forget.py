"""`turnout features forget` on a running system: nothing on the disk names the person any more."""

import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from features.contract import ModelContract, ViewUse
from features.materialise import push_rows
from features.offline import OfflineStore
from features.online.store_client import store_client
from features.online.store_users import WRITER, url_for_user
from features.pushed import PushedRow
from protos.predict_pb2 import OutcomeReply, OutcomeRequest, PredictReply, PredictRequest, Row
from tests.walks.gateway_with_store import VIEW
from tests.walks.running_system import RunningSystem, poll_system_until, turnout_up
from tests.walks.system.test_outcomes import call_rpc

pytestmark = pytest.mark.walk

PERSON, OTHER = "+49-170-5550100", "+49-170-5550101"


@pytest.fixture
def system(tmp_path: Path) -> Iterator[RunningSystem]:
    """A running system whose model `who` reads one view keyed by subscriber."""
    contract = ModelContract(
        entities=VIEW.entities, views=(ViewUse(view=VIEW, features=("number", "half")),)
    )
    with turnout_up(tmp_path / "state") as running:
        label = running.register("who", tmp_path / "files", contract=contract)
        running.approve("who", label, "initial")
        running.deploy("who", label)
        yield running


def write_rows(system: RunningSystem) -> None:
    """Store a row of both people offline and online."""
    now_ms = time.time_ns() // 1_000_000
    rows = [PushedRow((name,), now_ms, {"number": 1.0}) for name in (PERSON, OTHER)]
    OfflineStore(system.folder / "offline").append_pushed(VIEW, rows, created_ms=now_ms)
    addresses = system.addresses
    with store_client(addresses.store, WRITER, addresses.store_passwords) as client:
        push_rows(VIEW, client, rows)


def predict(system: RunningSystem, name: str) -> bytes:
    """Predict for one person and report the outcome; return the prediction id."""
    request = PredictRequest(model="who", rows=[Row(keys=[name])])
    reply = call_rpc(system.addresses.gateway, "Predict", request, PredictReply)
    outcome = OutcomeRequest(prediction_id=reply.prediction_id, name="churned", value=1)
    call_rpc(system.addresses.gateway, "ReportOutcome", outcome, OutcomeReply)
    return bytes(reply.prediction_id)


def files_with(folder: Path, content: bytes) -> list[str]:
    """Return the files below *folder* that have these bytes."""
    return [
        path.name
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink() and content in path.read_bytes()
    ]


def test_forget_removes_a_person_from_a_running_system(
    system: RunningSystem, tmp_path: Path
) -> None:
    """The receipts of one person have one subject; the other person keeps every row."""
    write_rows(system)
    ids = {name: predict(system, name) for name in (PERSON, OTHER)}
    named = PERSON.encode()
    poll_system_until(lambda: files_with(system.folder, named), 5, "the call is in the journal")

    def counted() -> list[int]:
        return [item["outcomes"] for item in system.turnout("monitor", "status")["versions"]]

    poll_system_until(lambda: counted() == [2], 30, "both outcomes")

    # Nothing is removed by a dry run. The receipt of the removal has the same counts.
    dry = system.turnout("features", "forget", PERSON, "--dry-run")
    assert files_with(system.folder, named)
    file = tmp_path / "receipt.json"
    receipt = system.turnout("features", "forget", PERSON, "--receipt", str(file))
    removed = receipt["removed"]
    # A dry run writes no file anew.
    dry["removed"]["monitoring"]["files"] = removed["monitoring"]["files"]
    assert removed == dry["removed"]
    assert removed["offline"] == {"rows": 1, "quarantined": 0}
    assert removed["online"] == {"rows": 1}
    assert {removed["journals"][name] for name in ("calls", "rows", "outcomes")} == {1}
    # Every key of a new model is kept as a decision.
    assert {removed["monitoring"][name] for name in ("outcomes", "calls", "rows")} == {1}
    assert counted() == [1]
    assert (receipt["entities"], receipt["actor"]) == (["subscriber"], "sam")
    assert (receipt["dry_run"], receipt["left"]) == (False, [])
    assert json.loads(file.read_text()) == receipt
    # The history proves the receipt by its digest.
    (entry,) = system.turnout("audit", "list", "--object", "model/who/finding/1")
    assert entry["reason"].endswith(hashlib.sha256(file.read_bytes()).hexdigest())
    assert system.turnout("audit", "verify")["problem"] is None

    # No file has the id of the person or of the prediction; the receipt names nobody.
    for content in (named, ids[PERSON]):
        assert files_with(system.folder, content) == []
        assert content not in file.read_bytes()
    assert files_with(system.folder, OTHER.encode())
    assert files_with(system.folder, ids[OTHER])
    shown = system.turnout("features", "show", VIEW.name, PERSON)
    assert shown["flags"] == ["missing", "defaulted"]
    assert system.turnout("features", "show", VIEW.name, OTHER)["flags"] == ["defaulted"]

    # The gateway has gone on; rows that come again are there again.
    write_rows(system)
    predict(system, PERSON)
    again = system.turnout("features", "forget", PERSON, "--entity", "subscriber")
    assert again["removed"]["offline"]["rows"] == 1
    other = system.turnout("features", "forget", OTHER)
    assert again["subject"] == receipt["subject"] == dry["subject"] != other["subject"]


def test_forget_removes_nothing_where_it_may_not_remove_everything(
    system: RunningSystem,
) -> None:
    """Offline rows that were gone before the refusal would be in no receipt."""
    write_rows(system)
    addresses = system.addresses
    url = url_for_user(addresses.store, WRITER, addresses.store_passwords)
    arguments = ("features", "forget", PERSON, "--only", "offline", "--only", "online")
    file = system.folder / "writer.url"
    file.write_text(url)
    refused = system.turnout(*arguments, "--store", f"file:{file}", exit_code=1)
    assert "may not list and delete keys" in " ".join(refused.split())
    removed = system.turnout(*arguments)["removed"]
    assert removed == {"offline": {"rows": 1, "quarantined": 0}, "online": {"rows": 1}}


def test_forget_says_what_it_needs(system: RunningSystem) -> None:
    """Usage errors, a folder that is not there, and an edition that nobody knows."""
    wrong = system.turnout("features", "forget", "S1", "--entity", "device", exit_code=2)
    assert "keyed by: subscriber" in " ".join(wrong.split())
    unclear = system.turnout("features", "forget", "S1", "S2", exit_code=2)
    assert "--entity" in unclear
    absent = system.turnout("features", "forget", "S1", exit_code=1)
    assert "nothing was removed" in " ".join(absent.split())
    lost = system.folder / "offline" / "lost@0123456789abcdef"
    lost.mkdir(parents=True)
    receipt = system.turnout("features", "forget", "S1", "--only", "offline", exit_code=1)
    assert list(receipt["removed"]) == ["offline"]
    assert "lost@0123456789abcdef" in receipt["left"][0]
