"""A real grpc.aio server that answers or fails as a test says."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import grpc.aio

from protos import predict_pb2_grpc
from protos.predict_pb2 import (
    DescribeRequest,
    ModelDescription,
    OutcomeReply,
    OutcomeRequest,
    PredictReply,
    PredictRequest,
    Role,
    RowFlag,
)

Context = grpc.aio.ServicerContext[PredictRequest, PredictReply]


class ScriptedServer(predict_pb2_grpc.PredictorServicer):
    """Answers each call with version "7". The first *failures* calls end with *code* instead.

    While `may_answer` is clear, calls of Predict wait.
    """

    def __init__(self, code: grpc.StatusCode = grpc.StatusCode.OK, failures: int = 0) -> None:
        self.code = code
        self.failures = failures
        self.requests: list[PredictRequest] = []
        self.peers: set[str] = set()
        self.authorizations: list[object] = []
        self.outcomes: list[OutcomeRequest] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def Predict(self, request: PredictRequest, context: Context) -> PredictReply:  # noqa: N802
        """Score each row .25 and .75, as a canary, for a customer in the control group."""
        self.requests.append(request)
        self.peers.add(context.peer())
        self._note_authorization(context)
        await self.may_answer.wait()
        if len(self.requests) <= self.failures:
            await context.abort(self.code, "fixed words")
        rows = len(request.rows)
        return PredictReply(
            request_id=request.request_id,
            model=request.model,
            version="7",
            role=Role.CANARY,
            prediction_id=b"p" * 64,
            holdout=True,
            scores=[0.25, 0.75] * rows,
            outputs=2,
            row_flags=[RowFlag.STALE] + [0] * (rows - 1) if rows > 1 else [],
        )

    async def DescribeModel(self, request: DescribeRequest, context: Context) -> ModelDescription:  # noqa: N802
        """Describe any model as one that takes 1,024 rows a call."""
        self._note_authorization(context)
        return ModelDescription(model=request.model, rows_max=1_024)

    def _note_authorization(self, context: Context) -> None:
        metadata = dict(context.invocation_metadata() or ())
        if "authorization" in metadata:
            self.authorizations.append(metadata["authorization"])

    async def ReportOutcome(self, request: OutcomeRequest, _: Context) -> OutcomeReply:  # noqa: N802
        """Keep the report in `outcomes`."""
        self.outcomes.append(request)
        return OutcomeReply(attribution=OutcomeReply.BY_PREDICTION_ID)


@asynccontextmanager
async def served(scripted: ScriptedServer, port: int = 0) -> AsyncIterator[str]:
    """Serve *scripted* on *port*, or on a free port if it is 0; yields "host:port"."""
    server = grpc.aio.server()
    predict_pb2_grpc.add_PredictorServicer_to_server(scripted, server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)
