"""Back to a version that was production before: load it where it is not, then all traffic to it."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

from registry.types import Deployment
from rollout.errors import RolloutRefusedError
from rollout.judge.judge import FleetView
from rollout.lifecycle.deploy import Deployer

UNDO_TIMEOUT_S = 10.0
"""How long the gateways may take to load an archived version."""
POLL_S = 0.05


async def deploy_earlier_version(
    registry: Deployer,
    current: Deployment,
    version: str,
    why: str,
    *,
    fleet_view: Callable[[], FleetView],
    lease_token: int,
) -> Deployment:
    """Deploy *version* as production of *held*'s model; needs no approval, as a rollback.

    view  what the gateways hold of it by now. Raises RolloutRefusedError when they refuse it or
    take longer than UNDO_TIMEOUT_S, RevisionConflictError when the deployment changes meanwhile.
    """
    if version != current.standby and version not in current.preload:
        current = await registry.deploy(
            replace(current, preload=(*current.preload, version), why=f"{why}: load it first"),
            lease_token=lease_token,
        )
    try:
        async with asyncio.timeout(UNDO_TIMEOUT_S):
            while (seen := fleet_view()).not_ready or not seen.workers:
                _raise_if_refused(seen, version)
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        seen = fleet_view()
        raise RolloutRefusedError(
            f"version {version} is loaded, and nothing was moved: after {UNDO_TIMEOUT_S:g} s it "
            "is not "
            f"ready on {', '.join(seen.not_ready) or 'any live gateway'}; say it again"
        ) from None
    _raise_if_refused(seen, version)
    return await registry.deploy(
        replace(
            current,
            production=version,
            standby="",
            standby_bp=0,
            canary="",
            canary_bp=0,
            preload=tuple(one for one in current.preload if one != version),
            approval_id="",
            why=why,
        ),
        lease_token=lease_token,
        rollback=True,
    )


def _raise_if_refused(seen: FleetView, version: str) -> None:
    if seen.refused:
        raise RolloutRefusedError(
            f"version {version} is refused by {'; '.join(seen.refused)}; nothing was moved"
        )
