"""The calls about incidents and models that run elsewhere; RegistryClient makes them."""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, TypeVar

from features.canonical import canonical_json
from protos import registry_pb2 as pb
from protos.registry_pb2_grpc import RegistryStub

READ_S = 10.0
"""Timeout of a stream that ends by itself, in seconds."""
IncidentReply = TypeVar("IncidentReply")


class IncidentCalls(ABC):
    """A part of RegistryClient, which has the connection."""

    @property
    @abstractmethod
    def _rpc(self) -> RegistryStub:
        """The open stub of the registry's service."""

    @abstractmethod
    async def _call(
        self, method: Callable[..., Awaitable[IncidentReply]], request: object
    ) -> IncidentReply:
        """Call a method and return its reply; raise the registry's errors."""

    @abstractmethod
    def _stream(
        self, method: Callable[..., Any], request: object, timeout_s: float | None = None
    ) -> AsyncGenerator[Any, None]:
        """Call a method and yield its replies; raise the registry's errors."""

    @abstractmethod
    async def _pages(
        self,
        method: Callable[..., Awaitable[Any]],
        request: Any,  # noqa: ANN401  any request with `after`
        field: str,
        key: str,
    ) -> list[Any]:
        """Return the items in *field* of all pages."""

    async def open_incident(
        self,
        model: str,
        kind: str,
        cause: str,
        *,
        severity: "pb.Incident.Severity",
        title: str,
        version: str = "",
        owner: str = "",
        figures: object = None,
        since_unix_ms: int = 0,
        links: Sequence[tuple[str, str]] = (),
        automatic: bool = False,
    ) -> pb.OpenIncidentReply:
        """Open an incident. `opened` is False if one of the model with this cause is open.

        kind       of KINDS in registry/watching/policy.py, or "manual" for a person.
        cause      what makes two alarms one incident, such as "quality/usage/2026-11-30".
        figures    JSON object: what was measured; None: nothing.
        links      (kind, id) of rollouts, runs, findings and others.
        automatic  the model's policy says what follows. For monitoring and the controller.
        """
        # Links come as pairs. Figures travel as canonical JSON, and none as an empty text.
        notes = [pb.IncidentNote(kind=to, text=text) for to, text in links]
        # The registry decides whether it is a new one.
        request = pb.OpenIncidentRequest(
            model=model,
            version=version,
            kind=kind,
            cause=cause,
            severity=severity,
            title=title,
            owner=owner,
            figures_json="" if figures is None else canonical_json(figures).decode(),
            since_unix_ms=since_unix_ms,
            automatic=automatic,
            links=notes,
        )
        return await self._call(self._rpc.OpenIncident, request)

    async def change_incident(self, request: pb.ChangeIncidentRequest) -> pb.Incident:
        """Change an incident; return it with its notes.

        Raises RevisionConflictError when it was changed since it was read, GateError when its state
        does not allow the change, NotAllowedError, NotFoundError, BadRequestError.
        """
        return await self._call(self._rpc.ChangeIncident, request)

    async def get_incident(self, incident_id: str) -> pb.Incident:
        """Return an incident, with its notes, by its id or at least its first 4 digits."""
        return await self._call(self._rpc.GetIncident, pb.IncidentName(id=incident_id))

    async def list_incidents(
        self, model: str = "", limit: int = 200, *, open_only: bool = False
    ) -> list[pb.Incident]:
        """Return the newest incidents of a model, or of all models, without notes."""
        incidents: list[pb.Incident] = []
        request = pb.ListIncidentsRequest(model=model, open_only=open_only)
        while len(incidents) < limit:
            reply = await self._call(self._rpc.ListIncidents, request)
            incidents.extend(reply.incidents)
            if not reply.more:
                break
            request.before = reply.next
        return incidents[:limit]

    def watch_incidents(self, after: int = 0) -> AsyncIterator[pb.Incident]:
        """Yield each incident that changed after history entry *after*, then each that changes."""
        return self._stream(self._rpc.WatchIncidents, pb.WatchIncidentsRequest(after=after))

    def incidents_changed(self, after: int = 0) -> AsyncIterator[pb.Incident]:
        """Yield each incident that changed after history entry *after*, in that order."""
        request = pb.WatchIncidentsRequest(after=after, those_there_are=True)
        return self._stream(self._rpc.WatchIncidents, request, READ_S)

    async def add_outside_model(
        self, model: str, *, owner: str, purpose: str, place: str
    ) -> pb.OutsideModel:
        """Write down a model that another system serves; raise GateError if it is known."""
        request = pb.OutsideModel(model=model, owner=owner, purpose=purpose, place=place)
        return await self._call(self._rpc.AddOutsideModel, request)

    async def outside_models(self) -> list[pb.OutsideModel]:
        """Return the models that other systems serve, by name."""
        request = pb.ListOutsideModelsRequest()
        return await self._pages(self._rpc.ListOutsideModels, request, "models", "model")
