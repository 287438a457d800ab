"""`turnout drill`: bad versions rolled out on purpose are found, and no customer is harmed."""

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
    """A system behind each front door, with `tiny` in production."""
    folder: Path = tmp_path_factory.mktemp(request.param)
    with turnout_up(folder / "state", "--ingress", request.param) as running:
        label = running.register(MODEL, folder / "files")
        running.approve(MODEL, label, "initial")
        running.deploy(MODEL, label)
        yield running


def run_drill_command(whole: RunningSystem, kind: str, **options: Any) -> dict[str, Any]:  # noqa: ANN401  any option
    """Run one drill as sam, approved by gabriel."""
    line = ["drill", MODEL, "--kind", kind, "--approver", "gabriel"]
    for name, value in options.items():
        line += [f"--{name}", str(value)]
    told: dict[str, Any] = whole.turnout(*line)
    return told


def in_order(result: dict[str, Any]) -> None:
    """The four times are there, in order, and the traffic moved within the second promised."""
    assert result["found"], result
    assert 0 <= result["verdict_ms"] <= result["moved_ms"]
    assert result["evidence_to_moved_ms"] <= MOVED_MS_MAX
    if result["counted_from"] == "first bad answer":
        assert 0 <= result["last_bad_ms"] <= result["moved_ms"] + MOVED_MS_MAX


@pytest.mark.parametrize("kind", ["failing-100", "constant"])
def test_a_drill_is_found_and_no_customer_is_harmed(
    drilled_system: RunningSystem, kind: str
) -> None:
    """Rolled back, the four times in order, 0 failed calls; the version is archived."""
    with drill_callers(drilled_system.addresses.gateway, MODEL, RATE) as customers:
        told = run_drill_command(drilled_system, kind, seconds=60)
    in_order(told)
    assert told["failed"] == 0
    assert customers.totals["failed"] == 0, customers.totals
    shown = drilled_system.turnout("versions", "show", MODEL, told["version"])
    assert shown["status"] == "ARCHIVED"
    assert shown["card"]["drill"]["kind"] == kind.split("-")[0]
    assert drilled_system.turnout("splits", "show", MODEL)["canary"]["version"] == ""


def test_nobody_drills_alone(running_system: RunningSystem) -> None:
    """Four eyes: who registers the bad version may not approve it, and is told before anything."""
    versions = len(running_system.turnout("versions", "list", MODEL))
    line = ("drill", MODEL, "--approver", "sam")
    assert "may not approve" in running_system.turnout(*line, exit_code=1)
    assert len(running_system.turnout("versions", "list", MODEL)) == versions


@pytest.mark.nightly
def test_two_hundred_drills(
    drilled_system: RunningSystem, capsys: pytest.CaptureFixture[str]
) -> None:
    """All found; from verdict to moved p99 <= 1 s; 0 customer calls fail over all."""
    kinds = [KINDS[number % len(KINDS)] for number in range(DRILLS)]
    with drill_callers(drilled_system.addresses.gateway, MODEL, RATE) as customers:
        drills = []
        for kind in kinds:
            drills.append(run_drill_command(drilled_system, kind, seconds=300))
            with capsys.disabled():
                print(json.dumps(drills[-1]), flush=True)  # noqa: T201
    moved = sorted(one["evidence_to_moved_ms"] or float("inf") for one in drills)
    p99 = moved[math.ceil(0.99 * len(moved)) - 1]
    with capsys.disabled():
        print(f"moved: median {median(moved)}, p99 {p99}, longest {moved[-1]} ms")  # noqa: T201
        print(Counter(one["found"] for one in drills), customers.totals)  # noqa: T201
    assert all(one["found"] for one in drills)
    assert p99 <= MOVED_MS_MAX
    assert sum(one["failed"] for one in drills) == 0
    assert customers.totals["failed"] == 0
