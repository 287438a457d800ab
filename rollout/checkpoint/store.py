"""Saves rollouts as checkpoints in the registry, and loads them from there."""

import asyncio
from collections.abc import Awaitable, Mapping
from typing import Protocol

from features.canonical import sha256_hex
from protos import registry_pb2, rollout_pb2
from registry.types import Deployment, NotFoundError
from rollout.checkpoint.codec import from_state, to_state
from rollout.lifecycle.clock import ClockReading
from rollout.lifecycle.rollout import Rollout
from rollout.policy.policy import Policy


class CheckpointClient(Protocol):
    """The part of RegistryClient that keeps checkpoints."""

    def save_checkpoint(self, checkpoint: registry_pb2.Checkpoint) -> Awaitable[None]:
        """Save a checkpoint. Raises FencedError and RevisionConflictError."""
        ...

    def load_checkpoint(self, rollout_id: str) -> Awaitable[registry_pb2.Checkpoint]:
        """Return the newest checkpoint of that name. Raises NotFoundError."""
        ...


def newest_checkpoint_name(model: str) -> str:
    """Return the name of the checkpoint that holds the model's newest rollout."""
    return f"newest:{sha256_hex(model.encode())[:40]}"


class CheckpointStore:
    """Saves and loads rollouts under one lease.

    Each rollout is saved by one call at a time. The store knows which windows of each source are
    in a checkpoint, so that they can be acknowledged.
    """

    def __init__(
        self, registry: CheckpointClient, lease_token: int, policies: Mapping[str, Policy]
    ) -> None:
        self._registry = registry
        self._lease_token = lease_token
        self._policies = policies
        self._saved_sequences: dict[str, dict[str, int]] = {}
        """Rollout id -> source -> sequence number."""
        self._saving: dict[str, asyncio.Lock] = {}

    def saved_sequence(self, rollout: Rollout, source: str) -> int:
        """Return the number up to which the batches of *source* are in the rollout's checkpoint."""
        return self._saved_sequences.get(rollout.spec.rollout_id, {}).get(source, 0)

    async def save(self, rollout: Rollout, *, as_newest: bool = False) -> None:
        """Save *rollout* as it is now.

        as_newest  also under its model's name, so that it is found when the deployment no longer
                   names it.

        Raises FencedError and RevisionConflictError.
        """
        rollout_id = rollout.spec.rollout_id
        async with self._saving.setdefault(rollout_id, asyncio.Lock()):
            sequences = rollout.inbox.sequences
            state = to_state(rollout).SerializeToString(deterministic=True)
            rollout.checkpoint_sequence += 1
            await self._write(rollout_id, rollout.checkpoint_sequence, state)
            if as_newest:
                name = newest_checkpoint_name(rollout.spec.model)
                before = await self._load_or_none(name)
                await self._write(name, 1 if before is None else before.sequence + 1, state)
            self._saved_sequences[rollout_id] = sequences

    async def load(self, deployment: Deployment, now: ClockReading) -> Rollout | None:
        """Return the newest rollout of the deployment's model; None: it never had one.

        Raises CheckpointError when the checkpoint cannot be used, and RegistryError.
        """
        rollout_id = deployment.rollout_id
        if not rollout_id:
            newest = await self._load_or_none(newest_checkpoint_name(deployment.model))
            if newest is None:
                return None
            rollout_id = rollout_pb2.RolloutState.FromString(newest.state).status.rollout_id
        checkpoint = await self._load_or_none(rollout_id)
        if checkpoint is None:
            return None
        state = rollout_pb2.RolloutState.FromString(checkpoint.state)
        rollout = from_state(state, deployment.approval_id, self._policies, now)
        rollout.checkpoint_sequence = checkpoint.sequence
        self._saved_sequences[rollout_id] = rollout.inbox.sequences
        return rollout

    async def _write(self, name: str, sequence: int, state: bytes) -> None:
        await self._registry.save_checkpoint(
            registry_pb2.Checkpoint(
                rollout_id=name, sequence=sequence, state=state, lease_token=self._lease_token
            )
        )

    async def _load_or_none(self, name: str) -> registry_pb2.Checkpoint | None:
        try:
            return await self._registry.load_checkpoint(name)
        except NotFoundError:
            return None
