"""`turnout monitor status` as JSON and as tables."""

from rich.console import Console

from protos import monitoring_pb2 as pb
from turnout.monitoring.command import status_json, status_tables


def shown(status: pb.MonitoringStatus) -> str:
    """Return the tables as text."""
    console = Console(width=100)
    with console.capture() as capture:
        console.print(status_tables(status))
    return capture.get()


def test_outcomes_by_entity_are_shown_while_some_wait() -> None:
    """With their number and the age of the oldest; without any there is no table."""
    status = pb.MonitoringStatus(at_unix_ms=10_000_000)
    assert status_json(status)["outcomes_by_entity"] == []
    assert "by entity" not in shown(status)
    status.outcome_backlogs.add(model="churn", number=12_345, oldest_unix_ms=1_000_000)
    assert status_json(status)["outcomes_by_entity"] == [
        {"model": "churn", "waiting": 12_345, "oldest_s": 9_000.0}
    ]
    lines = shown(status).splitlines()
    (heading,) = [line for line in lines if "outcomes by entity that wait" in line]
    assert "oldest" in heading
    assert [line.split() for line in lines if "churn" in line] == [["churn", "12,345", "2.5", "h"]]
