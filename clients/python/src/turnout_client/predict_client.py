"""The client for asyncio."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from turnout_client._protos.predict_pb2 import (
    Criticality,
    DescribeRequest,
    ModelDescription,
    OutcomeReply,
    PredictRequest,
)
from turnout_client.channels import ChannelPool, Token
from turnout_client.errors import PredictError
from turnout_client.messages import (
    Keys,
    NamedInputs,
    Prediction,
    build_entity_outcome,
    build_outcome,
    build_rows,
    read_prediction,
)

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


class PredictClient:
    """Calls a gateway from asyncio.

    Build it inside the event loop that uses it. All tasks of the loop may share it.

    >>> import asyncio
    >>> from turnout_client import PredictClient
    >>> async def main() -> None:
    ...     async with PredictClient("127.0.0.1:8500") as client:
    ...         prediction = await client.predict("churn", keys=["S0000042", "S0000043"])
    ...         print(len(prediction.scores), "rows by version", prediction.version)
    ...         if not prediction.holdout:
    ...             await client.report_outcome(prediction, "accepted", 1.0, row=0)
    >>> asyncio.run(main())
    2 rows by version 7
    """

    def __init__(
        self,
        target: str,
        *,
        connections: int = 4,
        timeout_s: float = 1.0,
        calls_max: int = 0,
        credentials: grpc.ChannelCredentials | None = None,
        token: Token | None = None,
        use_proxy: bool = False,
    ) -> None:
        """Prepare the connections. gRPC opens each of them with its first call.

        target       "host:port" or any other gRPC name.
        connections  how many connections to open; each belongs to one worker of the gateway.
        timeout_s    the deadline of calls that give none, in seconds.
        calls_max    how many calls may be open at once. The next call fails at once with
                     UNAVAILABLE and is not sent. 0: no bound, and further calls wait in the client.
                     A campaign sets connections x 32, because a connection carries 32 calls at a
                     time. Without a bound, calls would wait here until after their deadline.
        credentials  from grpc.ssl_channel_credentials. None: plain text.
        token        the bearer token that names this service in the gateway's callers file, or a
                     function that returns the present one. It needs credentials, except on the
                     same host.
        use_proxy    whether calls go through the proxy that grpc_proxy, https_proxy or http_proxy
                     names.

        Raises ValueError for a token that would be sent over a network in plain text.
        """
        # The bounds on calls.
        self._timeout_s = timeout_s
        self._calls_max = calls_max
        self._calls = 0
        # The connections.
        self._pool = ChannelPool(
            target,
            connections,
            credentials,
            grpc.aio.insecure_channel,
            grpc.aio.secure_channel,
            token,
            use_proxy=use_proxy,
        )

    async def __aenter__(self) -> PredictClient:  # noqa: PYI034  Self needs Python 3.11
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections. Calls that are still open are cancelled."""
        for channel in self._pool.channels:
            await channel.close()

    async def predict(
        self,
        model: str,
        *,
        keys: Keys | None = None,
        inputs: ArrayLike | None = None,
        named: NamedInputs | Sequence[NamedInputs] | None = None,
        version: str = "",
        sticky_key: str = "",
        request_id: str = "",
        contract: int = 0,
        criticality: Criticality = Criticality.DEFAULT,
        timeout_s: float | None = None,
    ) -> Prediction:
        """Score the R rows of one call. One version scores all of them.

        keys         entity ids: one id, R ids, or R lists of ids in the order of the model's
                     entities. The gateway reads stored features by them.
        inputs       (I,) or (R, I) numbers: request inputs in the order of DescribeModel.
        named        one mapping or R mappings: request inputs by name instead of by position.
        version      a label or an alias pins the version. Empty: the traffic split decides.
        sticky_key   decides the version and the control group. Empty: the first key of the first
                     row.
        request_id   any text; the reply repeats it.
        contract     the first 8 bytes of the input_contract that DescribeModel returns, as a
                     little-endian int. The gateway refuses the call if the model's inputs are
                     different. 0: no check.
        criticality  which calls an overloaded gateway refuses first.
        timeout_s    the deadline in seconds. None: the client's timeout_s.

        Raises PredictError if the call fails, and ValueError if keys, inputs and named do not have
        the same number of rows.
        """
        # Build the request.
        request = PredictRequest(
            model=model,
            # build_rows checks the arguments; a wrong one raises before anything is sent.
            rows=build_rows(keys, inputs, named),
            version=version,
            sticky_key=sticky_key,
            request_id=request_id,
            contract=contract,
            criticality=criticality,
        )
        # Send it on the next connection in turn, and convert the reply.
        return read_prediction(await self._call(self._pool.predict, request, timeout_s))

    async def describe(self, model: str, *, timeout_s: float | None = None) -> ModelDescription:
        """Return the inputs and outputs of *model* and its deployed versions.

        Raises PredictError if the call fails.
        """
        described: ModelDescription = await self._call(
            self._pool.describe, DescribeRequest(model=model), timeout_s
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
        """Report what became of one row. Returns when the gateway has it on disk.

        prediction       the Prediction, or its prediction_id.
        name             what happened, for example "churned".
        value            1 or 0, or an amount.
        row              the index of the row in the call.
        event_time_ms    when it happened, in milliseconds of Unix time. 0: not known.
        idempotency_key  1 to 128 bytes. Reports with the same key count once. Empty: a hash of
                         prediction, row and name.

        Raises PredictError if the call fails.
        """
        request = build_outcome(prediction, name, value, row, event_time_ms, idempotency_key)
        reply: OutcomeReply = await self._call(self._pool.outcome, request, timeout_s)
        return reply

    async def report_entity_outcome(
        self,
        model: str,
        keys: str | Sequence[str],
        name: str,
        value: float,
        event_time_ms: int,
        *,
        idempotency_key: str = "",
        timeout_s: float | None = None,
    ) -> OutcomeReply:
        """Report what became of an entity, without the id of a prediction.

        The gateway stores the report, and monitoring looks for the prediction later: the newest
        about these ids before the event. Returns when the gateway has it on disk.

        model            the name of the model whose prediction it is.
        keys             one id, or a list with the id of each entity in the model's order.
        name             what happened, for example "churned".
        value            1 or 0, or an amount.
        event_time_ms    when it happened, in milliseconds of Unix time.
        idempotency_key  1 to 128 bytes. Reports with the same key count once. Empty: a hash of
                         model, keys, name and time. A correction of the value needs its own key.

        Raises PredictError if the call fails: INVALID_ARGUMENT for another number of ids than the
        model has entities, NOT_FOUND for a model that is not served.

        >>> import asyncio
        >>> from turnout_client import OutcomeReply, PredictClient
        >>> async def main() -> None:
        ...     async with PredictClient("127.0.0.1:8500") as client:
        ...         reply = await client.report_entity_outcome(
        ...             "churn", "S0000042", "churned", 1.0, event_time_ms=1_796_040_000_000
        ...         )
        ...         print(reply.attribution == OutcomeReply.BY_ENTITY_LATER, reply.duplicate)
        >>> asyncio.run(main())
        True False
        """
        # The key of the report is that of the event, so that the same one counts once.
        request = build_entity_outcome(model, keys, name, value, event_time_ms, idempotency_key)
        # The deadline is that of the client, unless the call has its own.
        reply: OutcomeReply = await self._call(self._pool.outcome, request, timeout_s)
        return reply

    async def _call(self, methods: Iterator[Any], request: Any, timeout_s: float | None) -> Any:  # noqa: ANN401
        if 0 < self._calls_max <= self._calls:
            raise PredictError(
                grpc.StatusCode.UNAVAILABLE,
                f"this client has {self._calls} calls open, its calls_max; nothing was sent",
            )
        self._calls += 1
        try:
            return await next(methods)(
                request, timeout=timeout_s or self._timeout_s, metadata=self._pool.metadata()
            )
        except grpc.aio.AioRpcError as error:
            raise PredictError(error.code(), self._pool.message_of(error)) from None
        finally:
            self._calls -= 1
