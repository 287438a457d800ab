"""The calls about training runs, their queue and the schedules; RegistryClient makes them."""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

from protos import registry_pb2 as pb
from protos.registry_pb2_grpc import RegistryStub

CALL_S = 10.0
"""Timeout of a call, in seconds. Watch streams have none."""
RUN_LOG_PART_BYTES = 2**16
RunReply = TypeVar("RunReply")


class RunCalls(ABC):
    """A part of RegistryClient, which has the connection."""

    @property
    @abstractmethod
    def _rpc(self) -> RegistryStub:
        """The open stub of the registry's service."""

    @abstractmethod
    async def _call(self, method: Callable[..., Awaitable[RunReply]], request: object) -> RunReply:
        """Call a method and return its reply; raise the registry's errors."""

    @abstractmethod
    def _stream(
        self, method: Callable[..., Any], request: object, timeout_s: float | None = None
    ) -> AsyncGenerator[Any, None]:
        """Call a method and yield its replies; raise the registry's errors."""

    async def begin_run(
        self, model: str, setting: str, *, key: str, cause: str, inputs: bytes
    ) -> pb.BeginRunReply:
        """Begin a run. `begun` is False if a run with this key has ended or is under way.

        key     the same key begins no second run of the model; empty: the run has none.
        cause   such as "schedule weekly".
        inputs  canonical JSON of what the run is made from.
        """
        request = pb.BeginRunRequest(
            model=model, setting=setting, key=key, cause=cause, inputs_json=inputs
        )
        return await self._call(self._rpc.BeginRun, request)

    async def append_run_log(self, run: pb.Run, text: str) -> None:
        """Append to the log of a run, and give a sign of life.

        Raises FencedError when another attempt has taken the run over.
        """
        content = text.encode()
        for start in range(0, max(len(content), 1), RUN_LOG_PART_BYTES):
            part = content[start : start + RUN_LOG_PART_BYTES]
            message = pb.RunLogPart(id=run.id, attempt=run.attempt, text=part)
            await self._call(self._rpc.AppendRunLog, message)

    async def end_run(self, request: pb.EndRunRequest) -> pb.Run:
        """Write the end of a run; raise FencedError when another attempt has taken it over."""
        return await self._call(self._rpc.EndRun, request)

    async def get_run(self, run_id: str) -> pb.Run:
        """Return a run by its id or at least its first 8 digits; raise NotFoundError."""
        return await self._call(self._rpc.GetRun, pb.RunName(id=run_id))

    async def queue_run(self, request: pb.QueueRunRequest) -> pb.BeginRunReply:
        """Ask for a run that a trainer takes later. `begun` is False if its key has a run.

        A schedule's bounds may skip it: then the run's state says so. Raises NotFoundError for a
        schedule that is not applied any more.
        """
        return await self._call(self._rpc.QueueRun, request)

    async def cancel_run(self, run_id: str, reason: str) -> pb.Run:
        """End a run that waits or runs; raise GateError if it has ended."""
        return await self._call(self._rpc.CancelRun, pb.CancelRunRequest(id=run_id, reason=reason))

    async def list_schedules(self, *, with_runs: bool = False) -> list[pb.AppliedSchedule]:
        """Return the schedules that are applied now; *with_runs* with the newest runs of each."""
        request = pb.ListSchedulesRequest(with_runs=with_runs)
        return list((await self._call(self._rpc.ListSchedules, request)).schedules)

    async def list_runs(
        self, model: str = "", limit: int = 200, *, open_only: bool = False
    ) -> list[pb.Run]:
        """Return the newest runs of a model, or of all models, without inputs and results.

        open_only  only runs that have not ended: queued, running and silent ones.
        """
        runs: list[pb.Run] = []
        request = pb.ListRunsRequest(model=model, open=open_only)
        while len(runs) < limit:
            reply = await self._call(self._rpc.ListRuns, request)
            runs.extend(reply.runs)
            if not reply.more:
                break
            request.before = reply.next
        return runs[:limit]

    async def read_run_log(self, run_id: str, *, follow: bool = False) -> AsyncIterator[bytes]:
        """Yield the log of a run in parts; with *follow* until the run has ended."""
        request = pb.RunLogRequest(id=run_id, follow=follow)
        stream = self._stream(self._rpc.ReadRunLog, request, None if follow else CALL_S)
        async for part in stream:
            yield part.text
