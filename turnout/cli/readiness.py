"""Waits until the gateway workers have loaded the versions that a deployment preloads."""

import asyncio
import time
from collections.abc import Callable, Sequence

from registry.client import RegistryClient
from rollout.controller.fleet import Fleet
from turnout.errors import OperatorError

READY_S_MAX = 120.0
"""A probe takes about a second. A busy host, or many versions, take far longer."""
NO_WORKER_S = 2.0
"""When no worker has reported by then, no gateway runs and there is nothing to wait for."""
SETTLED_S = 0.2
"""All known workers must be ready for so long, because the registry reports them one by one."""
POLL_INTERVAL_S = 0.05

Progress = Callable[[int, int, str], None]
"""Called with (ready workers, live workers, names of the workers that still load)."""


async def wait_until_ready(
    client: RegistryClient,
    model: str,
    versions: Sequence[str],
    progress: Progress,
    now_s: Callable[[], float] = time.monotonic,
) -> int:
    """Wait until every live worker, spares included, has all *versions* READY.

    now_s  a monotonic clock in seconds; tests give their own.

    Returns the number of live workers, 0 when no gateway runs. Raises OperatorError when a worker
    refuses a version, and after READY_S_MAX.
    """
    # One task reads the states of the workers; the loop below looks at them at short intervals.
    fleet = Fleet()
    following = asyncio.ensure_future(_follow_states(client, fleet))
    began_s = not_ready_s = now_s()
    try:
        while True:
            await asyncio.wait({following}, timeout=POLL_INTERVAL_S)
            if following.done():
                following.result()
            workers, waiting = _count_ready(fleet, model, versions)
            progress(workers - len(waiting), workers, ", ".join(waiting))
            now = now_s()
            # Done when all have been ready for a while, or when no worker has shown up at all.
            if waiting or not workers:
                not_ready_s = now
            if (workers and now - not_ready_s >= SETTLED_S) or (
                not workers and now - began_s >= NO_WORKER_S
            ):
                return workers
            if now - began_s >= READY_S_MAX:
                raise OperatorError(
                    f"after {READY_S_MAX:g} s {', '.join(waiting)} still loads it; it goes "
                    "on: wait again with the same command"
                )
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def _follow_states(client: RegistryClient, fleet: Fleet) -> None:
    async for state in client.watch_states():
        fleet.update_worker(state, 0)


def _count_ready(fleet: Fleet, model: str, versions: Sequence[str]) -> tuple[int, list[str]]:
    """Return the number of live workers, and the names of those still without a version."""
    waiting: dict[str, None] = {}
    workers = 0
    for version in versions:
        view = fleet.view(model, version, float("inf"), 0)
        if view.refused:
            raise OperatorError(f"version {version} is refused by {'; '.join(view.refused)}")
        workers = view.workers
        waiting.update(dict.fromkeys(view.not_ready))
    return workers, list(waiting)
