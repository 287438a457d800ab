"""What a CRM or next-best-action service calls predictions with.

    async with PredictClient("127.0.0.1:8500") as client:
        prediction = await client.predict("churn", keys="S0000042")
        if prediction.scores[0, 0] > 0.5 and not prediction.holdout:
            ...
            await client.report_outcome(prediction, "accepted", 1.0)

`turnout_client.SyncPredictClient` is the same without `await`, for threads. Both spread calls
over a few connections (each belongs to one worker), reconnect by themselves, and retry what a
worker's restart can hit; a plain stub works too, without these.
"""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2s
from types import TracebackType
from typing import Any, Protocol, Self

import grpc
import grpc.aio
import numpy as np
from numpy.typing import ArrayLike, NDArray

from turnout_client._protos.predict_pb2 import (
    Criticality,
    DescribeRequest,
    ModelDescription,
    OutcomeReply,
    OutcomeRequest,
    PredictReply,
    PredictRequest,
    Role,
    Row,
)

Keys = str | Sequence[str] | Sequence[Sequence[str]]
Named = Mapping[str, float | str]

SERVICE = "turnout.v1.Predictor"

SERVICE_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": [
                {"service": SERVICE, "method": name}
                for name in ("Predict", "DescribeModel", "ReportOutcome")
            ],
            # A worker that is replaced is back within a second: waiting beats failing.
            "waitForReady": True,
            # CANCELLED: what grpc answers to calls caught by a closing server (grpc#41785). Asking
            # twice is safe: predictions change nothing, and outcomes carry an idempotency key.
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.01s",
                "maxBackoff": "0.2s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
            },
        }
    ],
    # At most one retry for ten answers once things go wrong, so that clients do not pile on.
    "retryThrottling": {"maxTokens": 100, "tokenRatio": 0.1},
}
"""Ours to ship and anybody's to copy: any gRPC client takes it as its service config."""

CHANNEL_OPTIONS: tuple[tuple[str, int | str], ...] = (
    ("grpc.service_config", json.dumps(SERVICE_CONFIG)),
    ("grpc.enable_retries", 1),
    # Without this, channels to one target share one connection, and so one worker.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 2_000),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)


class PredictError(Exception):
    """The gateway did not answer; `code` is a grpc.StatusCode, `words` are the gateway's.

    INVALID_ARGUMENT, NOT_FOUND, FAILED_PRECONDITION: the caller's mistake, asking again is no use.
    RESOURCE_EXHAUSTED: too many rows or bytes in one call, or a quota; send less.
    UNAVAILABLE: the house is full or changing; it was retried already.
    DEADLINE_EXCEEDED: `timeout_s` passed. INTERNAL: ours; the words hold an id to look up.
    """

    def __init__(self, code: grpc.StatusCode, words: str) -> None:
        super().__init__(f"{code.name}: {words}")
        self.code = code
        self.words = words


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """One answered call of R rows."""

    model: str
    version: str
    """The label that answered, "7"."""
    role: str
    """production, canary, pinned, or fallback (production answered for a canary that could not)."""
    holdout: bool
    """True: this customer is in the control group; do not act on the scores."""
    scores: NDArray[np.float32]
    """(R, K); a binary model has K = 1, the probability of the positive class."""
    row_flags: NDArray[np.uint32]
    """(R,) turnout.v1.RowFlag bits: MISSING 1, STALE 2, DEFAULTED 4, DEGRADED 8, NOT_STICKY 16."""
    prediction_id: bytes
    """Hand it back with the outcome."""
    request_id: str


def rows_of(
    keys: Keys | None, inputs: ArrayLike | None, named: Named | Sequence[Named] | None
) -> Iterator[Row]:
    """Return the rows of one call; R is the length of whatever is given, and must agree.

    keys    one id; or R ids; or R lists of ids, in the order of the model's entities.
    inputs  (inputs,) for one row, or (R, inputs), in the order of the model's request inputs.
    named   one mapping, or R of them: numbers, and words for categories.

    Raises ValueError when the lengths differ, or inputs and named are both given.
    """
    if inputs is not None and named is not None:
        raise ValueError("inputs are given by position or by name (named=), not both")
    columns: dict[str, Sequence[Any]] = {}
    if keys is not None:
        columns["keys"] = [
            [key] if isinstance(key, str) else key
            for key in ([keys] if isinstance(keys, str) else keys)
        ]
    if inputs is not None:
        columns["inputs"] = np.atleast_2d(np.asarray(inputs, dtype=np.float32)).tolist()
    if named is not None:
        columns["named"] = [named] if isinstance(named, Mapping) else named
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"one call has one number of rows, not {lengths}")
    for parts in zip(*columns.values(), strict=True):
        row = dict(zip(columns, parts, strict=True))
        values = row.pop("named", {})
        words = {name: value for name, value in values.items() if isinstance(value, str)}
        numbers = {name: value for name, value in values.items() if name not in words}
        yield Row(**row, named=numbers, named_text=words)


def prediction_of(reply: PredictReply) -> Prediction:
    """Read the reply into arrays."""
    scores = np.array(reply.scores, dtype=np.float32).reshape(-1, max(reply.outputs, 1))
    flags = np.array(reply.row_flags, dtype=np.uint32)
    return Prediction(
        model=reply.model,
        version=reply.version,
        role=Role.Name(reply.role).lower(),
        holdout=reply.holdout,
        scores=scores,
        row_flags=flags if len(flags) else np.zeros(len(scores), dtype=np.uint32),
        prediction_id=reply.prediction_id,
        request_id=reply.request_id,
    )


def outcome_of(
    prediction: Prediction | bytes,
    name: str,
    value: float,
    row: int,
    event_time_ms: int,
    idempotency_key: str,
) -> OutcomeRequest:
    """Return the report; without an idempotency key: a hash of prediction, row and name."""
    proof = prediction.prediction_id if isinstance(prediction, Prediction) else prediction
    fallback = blake2s(f"{proof.hex()}/{row}/{name}".encode(), digest_size=16)
    return OutcomeRequest(
        prediction_id=proof,
        row=row,
        name=name,
        value=value,
        event_time_ms=event_time_ms,
        idempotency_key=idempotency_key or fallback.hexdigest(),
    )


class _Opener(Protocol):
    """grpc.insecure_channel or grpc.aio.insecure_channel."""

    def __call__(self, target: str, options: Any) -> Any: ...  # noqa: ANN401


class Connections:
    """A few channels to one target, used in turn."""

    def __init__(
        self,
        target: str,
        connections: int,
        credentials: grpc.ChannelCredentials | None,
        insecure: _Opener,
        secure: Any,  # noqa: ANN401  sync and aio have no common type
    ) -> None:
        self.channels = [
            insecure(target, options=CHANNEL_OPTIONS)
            if credentials is None
            else secure(target, credentials, options=CHANNEL_OPTIONS)
            for _ in range(connections)
        ]
        self.predict = itertools.cycle(self._method("Predict", PredictRequest, PredictReply))
        self.describe = itertools.cycle(
            self._method("DescribeModel", DescribeRequest, ModelDescription)
        )
        self.outcome = itertools.cycle(self._method("ReportOutcome", OutcomeRequest, OutcomeReply))

    def _method(self, name: str, request: Any, reply: Any) -> list[Any]:  # noqa: ANN401
        return [
            channel.unary_unary(
                f"/{SERVICE}/{name}",
                request_serializer=request.SerializeToString,
                response_deserializer=reply.FromString,
            )
            for channel in self.channels
        ]


class PredictClient:
    """The asyncio client. One a loop; build it inside the loop, share it among all tasks."""

    def __init__(
        self,
        target: str,
        *,
        connections: int = 4,
        timeout_s: float = 1.0,
        calls_max: int = 0,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        """target: "host:port" or any gRPC name. timeout_s: for calls that give none.

        calls_max  so many calls may be open; the next is UNAVAILABLE at once, unsent. 0: no bound,
                   the next wait here. A campaign sets connections x 32, what its connections carry:
                   who queues without bound asks what nobody waits for any more (docs/operating.md).
        """
        self._timeout_s = timeout_s
        self._calls_max = calls_max
        self._calls = 0
        self._connections = Connections(
            target, connections, credentials, grpc.aio.insecure_channel, grpc.aio.secure_channel
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End the connections; calls in flight are cancelled."""
        for channel in self._connections.channels:
            await channel.close()

    async def predict(
        self,
        model: str,
        *,
        keys: Keys | None = None,
        inputs: ArrayLike | None = None,
        named: Named | Sequence[Named] | None = None,
        version: str = "",
        sticky_key: str = "",
        request_id: str = "",
        contract: int = 0,
        criticality: Criticality = Criticality.DEFAULT,
        timeout_s: float | None = None,
    ) -> Prediction:
        """Score the rows of one call with one version: `rows_of` says what a row is.

        version     a label or an alias pins; empty: the split decides.
        sticky_key  what the split and the control group go by; empty: the first key.

        Raises PredictError, and ValueError for rows that contradict each other.
        """
        request = PredictRequest(
            model=model,
            rows=rows_of(keys, inputs, named),
            version=version,
            sticky_key=sticky_key,
            request_id=request_id,
            contract=contract,
            criticality=criticality,
        )
        return prediction_of(await self._call(self._connections.predict, request, timeout_s))

    async def describe(self, model: str, *, timeout_s: float | None = None) -> ModelDescription:
        """Return what to send to *model* and what comes back; raises PredictError."""
        described: ModelDescription = await self._call(
            self._connections.describe, DescribeRequest(model=model), timeout_s
        )
        return described

    async def report_outcome(
        self,
        prediction: Prediction | bytes,
        name: str,
        value: float,
        *,
        row: int = 0,
        event_time_ms: int = 0,
        idempotency_key: str = "",
        timeout_s: float | None = None,
    ) -> OutcomeReply:
        """Report what became of a row; returns once it is on disk. Raises PredictError."""
        request = outcome_of(prediction, name, value, row, event_time_ms, idempotency_key)
        reply: OutcomeReply = await self._call(self._connections.outcome, request, timeout_s)
        return reply

    async def _call(self, turns: Iterator[Any], request: Any, timeout_s: float | None) -> Any:  # noqa: ANN401
        if 0 < self._calls_max <= self._calls:
            raise PredictError(
                grpc.StatusCode.UNAVAILABLE,
                f"this client has {self._calls} calls open, its calls_max; nothing was sent",
            )
        self._calls += 1
        try:
            return await next(turns)(request, timeout=timeout_s or self._timeout_s)
        except grpc.aio.AioRpcError as error:
            raise PredictError(error.code(), error.details() or "") from None
        finally:
            self._calls -= 1
