"""A client of turnout.v1.Monitoring, which reads lists page by page."""

from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc

from access.peer_tls import open_channel
from protos import monitoring_pb2 as pb
from protos.monitoring_pb2_grpc import MonitoringStub
from registry.client import call_metadata

CALL_S = 30.0
ITEMS_A_PAGE = 5_000


class MonitoringClient:
    """Reads what monitoring has seen, as one actor. Use it as `async with MonitoringClient(...)`.

    address, actor, token, certificate  as for registry.client.RegistryClient.

    Every method raises grpc.aio.AioRpcError. A list is read to its end, page by page.
    """

    def __init__(
        self, address: str, actor: str, token: str | None, *, certificate: Path | None
    ) -> None:
        self._where = address, certificate, token
        self._metadata = call_metadata(actor, token)
        self._notes: dict[str, None] = {}
        self._channel: grpc.aio.Channel | None = None
        self._stub: Any = None

    async def __aenter__(self) -> Self:
        """Open the connection."""
        self._channel = open_channel(*self._where)
        self._stub = MonitoringStub(self._channel)  # type: ignore[no-untyped-call]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        """Close the connection."""
        if self._channel is not None:
            await self._channel.close()

    @property
    def notes(self) -> list[str]:
        """What the pages so far left out for this caller, a sentence each."""
        return list(self._notes)

    async def status(self, since_hour: int, until_hour: int) -> pb.MonitoringStatus:
        """Return coverage by version in [since_hour, until_hour), and every reader."""
        request = pb.MonitoringStatusRequest(since_hour=since_hour, until_hour=until_hour)
        reply: pb.MonitoringStatus = await self._call(self._stub.GetStatus, request)
        return reply

    async def figures(
        self,
        since_day: int,
        until_day: int = 0,
        *,
        model: str = "",
        version: str = "",
        kind: str = "",
        name: str = "",
        newest: bool = False,
    ) -> list[pb.FigureOfPeriod]:
        """Return the figures of periods that end in [since_day, until_day), oldest first.

        newest  only the newest of each name and length; quick with model, version and kind.
        """
        request = pb.FiguresRequest(
            model=model,
            kind=kind,
            version=version,
            name=name,
            newest=newest,
            since_day=since_day,
            until_day=until_day,
            limit=ITEMS_A_PAGE,
        )
        pages = self._pages(self._stub.GetFigures, request)
        return [figure async for page in pages for figure in page.figures]

    async def alarms(
        self, since_unix_s: int, until_unix_s: int = 0, *, model: str = ""
    ) -> list[pb.RaisedAlarm]:
        """Return the alarms that were raised in [since_unix_s, until_unix_s), oldest first."""
        request = pb.AlarmsRequest(
            model=model, since_unix_s=since_unix_s, until_unix_s=until_unix_s
        )
        pages = self._pages(self._stub.GetAlarms, request)
        return [alarm async for page in pages for alarm in page.alarms]

    async def looks(self, model: str = "") -> pb.LooksPage:
        """Return how far all looks are, as one page."""
        found = pb.LooksPage()
        async for page in self._pages(self._stub.GetLooks, pb.LooksRequest(model=model)):
            found.MergeFrom(page)
        found.next_page_token = ""
        return found

    async def cells(self, since_hour: int, until_hour: int = 0) -> AsyncIterator[pb.CellTotals]:
        """Yield the totals of cells that begin in [since_hour, until_hour)."""
        request = pb.CellsRequest(since_hour=since_hour, until_hour=until_hour, limit=ITEMS_A_PAGE)
        async for page in self._pages(self._stub.GetCells, request):
            for cell in page.cells:
                yield cell

    async def _pages(self, method: Any, request: Any) -> AsyncIterator[Any]:  # noqa: ANN401  of grpc
        while True:
            page = await self._call(method, request)
            if note := getattr(page, "note", ""):
                self._notes[note] = None
            yield page
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def _call(self, method: Any, request: Any) -> Any:  # noqa: ANN401  of grpc
        return await method(request, metadata=self._metadata, timeout=CALL_S)
