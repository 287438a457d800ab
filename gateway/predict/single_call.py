"""A single call: one row, alone in the worker, answered without columns.

Columns make a batch cheap and a single call dear: about sixty numpy calls for one row. A caller who
is alone would wait for all of them. Here the row is looked up, scored and given its id in plain
Python values. Columns are made afterwards, for many such answers at once.

Only the usual case takes this way: one row, production alone, at most one view. Every other call
goes through a batch (gateway.predict.pipeline), which gives the same answers and the same records
(tests/gateway/predict/test_single_call.py).
"""

import asyncio
import math
import os
from collections.abc import Awaitable, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.contract import request_time
from features.entity_ids import join_ids
from features.errors import OnlineStoreError
from gateway.key_column import KEY_SAMPLE_ALL, KeyColumn
from gateway.models.executor import NO_FAULT
from gateway.models.routes import Routes, RouteTable
from gateway.models.view_reads import ViewRead
from gateway.predict.feature_lookup import NoOnlineStore, OnlineStore, read_budget_s
from gateway.predict.prediction_ids import PredictionIdWriter, UnscoredId
from gateway.predict.refusals import NO_FEATURES, TOO_LATE
from gateway.predict.routing import KEY_BYTES_RANDOM
from gateway.settings import Settings
from gateway.status import Refusal, RefusedError
from gateway.telemetry.folding import FoldedReplies
from gateway.telemetry.journal_records import ServedColumns, encode_served_batch
from gateway.telemetry.native_observations import NATIVE_SINGLE_ANSWERS, SingleAnswers
from gateway.telemetry.observations import Observations, count_observations, evidence_sampled
from gateway.telemetry.recorder import Recorder
from gateway.transport.call_queue import QueuedCall
from gateway.transport.decode import DecodedCall
from host.clock import Clock
from protos.predict_pb2 import (
    DEFAULTED,
    DEGRADED,
    NOT_STICKY,
    PRODUCTION,
    ROLE_UNSPECIFIED,
    PredictReply,
)
from protos.window_pb2 import ARM_PRODUCTION
from registry.types import ScoringError, evidence_key, holdout_bucket

PendingRead = Awaitable[list[bytes | None]] | None
"""A read that was sent to the store. None: the model reads no view."""


class SingleRow(NamedTuple):
    """The features of the row of a single call."""

    matrix: NDArray[np.float32]
    """(1, W) every stored feature of every view that is read, then the request inputs."""
    flags: int
    """turnout.v1.RowFlag bits."""
    broken: int
    """1 if the stored row had a wrong hash or id."""
    read_failure: str
    """Why the store did not answer, as one word. Empty if it answered."""


class StartedCall(NamedTuple):
    """A single call whose read was sent to the store."""

    routes: Routes
    queued: QueuedCall
    read: PendingRead | OnlineStoreError
    read_unix_ns: int
    """Wall clock at which the age of the stored features is checked, and of the request's time."""
    key_hash: int
    """The evidence key."""
    holdout: bool
    sticky: bool
    unscored_id: UnscoredId

    @property
    def request_row(self) -> SingleRow | None:
        """The row of a model that reads no view; None if stored features must be awaited."""
        if self.read is not None:
            return None
        return SingleRow(self.with_inputs([]), 0, 0, "")

    def with_inputs(self, stored: list[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Return the (1, W) row: *stored* features, request inputs, the request's time."""
        blocks, inputs = stored, self.queued.call.inputs
        if inputs or not blocks:
            blocks = [*blocks, np.array([inputs], dtype=np.float32)]
        if self.routes.request_time:
            time = request_time(self.read_unix_ns // 1_000_000)
            blocks = [*blocks, np.array([time], dtype=np.float32)]
        return blocks[0] if len(blocks) == 1 else np.concatenate(blocks, axis=1, dtype=np.float32)


class AnsweredCall(NamedTuple):
    """A reply record: production's answer to a single call."""

    reply: PredictReply
    started: StartedCall
    row: SingleRow
    flags: int
    """turnout.v1.RowFlag bits of the row, and NOT_STICKY of the call."""
    at_unix_ns: int
    answered_ns: int
    """Monotonic time at which it was answered."""

    @property
    def routes(self) -> Routes:
        """The routes under which the call was answered."""
        return self.started.routes

    @property
    def group(self) -> None:
        """All single answers of one model are folded together."""
        return

    @property
    def rows(self) -> int:
        """A single call has one row."""
        return 1

    @staticmethod
    def fold(records: "Sequence[AnsweredCall]") -> FoldedReplies:
        """Count the answers as if they had been a batch, and encode those of sampled keys."""
        if NATIVE_SINGLE_ANSWERS is None:
            return _fold_by_reference(records)
        routes = records[0].routes
        holdout = routes.deployment.holdout_bp > 0
        answers = SingleAnswers(routes, records[0].row.matrix.shape[1])
        for reply, started, row, flags, _, answered_ns in records:
            queued = started.queued
            answers.broken += row.broken
            answers.add(
                started.key_hash,
                started.holdout if holdout else None,
                (started.read_unix_ns, queued.arrived_ns, answered_ns),
                flags,
                row.matrix,
                reply.scores,
                queued.call.ids,
                reply.prediction_id,
            )
        return answers.folded()


def _fold_by_reference(answers: Sequence[AnsweredCall]) -> FoldedReplies:
    """Return what `AnsweredCall.fold` returns, without the native library."""
    routes = answers[0].routes
    counts = count_observations(
        _observations(answers), routes.scale, evidence_sampled(routes, ARM_PRODUCTION)
    )
    folded = FoldedReplies(counts=[(routes.production.version, ARM_PRODUCTION, counts)])
    sampled = routes.limits.journal_sampled
    served = [answer for answer in answers if answer.started.key_hash % KEY_SAMPLE_ALL < sampled]
    if served:
        folded.journal_records.append(encode_served_batch(_served_columns(served)))
    return folded


def _observations(answers: Sequence[AnsweredCall]) -> Observations:
    """Return answers of one version as the observations of one batch."""
    holdout = None
    if answers[0].routes.deployment.holdout_bp:
        holdout = np.array([answer.started.holdout for answer in answers], dtype=np.bool_)
    latency_ns = [answer.answered_ns - answer.started.queued.arrived_ns for answer in answers]
    # Flat, because numpy takes three times as long for lists in a list.
    flat = chain.from_iterable([answer.reply.scores for answer in answers])
    scores = np.fromiter(flat, dtype=np.float32)
    return Observations(
        key_hash=np.array([answer.started.key_hash for answer in answers], dtype=np.uint64),
        faults=np.full(len(answers), NO_FAULT, dtype=np.uint8),
        holdout=holdout,
        latency_ns=np.array(latency_ns, dtype=np.int64),
        scores=scores.reshape(len(answers), -1),
        expected=None,
        row_offsets=np.arange(len(answers) + 1, dtype=np.uint32),
        flags=np.array([answer.flags for answer in answers], dtype=np.uint32),
        broken=sum(answer.row.broken for answer in answers),
    )


def _served_columns(answers: Sequence[AnsweredCall]) -> ServedColumns:
    """Return answers of one version as the columns of one journal record."""
    routes = answers[0].routes
    calls = [answer.started.queued.call for answer in answers]
    ids = KeyColumn.from_list([entity_id for call in calls for entity_id in call.ids])
    read_unix_ns = [answer.started.read_unix_ns for answer in answers]
    return ServedColumns(
        routes=routes,
        version=routes.production.version,
        read_unix_ns=np.array(read_unix_ns, dtype=np.int64),
        role=np.full(len(answers), PRODUCTION, dtype=np.uint8),
        row_count=np.ones(len(answers), dtype=np.intp),
        prediction_ids=b"".join([answer.reply.prediction_id for answer in answers]),
        key_hash=np.array([answer.started.key_hash for answer in answers], dtype=np.uint64),
        row_flags=np.array([answer.flags for answer in answers], dtype=np.uint32),
        vectors=routes.production.matrix(np.concatenate([answer.row.matrix for answer in answers])),
        scores=np.array([answer.reply.scores for answer in answers], dtype=np.float32),
        entity_ids=ids.to_entity_ids_field(),
    )


class SingleCallPath:
    """Answers single calls.

    store  None if the gateway has no online store.
    """

    def __init__(
        self,
        route_table: RouteTable,
        store: OnlineStore | None,
        id_writer: PredictionIdWriter,
        recorder: Recorder,
        clock: Clock,
        settings: Settings,
    ) -> None:
        self._route_table = route_table
        self._store: OnlineStore = store or NoOnlineStore()
        self._id_writer = id_writer
        self._recorder = recorder
        self._clock = clock
        self._answer_ns_min = settings.deadline_left_us_min * 1_000

    def routes_for(self, call: DecodedCall) -> Routes | None:
        """Return the routes of a call that can be answered here. None: it needs a batch."""
        routes = self._route_table.get(call.model)
        if routes is None or call.rows != 1 or call.pin or len(routes.reads) > 1:
            return None
        if routes.compared or routes.shadows:
            return None
        if routes.limits.journal_required and not self._recorder.journal_healthy:
            return None
        return routes

    def start(self, routes: Routes, queued: QueuedCall) -> StartedCall:
        """Send the read of the stored features, and do what does not depend on its result.

        Raises RefusedError DEADLINE_EXCEEDED if the deadline is too near.
        """
        call, left_ns = queued.call, queued.deadline_ns - self._clock.now_ns()
        if left_ns < self._answer_ns_min:
            raise self._refuse(routes, TOO_LATE)
        read_unix_ns = self._clock.unix_ns()
        read = self._start_read(routes, call, left_ns)
        key_hash, holdout, sticky = _assign(routes, call)
        unscored_id = self._id_writer.start_single(
            routes,
            routes.production.version,
            key_hash,
            holdout=holdout,
            at_unix_ms=read_unix_ns // 1_000_000,
        )
        return StartedCall(
            routes, queued, read, read_unix_ns, key_hash, holdout, sticky, unscored_id
        )

    async def read_row(self, started: StartedCall) -> SingleRow:
        """Wait for the read and join the stored features with the call's inputs.

        Raises RefusedError if the store did not answer and the model needs its features.
        """
        routes, call, read = started.routes, started.queued.call, started.read
        view_read, read_failure = routes.reads[0], ""
        try:
            if isinstance(read, OnlineStoreError):
                raise read
            assert read is not None
            (value,) = await read
            values, flags, broken = view_read.rows.decode_row(
                value, _entity(view_read, call), started.read_unix_ns // 1_000_000
            )
        except OnlineStoreError as error:
            values, broken, read_failure = view_read.rows.default_rows(1).values, 0, error.reason
            flags = DEFAULTED | DEGRADED
        if read_failure and routes.limits.features_required:
            self._recorder.record_single_read(routes, flags, broken, read_failure)
            raise self._refuse(routes, NO_FEATURES)
        return SingleRow(started.with_inputs([values]), flags, broken, read_failure)

    def answer(self, started: StartedCall, row: SingleRow) -> AnsweredCall | None:
        """Score the row and return the reply. Send it, then give the answer to `record`.

        None: the version failed, so the call needs a batch.
        """
        # Score on the event loop.
        routes, call = started.routes, started.queued.call
        version, vector = routes.production.version, routes.production.matrix(row.matrix)
        try:
            scores: list[float] = version.executor.scorer.run(vector).tolist()[0]
        except ScoringError:
            return None
        if not all(map(math.isfinite, scores)):
            return None
        # What the caller sees of the version is a setting of the model.
        flags = row.flags if started.sticky else row.flags | NOT_STICKY
        hidden = routes.limits.hide_role
        reply = PredictReply(
            request_id=call.request_id.decode(),
            model=call.model,
            version="" if hidden else version.label,
            role=ROLE_UNSPECIFIED if hidden else PRODUCTION,
            prediction_id=started.unscored_id.with_score(scores[0]),
            holdout=started.holdout,
            scores=scores,
            outputs=len(scores),
            row_flags=[flags] if flags else None,
        )
        clock = self._clock
        return AnsweredCall(reply, started, row, flags, clock.unix_ns(), clock.now_ns())

    def record(self, answered: AnsweredCall) -> None:
        """Count how the row of a call was read, and leave a record of its answer.

        Call this right after the reply was handed to the server. The grpcio server sends it in the
        next step of the call's handler, so the record is made in a callback behind that step: the
        caller does not wait for it.
        """
        asyncio.get_running_loop().call_soon(self._record, answered)

    def _record(self, answered: AnsweredCall) -> None:
        row, recorder = answered.row, self._recorder
        recorder.record_single_read(
            answered.started.routes, row.flags, row.broken, row.read_failure
        )
        recorder.record(answered)
        recorder.fold_if_due()

    def _start_read(
        self, routes: Routes, call: DecodedCall, left_ns: int
    ) -> PendingRead | OnlineStoreError:
        """Ask the store for the row of the one view. An error is returned, not raised."""
        if not routes.reads:
            return None
        view_read = routes.reads[0]
        budget_s = read_budget_s(routes.limits.feature_ns, 1, left_ns)
        try:
            return self._store.mget([view_read.rows.store_key(_entity(view_read, call))], budget_s)
        except OnlineStoreError as error:
            return error

    def _refuse(self, routes: Routes, refusal: Refusal) -> RefusedError:
        self._recorder.record_refusals(routes, routes.model, refusal, 1, reason="pipeline")
        return RefusedError(refusal)


def _entity(view_read: ViewRead, call: DecodedCall) -> bytes:
    """Return the entity id by which a view stores its row."""
    positions = view_read.entity_positions
    if len(positions) == 1:
        return call.ids[positions[0]]
    return join_ids([call.ids[position] for position in positions])


def _assign(routes: Routes, call: DecodedCall) -> tuple[int, bool, bool]:
    """Return the evidence key, whether it is in the holdout, and whether the key is sticky.

    The rules are those of gateway.predict.routing.
    """
    deployment = routes.deployment
    first = call.ids[0] if call.ids else b""
    key = call.sticky or first
    sticky = bool(key)
    key = key or call.request_id or os.urandom(KEY_BYTES_RANDOM)
    holdout = (
        deployment.holdout_bp > 0
        and holdout_bucket(deployment.holdout_salt, first or key) < deployment.holdout_bp
    )
    return evidence_key(deployment.split_salt, key), holdout, sticky
