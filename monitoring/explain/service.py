"""The service turnout.v1.Explainer, on the server of the control process."""

import asyncio
import hashlib
import logging
import math
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import grpc
from google.protobuf.message import DecodeError

from access.bounds import BoundError
from access.interceptor import caller_identity
from access.requests import parse_request
from features.contract import ModelContract
from journal.prediction_id import LENGTH, made_by
from monitoring.explain.children import ExplainerChildren
from monitoring.explain.served_rows import DecisionSource, ServedDecision
from protos import explain_pb2 as pb
from registry.client import RegistryClient
from registry.explanation.errors import NotExplainedError
from registry.explanation.inputs import row_of_names
from registry.types import (
    BadRequestError,
    NotFoundError,
    RegistryFaultError,
    RegistryUnavailableError,
    VersionRefusedError,
)

SERVICE = pb.DESCRIPTOR.services_by_name["Explainer"]
REASONS_MAX = 16
"""Most reasons of one reply."""

PAUSES_S = (0.1, 0.2, 0.4, 0.8)
"""Pauses between looks for a young prediction."""
YOUNG_MS = 5_000
"""An older prediction is in its journal, or in none."""

log = logging.getLogger(__name__)

STATUS_BY_ERROR: dict[type[Exception], grpc.StatusCode] = {
    BadRequestError: grpc.StatusCode.INVALID_ARGUMENT,
    BoundError: grpc.StatusCode.INVALID_ARGUMENT,
    DecodeError: grpc.StatusCode.INVALID_ARGUMENT,
    NotFoundError: grpc.StatusCode.NOT_FOUND,
    NotExplainedError: grpc.StatusCode.FAILED_PRECONDITION,
    VersionRefusedError: grpc.StatusCode.FAILED_PRECONDITION,
    RegistryUnavailableError: grpc.StatusCode.UNAVAILABLE,
    RegistryFaultError: grpc.StatusCode.UNAVAILABLE,
}

Context = Any  # grpc.aio.ServicerContext, which is generic in the messages of each RPC


class ExplainerComponent:
    """Explains predictions in one process. Call `start` after the server has started.

    registry_address  host:port of the registry.
    decisions         where served rows are found; None: this process has no journal.
    actor, token      credentials at the registry, which may be the rollouts'.
    certificate       file of the registry's certificate; None: plain text.
    """

    def __init__(
        self,
        registry_address: str,
        decisions: DecisionSource | None,
        *,
        actor: str = "explain",
        token: str | None = None,
        certificate: Path | None = None,
    ) -> None:
        self._registry = RegistryClient(registry_address, actor, token, certificate=certificate)
        self._decisions = decisions
        self._children = ExplainerChildren()
        self._contracts: dict[str, ModelContract] = {}

    def add_to(self, server: grpc.aio.Server) -> None:
        """Serve Explainer on *server*, which must not have started and has an AccessInterceptor."""
        handler: Any = grpc.unary_unary_rpc_method_handler(self._explain, None, _serialize)
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(SERVICE.full_name, {"Explain": handler}),)
        )

    async def start(self) -> None:
        """Connect to the registry."""
        await self._registry.__aenter__()

    async def stop(self) -> None:
        """End the children and the connection."""
        await self._children.close()
        await self._registry.__aexit__(None, None, None)

    async def _explain(self, content: bytes, context: Context) -> pb.ExplainReply:
        # Requests are parsed here: with a deserializer grpcio would parse them unchecked.
        try:
            return await self.explain(parse_request(pb.ExplainRequest, content))
        except Exception as error:  # noqa: BLE001  the one place that turns errors into statuses
            await _abort_with_status(context, error)

    async def explain(self, request: pb.ExplainRequest) -> pb.ExplainReply:
        """Explain a prediction by its id, or a row of a version.

        Raises the errors of STATUS_BY_ERROR.
        """
        if request.reasons_max > REASONS_MAX:
            raise BadRequestError(
                f"reasons_max is {request.reasons_max}; the most is {REASONS_MAX}"
            )
        # Find the row, and the version by its id.
        by_id = bool(request.prediction_id)
        decision = await self._served(request) if by_id else None
        model = request.model if decision is None else decision.model
        label = request.version if decision is None else decision.version
        if not model or not label:
            raise BadRequestError(
                "give a prediction_id, or model and version with a vector or named inputs"
            )
        version = await self._registry.get_version(model, label)
        if decision is not None and not version.digest.startswith(decision.version_start):
            raise NotExplainedError(
                f"version {label} of {model} is {version.digest[:16]}, and another one, "
                f"{decision.version_start}, answered; this is not the registry of the prediction"
            )
        row, served = await self._row(request, decision, version.digest, version.label)
        # A child that holds the version explains it.
        asked = {
            "row": row,
            "served": served,
            "output": request.output if request.HasField("output") else None,
            "reasons_max": request.reasons_max,
            "language": request.language,
            "change": not request.without_change,
        }
        answer = await self._children.explain(
            version.digest, lambda: self._registry.fetch(model, version.label), asked
        )
        reply = _reply(answer)
        reply.model, reply.version, reply.version_digest = model, version.label, version.digest
        reply.served_unix_ns = 0 if decision is None else decision.at_unix_ns
        self._log_reader(request, model, version.label)
        return reply

    async def _served(self, request: pb.ExplainRequest) -> ServedDecision:
        """Return the call that the prediction id names."""
        if request.vector or request.named or request.named_text or request.model:
            raise BadRequestError("a prediction_id names its row; give it alone, or give a row")
        if len(request.prediction_id) != LENGTH:
            raise BadRequestError(
                f"the prediction_id has {len(request.prediction_id)} bytes, and {LENGTH} are one; "
                "send it unchanged"
            )
        if self._decisions is None:
            raise NotFoundError(
                "this control process has no monitoring and no journal (--journal), so it knows no "
                "prediction; "
                "give the row with model, version and inputs"
            )
        found = await self._found(self._decisions, request.prediction_id)
        if found is None:
            raise NotFoundError(
                "no journal here has this prediction, and neither have the decisions of "
                "monitoring: it was not written by this system, its rows were not sampled, or they "
                "were removed since"
            )
        if request.row >= len(found.vectors):
            raise BadRequestError(
                f"the prediction has {len(found.vectors)} rows, and row {request.row} was asked for"
            )
        return found

    async def _found(
        self, decisions: DecisionSource, prediction_id: bytes
    ) -> ServedDecision | None:
        """Look for a call, and again for a young one: workers journal a call after its reply."""
        for pause_s in (*PAUSES_S, 0.0):
            found = await asyncio.to_thread(decisions.find_decision, prediction_id)
            age_ms = time.time_ns() // 1_000_000 - (made_by(prediction_id) or (0,))[0]
            if found is not None or not -YOUNG_MS < age_ms < YOUNG_MS:
                return found
            await asyncio.sleep(pause_s)
        return None

    async def _row(
        self, request: pb.ExplainRequest, decision: ServedDecision | None, digest: str, label: str
    ) -> tuple[list[float], list[float] | None]:
        """Return the row that is explained, and the scores that were served for it."""
        if decision is not None:
            scores: list[float] = decision.scores[request.row].tolist()
            return decision.vectors[request.row].tolist(), scores
        if request.vector:
            if request.named or request.named_text:
                raise BadRequestError("give a vector or named inputs, not both")
            return list(request.vector), None
        if digest not in self._contracts:
            self._contracts[digest] = await self._registry.fetch_contract(request.model, label)
        return row_of_names(self._contracts[digest], request.named, request.named_text), None

    def _log_reader(self, request: pb.ExplainRequest, model: str, label: str) -> None:
        """Log the actor of a read. The id is hashed: with it a caller could report outcomes."""
        name = hashlib.sha256(request.prediction_id).hexdigest()[:16]
        log.info(
            "explained model=%s version=%s prediction=%s row=%d actor=%s",
            model,
            label,
            name if request.prediction_id else "none",
            request.row,
            caller_identity().actor,
        )


def _serialize(reply: pb.ExplainReply) -> bytes:
    return reply.SerializeToString()


def _reply(answer: Mapping[str, Any]) -> pb.ExplainReply:
    """Return a child's answer as a message.

    Raises NotExplainedError for an answer that our code would not write: the version may have
    written it.
    """
    # Types of fields are checked by the message itself.
    try:
        reply = pb.ExplainReply(
            score=answer["score"],
            base=answer["base"],
            margin=answer["margin"],
            unit=answer["unit"],
            output=answer["output"],
            background=answer["background"],
            explanation_id=answer["explanation_id"],
            threshold=answer["threshold"],
            decision=str(answer["decision"]),
            reasons_note=answer["reasons_note"],
            change_note=answer["change_note"],
            changed_score=answer.get("changed_score", 0.0),
            contributions=[_contribution(item) for item in answer["contributions"]],
            reasons=[pb.Reason(**item) for item in answer["reasons"]],
            change=[pb.ChangedInput(**item) for item in answer["change"]],
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise NotExplainedError(
            "its process gave no explanation of the form that Turnout's code writes"
        ) from error
    # The parts are summed here again, where the version cannot reach.
    total = reply.base + math.fsum(item.contribution for item in reply.contributions)
    if not abs(total - reply.margin) <= 1e-6 * max(1.0, abs(reply.margin)):
        raise NotExplainedError(
            f"base and contributions add up to {total:.7g}, and the margin is {reply.margin:.7g}"
        )
    return reply


def _contribution(item: Mapping[str, Any]) -> pb.Contribution:
    values = item["values"]
    return pb.Contribution(
        feature=item["feature"],
        value=values[0] if len(values) == 1 else math.nan,
        contribution=item["contribution"],
        inputs=item["inputs"],
        texts=item["texts"],
    )


async def _abort_with_status(context: Context, error: Exception) -> NoReturn:
    """End the call with the status and text of *error*; a mistake of ours is in the log only."""
    if isinstance(error, grpc.aio.AbortError):
        raise error
    code = next((code for kind, code in STATUS_BY_ERROR.items() if isinstance(error, kind)), None)
    if code is None:
        error_id = secrets.token_hex(4)
        log.error("explain: error %s", error_id, exc_info=error)
        await context.abort(grpc.StatusCode.INTERNAL, f"error {error_id}; our log has its cause")
    await context.abort(code, str(error))
    raise AssertionError("abort always raises")
