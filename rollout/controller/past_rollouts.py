"""Finds the rollouts of before this controller began.

The registry's history has their ids, because the reason of each of their deployments begins with
the id. Their checkpoints have their last status.
"""

import re
from collections.abc import Awaitable, Collection
from typing import Protocol

from google.protobuf.message import DecodeError

from protos import registry_pb2, rollout_pb2
from registry.types import NotFoundError

ROLLOUT_ID_PATTERN = re.compile(r"rollout (r[0-9a-f]+-[0-9a-f]{8}): ")
"""The begin of the reason of every deployment that a rollout writes (controller.reason_prefix)."""


class HistoryReader(Protocol):
    """The part of RegistryClient that reads history and checkpoints."""

    def history(
        self, after: int = 0, limit: int = 0, object_prefix: str = ""
    ) -> Awaitable[registry_pb2.ListHistoryReply]:
        """Return a page of entries with a higher sequence number than *after*, oldest first."""
        ...

    def load_checkpoint(self, rollout_id: str) -> Awaitable[registry_pb2.Checkpoint]:
        """Return the newest checkpoint. Raises NotFoundError."""
        ...


async def past_rollouts(
    history: HistoryReader, model: str, known: Collection[str]
) -> list[rollout_pb2.RolloutStatus]:
    """Return the last status of each rollout of *model* whose id is not in *known*, oldest first.

    If a checkpoint cannot be read, the status has the id, the time of the first deployment, and
    the reason. Raises RegistryError.
    """
    started_by_id = await _rollouts_in_history(history, model)
    statuses = []
    for rollout_id, started_unix_ms in started_by_id.items():
        if rollout_id in known:
            continue
        try:
            checkpoint = await history.load_checkpoint(rollout_id)
        except NotFoundError:
            continue  # the rollout stopped before its first checkpoint
        try:
            statuses.append(rollout_pb2.RolloutState.FromString(checkpoint.state).status)
        except DecodeError as error:
            statuses.append(
                rollout_pb2.RolloutStatus(
                    rollout_id=rollout_id,
                    model=model,
                    started_unix_ms=started_unix_ms,
                    reason=f"its checkpoint cannot be read ({error}); what it deployed is in the "
                    f"registry's history: `turnout audit list --object model/{model}/deployment`",
                )
            )
    return statuses


async def _rollouts_in_history(history: HistoryReader, model: str) -> dict[str, int]:
    """Return each rollout's id with the Unix ms of its first deployment, oldest first."""
    started_by_id: dict[str, int] = {}
    after, last = 0, 1
    while after < last:
        page = await history.history(after=after, object_prefix=f"model/{model}/deployment")
        for entry in page.entries:
            if match := ROLLOUT_ID_PATTERN.match(entry.reason):
                started_by_id.setdefault(match[1], entry.at_unix_ms)
        if not page.entries:
            break
        after, last = page.entries[-1].seq, page.head.seq
    return started_by_id
