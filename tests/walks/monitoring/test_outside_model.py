"""A model that another system serves: scores, outcomes, the report, and a person's removal."""

import time
from pathlib import Path

import pytest

from tests.walks.running_system import turnout_up

pytestmark = pytest.mark.walk

HOUR_S = 3_600


def stamp(hours_ago: float) -> str:
    """Return a time as the other system writes it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - hours_ago * HOUR_S))


def test_outside_model_is_counted_reported_and_forgotten(tmp_path: Path) -> None:
    """Each command may be repeated; a bad row is named and nothing of its file is imported."""
    scores, outcomes = tmp_path / "scores.csv", tmp_path / "outcomes.csv"
    with turnout_up(tmp_path / "state") as system:
        add = ("models", "add", "nps", "--elsewhere", "mainframe", "--owner", "ops")
        command = ("models", "import-scores", "nps", "--file", str(scores))
        rows = [f"C{number},{stamp(3)},{number / 10},7" for number in range(10)]
        scores.write_text("\n".join(["key,time,score,version", *rows]))
        unknown = system.turnout(*command, exit_code=1)
        assert "nothing was imported: 'nps' is no model elsewhere" in " ".join(unknown.split())
        system.turnout(*add, "--purpose", "calls")

        # A file with one bad row is not imported; the corrected file is, once.
        scores.write_text("\n".join(["key,time,score,version", *rows, f"C11,{stamp(-9)},0.5,7"]))
        refused = system.turnout(*command, exit_code=1)
        assert "1 of 11 rows cannot be imported" in " ".join(refused.split())
        (known,) = system.turnout("report")["monitored_models"]["models"]
        assert known["monitored"] is False
        scores.write_text("\n".join(["key,time,score,version", *rows]))
        for before in (0, 10):
            done = system.turnout(*command)
            assert (done["rows"], done["known_rows"]) == (10, before)
        outcomes.write_text(f"key,time,name,value\nC3,{stamp(1)},left,1\nC99,{stamp(1)},left,1\n")
        done = system.turnout("models", "import-outcomes", "nps", "--file", str(outcomes))
        assert (done["rows"], done["unattributed"]) == (2, 1)

        # Monitoring counts it as it counts others, and no reader has to be waited for.
        status = system.turnout("monitor", "status")
        (version,) = [item for item in status["versions"] if item["model"] == "nps"]
        assert (version["version"], version["rows"]) == ("elsewhere:7", 10)
        assert version["outcomes"] == 1
        assert {item["gateway"] for item in status["readers"]} <= {"gateway-1"}
        (known,) = system.turnout("report")["monitored_models"]["models"]
        assert (known["monitored"], known["elsewhere"]) == (True, "mainframe")
        findings = system.turnout("audit", "list", "--object", "model/nps/finding/1")
        assert len(findings) == 1
        assert not system.turnout("audit", "list", "--object", "model/nps/finding/2")
        assert system.turnout("monitor", "status")["decision_rows"] == 10

        # A person is removed, though no view and no version here is keyed by anything.
        removal = ("features", "forget", "C3", "--only", "monitoring")
        removed = system.turnout(*removal)["removed"]["monitoring"]
        assert (removed["calls"], removed["outcomes"]) == (1, 1)
        assert system.turnout("monitor", "status")["decision_rows"] == 9
        assert (
            system.turnout(*removal, "--entity", "customer")["removed"]["monitoring"]["calls"] == 0
        )
        (entry,) = system.turnout("audit", "list", "--object", "model/nps/finding/2")
        assert "rows of one entity were removed" in entry["reason"]
