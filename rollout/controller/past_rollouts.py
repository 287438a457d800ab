"""Rollouts of before this controller began: named by the history, told by their checkpoints."""

import re
from collections.abc import Awaitable, Collection
from typing import Protocol

from google.protobuf.message import DecodeError

from protos import registry_pb2, rollout_pb2
from registry.types import NotFoundError

ROLLOUT_ID_PATTERN = re.compile(r"rollout (r[0-9a-f]+-[0-9a-f]{8}): ")
"""How the reason of every deployment that a rollout writes begins."""


class HistoryReader(Protocol):
    """The part of RegistryClient that remembers what was."""

    def history(
        self, after: int = 0, limit: int = 0, object_prefix: str = ""
    ) -> Awaitable[registry_pb2.ListHistoryReply]:
        """Return entries, oldest first."""
        ...

    def load_checkpoint(self, rollout_id: str) -> Awaitable[registry_pb2.Checkpoint]:
        """Return the newest; NotFoundError."""
        ...


async def past_rollouts(
    history: HistoryReader, model: str, known: Collection[str]
) -> list[rollout_pb2.RolloutStatus]:
    """Return how rollouts of *model* that are not *known* stood last, oldest first.

    One whose checkpoint cannot be read hides no other: of it there is the id, when it is named
    first, and why nothing more can be told.
    """
    named: dict[str, int] = {}
    after, last = 0, 1
    while after < last:
        page = await history.history(after=after, object_prefix=f"model/{model}/deployment")
        for entry in page.entries:
            if found := ROLLOUT_ID_PATTERN.match(entry.reason):
                named.setdefault(found[1], entry.at_unix_ms)
        if not page.entries:
            break
        after, last = page.entries[-1].seq, page.head.seq
    told = []
    for rollout_id, at_unix_ms in named.items():
        if rollout_id in known:
            continue
        try:
            kept = await history.load_checkpoint(rollout_id)
        except NotFoundError:
            continue  # it died before its first checkpoint; the history has its deployments
        try:
            told.append(rollout_pb2.RolloutState.FromString(kept.state).status)
        except DecodeError as error:
            told.append(
                rollout_pb2.RolloutStatus(
                    rollout_id=rollout_id,
                    model=model,
                    started_unix_ms=at_unix_ms,
                    reason=f"its checkpoint cannot be read ({error}); what it deployed is in the "
                    f"registry's history: `turnout audit list --object model/{model}/deployment`",
                )
            )
    return told
