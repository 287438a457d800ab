"""PredictClient without `await`: for threads, scripts and WSGI services.

with SyncPredictClient("127.0.0.1:8500") as client:
print(client.predict("churn", keys="S0000042").scores[0, 0])
"""

from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Self

import grpc
from numpy.typing import ArrayLike

from turnout_client._protos.predict_pb2 import (
    Criticality,
    DescribeRequest,
    ModelDescription,
    OutcomeReply,
    PredictRequest,
)
from turnout_client.predict_client import (
    Connections,
    Keys,
    Named,
    PredictError,
    Prediction,
    outcome_of,
    prediction_of,
    rows_of,
)


class SyncPredictClient:
    """The same for threads: one client, any number of them."""

    def __init__(
        self,
        target: str,
        *,
        connections: int = 4,
        timeout_s: float = 1.0,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        """As PredictClient."""
        self._timeout_s = timeout_s
        self._connections = Connections(
            target, connections, credentials, grpc.insecure_channel, grpc.secure_channel
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connections."""
        for channel in self._connections.channels:
            channel.close()

    def predict(
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
        """As PredictClient.predict."""
        request = PredictRequest(
            model=model,
            rows=rows_of(keys, inputs, named),
            version=version,
            sticky_key=sticky_key,
            request_id=request_id,
            contract=contract,
            criticality=criticality,
        )
        return prediction_of(self._call(self._connections.predict, request, timeout_s))

    def describe(self, model: str, *, timeout_s: float | None = None) -> ModelDescription:
        """As PredictClient.describe."""
        described: ModelDescription = self._call(
            self._connections.describe, DescribeRequest(model=model), timeout_s
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
        """As PredictClient.report_outcome."""
        request = outcome_of(prediction, name, value, row, event_time_ms, idempotency_key)
        reply: OutcomeReply = self._call(self._connections.outcome, request, timeout_s)
        return reply

    def _call(self, turns: Iterator[Any], request: Any, timeout_s: float | None) -> Any:  # noqa: ANN401
        try:
            return next(turns)(request, timeout=timeout_s or self._timeout_s)
        except grpc.RpcError as error:
            raise PredictError(error.code(), error.details() or "") from None
