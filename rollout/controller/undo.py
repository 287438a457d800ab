"""Back to a version that was production before: load it where it is not, then all traffic to it."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

from registry.types import Deployment
from rollout.errors import RolloutRefusedError
from rollout.judge.judge import FleetView
from rollout.lifecycle.deploy import Deployer

UNDO_S = 10.0
"""How long the gateways may take to load an archived version."""
LOOK_S = 0.05


async def undo(
    registry: Deployer,
    held: Deployment,
    version: str,
    why: str,
    *,
    view: Callable[[], FleetView],
    lease_token: int,
) -> Deployment:
    """Deploy *version* as production of *held*'s model; needs no approval, as a rollback.

    view  what the gateways hold of it by now. Raises RolloutRefusedError when they refuse it or
    take longer than UNDO_S, RevisionConflictError when the deployment changes meanwhile.
    """
    if version != held.standby and version not in held.preload:
        held = await registry.deploy(
            replace(held, preload=(*held.preload, version), why=f"{why}: load it first"),
            lease_token=lease_token,
        )
    try:
        async with asyncio.timeout(UNDO_S):
            while (seen := view()).not_ready or not seen.workers:
                _check(seen, version)
                await asyncio.sleep(LOOK_S)
    except TimeoutError:
        seen = view()
        raise RolloutRefusedError(
            f"version {version} is loaded, and nothing was moved: after {UNDO_S:g} s it is not "
            f"ready on {', '.join(seen.not_ready) or 'any live gateway'}; say it again"
        ) from None
    _check(seen, version)
    return await registry.deploy(
        replace(
            held,
            production=version,
            standby="",
            standby_bp=0,
            canary="",
            canary_bp=0,
            preload=tuple(one for one in held.preload if one != version),
            approval_id="",
            why=why,
        ),
        lease_token=lease_token,
        rollback=True,
    )


def _check(seen: FleetView, version: str) -> None:
    if seen.refused:
        raise RolloutRefusedError(
            f"version {version} is refused by {'; '.join(seen.refused)}; nothing was moved"
        )
