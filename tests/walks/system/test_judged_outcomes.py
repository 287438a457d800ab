"""Rollouts that are judged by reported outcomes: a version that sells less is rolled back."""

import asyncio
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.walks.running_system import RunningSystem, turnout_up
from turnout_client import PredictClient

pytestmark = pytest.mark.walk

MODEL = "offer"
POLICY = """
name = "sold"
base = "drill"
failure_bar = 0.01

[[canary]]
share_bp = 5000
bake_s = 86400

[models.offer.outcome]
name = "bought"
at_least = 1
trust_anonymous = true
"""
CALLERS = 24
"""Customers who call at the same time."""
CALLS_MAX = 400_000


@pytest.fixture(scope="module")
def judged_system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSystem]:
    """A running system with the model `offer` and a policy that judges by purchases."""
    folder: Path = tmp_path_factory.mktemp("outcomes")
    (folder / "policies").mkdir()
    (folder / "policies" / "sold.toml").write_text(POLICY)
    with turnout_up(folder / "state", "--policies", str(folder / "policies")) as running:
        label = running.register(MODEL, folder / "files")
        running.approve(MODEL, label, "initial")
        running.deploy(MODEL, label)
        yield running


def outcomes_until_verdict(
    system: RunningSystem, production: float, candidate: float, events_max: int
) -> dict[str, Any]:
    """Roll out production's files again while customers buy; return the last rollout status.

    production, candidate  share of the version's customers who buy.
    events_max             return once so many purchases are counted.
    """
    files = system.folder.parent / "files"
    label = system.turnout("versions", "register", MODEL, str(files), actor="dana")["label"]
    system.approve(MODEL, label, "sold@offer")
    system.turnout("rollout", "start", MODEL, label, "--policy", "sold", "--reason", "sells more")

    def read_status() -> tuple[dict[str, Any], bool]:
        status = system.turnout("rollout", "status", MODEL)
        row = next(row for row in status["evidence"] if row["metric"] == "outcome")
        counted = int(row.get("canary_events", 0)) + int(row.get("baseline_events", 0))
        return {**status, "outcome": row}, counted >= events_max

    shares = {label: candidate}
    return asyncio.run(_customers(system.addresses.gateway, shares, production, read_status))


async def _customers(
    gateway: str,
    shares: dict[str, float],
    production: float,
    read_status: Callable[[], tuple[dict[str, Any], bool]],
) -> dict[str, Any]:
    """Call and buy until the rollout has ended or has enough purchases; return its status.

    shares       share of customers who buy, by version; *production* for other versions.
    read_status  returns (status, whether there are enough purchases).
    """
    # Each caller is another customer in each call. Of those who do not buy, 5 % report that.
    random_source, over = random.Random(4), asyncio.Event()
    numbers = iter(range(CALLS_MAX))
    async with PredictClient(gateway) as client, asyncio.TaskGroup() as group:

        async def caller() -> None:
            while not over.is_set():
                key = f"S{next(numbers)}-{random_source.random()}"
                prediction = await client.predict(
                    MODEL, keys=key, inputs=[[1, 2, 3]], timeout_s=5.0
                )
                if random_source.random() < shares.get(prediction.version, production):
                    await client.report_outcome(prediction, "bought", 1.0, timeout_s=20.0)
                elif random_source.random() < 0.05:
                    await client.report_outcome(prediction, "bought", 0.0, timeout_s=20.0)

        # Poll the rollout while the callers go on; the task group ends when `over` is set.
        for _ in range(CALLERS):
            group.create_task(caller())
        try:
            while True:
                await asyncio.sleep(0.5)
                status, enough = await asyncio.to_thread(read_status)
                if enough or status["stage"] not in ("PRELOAD", "CANARY_STAGE", "CANARY"):
                    return status
        finally:
            over.set()


def test_judge_rolls_back_for_half_the_outcomes_and_not_for_equal_numbers(
    judged_system: RunningSystem,
) -> None:
    """A candidate is rolled back if it sells to 15 % of customers instead of 30 %."""
    equal = outcomes_until_verdict(judged_system, 0.3, 0.3, 400)
    assert equal["stage"] == "CANARY_STAGE", equal["reason"]
    assert float(equal["outcome"].get("log_e_max", 0)) < equal["outcome"]["log_threshold"]
    assert int(equal["outcome"]["baseline_events"]) > 100
    assert equal["outcome"]["note"] == "bought >= 1"
    judged_system.turnout("rollout", "abort", MODEL, "--reason", "seen enough")
    worse = outcomes_until_verdict(judged_system, 0.3, 0.15, 5_000)
    assert worse["stage"] == "ROLLED_BACK", worse["reason"]
    assert worse["reason"].startswith("outcome: ")
    assert judged_system.turnout("splits", "show", MODEL)["canary"]["version"] == ""


@pytest.mark.nightly
def test_judge_rolls_back_for_2_per_cent_of_outcomes_instead_of_3(
    judged_system: RunningSystem,
) -> None:
    """A candidate is rolled back if it sells to 2 % of customers instead of 3 %."""
    worse = outcomes_until_verdict(judged_system, 0.03, 0.02, 50_000)
    assert worse["stage"] == "ROLLED_BACK", worse["reason"]
    assert worse["reason"].startswith("outcome: ")
    equal = outcomes_until_verdict(judged_system, 0.03, 0.03, 1_000)
    assert equal["stage"] == "CANARY_STAGE", equal["reason"]
    judged_system.turnout("rollout", "abort", MODEL, "--reason", "seen enough")
