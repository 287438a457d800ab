"""What monitoring said last about a model or one of its versions."""

from collections.abc import AsyncIterator
from typing import Protocol

from protos import registry_pb2

HOLD, CLEAR = "hold", "clear"


class FindingsReader(Protocol):
    """The part of RegistryClient that keeps what monitoring found."""

    def findings(self, after: int = 0) -> AsyncIterator[registry_pb2.Finding]:
        """Yield those there are, oldest first, then end."""
        ...


class Findings:
    """The newest word on each model and version: "hold" holds it, "clear" ends that.

    Findings of another kind say something else, and end nothing.
    """

    def __init__(self) -> None:
        self._newest: dict[tuple[str, str], registry_pb2.Finding] = {}
        self.sequence = 0
        """Of the newest seen."""

    async def load_all(self, registry: FindingsReader) -> None:
        """Take all that monitoring wrote so far: nothing may grow before that. RegistryError."""
        async for finding in registry.findings(self.sequence):
            self.add_finding(finding)

    def add_finding(self, finding: registry_pb2.Finding) -> None:
        """Take what monitoring wrote; without a version it is about the whole model."""
        self.sequence = max(self.sequence, finding.sequence)
        if finding.kind in (HOLD, CLEAR):
            self._newest[finding.model, finding.version] = finding

    def hold_reason(self, model: str, version: str) -> str:
        """Return why *version* must be held; empty: nothing."""
        said = [self._newest.get((model, one)) for one in ("", version)]
        holds = [one for one in said if one is not None and one.kind == HOLD]
        return "; ".join(one.text or f"hold, by {one.who}, no reason given" for one in holds)
