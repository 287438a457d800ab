"""Recovers the rollouts of all models when a controller starts to lead.

A rollout whose checkpoint cannot be read is not judged. `end_unreadable` ends it.
"""

import logging
from collections.abc import Awaitable
from dataclasses import dataclass, replace
from typing import Protocol

from google.protobuf.message import DecodeError

from protos import registry_pb2, rollout_pb2
from registry.types import Deployment, NotFoundError, RegistryError, RevisionConflictError
from rollout.checkpoint.store import CheckpointClient, CheckpointStore
from rollout.errors import CheckpointError, RolloutRefusedError
from rollout.lifecycle.clock import ControllerClock
from rollout.lifecycle.deploy import CONFLICTS_MAX, Deployer, without_candidate
from rollout.lifecycle.rollout import Rollout

log = logging.getLogger(__name__)


class ModelLister(Protocol):
    """The part of RegistryClient that lists models and their deployments."""

    def list_models(self) -> Awaitable[list[registry_pb2.ModelSummary]]:
        """Return a summary of every model."""
        ...

    def deployment(self, model: str) -> Awaitable[Deployment]:
        """Return the model's newest deployment."""
        ...


class RolloutRegistry(Deployer, CheckpointClient, Protocol):
    """The parts of RegistryClient that move traffic and keep checkpoints."""


@dataclass(frozen=True, slots=True)
class RecoveredModel:
    """The deployment of one model, and its newest rollout."""

    deployment: Deployment
    rollout: Rollout | None
    """None: the model never had a rollout, or its checkpoint cannot be read."""
    unreadable_reason: str = ""
    """Why the checkpoint cannot be read, and the way out."""


async def recover_rollouts(
    registry: ModelLister, checkpoints: CheckpointStore, clock: ControllerClock
) -> list[RecoveredModel]:
    """Return what every model has. An unreadable rollout does not stop the others.

    Raises RegistryError.
    """
    models = []
    for summary in await registry.list_models():
        deployment = await registry.deployment(summary.model)
        rollout, unreadable_reason = None, ""
        try:
            rollout = await checkpoints.load(deployment, clock.now())
        except RegistryError:
            raise
        except CheckpointError as error:
            unreadable_reason = _unreadable_text(deployment, str(error))
            # The message says what is wrong; a traceback would add nothing.
            log.error("rollout of %r: %s", deployment.model, unreadable_reason)  # noqa: TRY400
        except Exception as error:
            unreadable_reason = _unreadable_text(
                deployment, f"its checkpoint cannot be read: {error!r}"
            )
            log.exception("rollout of %r: %s", deployment.model, unreadable_reason)
        # The policy of this name may have changed since the approval.
        if rollout is not None and rollout.policy_note and not rollout.ended:
            log.warning(
                "rollout %s goes on under policy %r (%s): %s",
                rollout.spec.rollout_id,
                rollout.spec.policy.name,
                rollout.spec.policy.digest[:12],
                rollout.policy_note,
            )
        models.append(RecoveredModel(deployment, rollout, unreadable_reason))
    return models


def _unreadable_text(deployment: Deployment, why: str) -> str:
    if not deployment.rollout_id:
        return f"{why}. It has ended"
    return (
        f"{why}. No controller judges it, and the split stays as it is; `turnout rollout abort "
        f"{deployment.model}` gives all traffic back to the old version"
    )


async def end_unreadable(
    registry: RolloutRegistry, model: str, why: str, lease_token: int
) -> tuple[Deployment, rollout_pb2.RolloutStatus]:
    """Give all traffic of *model* back to the baseline of its unreadable rollout.

    Only the two versions in the checkpoint are needed. Raises RolloutRefusedError when not even
    these can be read, when the rollout has ended, and when the deployment keeps changing.
    """
    for _ in range(CONFLICTS_MAX):
        deployment = await registry.deployment(model)
        if not deployment.rollout_id:
            raise RolloutRefusedError(f"no rollout of {model!r} is under way any more")
        checkpoint, state = await _load_checkpoint(registry, deployment)
        status = state.status
        # Move the traffic.
        baseline_only = without_candidate(deployment, status.version, status.baseline)
        try:
            written = await registry.deploy(
                replace(baseline_only, why=f"rollout {deployment.rollout_id}: {why}"),
                lease_token=lease_token,
                rollback=True,
            )
        except RevisionConflictError:
            continue
        # Save the last status, which the list of past rollouts shows.
        status.stage, status.verdict = rollout_pb2.ROLLED_BACK, rollout_pb2.FAULTY
        status.step, status.share_bp, status.revision = 0, 0, written.revision
        status.reason = why
        del status.waiting_for[:]
        checkpoint.sequence, checkpoint.lease_token = checkpoint.sequence + 1, lease_token
        checkpoint.state = state.SerializeToString(deterministic=True)
        await registry.save_checkpoint(checkpoint)
        return written, status
    raise RolloutRefusedError(f"the deployment of {model!r} keeps changing; say it again")


async def _load_checkpoint(
    registry: CheckpointClient, deployment: Deployment
) -> tuple[registry_pb2.Checkpoint, rollout_pb2.RolloutState]:
    """Return the checkpoint of the deployment's rollout, at least with its two versions."""
    try:
        checkpoint = await registry.load_checkpoint(deployment.rollout_id)
        state = rollout_pb2.RolloutState.FromString(checkpoint.state)
    except (NotFoundError, DecodeError):
        checkpoint, state = registry_pb2.Checkpoint(), rollout_pb2.RolloutState()
    status = state.status
    if status.rollout_id != deployment.rollout_id or not (status.version and status.baseline):
        raise RolloutRefusedError(
            f"the checkpoint of rollout {deployment.rollout_id} does not say between which "
            f"versions it was; take the candidate out by hand: `turnout splits show "
            f"{deployment.model}`, then `turnout splits set {deployment.model} --canary none`"
        )
    return checkpoint, state
