"""The client for threads, scripts and WSGI services."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

import grpc

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


class SyncPredictClient:
    """Calls a gateway from threads. All threads of a process may share one client.

    >>> from turnout_client import SyncPredictClient
    >>> with SyncPredictClient("127.0.0.1:8500") as client:
    ...     prediction = client.predict("churn", keys="S0000042")
    ...     reply = client.report_outcome(prediction, "accepted", 1.0)
    >>> print(prediction.role, reply.duplicate)
    canary False
    """

    def __init__(
        self,
        target: str,
        *,
        connections: int = 4,
        timeout_s: float = 1.0,
        credentials: grpc.ChannelCredentials | None = None,
        token: Token | None = None,
        use_proxy: bool = False,
    ) -> None:
        """Prepare the connections. gRPC opens each of them with its first call.

        target       "host:port" or any other gRPC name.
        connections  how many connections to open; each belongs to one worker of the gateway.
        timeout_s    the deadline of calls that give none, in seconds.
        credentials  from grpc.ssl_channel_credentials. None: plain text.
        token        a bearer token, or a function that returns it; as for PredictClient.
        use_proxy    whether calls go through the proxy of the environment; as for PredictClient.

        Raises ValueError for a token that would be sent over a network in plain text.
        """
        self._timeout_s = timeout_s
        opened_by = (grpc.insecure_channel, grpc.secure_channel)
        self._pool = ChannelPool(
            target, connections, credentials, *opened_by, token, use_proxy=use_proxy
        )

    def __enter__(self) -> SyncPredictClient:  # noqa: PYI034  Self needs Python 3.11
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections. Calls that are still open are cancelled."""
        for channel in self._pool.channels:
            channel.close()

    def predict(
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
        """Score the R rows of one call. PredictClient.predict documents the arguments.

        Raises PredictError if the call fails, and ValueError if keys, inputs and named do not have
        the same number of rows.
        """
        request = PredictRequest(
            model=model,
            rows=build_rows(keys, inputs, named),
            version=version,
            sticky_key=sticky_key,
            request_id=request_id,
            contract=contract,
            criticality=criticality,
        )
        return read_prediction(self._call(self._pool.predict, request, timeout_s))

    def describe(self, model: str, *, timeout_s: float | None = None) -> ModelDescription:
        """Return the inputs and outputs of *model* and its deployed versions.

        Raises PredictError if the call fails.
        """
        described: ModelDescription = self._call(
            self._pool.describe, DescribeRequest(model=model), timeout_s
        )
        return described

    def report_outcome(
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
        """Report what became of one row. PredictClient.report_outcome documents the arguments.

        Returns when the gateway has it on disk. Raises PredictError if the call fails.
        """
        request = build_outcome(prediction, name, value, row, event_time_ms, idempotency_key)
        reply: OutcomeReply = self._call(self._pool.outcome, request, timeout_s)
        return reply

    def report_entity_outcome(
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

        PredictClient.report_entity_outcome documents the arguments. Returns when the gateway has it
        on disk. Raises PredictError if the call fails.

        >>> from turnout_client import OutcomeReply, SyncPredictClient
        >>> with SyncPredictClient("127.0.0.1:8500") as client:
        ...     reply = client.report_entity_outcome(
        ...         "churn", "S0000042", "churned", 1.0, event_time_ms=1_796_040_000_000
        ...     )
        >>> print(reply.attribution == OutcomeReply.BY_ENTITY_LATER, reply.duplicate)
        True False
        """
        request = build_entity_outcome(model, keys, name, value, event_time_ms, idempotency_key)
        reply: OutcomeReply = self._call(self._pool.outcome, request, timeout_s)
        return reply

    def _call(self, methods: Iterator[Any], request: Any, timeout_s: float | None) -> Any:  # noqa: ANN401
        try:
            return next(methods)(
                request, timeout=timeout_s or self._timeout_s, metadata=self._pool.metadata()
            )
        except grpc.RpcError as error:
            raise PredictError(error.code(), self._pool.message_of(error)) from None
