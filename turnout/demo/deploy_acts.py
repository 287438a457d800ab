"""The acts on the running system: the first deployment, a promotion and four rollbacks."""

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import replace

from protos import rollout_pb2
from registry.client import RegistryClient
from registry.types import Deployment, GateError
from turnout.demo.callers import TrafficProcess
from turnout.demo.checklist import Step, require
from turnout.demo.context import APPROVER, AUTHOR, MODEL, OPERATOR, BadVersionResult, DemoContext
from turnout.demo.version_acts import BAD_VERSION_POLICIES
from turnout.processes.supervisor_pages import read_workers
from turnout.views.rollout_view import FINAL_STAGE_VALUES, stage_name

FIRST_ANSWER_S_MAX = 30.0
ROLLOUT_S_MAX = 150.0
LATE_ANSWERS_WAIT_S = 2.5
"""The controller counts late bad answers for 2 s after the traffic has moved."""
ROLLED_BACK = rollout_pb2.ROLLED_BACK


async def first_deployment(context: DemoContext, step: Step) -> None:
    """Preload the champion on every worker, then give it all traffic; customers start calling."""
    champion = context.versions["champion"]
    async with context.registry_client(OPERATOR) as client:
        step.note = "every worker loads, verifies and golden-tests version " + champion
        deployment = await client.deployment(MODEL)
        deployment = await client.deploy(
            replace(deployment, preload=(champion,), why="preload the champion")
        )
        deployment = await _deploy_when_ready(client, deployment, champion, context)
        step.note = "every worker swaps its routes"
        async with asyncio.timeout(FIRST_ANSWER_S_MAX):
            await wait_until_applied(client, deployment, context.plan.workers + 1)
    context.traffic = TrafficProcess(
        context.system.gateway, MODEL, context.rate, context.subscribers
    )
    await context.traffic.start(context.screen.customers)
    await _until(
        lambda: context.traffic is not None and context.traffic.newest_line.get("answered", 0) > 0,
        FIRST_ANSWER_S_MAX,
        "no customer call was answered",
    )
    step.note = f"version {champion} answers, revision {deployment.revision}; customers are calling"


async def promotion(context: DemoContext, step: Step) -> None:
    """Roll the candidate out; the controller alone takes it to production."""
    candidate = context.versions["candidate"]
    status = await _run_rollout(context, step, candidate, "demo")
    require(
        status.stage == rollout_pb2.DONE,
        f"version {candidate} ended {stage_name(status)}: {status.reason}",
    )
    async with context.registry_client(OPERATOR) as client:
        deployment = await client.deployment(MODEL)
    require(deployment.production == candidate, f"production is version {deployment.production}")
    require(
        deployment.who not in (AUTHOR, APPROVER, OPERATOR),
        f"{deployment.who} promoted it instead of the controller",
    )
    calls = status.calls
    step.note = (
        f"version {candidate} is production, promoted by {deployment.who}; "
        f"{calls.shadow_pairs} shadow pairs, {calls.canary} canary calls"
    )


async def rollback(context: DemoContext, step: Step) -> None:
    """Roll out a version that fails on some rows; the controller rolls it back by itself."""
    await _expect_rollback(context, step, "faulty")


async def nan_rollback(context: DemoContext, step: Step) -> None:
    """Roll out a version that answers some rows with NaN; the controller rolls it back."""
    await _expect_rollback(context, step, "nan")


async def slow_rollback(context: DemoContext, step: Step) -> None:
    """Roll out a version that is too slow to 2 % of customers; the controller rolls it back."""
    await _expect_rollback(context, step, "slow")


async def crash_rollback(context: DemoContext, step: Step) -> None:
    """Roll out a version that crashes its shadow process; the controller rolls it back."""
    pids = await _worker_pids(context)
    result = await _expect_rollback(context, step, "crashing")
    require(
        "SIGFPE" in result.status.reason, f"the reason of its rollback was {result.status.reason}"
    )
    require(
        result.status.calls.canary == 0, f"{result.status.calls.canary} customer calls went to it"
    )
    pids_after = await _worker_pids(context)
    require(
        pids_after == pids, f"workers were {sorted(pids)} before and are {sorted(pids_after)} now"
    )
    step.note += "; its processes died, and no worker died"


async def _expect_rollback(context: DemoContext, step: Step, name: str) -> BadVersionResult:
    """Roll out a bad version; raise StepFailedError unless it was rolled back without harm."""
    version, failed_before = context.versions[name], _failed_calls(context)
    status = await _run_rollout(context, step, version, BAD_VERSION_POLICIES[name])
    require(
        status.stage == ROLLED_BACK,
        f"version {version} ended {stage_name(status)}: {status.reason}",
    )
    result = BadVersionResult(name, version, status, _failed_calls(context) - failed_before)
    context.bad_versions.append(result)
    times = status.times
    require(
        0 < times.first_bad_unix_ns <= times.verdict_unix_ns <= times.moved_unix_ns
        and times.last_bad_unix_ns > 0,
        f"the four times are out of order: {times}",
    )
    moved_ms = (times.moved_unix_ns - times.verdict_unix_ns) / 1e6
    require(moved_ms <= 1000, f"traffic moved {moved_ms:.0f} ms after the verdict; promised: 1,000")
    require(
        result.customers_failed == 0, f"{result.customers_failed} customer calls failed meanwhile"
    )
    step.note = (
        f"version {version} was rolled back; verdict to traffic moved {moved_ms:.0f} ms, "
        f"0 customer calls failed, {status.calls.fallbacks} answered by production instead"
    )
    return result


def _failed_calls(context: DemoContext) -> int:
    return int(context.traffic.newest_line["failed"]) if context.traffic else 0


async def _worker_pids(context: DemoContext) -> set[int]:
    return {int(row["pid"]) for row in await asyncio.to_thread(read_workers, context.system)}


async def _deploy_when_ready(
    client: RegistryClient, current: Deployment, champion: str, context: DemoContext
) -> Deployment:
    """Deploy *champion* once the registry's gate accepts it: every worker must have it READY."""
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
            context.checklist.step("First deployment").note = f"waiting: {error}"
            await asyncio.sleep(0.1)


async def wait_until_applied(client: RegistryClient, deployment: Deployment, workers: int) -> None:
    """Return once *workers* workers have applied the revision of *deployment*, or a later one."""
    applied: set[tuple[str, int]] = set()
    async for state in client.watch_states():
        if state.applied.get(deployment.model, 0) >= deployment.revision:
            applied.add((state.gateway, state.boot_id))
        if len(applied) >= workers:
            return


async def _run_rollout(
    context: DemoContext, step: Step, version: str, policy: str
) -> rollout_pb2.RolloutStatus:
    """Start one rollout, follow it to its end, and return its last status."""
    async with context.rollout_client(OPERATOR) as client:
        status = await client.start(MODEL, version, policy, "the demo")
        context.screen.rollout(status)
        # Follow it until it has ended and, after a rollback, its traffic has moved.
        stage = ""
        async with (
            asyncio.timeout(ROLLOUT_S_MAX),
            aclosing(client.watch(MODEL, status.rollout_id)) as statuses,
        ):
            async for status in statuses:
                context.screen.rollout(status)
                if (now := stage_name(status)) != stage:
                    stage = now
                    context.screen.add_line(f"version {version}: {stage}")
                step.note = f"version {version}: {stage}"
                if status.stage in FINAL_STAGE_VALUES and (
                    status.stage != ROLLED_BACK or status.times.moved_unix_ns
                ):
                    break
        if status.stage == ROLLED_BACK:
            step.note = f"version {version}: {stage}; waiting for reports of its last bad answers"
            await asyncio.sleep(LATE_ANSWERS_WAIT_S)
            status = await client.status(MODEL)
    return status


async def _until(condition: Callable[[], bool], seconds: float, message: str) -> None:
    """Return once *condition* is true; raise StepFailedError after *seconds*."""
    give_up = asyncio.get_running_loop().time() + seconds
    while not condition():
        require(asyncio.get_running_loop().time() < give_up, f"{message} within {seconds:g} s")
        await asyncio.sleep(0.05)
