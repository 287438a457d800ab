"""The newest findings about each model and version: of monitoring, and of replays."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Protocol

from features.canonical import canonical_json
from features.replay.record import REPLAY
from protos import registry_pb2
from rollout.lifecycle.rollout import Rollout

HOLD, CLEAR = "hold", "clear"
ROLLBACK = "rollback"
"""Asks the controller to take a version out of service."""
ACTED = "acted"
"""What another finding led to; its text is JSON with "finding", "act" and times."""
ACTS_MS = 3_600_000
"""Time within which a finding asks for a rollback. The registry's gate has the same."""


class FindingsReader(Protocol):
    """The part of RegistryClient that reads findings."""

    def findings(self, after: int = 0) -> AsyncIterator[registry_pb2.Finding]:
        """Yield the findings with a higher sequence number than *after*, oldest first."""
        ...


class Findings:
    """Findings of the kinds "hold", which holds a rollout, and "clear", which ends the hold.

    Findings of other kinds neither hold nor clear. Those of replays are kept for policies that ask
    for one. Those of kind "rollback" are open until one of kind "acted" says what came of them.
    """

    def __init__(self) -> None:
        self._newest: dict[tuple[str, str], registry_pb2.Finding] = {}
        self._replays: dict[tuple[str, str], registry_pb2.Finding] = {}
        self.sequence = 0
        """Sequence number of the newest finding seen."""
        self._rollbacks: dict[int, registry_pb2.Finding] = {}
        """Sequence -> a rollback that was not acted on."""
        self._acted: set[tuple[int, str]] = set()
        """(sequence of a hold, the rollout that it held) as it was written down."""
        self.news = asyncio.Event()
        """Set at each new finding; its reader clears it."""

    async def load_all(self, registry: FindingsReader) -> None:
        """Load every finding so far, before any rollout may grow. Raises RegistryError."""
        async for finding in registry.findings(self.sequence):
            self.add_finding(finding)

    def add_finding(self, finding: registry_pb2.Finding) -> None:
        """Add a finding. Without a version it is about the whole model."""
        self.sequence = max(self.sequence, finding.sequence)
        if finding.kind in (HOLD, CLEAR):
            self._newest[finding.model, finding.version] = finding
        if finding.kind == REPLAY:
            self._replays[finding.model, finding.version] = finding
        if finding.kind == ROLLBACK:
            self._rollbacks[finding.sequence] = finding
        if finding.kind == ACTED:
            self._close(finding.text)
        self.news.set()

    def _close(self, text: str) -> None:
        """Note what a finding of kind "acted" says. One that cannot be read says nothing."""
        try:
            value = json.loads(text)
            sequence, rollout = int(value["finding"]), str(value.get("rollout", ""))
        except (ValueError, KeyError, TypeError, AttributeError):
            return
        self._rollbacks.pop(sequence, None)
        self._acted.add((sequence, rollout))

    def open_rollbacks(self, now_ms: int) -> list[registry_pb2.Finding]:
        """Return the rollbacks that are still to be done, oldest first."""
        return [
            finding
            for finding in self._rollbacks.values()
            if now_ms - finding.at_unix_ms <= ACTS_MS
        ]

    def open_holds(self, model: str, version: str, rollout_id: str) -> list[registry_pb2.Finding]:
        """Return the holds of a rollout of which it is not written down that they held it."""
        newest = (self._newest.get((model, of_version)) for of_version in ("", version))
        return [
            finding
            for finding in newest
            if finding is not None
            and finding.kind == HOLD
            and (finding.sequence, rollout_id) not in self._acted
        ]

    def newest_replay(self, model: str, version: str) -> registry_pb2.Finding | None:
        """Return the newest finding of a replay of *version*, or None."""
        return self._replays.get((model, version))

    def hold_reason(self, model: str, version: str) -> str:
        """Return why *version* must be held; an empty text if it need not be."""
        newest = [self._newest.get((model, of_version)) for of_version in ("", version)]
        holds = [finding for finding in newest if finding is not None and finding.kind == HOLD]
        return "; ".join(
            finding.text or f"hold, by {finding.who}, no reason given" for finding in holds
        )


def rollback_finding(rollout: Rollout, lease_token: int) -> registry_pb2.Finding:
    """Return the finding of kind "acted" that has the times of a rollout's own rollback."""
    spec, times = rollout.spec, rollout.times
    value = {
        "finding": 0,
        "act": "rollback",
        "rollout": spec.rollout_id,
        "to": spec.baseline,
        "first_bad_unix_ms": times.first_bad_answer_ns // 1_000_000,
        "verdict_unix_ms": times.verdict_ns // 1_000_000,
        "acted_unix_ms": times.traffic_moved_ns // 1_000_000,
        "last_bad_unix_ms": times.last_bad_answer_ns // 1_000_000,
    }
    return registry_pb2.Finding(
        model=spec.model,
        version=spec.version,
        kind=ACTED,
        text=canonical_json(value).decode(),
        lease_token=lease_token,
    )
