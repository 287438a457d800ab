"""The acts on the running system: first deployment, a promotion, and four rollbacks."""

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import replace

from protos import rollout_pb2
from registry.client import RegistryClient
from registry.types import Deployment, GateError
from turnout.cli.rollout_client import RolloutClient
from turnout.commands.restart import read_workers
from turnout.demo.callers import TrafficProcess
from turnout.demo.checklist import Step, require
from turnout.demo.context import APPROVER, AUTHOR, MODEL, OPERATOR, BadVersionResult, DemoContext
from turnout.demo.version_acts import BAD_VERSION_POLICIES
from turnout.views.rollout_view import FINAL_STAGE_VALUES, stage_name

FIRST_ANSWER_S_MAX = 30.0
ROLLOUT_S_MAX = 150.0
LATE_ANSWERS_WAIT_S = 2.5
"""The controller takes note of late bad answers for 2 s after the traffic has moved."""
ROLLED_BACK = rollout_pb2.ROLLED_BACK


async def first_deployment(context: DemoContext, step: Step) -> None:
    """Preload the champion on every worker, then give it the traffic; customers start calling."""
    champion = context.versions["champion"]
    async with RegistryClient(context.system.registry, OPERATOR) as client:
        step.note = "every worker loads, verifies and golden-tests version " + champion
        held = await client.deployment(MODEL)
        held = await client.deploy(replace(held, preload=(champion,), why="preload the champion"))
        held = await _deploy_when_ready(client, held, champion, context)
        step.note = "every worker swaps its routes"
        async with asyncio.timeout(FIRST_ANSWER_S_MAX):
            await wait_until_applied(client, held, context.plan.workers + 1)
    context.traffic = TrafficProcess(
        context.system.gateway, MODEL, context.rate, context.subscribers
    )
    await context.traffic.start(context.screen.customers)
    await _until(
        lambda: context.traffic is not None and context.traffic.newest_line.get("answered", 0) > 0,
        FIRST_ANSWER_S_MAX,
        "no customer was answered",
    )
    step.note = f"version {champion} answers, revision {held.revision}; customers are calling"


async def promotion(context: DemoContext, step: Step) -> None:
    """Roll the candidate out; the controller alone takes it to production."""
    candidate = context.versions["candidate"]
    last = await _run_rollout(context, step, candidate, "demo")
    require(
        last.stage == rollout_pb2.DONE,
        f"version {candidate} ended {stage_name(last)}: {last.reason}",
    )
    async with RegistryClient(context.system.registry, OPERATOR) as client:
        held = await client.deployment(MODEL)
    require(held.production == candidate, f"production is version {held.production}")
    require(held.who not in (AUTHOR, APPROVER, OPERATOR), f"{held.who} had to help")
    calls = last.calls
    step.note = (
        f"version {candidate} is production, promoted by {held.who}; {calls.shadow_pairs} shadow "
        f"pairs, {calls.canary} canary calls"
    )


async def rollback(context: DemoContext, step: Step) -> None:
    """Roll out a version that faults on some rows; the controller alone takes it back."""
    await _expect_rollback(context, step, "faulty")


async def nan_rollback(context: DemoContext, step: Step) -> None:
    """The same with one that answers NaN to some."""
    await _expect_rollback(context, step, "nan")


async def slow_rollback(context: DemoContext, step: Step) -> None:
    """The same with one that takes longer than a canary may; to a fiftieth of the customers."""
    await _expect_rollback(context, step, "slow")


async def crash_rollback(context: DemoContext, step: Step) -> None:
    """The same with one that crashes; in the shadow of production, in a process of its own."""
    pids = await _worker_pids(context)
    card = await _expect_rollback(context, step, "crashing")
    require("SIGFPE" in card.status.reason, f"it was taken back for {card.status.reason}")
    require(card.status.calls.canary == 0, f"{card.status.calls.canary} customers were given to it")
    left = await _worker_pids(context)
    require(left == pids, f"workers were {sorted(pids)} before, and are {sorted(left)}")
    step.note += "; its processes died, no worker did"


async def _expect_rollback(context: DemoContext, step: Step, name: str) -> BadVersionResult:
    """Roll out a bad version; StepFailedError unless it went, in order, and no customer noticed."""
    version, failed_before = context.versions[name], _failed_calls(context)
    last = await _run_rollout(context, step, version, BAD_VERSION_POLICIES[name])
    require(
        last.stage == ROLLED_BACK,
        f"version {version} ended {stage_name(last)}: {last.reason}",
    )
    card = BadVersionResult(name, version, last, _failed_calls(context) - failed_before)
    context.bad_versions.append(card)
    times = last.times
    require(
        0 < times.first_bad_unix_ns <= times.verdict_unix_ns <= times.moved_unix_ns
        and times.last_bad_unix_ns > 0,
        f"the four times are out of order: {times}",
    )
    moved_ms = (times.moved_unix_ns - times.verdict_unix_ns) / 1e6
    require(moved_ms <= 1000, f"traffic moved {moved_ms:.0f} ms after the verdict; promised: 1,000")
    require(card.customers_failed == 0, f"{card.customers_failed} customer calls failed meanwhile")
    step.note = (
        f"version {version} is out; verdict to traffic moved {moved_ms:.0f} ms, 0 customer calls "
        f"failed, {last.calls.fallbacks} answered by production instead"
    )
    return card


def _failed_calls(context: DemoContext) -> int:
    return int(context.traffic.newest_line["failed"]) if context.traffic else 0


async def _worker_pids(context: DemoContext) -> set[int]:
    return {int(row["pid"]) for row in await asyncio.to_thread(read_workers, context.system)}


async def _deploy_when_ready(
    client: RegistryClient, current: Deployment, champion: str, scene: DemoContext
) -> Deployment:
    """Deploy *champion* as soon as the gateways report it READY; the registry's gate decides."""
    approvals = await client.approvals(MODEL, champion)
    proposed = replace(
        current,
        production=champion,
        preload=(),
        approval_id=approvals[-1].id,
        why="the first version of this model",
    )
    give_up = asyncio.get_running_loop().time() + FIRST_ANSWER_S_MAX
    while True:
        try:
            return await client.deploy(proposed, policy_digest=approvals[-1].policy_digest)
        except GateError as error:
            if asyncio.get_running_loop().time() > give_up:
                raise
            scene.checklist.step("First deployment").note = f"waiting: {error}"
            await asyncio.sleep(0.1)


async def wait_until_applied(client: RegistryClient, deployment: Deployment, workers: int) -> None:
    """Return once *workers* workers have swapped revision *held* (or a later one) in."""
    done: set[tuple[str, int]] = set()
    async for state in client.watch_states():
        if state.applied.get(deployment.model, 0) >= deployment.revision:
            done.add((state.gateway, state.boot_id))
        if len(done) >= workers:
            return


async def _run_rollout(
    scene: DemoContext, step: Step, version: str, policy: str
) -> rollout_pb2.RolloutStatus:
    """Start one rollout and follow it to its end."""
    async with RolloutClient(scene.system.registry, OPERATOR) as client:
        last = await client.start(MODEL, version, policy, "the demo")
        scene.screen.rollout(last)
        stage = ""
        async with (
            asyncio.timeout(ROLLOUT_S_MAX),
            aclosing(client.watch(MODEL, last.rollout_id)) as statuses,
        ):
            async for last in statuses:
                scene.screen.rollout(last)
                if (now := stage_name(last)) != stage:
                    stage = now
                    scene.screen.add_line(f"version {version}: {stage}")
                step.note = f"version {version}: {stage}"
                if last.stage in FINAL_STAGE_VALUES and (
                    last.stage != ROLLED_BACK or last.times.moved_unix_ns
                ):
                    break
        if last.stage == ROLLED_BACK:
            step.note = f"version {version}: {stage}; waiting for its last bad answer to be told"
            await asyncio.sleep(LATE_ANSWERS_WAIT_S)
            last = await client.status(MODEL)
    return last


async def _until(condition: Callable[[], bool], seconds: float, message: str) -> None:
    """Return once *condition* is true; StepFailedError after *seconds*."""
    give_up = asyncio.get_running_loop().time() + seconds
    while not condition():
        require(asyncio.get_running_loop().time() < give_up, f"{message} within {seconds:g} s")
        await asyncio.sleep(0.05)
