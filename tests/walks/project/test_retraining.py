"""A finding becomes a queued run, and a runner trains it, through the commands of an operator."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.walks.project.test_runs import project, run, system
from tests.walks.running_system import RunningSystem, poll_system_until

pytestmark = pytest.mark.walk
PAGE = Path(__file__).parents[3] / "docs" / "retraining.md"
__all__ = ["project", "system"]  # fixtures


SCHEDULES = """
[drifted]
model = "churned"
on_finding = ["drift"]

[grown]
model = "churned"
new_labels = 1_000
"""


def test_finding_becomes_a_run_that_a_runner_trains(system: RunningSystem, project: Path) -> None:
    """Schedules reach the controller with the apply. The runner asks for what labels make due."""
    (project / "schedules.toml").write_text(SCHEDULES)
    run(system, project, "apply", "--yes", "--reason", "schedules")

    # The program of the page, about the model of this project.
    page = PAGE.read_text(encoding="utf-8")
    (program,) = re.findall(r"^```python\n([^`]*write_finding[^`]*)^```$", page, re.MULTILINE)
    program = program.replace('"churn"', '"churned"').replace(".turnout", str(system.folder))
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)

    def queued() -> Any:  # noqa: ANN401  any JSON
        runs = run(system, project, "runs", "list")
        return next((item for item in runs if item["schedule"].endswith("/drifted")), None)

    waiting = poll_system_until(queued, 20.0, "the finding's run is queued")
    assert (waiting["state"], waiting["setting"]) == ("queued", "first")
    run(system, project, "run", "training", "--once")
    done = run(system, project, "runs", "show", waiting["id"])
    assert (done["state"], done["actor"], done["attempt"]) == ("registered", "sam", 1), done
    assert done["cause"].startswith("schedule drifted, finding 1 (drift)")
    assert done["result"]["metrics"]
    listed = {item["name"]: item for item in run(system, project, "schedules", "list")}
    assert listed["drifted"]["last_run"]["id"] == waiting["id"]
    # The labels were looked at while the other run waited.
    assert listed["grown"]["last_run"] is None
    assert "waits for a trainer already" in listed["grown"]["last_skipped"]["error"]
    # A person's run waits until somebody cancels it.
    asked = run(system, project, "runs", "queue", "churned", "--cause", "new tariff")
    cancelled = run(system, project, "runs", "cancel", asked["id"], "--reason", "wrong labels")
    assert (cancelled["state"], cancelled["error"]) == (
        "cancelled",
        "cancelled by sam: wrong labels",
    )
