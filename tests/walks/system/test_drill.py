"""`turnout drill`: bad versions are found, and no customer call fails."""

import json
import math
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from tests.front_doors import INGRESSES
from tests.walks.conftest import MODEL
from tests.walks.drill_callers import drill_callers
from tests.walks.running_system import RunningSystem, turnout_up

pytestmark = pytest.mark.walk

RATE = 200.0
MOVED_MS_MAX = 1_000.0
DRILLS = int(os.environ.get("DRILLS", "200"))
KINDS = ("slow", "shifted", "constant", "nan", "failing-5", "failing-100", "flapping")


@pytest.fixture(scope="module", params=INGRESSES)
def drilled_system(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningSystem]:
    """A running system with each ingress, and `tiny` in production."""
    folder: Path = tmp_path_factory.mktemp(request.param)
    with turnout_up(folder / "state", "--ingress", request.param) as running:
        label = running.register(MODEL, folder / "files")
        running.approve(MODEL, label, "initial")
        running.deploy(MODEL, label)
        yield running


def run_drill_command(system: RunningSystem, kind: str, **options: Any) -> dict[str, Any]:  # noqa: ANN401  any value
    """Run one drill as sam, approved by gabriel."""
    line = ["drill", MODEL, "--kind", kind, "--approver", "gabriel"]
    for name, value in options.items():
        line += [f"--{name}", str(value)]
    result: dict[str, Any] = system.turnout(*line)
    return result


def assert_times_in_order(result: dict[str, Any]) -> None:
    """Check that the times are in order and that the traffic moved within the promised second."""
    assert result["found"], result
    assert 0 <= result["verdict_ms"] <= result["moved_ms"]
    assert result["evidence_to_moved_ms"] <= MOVED_MS_MAX
    if result["counted_from"] == "first bad answer":
        assert 0 <= result["last_bad_ms"] <= result["moved_ms"] + MOVED_MS_MAX


@pytest.mark.parametrize("kind", ["failing-100", "constant"])
def test_drill_is_found_and_no_customer_call_fails(
    drilled_system: RunningSystem, kind: str
) -> None:
    """The version is rolled back and archived afterwards."""
    with drill_callers(drilled_system.addresses.gateway, MODEL, RATE) as customers:
        result = run_drill_command(drilled_system, kind, seconds=200)
    assert_times_in_order(result)
    assert result["failed"] == 0
    assert customers.totals["failed"] == 0, customers.totals
    shown = drilled_system.turnout("versions", "show", MODEL, result["version"])
    assert shown["status"] == "ARCHIVED"
    assert shown["card"]["drill"]["kind"] == kind.split("-")[0]
    assert drilled_system.turnout("splits", "show", MODEL)["canary"]["version"] == ""


def test_drill_refuses_an_approver_who_is_the_author(running_system: RunningSystem) -> None:
    """The command refuses before it registers anything."""
    versions = len(running_system.turnout("versions", "list", MODEL))
    line = ("drill", MODEL, "--approver", "sam")
    assert "may not approve" in running_system.turnout(*line, exit_code=1)
    assert len(running_system.turnout("versions", "list", MODEL)) == versions


@pytest.mark.nightly
def test_drill_is_found_every_time_in_200_runs(
    drilled_system: RunningSystem, capsys: pytest.CaptureFixture[str]
) -> None:
    """The traffic moves within 1 s of the verdict (p99), and no customer call fails."""
    kinds = [KINDS[number % len(KINDS)] for number in range(DRILLS)]
    with drill_callers(drilled_system.addresses.gateway, MODEL, RATE) as customers:
        drills = []
        for kind in kinds:
            drills.append(run_drill_command(drilled_system, kind, seconds=300))
            with capsys.disabled():
                print(json.dumps(drills[-1]), flush=True)  # noqa: T201
    moved = sorted(drill["evidence_to_moved_ms"] or float("inf") for drill in drills)
    p99 = moved[math.ceil(0.99 * len(moved)) - 1]
    with capsys.disabled():
        print(f"moved: median {median(moved)}, p99 {p99}, longest {moved[-1]} ms")  # noqa: T201
        print(Counter(drill["found"] for drill in drills), customers.totals)  # noqa: T201
    assert all(drill["found"] for drill in drills)
    assert p99 <= MOVED_MS_MAX
    assert sum(drill["failed"] for drill in drills) == 0
    assert customers.totals["failed"] == 0
