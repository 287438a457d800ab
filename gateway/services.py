"""The methods besides Predict: raw bytes in and out, the same behind either door."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol, TypeVar

from google.protobuf.message import DecodeError, Message

from features.entity_ids import check
from features.errors import EntityIdError
from gateway.clock import Clock
from gateway.decode import CONTROL
from gateway.deployed import Deployed, Participant, Routes
from gateway.status import Code, Refusal, RefusedError
from journal.errors import JournalRefusedError
from journal.prediction_id import PredictionIdError, read
from protos.journal_pb2 import OutcomeRecord
from protos.predict_pb2 import (
    DescribeRequest,
    ModelDescription,
    OutcomeReply,
    OutcomeRequest,
)

M = TypeVar("M", bound=Message)

NAME_BYTES_MAX = 128


class DurableTape(Protocol):
    """journal.writer.Writer, or a fake of it."""

    async def append_durably(self, payload: bytes) -> None:
        """Return once *payload* is on disk; raises JournalRefusedError when it is not."""
        ...


class Services:
    """DescribeModel and ReportOutcome."""

    def __init__(
        self, deployed: Deployed, outcomes: DurableTape, clock: Clock, key: Callable[[], bytes]
    ) -> None:
        self._deployed = deployed
        self._outcomes = outcomes
        self._clock = clock
        self._key = key

    def methods(self) -> Mapping[str, Callable[[bytes], Awaitable[bytes]]]:
        """Return each method by its path on the wire."""
        return {
            "/turnout.v1.Predictor/DescribeModel": self.describe,
            "/turnout.v1.Predictor/ReportOutcome": self.report_outcome,
        }

    async def describe(self, message: bytes) -> bytes:
        """What a caller must send to a model, and who would answer."""
        request = _parsed(DescribeRequest(), message)
        routes = self._deployed.get(request.model)
        if routes is None:
            raise RefusedError(Refusal(Code.NOT_FOUND, "that model is not served here"))
        return description(routes).SerializeToString()

    async def report_outcome(self, message: bytes) -> bytes:
        """Keep what became of a prediction; answered once it is on disk.

        Duplicates are kept and told apart by their idempotency key when outcomes are joined.
        """
        request = _parsed(OutcomeRequest(), message)
        if not request.name or len(request.name.encode()) > NAME_BYTES_MAX:
            raise _invalid(f"an outcome's name is 1 to {NAME_BYTES_MAX} bytes, like 'churned'")
        for text in (request.name, request.idempotency_key):
            if CONTROL.search(text) or len(text.encode()) > NAME_BYTES_MAX:
                raise _invalid("a name or key is too long or holds a control character")
        attribution = self._attribute(request)
        record = OutcomeRecord(
            prediction_id=request.prediction_id,
            model=request.model,
            keys=request.keys,
            row=request.row,
            name=request.name,
            value=request.value,
            event_time_ms=request.event_time_ms,
            idempotency_key=request.idempotency_key,
            received_unix_ns=self._clock.unix_ns(),
        )
        try:
            await self._outcomes.append_durably(record.SerializeToString())
        except JournalRefusedError:
            raise RefusedError(
                Refusal(Code.UNAVAILABLE, "outcomes cannot be written now; retry", pushback_ms=500)
            ) from None
        return OutcomeReply(attribution=attribution).SerializeToString()

    def _attribute(self, request: OutcomeRequest) -> OutcomeReply.Attribution:
        if request.prediction_id:
            try:
                read(request.prediction_id, self._key())
            except PredictionIdError as error:
                raise _invalid(str(error)) from None
            return OutcomeReply.BY_PREDICTION_ID
        if not request.model or not request.keys or not request.event_time_ms:
            raise _invalid("send a prediction_id, or a model with keys and event_time_ms")
        if self._deployed.get(request.model) is None:
            raise RefusedError(Refusal(Code.NOT_FOUND, "that model is not served here"))
        try:
            for key in request.keys:
                check(key)
        except EntityIdError as error:
            raise _invalid(str(error)) from None
        return OutcomeReply.BY_ENTITY_LATER


def description(routes: Routes) -> ModelDescription:
    """Describe one model at one revision."""
    contract = routes.production.version.bundle.contract
    deployment, shape = routes.deployment, routes.shape
    reply = ModelDescription(
        model=routes.model,
        entities=contract.entities,
        input_contract=bytes.fromhex(contract.input_contract),
        outputs=contract.outputs,
        revision=deployment.revision,
        rows_max=shape.rows_max,
        deadline_ms_default=shape.deadline_ns_default // 1_000_000,
    )
    for item in contract.inputs:
        reply.inputs.add(
            name=item.name, dictionary=item.dictionary, default_value=item.default_value
        )
    shares: list[tuple[Participant | None, str, int]] = [
        (routes.production, "production", 10_000 - deployment.canary_bp - deployment.standby_bp),
        (routes.standby, "standby", deployment.standby_bp),
        (routes.canary, "canary", deployment.canary_bp),
        *((shadow, "shadow", sample_bp) for shadow, sample_bp in routes.shadows),
    ]
    for participant, role, share_bp in shares:
        if participant is not None:
            bundle = participant.version.bundle
            reply.versions.add(
                version=participant.version.label,
                digest=bundle.digest,
                role=role,
                share_bp=share_bp,
                model_contract=bundle.contract.model_contract,
            )
    return reply


def _parsed(empty: M, message: bytes) -> M:
    try:
        empty.ParseFromString(message)
    except DecodeError:
        name = empty.DESCRIPTOR.full_name
        raise _invalid(f"{len(message)} bytes are not a {name}") from None
    return empty


def _invalid(words: str) -> RefusedError:
    return RefusedError(Refusal(Code.INVALID_ARGUMENT, words))
