"""Rollouts of versions with several outputs, and of values in the thousands."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.tiny_models import tiny_contract
from tests.walks.drill_callers import drill_callers
from tests.walks.running_system import RunningSystem, poll_system_until, turnout_up

pytestmark = pytest.mark.walk

CLASSES = ("low", "middle", "high")
CLASS_WEIGHTS = np.eye(3, dtype=np.float32)
"""The scores are the inputs, so the three classes are equally frequent."""
SPEND_WEIGHTS = np.array([[50_000], [20_000], [10_000]], np.float32)
CALLS_A_SECOND = 150.0
OVERLOADED = {"UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"}
"""What callers may get on a machine that is too busy. Every other code is a fault."""
ENDED = ("DONE", "ROLLED_BACK", "REFUSED_STAGE")


@pytest.fixture(scope="module")
def outputs_system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSystem]:
    """A running system with a model of three classes and a model of one value."""
    folder: Path = tmp_path_factory.mktemp("outputs")
    with turnout_up(folder / "state") as running:
        for model, weights in (("offers", CLASS_WEIGHTS), ("spend", SPEND_WEIGHTS)):
            label = register(running, model, weights)
            running.approve(model, label, "initial")
            running.deploy(model, label)
        yield running


def register(system: RunningSystem, model: str, weights: np.ndarray) -> str:
    """Register a version with (3, K) *weights* and the task of its model; return its label."""
    names: Sequence[str] = CLASSES if model == "offers" else ("spend",)
    folder = system.folder.parent / f"{model}-{time.monotonic_ns()}"
    return system.register(
        model,
        folder,
        contract=tiny_contract(outputs=names),
        weights=np.ascontiguousarray(weights, dtype=np.float32),
        task="multiclass" if model == "offers" else "regression",
        # Values in the thousands are as exact as float32 is.
        card={"score_tolerance": {"absolute": 1e-5, "relative": 1e-5}},
    )


def roll_out(system: RunningSystem, model: str, label: str, policy: str) -> dict[str, Any]:
    """Approve a version and roll it out under traffic; return the last status, or the first HOLD.

    A HOLD counts once the rollout has stayed in it for two looks.
    """
    system.approve(model, label, policy)
    system.turnout("rollout", "start", model, label, "--policy", policy, "--reason", "better")
    held: list[dict[str, Any]] = []

    def ended() -> dict[str, Any] | None:
        status: dict[str, Any] = system.turnout("rollout", "status", model)
        if status["stage"] in ENDED:
            return status
        held.append(status) if status["verdict"] == "HOLD" else held.clear()
        return status if len(held) > 20 else None

    with drill_callers(system.addresses.gateway, model, CALLS_A_SECOND) as callers:
        status: dict[str, Any] = poll_system_until(ended, 150.0, f"{model} {label} is judged")
    assert callers.totals["answered"] > 0
    assert callers.totals["codes"].keys() <= OVERLOADED, callers.totals
    return status


@pytest.mark.parametrize("policy", ["demo", pytest.param("demo-direct", marks=pytest.mark.nightly)])
def test_candidate_with_two_classes_swapped_is_rolled_back(
    outputs_system: RunningSystem, policy: str
) -> None:
    """With a shadow stage it is seen there, and else by the canary's keys."""
    swapped = register(outputs_system, "offers", CLASS_WEIGHTS[:, [0, 2, 1]])
    status = roll_out(outputs_system, "offers", swapped, policy)

    assert status["stage"] == "ROLLED_BACK", status["reason"]
    assert "swapped" in status["reason"]
    assert outputs_system.turnout("splits", "show", "offers")["production"] == "1"


@pytest.mark.nightly
def test_candidate_with_a_dead_class_is_held(outputs_system: RunningSystem) -> None:
    """Production predicts it for a third of the rows. The explanation has each output."""
    dead = register(outputs_system, "offers", np.diag([1, 1, 0]))
    status = roll_out(outputs_system, "offers", dead, "demo")

    assert (status["verdict"], status["stage"]) == ("HOLD", "SHADOW_STAGE"), status["reason"]
    assert "of decisions differ from production's" in status["reason"]
    explained = outputs_system.turnout("rollout", "explain", "offers")
    differences = explained["status"]["score_differences"]
    assert [line.split(":")[0] for line in differences] == [f"output {name!r}" for name in CLASSES]
    assert differences[0] == "output 'low': 0 from production's on average"
    assert differences[2].startswith("output 'high': 0.")
    outputs_system.turnout("rollout", "abort", "offers", "--reason", "it never says high")


def test_regression_candidate_that_says_1_percent_more_is_promoted(
    outputs_system: RunningSystem,
) -> None:
    """Certified against production on served rows, it passes every stage."""
    # Production answers some customers, whose rows the certificate needs.
    plain = register(outputs_system, "spend", SPEND_WEIGHTS * 1.01)
    gateway = outputs_system.addresses.gateway
    refused = outputs_system.turnout("versions", "certify", "spend", plain, exit_code=1)
    assert "a certificate needs 500" in refused
    with drill_callers(gateway, "spend", CALLS_A_SECOND):
        certified = poll_system_until(
            lambda: certify(outputs_system, "spend", plain), 60.0, "500 rows are journaled"
        )
    # The approver sees the task, its unit and the difference.
    shown = outputs_system.turnout("versions", "show", "spend", certified)
    assert shown["task"] == "regression"
    assert 30_000 < shown["outputs"][0]["spread"] < 60_000
    shift = shown["card"]["expected_shift"]
    assert shift["flips"] == 0
    assert 0.005 < shift["mean_distance_in_spreads"] < 0.02

    status = roll_out(outputs_system, "spend", certified, "demo")

    assert status["stage"] == "DONE", status["reason"]
    assert outputs_system.turnout("splits", "show", "spend")["production"] == certified


def certify(system: RunningSystem, model: str, label: str) -> str:
    """Certify a version; return the label of the certified one, or nothing if rows are missing."""
    try:
        found: dict[str, Any] = system.turnout("versions", "certify", model, label, actor="dana")
    except AssertionError as error:
        if "a certificate needs" in str(error):
            return ""
        raise
    return str(found["label"])
