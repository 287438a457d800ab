"""Waits until the gateways have loaded what a deployment preloads."""

import asyncio
import time
from collections.abc import Callable, Sequence

from registry.client import RegistryClient
from rollout.controller.fleet import Fleet
from turnout.errors import OperatorError

READY_S_MAX = 120.0
"""A probe takes a second; on a busy host, or one version after another, many of them."""
NO_WORKER_S = 2.0
"""No worker has shown itself by then: there is none to wait for."""
SETTLED_S = 0.2
"""The registry tells of one worker after another: all are ready once this was so for as long."""
POLL_INTERVAL_S = 0.05

Progress = Callable[[int, int, str], None]


async def wait_until_ready(
    client: RegistryClient,
    model: str,
    versions: Sequence[str],
    progress: Progress,
    now_s: Callable[[], float] = time.monotonic,
) -> int:
    """Return how many live workers, spares too, hold all *versions* READY; 0: none is live.

    progress  is told (workers ready, workers live, who is waited for).
    Raises OperatorError when a worker refuses one, or after READY_S_MAX.
    """
    fleet = Fleet()
    following = asyncio.ensure_future(_follow_states(client, fleet))
    began = quiet = now_s()
    try:
        while True:
            await asyncio.wait({following}, timeout=POLL_INTERVAL_S)
            if following.done():
                following.result()
            workers, waiting = _count_ready(fleet, model, versions)
            progress(workers - len(waiting), workers, ", ".join(waiting))
            now = now_s()
            quiet = now if waiting or not workers else quiet
            if (workers and now - quiet >= SETTLED_S) or (
                not workers and now - began >= NO_WORKER_S
            ):
                return workers
            if now - began >= READY_S_MAX:
                raise OperatorError(
                    f"after {READY_S_MAX:g} s {', '.join(waiting)} still loads it; it goes on: "
                    "ask again with the same command"
                )
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def _follow_states(client: RegistryClient, fleet: Fleet) -> None:
    async for state in client.watch_states():
        fleet.update_worker(state, 0)


def _count_ready(fleet: Fleet, model: str, versions: Sequence[str]) -> tuple[int, list[str]]:
    """Return how many workers are live, and those that have not loaded every version."""
    waiting: dict[str, None] = {}
    workers = 0
    for version in versions:
        view = fleet.view(model, version, float("inf"), 0)
        if view.refused:
            raise OperatorError(f"version {version} is refused by {'; '.join(view.refused)}")
        workers = view.workers
        waiting.update(dict.fromkeys(view.not_ready))
    return workers, list(waiting)
