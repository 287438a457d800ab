"""Customers who act on what they were told: a version that sells less is taken back for that."""

import asyncio
import random
from collections.abc import Iterator
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
"""
ASKING = 24
"""Customers at once."""
CALLS_MAX = 400_000


@pytest.fixture(scope="module")
def judged_system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSystem]:
    """A running system whose model `offer` is production, under a policy that looks at sales."""
    folder: Path = tmp_path_factory.mktemp("shop")
    (folder / "policies").mkdir()
    (folder / "policies" / "sold.toml").write_text(POLICY)
    with turnout_up(folder / "state", "--policies", str(folder / "policies")) as running:
        label = running.register(MODEL, folder / "files")
        running.approve(MODEL, label, "initial")
        running.deploy(MODEL, label)
        yield running


def outcomes_until_verdict(
    shop: RunningSystem, production: float, candidate: float, events_max: int
) -> dict[str, Any]:
    """Roll production's bytes out again while customers buy; return how the rollout stands.

    production, candidate  how many of each version's customers buy
    events_max             buyers counted, after which it is enough
    """
    files = shop.folder.parent / "files"
    label = shop.turnout("versions", "register", MODEL, str(files), actor="dana")["label"]
    shop.approve(MODEL, label, "sold@offer")
    shop.turnout("rollout", "start", MODEL, label, "--policy", "sold", "--reason", "sells more")

    def standing() -> tuple[dict[str, Any], bool]:
        status = shop.turnout("rollout", "status", MODEL)
        row = next(one for one in status["evidence"] if one["metric"] == "outcome")
        counted = int(row.get("canary_events", 0)) + int(row.get("baseline_events", 0))
        return {**status, "outcome": row}, counted >= events_max

    buys = {label: candidate}
    return asyncio.run(_customers(shop.addresses.gateway, buys, production, standing))


async def _customers(gateway: str, buys: dict[str, float], usual: float, standing: Any) -> Any:  # noqa: ANN401
    """Ask, buy, and look once a second, until it is over."""
    draw, over = random.Random(4), asyncio.Event()
    numbers = iter(range(CALLS_MAX))
    async with PredictClient(gateway) as client, asyncio.TaskGroup() as group:

        async def one_after_another() -> None:
            while not over.is_set():
                key = f"S{next(numbers)}-{draw.random()}"
                told = await client.predict(MODEL, keys=key, inputs=[[1, 2, 3]], timeout_s=5.0)
                if draw.random() < buys.get(told.version, usual):
                    await client.report_outcome(told, "bought", 1.0)
                elif draw.random() < 0.05:
                    await client.report_outcome(told, "bought", 0.0)

        for _ in range(ASKING):
            group.create_task(one_after_another())
        try:
            while True:
                await asyncio.sleep(0.5)
                status, enough = await asyncio.to_thread(standing)
                if enough or status["stage"] not in ("PRELOAD", "CANARY_STAGE", "CANARY"):
                    return status
        finally:
            over.set()


def test_equal_outcomes_leave_it_alone_and_fewer_take_it_back(judged_system: RunningSystem) -> None:
    """Both sell to 30 %: it stays. The candidate to 15 %: back, with the reason, nobody else."""
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
def test_three_per_cent_and_two_are_told_apart(judged_system: RunningSystem) -> None:
    """3 % of production's customers buy, 2 % of the candidate's: back; 3 % of both: not."""
    worse = outcomes_until_verdict(judged_system, 0.03, 0.02, 50_000)
    assert worse["stage"] == "ROLLED_BACK", worse["reason"]
    assert worse["reason"].startswith("outcome: ")
    equal = outcomes_until_verdict(judged_system, 0.03, 0.03, 1_000)
    assert equal["stage"] == "CANARY_STAGE", equal["reason"]
    judged_system.turnout("rollout", "abort", MODEL, "--reason", "seen enough")
