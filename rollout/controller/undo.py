"""Goes back to an earlier production version: the gateways load it, then it gets all traffic."""

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
    finding: int = 0,
) -> Deployment:
    """Make *version* production. Like a rollback, that needs no approval.

    current     the newest deployment of the model.
    fleet_view  returns how the gateways' workers have loaded *version* by now.
    finding     sequence of the finding that asks for it; 0: a person does.

    Raises RolloutRefusedError when a worker refuses the version or the workers take longer than
    UNDO_TIMEOUT_S, and RevisionConflictError when the deployment changes meanwhile.
    """
    # Preload the version, unless the gateways keep it loaded already.
    if version != current.standby and version not in current.preload:
        current = await registry.deploy(
            replace(current, preload=(*current.preload, version), why=f"{why}: load it first"),
            lease_token=lease_token,
            rollback=True,  # so a version that may not come back is refused before it is loaded
            finding=finding,
        )
    # Wait until every live worker is ready.
    try:
        async with asyncio.timeout(UNDO_TIMEOUT_S):
            while (view := fleet_view()).not_ready or not view.workers:
                _raise_if_refused(view, version)
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        view = fleet_view()
        raise RolloutRefusedError(
            f"version {version} is loaded, and nothing was moved: after {UNDO_TIMEOUT_S:g} s it "
            f"is not ready on {', '.join(view.not_ready) or 'any live gateway'}; say it again"
        ) from None
    _raise_if_refused(view, version)
    # Give it all traffic.
    return await registry.deploy(
        replace(
            current,
            production=version,
            standby="",
            standby_bp=0,
            canary="",
            canary_bp=0,
            preload=tuple(preloaded for preloaded in current.preload if preloaded != version),
            approval_id="",
            why=why,
        ),
        lease_token=lease_token,
        rollback=True,
        finding=finding,
    )


def _raise_if_refused(view: FleetView, version: str) -> None:
    if view.refused:
        raise RolloutRefusedError(
            f"version {version} is refused by {'; '.join(view.refused)}; nothing was moved"
        )
