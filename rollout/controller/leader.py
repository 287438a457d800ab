"""Makes a controller lead whenever it can get the lease, and stop before the lease runs out.

While the controller leads, several loops run beside each other: they renew the lease, follow the
registry's deployments, worker states and findings, judge, and save.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Sequence

from registry.client import RegistryClient
from registry.signed import read_deployment
from registry.types import FencedError, RegistryError
from rollout.controller.controller import Controller
from rollout.controller.finding_acts import FindingActs
from rollout.evidence.inbox import NS
from rollout.lifecycle.clock import ControllerClock

log = logging.getLogger(__name__)

LEASE_NAME = "rollout"
LEASE_S = 5
RENEW_S = 1.0
LEASE_LOST_NS = 4 * NS
"""Without a renewal for this long the controller stops: before the lease runs out, not after."""
TICK_S = 0.05
STOOD_STILL_NS = NS // 4
"""A tick that took longer means that this process stood still, and that batches which came
meanwhile are unread. Half of CLOSE_DELAY_NS, because workers may need the other half."""
"""A second that is over is judged within this time."""
SAVE_S = 0.2
"""Pause between two saves, at least: how long windows wait for their acknowledgement ..."""
SAVE_PAUSE_FACTOR = 9.0
"""... and at least this many times as long as the last save took. The checkpoints of many long
rollouts are many megabytes, and gateways keep unacknowledged windows for an hour."""
LEASE_RETRY_S = 0.5

LeaderLoop = Callable[[RegistryClient, int], Coroutine[None, None, None]]
"""What else runs while the controller leads, with the registry and the lease's token. An error that
it raises ends the lead, so it raises none that a rollout need not know of."""


class LeaseLostError(Exception):
    """Another controller has the lease, or the registry cannot say which controller has it."""


async def run_leader(
    controller: Controller,
    registry: RegistryClient,
    holder: str,
    clock: ControllerClock,
    beside: Sequence[LeaderLoop] = (),
) -> None:
    """Lead whenever the lease can be had, until cancelled.

    holder  names this start of this process in the lease; it must be unique.
    beside  runs beside the controller's own loops, while it leads.
    """
    while True:
        # Get the lease and recover.
        try:
            lease = await registry.acquire_lease(LEASE_NAME, holder, LEASE_S)
            await controller.start_leading(lease.token)
        except RegistryError as error:
            log.info("rollout: not leading: %s", error)
            await asyncio.sleep(LEASE_RETRY_S)
            continue
        log.info("rollout: leading")
        # Lead. After any error the controller begins anew from the checkpoints.
        try:
            await _lead(controller, registry, holder, lease.token, clock, beside)
        except LeaseLostError as error:
            log.warning("rollout: no longer leading: %s", error)
        except Exception:
            log.exception("rollout: starting over from the last checkpoints")
        finally:
            # Shorten the lease to a second, so that the next controller need not wait for its end.
            await controller.stop_leading()
            with contextlib.suppress(RegistryError, asyncio.CancelledError):
                await registry.acquire_lease(LEASE_NAME, holder, 1, lease.token)
        await asyncio.sleep(LEASE_RETRY_S)


async def _lead(
    controller: Controller,
    registry: RegistryClient,
    holder: str,
    token: int,
    clock: ControllerClock,
    beside: Sequence[LeaderLoop],
) -> None:
    """Run every loop of the leader until one ends, then end the others and raise its error."""
    loops: list[Coroutine[None, None, None]] = [
        _renew(registry, holder, token, clock),
        _follow_deployments(controller, registry),
        _follow_states(controller, registry, clock),
        _follow_findings(controller, registry),
        FindingActs(controller, registry, clock).run(),
        _act_loop(controller, clock),
        _save_loop(controller, clock),
        *(loop(registry, token) for loop in beside),
    ]
    tasks = [asyncio.ensure_future(loop) for loop in loops]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _renew(registry: RegistryClient, holder: str, token: int, clock: ControllerClock) -> None:
    """Renew the lease every second. The lease counts from the start of the last good renewal."""
    renewed_ns = clock.now().monotonic_ns
    while True:
        await asyncio.sleep(RENEW_S)
        started_ns = clock.now().monotonic_ns
        try:
            async with asyncio.timeout(LEASE_LOST_NS / NS - (started_ns - renewed_ns) / NS):
                await registry.acquire_lease(LEASE_NAME, holder, LEASE_S, token)
            renewed_ns = started_ns
        except FencedError as error:
            raise LeaseLostError(str(error)) from error
        except (RegistryError, TimeoutError) as error:
            if clock.now().monotonic_ns - renewed_ns >= LEASE_LOST_NS:
                raise LeaseLostError(f"the registry has not answered for 4 s: {error}") from error


async def _act_loop(controller: Controller, clock: ControllerClock) -> None:
    """Let the controller act each TICK_S, and at once when `wake` is set."""
    while True:
        waited_from_ns = clock.now().monotonic_ns
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TICK_S):
                await controller.wake.wait()
        controller.wake.clear()
        if controller.fenced:
            raise LeaseLostError("a write was refused: another controller holds the lease")
        if clock.now().monotonic_ns - waited_from_ns > STOOD_STILL_NS:
            controller.wait_for_gateways()
        controller.act()


async def _save_loop(controller: Controller, clock: ControllerClock) -> None:
    """Save checkpoints, with pauses of SAVE_S or longer."""
    pause_s = SAVE_S
    while True:
        await asyncio.sleep(pause_s)
        began_ns = clock.now().monotonic_ns
        try:
            await controller.save()
            pause_s = max(SAVE_S, SAVE_PAUSE_FACTOR * (clock.now().monotonic_ns - began_ns) / NS)
        except FencedError as error:
            raise LeaseLostError(str(error)) from error
        except RegistryError as error:
            # Nothing was acknowledged, so the gateways still have the windows.
            log.warning("rollout: checkpoint not written: %s", error)


async def _follow_deployments(controller: Controller, registry: RegistryClient) -> None:
    while True:
        with contextlib.suppress(RegistryError):
            async for event in registry.watch_deployments():
                for message in event.deployments:
                    controller.see_deployment(read_deployment(message))
        await asyncio.sleep(LEASE_RETRY_S)


async def _follow_states(
    controller: Controller, registry: RegistryClient, clock: ControllerClock
) -> None:
    while True:
        with contextlib.suppress(RegistryError):
            # A new watch begins with the state of every live worker.
            controller.fleet.clear()
            async for state in registry.watch_states():
                controller.fleet.update_worker(state, clock.now().monotonic_ns)
                controller.wake.set()
        await asyncio.sleep(LEASE_RETRY_S)


async def _follow_findings(controller: Controller, registry: RegistryClient) -> None:
    while True:
        with contextlib.suppress(RegistryError):
            async for finding in registry.watch_findings(controller.findings.sequence):
                controller.findings.add_finding(finding)
                controller.wake.set()
        await asyncio.sleep(LEASE_RETRY_S)
