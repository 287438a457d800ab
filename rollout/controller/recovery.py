"""What a controller that takes over finds, and how a rollout ends that it cannot go on with."""

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
    """The part of RegistryClient that says what there is."""

    def list_models(self) -> Awaitable[list[registry_pb2.ModelSummary]]:
        """Every model."""
        ...

    def deployment(self, model: str) -> Awaitable[Deployment]:
        """Return the newest."""
        ...


class RolloutRegistry(Deployer, CheckpointClient, Protocol):
    """The part of RegistryClient that moves traffic and remembers."""


@dataclass(frozen=True, slots=True)
class RecoveredModel:
    """One model's deployment, and its newest rollout."""

    deployment: Deployment
    rollout: Rollout | None
    """None: it never had one, or that cannot be gone on with."""
    unreadable_reason: str = ""
    """Why it cannot be gone on with, and the way out."""


async def recover_rollouts(
    registry: ModelLister, memory: CheckpointStore, clock: ControllerClock
) -> list[RecoveredModel]:
    """Return what there is of every model; one that cannot be read keeps no other from going on.

    Raises RegistryError.
    """
    found = []
    for summary in await registry.list_models():
        held = await registry.deployment(summary.model)
        trial, why_not = None, ""
        try:
            trial = await memory.load(held, clock.now())
        except RegistryError:
            raise
        except CheckpointError as error:
            why_not = _unreadable_text(held, str(error))
            log.error("rollout of %r: %s", held.model, why_not)  # noqa: TRY400  its words say it
        except Exception as error:
            why_not = _unreadable_text(held, f"its checkpoint cannot be read: {error!r}")
            log.exception("rollout of %r: %s", held.model, why_not)
        if trial is not None and trial.policy_note and not trial.ended:
            terms = trial.spec
            log.warning(
                "rollout %s goes on under policy %r (%s): %s",
                *(terms.rollout_id, terms.policy.name, terms.policy.digest[:12], trial.policy_note),
            )
        found.append(RecoveredModel(held, trial, why_not))
    return found


def _unreadable_text(deployment: Deployment, why: str) -> str:
    if not deployment.rollout_id:
        return f"{why}. It has ended"
    return (
        f"{why}. Nobody judges it, and the split stays as it is; `turnout rollout abort "
        f"{deployment.model}` gives all traffic back to the old version"
    )


async def end_unreadable(
    registry: RolloutRegistry, model: str, why: str, lease_token: int
) -> tuple[Deployment, rollout_pb2.RolloutStatus]:
    """Give all traffic back to the baseline of *model*'s rollout, which nobody can go on with.

    Needs nothing of its checkpoint but the two versions. RolloutRefusedError when not even these
    can be read, or when it is no more under way.
    """
    for _ in range(CONFLICTS_MAX):
        held = await registry.deployment(model)
        if not held.rollout_id:
            raise RolloutRefusedError(f"no rollout of {model!r} is under way any more")
        kept, state = await _load_checkpoint(registry, held)
        status = state.status
        told = f"rollout {held.rollout_id}: {why}"
        try:
            written = await registry.deploy(
                replace(without_candidate(held, status.version, status.baseline), why=told),
                lease_token=lease_token,
                rollback=True,
            )
        except RevisionConflictError:
            continue
        status.stage, status.verdict = rollout_pb2.ROLLED_BACK, rollout_pb2.FAULTY
        status.step, status.share_bp, status.revision = 0, 0, written.revision
        status.reason = why
        del status.waiting_for[:]
        kept.sequence, kept.lease_token = kept.sequence + 1, lease_token
        kept.state = state.SerializeToString(deterministic=True)
        await registry.save_checkpoint(kept)  # for the history of rollouts
        return written, status
    raise RolloutRefusedError(f"the deployment of {model!r} keeps changing; say it again")


async def _load_checkpoint(
    registry: CheckpointClient, deployment: Deployment
) -> tuple[registry_pb2.Checkpoint, rollout_pb2.RolloutState]:
    try:
        kept = await registry.load_checkpoint(deployment.rollout_id)
        state = rollout_pb2.RolloutState.FromString(kept.state)
    except (NotFoundError, DecodeError):
        kept, state = registry_pb2.Checkpoint(), rollout_pb2.RolloutState()
    status = state.status
    if status.rollout_id != deployment.rollout_id or not (status.version and status.baseline):
        raise RolloutRefusedError(
            f"the checkpoint of rollout {deployment.rollout_id} does not say between which "
            "versions it "
            f"was; take the candidate out by hand: `turnout splits show {deployment.model}`, then "
            f"`turnout splits set {deployment.model} --canary none`"
        )
    return kept, state
