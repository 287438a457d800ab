"""Roles: figures of fairness, accepted references, and the metrics of control."""

import datetime as dt
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.walks.identified_system import MODEL, IdentifiedSystem, identified_system
from tests.walks.monitoring.looked_at import store_a_week, store_days_with_rows, yesterday
from turnout.review.week import EPOCH

pytestmark = pytest.mark.walk

PEOPLE = {
    "dana": ["author"],
    "gabriel": ["approver"],
    "sam": ["author", "operator"],
    "rita": ["reader"],
    "aud": ["auditor"],
}


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IdentifiedSystem]:
    """A system in which everybody has a token, with figures of a week."""
    folder: Path = tmp_path_factory.mktemp("roles")
    with identified_system(
        folder, PEOPLE, author="dana", approver="gabriel", operator="sam"
    ) as running:
        store_a_week(running.system)
        store_days_with_rows(running.system, 14)
        yield running


def fairness_of(system: IdentifiedSystem, person: str) -> list[Any]:
    """Return the figures of fairness that a person sees."""
    found: list[Any] = system.turnout(person, "monitor", "figures", MODEL, "--kind", "fairness")
    return found


def test_only_auditors_see_figures_of_fairness(system: IdentifiedSystem, tmp_path: Path) -> None:
    """In lists, in the review and in exports; others are told that some are left out."""
    assert fairness_of(system, "rita") == fairness_of(system, "sam") == []
    assert [item["name"] for item in fairness_of(system, "aud")] == ["selection ratio women"]
    shown = {
        person: system.turnout(person, "review")["sections"]["fairness"]
        for person in ("rita", "aud")
    }
    assert shown["rita"]["empty"].startswith("not shown: figures of fairness are left out")
    assert shown["aud"]["rows"][0]["figure"] == "selection ratio women"
    # What a file has is what its writer may see.
    left_out = system.turnout("rita", "monitor", "export", str(tmp_path / "rita"))
    whole = system.turnout("aud", "monitor", "export", str(tmp_path / "aud"))
    counts = [export["files"][0]["rows"] for export in (left_out, whole)]
    assert (counts[1] - counts[0], len(left_out["notes"]), whole["notes"]) == (1, 1, [])


def test_people_who_deploy_accept_references_and_decide(system: IdentifiedSystem) -> None:
    """Readers and auditors do neither."""
    first, last = (EPOCH + dt.timedelta(days=yesterday() - days) for days in (13, 0))
    accept = ("monitor", "accept", MODEL, "1", "--days", f"{first}..{last}", "--reason", "quiet")
    due = ("--model", MODEL, "--owner", "dora", "--due", "2999-01-01")
    for person in ("rita", "aud"):
        refused = system.turnout(person, *accept, exit_code=1)
        assert "WriteFinding needs" in refused
        assert "operator; " in refused
        assert "needs" in system.turnout(person, "review", "decide", "x", *due, exit_code=1)
    assert system.turnout("sam", *accept)["who"] == "sam"
    assert system.turnout("sam", "review", "decide", "x", *due)["decided_by"] == "sam"


def test_metrics_of_control_need_the_token_of_the_observer(system: IdentifiedSystem) -> None:
    """It is the one that the gateway's page needs."""
    addresses = system.system.addresses
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(addresses.control_metrics, timeout=10)
    token = Path(addresses.observe_token_file).read_text().strip()
    request = urllib.request.Request(
        addresses.control_metrics, headers={"Authorization": f"Bearer {token}"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert b"turnout_incidents_open" in answer.read()
