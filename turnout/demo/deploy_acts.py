"""The acts on the running system: first deployment, a promotion, and four rollbacks."""

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import replace

from protos import rollout_pb2
from registry.client import RegistryClient
from registry.types import Deployment, GateError
from turnout.cli.rollout_client import RolloutClient
from turnout.commands.restart import workers
from turnout.demo.callers import Callers
from turnout.demo.checklist import Step, hold
from turnout.demo.context import APPROVER, AUTHOR, MODEL, OPERATOR, Card, Scene
from turnout.demo.version_acts import BAD
from turnout.views.rollout_view import OVER, stage_name

FIRST_ANSWER_S_MAX = 30.0
ROLLOUT_S_MAX = 150.0
LAST_BAD_S = 2.5
"""The controller takes note of late bad answers for 2 s after the traffic has moved."""
BACK = rollout_pb2.ROLLED_BACK


async def first_deployment(scene: Scene, step: Step) -> None:
    """Preload the champion on every worker, then give it the traffic; customers start calling."""
    champion = scene.versions["champion"]
    async with RegistryClient(scene.up.registry, OPERATOR) as client:
        step.note = "every worker loads, verifies and golden-tests version " + champion
        held = await client.deployment(MODEL)
        held = await client.deploy(replace(held, preload=(champion,), why="preload the champion"))
        held = await _once_ready(client, held, champion, scene)
        step.note = "every worker swaps its routes"
        async with asyncio.timeout(FIRST_ANSWER_S_MAX):
            await obeyed(client, held, scene.plan.workers + 1)
    scene.callers = Callers(scene.up.gateway, MODEL, scene.rate, scene.subscribers)
    await scene.callers.start(scene.screen.customers)
    await _until(
        lambda: scene.callers is not None and scene.callers.newest.get("answered", 0) > 0,
        FIRST_ANSWER_S_MAX,
        "no customer was answered",
    )
    step.note = f"version {champion} answers, revision {held.revision}; customers are calling"


async def promotion(scene: Scene, step: Step) -> None:
    """Roll the candidate out; the controller alone takes it to production."""
    candidate = scene.versions["candidate"]
    last = await _rollout(scene, step, candidate, "demo")
    hold(
        last.stage == rollout_pb2.DONE,
        f"version {candidate} ended {stage_name(last)}: {last.reason}",
    )
    async with RegistryClient(scene.up.registry, OPERATOR) as client:
        held = await client.deployment(MODEL)
    hold(held.production == candidate, f"production is version {held.production}")
    hold(held.who not in (AUTHOR, APPROVER, OPERATOR), f"{held.who} had to help")
    calls = last.calls
    step.note = (
        f"version {candidate} is production, promoted by {held.who}; {calls.shadow_pairs} shadow "
        f"pairs, {calls.canary} canary calls"
    )


async def rollback(scene: Scene, step: Step) -> None:
    """Roll out a version that faults on some rows; the controller alone takes it back."""
    await _taken_back(scene, step, "faulty")


async def not_a_number(scene: Scene, step: Step) -> None:
    """The same with one that answers NaN to some."""
    await _taken_back(scene, step, "nan")


async def too_slow(scene: Scene, step: Step) -> None:
    """The same with one that takes longer than a canary may; to a fiftieth of the customers."""
    await _taken_back(scene, step, "slow")


async def crash(scene: Scene, step: Step) -> None:
    """The same with one that crashes; in the shadow of production, in a process of its own."""
    pids = await _worker_pids(scene)
    card = await _taken_back(scene, step, "crashing")
    hold("SIGFPE" in card.status.reason, f"it was taken back for {card.status.reason}")
    hold(card.status.calls.canary == 0, f"{card.status.calls.canary} customers were given to it")
    left = await _worker_pids(scene)
    hold(left == pids, f"workers were {sorted(pids)} before, and are {sorted(left)}")
    step.note += "; its processes died, no worker did"


async def _taken_back(scene: Scene, step: Step, name: str) -> Card:
    """Roll out a bad version; NotHeldError unless it went, in order, and no customer noticed."""
    version, failed_before = scene.versions[name], _failed(scene)
    last = await _rollout(scene, step, version, BAD[name])
    hold(
        last.stage == BACK,
        f"version {version} ended {stage_name(last)}: {last.reason}",
    )
    card = Card(name, version, last, _failed(scene) - failed_before)
    scene.cards.append(card)
    times = last.times
    hold(
        0 < times.first_bad_unix_ns <= times.verdict_unix_ns <= times.moved_unix_ns
        and times.last_bad_unix_ns > 0,
        f"the four times are out of order: {times}",
    )
    moved_ms = (times.moved_unix_ns - times.verdict_unix_ns) / 1e6
    hold(moved_ms <= 1000, f"traffic moved {moved_ms:.0f} ms after the verdict; promised: 1,000")
    hold(card.customers_failed == 0, f"{card.customers_failed} customer calls failed meanwhile")
    step.note = (
        f"version {version} is out; verdict to traffic moved {moved_ms:.0f} ms, 0 customer calls "
        f"failed, {last.calls.fallen_back} answered by production instead"
    )
    return card


def _failed(scene: Scene) -> int:
    return int(scene.callers.newest["failed"]) if scene.callers else 0


async def _worker_pids(scene: Scene) -> set[int]:
    return {int(row["pid"]) for row in await asyncio.to_thread(workers, scene.up)}


async def _once_ready(
    client: RegistryClient, held: Deployment, champion: str, scene: Scene
) -> Deployment:
    """Deploy *champion* as soon as the gateways report it READY; the registry's gate decides."""
    approvals = await client.approvals(MODEL, champion)
    proposed = replace(
        held,
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


async def obeyed(client: RegistryClient, held: Deployment, workers: int) -> None:
    """Return once *workers* workers have swapped revision *held* (or a later one) in."""
    done: set[tuple[str, int]] = set()
    async for state in client.watch_states():
        if state.applied.get(held.model, 0) >= held.revision:
            done.add((state.gateway, state.boot_id))
        if len(done) >= workers:
            return


async def _rollout(
    scene: Scene, step: Step, version: str, policy: str
) -> rollout_pb2.RolloutStatus:
    """Start one rollout and follow it to its end."""
    async with RolloutClient(scene.up.registry, OPERATOR) as client:
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
                    scene.screen.say(f"version {version}: {stage}")
                step.note = f"version {version}: {stage}"
                if last.stage in OVER and (last.stage != BACK or last.times.moved_unix_ns):
                    break
        if last.stage == BACK:
            step.note = f"version {version}: {stage}; waiting for its last bad answer to be told"
            await asyncio.sleep(LAST_BAD_S)
            last = await client.status(MODEL)
    return last


async def _until(condition: Callable[[], bool], seconds: float, otherwise: str) -> None:
    """Return once *condition* is true; NotHeldError after *seconds*."""
    give_up = asyncio.get_running_loop().time() + seconds
    while not condition():
        hold(asyncio.get_running_loop().time() < give_up, f"{otherwise} within {seconds:g} s")
        await asyncio.sleep(0.05)
