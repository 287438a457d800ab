"""The newest findings about each model and version: of monitoring, and of replays."""

from collections.abc import AsyncIterator
from typing import Protocol

from features.replay.record import REPLAY
from protos import registry_pb2

HOLD, CLEAR = "hold", "clear"


class FindingsReader(Protocol):
    """The part of RegistryClient that reads findings."""

    def findings(self, after: int = 0) -> AsyncIterator[registry_pb2.Finding]:
        """Yield the findings with a higher sequence number than *after*, oldest first."""
        ...


class Findings:
    """Findings of the kinds "hold", which holds a rollout, and "clear", which ends the hold.

    Findings of other kinds neither hold nor clear. Those of replays are kept for policies that ask
    for one.
    """

    def __init__(self) -> None:
        self._newest: dict[tuple[str, str], registry_pb2.Finding] = {}
        self._replays: dict[tuple[str, str], registry_pb2.Finding] = {}
        self.sequence = 0
        """Sequence number of the newest finding seen."""

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
