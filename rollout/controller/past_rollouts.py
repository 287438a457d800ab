"""Finds the rollouts of before this controller began.

The registry's history has their ids, because the reason of each of their deployments begins with
the id. Their checkpoints have their last status.
"""

import re
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Protocol

from google.protobuf.message import DecodeError

from access.bounds import ENTRY_TEXT_BYTES_MAX, cut_texts
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


@dataclass(frozen=True, slots=True)
class PastRollout:
    """A rollout as the registry's history names it."""

    rollout_id: str
    model: str
    started_unix_ms: int
    """Time of its first deployment."""


async def past_rollouts(history: HistoryReader, model: str) -> dict[str, PastRollout]:
    """Return each rollout of *model* in the history by its id, oldest first.

    Raises RegistryError.
    """
    rollouts: dict[str, PastRollout] = {}
    after, last = 0, 1
    while after < last:
        page = await history.history(after=after, object_prefix=f"model/{model}/deployment")
        for entry in page.entries:
            if match := ROLLOUT_ID_PATTERN.match(entry.reason):
                rollouts.setdefault(match[1], PastRollout(match[1], model, entry.at_unix_ms))
        if not page.entries:
            break
        after, last = page.entries[-1].seq, page.head.seq
    return rollouts


async def last_status(
    history: HistoryReader, rollout: PastRollout
) -> rollout_pb2.RolloutStatus | None:
    """Return the last status of a past rollout; None: it stopped before its first checkpoint.

    If its checkpoint cannot be read, the status has the id, the time and the reason. Raises
    RegistryError.
    """
    try:
        checkpoint = await history.load_checkpoint(rollout.rollout_id)
    except NotFoundError:
        return None
    try:
        status = rollout_pb2.RolloutState.FromString(checkpoint.state).status
    except DecodeError as error:
        return rollout_pb2.RolloutStatus(
            rollout_id=rollout.rollout_id,
            model=rollout.model,
            started_unix_ms=rollout.started_unix_ms,
            reason=f"its checkpoint cannot be read ({error}); what it deployed is in the "
            f"registry's history: `turnout audit list --object model/{rollout.model}/deployment`",
        )
    # A checkpoint may be older than the bounds of its texts.
    cut_texts(status, ENTRY_TEXT_BYTES_MAX)
    return status
