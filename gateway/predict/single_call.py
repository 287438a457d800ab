"""A call that has the house to itself: the same walk as a batch's, in plain numbers.

Columns make a batch cheap and a single call dear: some sixty numpy calls, three turns of the loop
and a task, each for one row. A caller who is alone waits for all of that. Here his row is looked
up, scored and named inside his own handler, and what is to be counted and kept is noted as it is;
columns are made of many such notes at once, after their replies (gateway.telemetry.recorder).

Only the usual case: one row, production alone, at most one view. Everything else is a batch's
(gateway.predict.pipeline), which answers the same call in the same words
(tests/gateway/predict/test_single_call.py).
"""

import math
import os
from collections.abc import Awaitable
from typing import Protocol

import numpy as np

from features.entity_ids import join_ids
from features.errors import OnlineStoreError
from gateway.clock import Clock
from gateway.models.routes import Routes, RouteTable
from gateway.models.view_reads import ViewRead
from gateway.predict.batch import PredictionIdWriter
from gateway.predict.feature_lookup import STORE_DEADLINE_SHARE, NoOnlineStore, OnlineStore
from gateway.predict.pipeline import NO_FEATURES, TOO_LATE
from gateway.predict.routing import KEY_BYTES_RANDOM
from gateway.settings import Settings
from gateway.status import Refusal, RefusedError
from gateway.telemetry.journal_records import SingleCallAnswer, SingleCallRow
from gateway.transport.decode import DecodedCall
from protos.predict_pb2 import DEFAULTED, DEGRADED, NOT_STICKY, PRODUCTION, PredictReply
from registry.types import ScoringError, evidence_key, holdout_bucket

PendingRead = Awaitable[list[bytes | None]] | None
"""What was asked of the store; None: nothing is read."""


class SingleCallRecorder(Protocol):
    """gateway.telemetry.recorder.Aside, as far as a lone call knows it."""

    @property
    def journal_healthy(self) -> bool:
        """Whether served vectors can be written."""
        ...

    def record_single_call(self, answer: SingleCallAnswer) -> None:
        """Note one answer."""
        ...

    def record_single_feature_read(self, routes: Routes, row: SingleCallRow) -> None:
        """Count how a row was read whose call is refused for it."""
        ...

    def record_refusals(
        self, routes: Routes | None, model: str, refusal: Refusal, calls: int
    ) -> None:
        """Count calls refused before any version saw them."""
        ...


class SingleCallPath:
    """Answers calls one by one."""

    def __init__(
        self,
        route_table: RouteTable,
        store: OnlineStore | None,
        id_writer: PredictionIdWriter,
        recorder: SingleCallRecorder,
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
        """Return the routes of a call that can be answered here; None: it is a batch's."""
        routes = self._route_table.get(call.model)
        if routes is None or call.rows != 1 or call.pin or len(routes.reads) > 1:
            return None
        if routes.compared or routes.shadows:
            return None
        if routes.limits.journal_required and not self._recorder.journal_healthy:
            return None
        return routes

    async def answer_call(
        self, routes: Routes, call: DecodedCall, arrived_ns: int, deadline_ns: int
    ) -> PredictReply | None:
        """Answer one call of one row; None when its score needs a batch's care.

        Raises RefusedError: DEADLINE_EXCEEDED, or UNAVAILABLE by the model's policy.
        """
        clock, version = self._clock, routes.production.version
        left_ns = deadline_ns - clock.now_ns()
        if left_ns < self._answer_ns_min:
            raise self._refuse(routes, TOO_LATE)
        read_unix_ns = clock.unix_ns()
        reading = self._start_read(routes, call, left_ns)
        # While the store thinks: everything that does not depend on what it says.
        key_hash, held_out, sticky = _assign(routes, call)
        prediction_id = self._id_writer.write_single(
            routes, version, key_hash, holdout=held_out, at_unix_ms=read_unix_ns // 1_000_000
        )
        row = await self._finish_row(routes, call, reading, read_unix_ns)
        matrix = routes.production.matrix(row.matrix)
        try:
            scores: list[float] = version.executor.scorer.run(matrix).tolist()[0]
        except ScoringError:
            return None
        if not all(map(math.isfinite, scores)):
            return None
        flags = row.flags if sticky else row.flags | NOT_STICKY
        self._recorder.record_single_call(
            SingleCallAnswer(
                routes=routes,
                version=version,
                key_hash=key_hash,
                holdout=held_out,
                latency_ns=clock.now_ns() - arrived_ns,
                at_unix_ns=clock.unix_ns(),
                read_unix_ns=read_unix_ns,
                scores=scores,
                flags=flags,
                row=row,
                prediction_id=prediction_id,
                ids=call.ids,
                matrix=matrix,
            )
        )
        return PredictReply(
            request_id=call.request_id.decode(),
            model=call.model,
            version=version.label,
            role=PRODUCTION,
            prediction_id=prediction_id,
            holdout=held_out,
            scores=scores,
            outputs=len(scores),
            row_flags=[flags] if flags else None,
        )

    def _start_read(
        self, routes: Routes, call: DecodedCall, left_ns: int
    ) -> PendingRead | OnlineStoreError:
        """Ask for the one row of the one view, as `feature_lookup` asks for those of a batch."""
        if not routes.reads:
            return None
        read = routes.reads[0]
        budget_s = min(routes.limits.feature_ns, left_ns * STORE_DEADLINE_SHARE) / 1e9
        try:
            return self._store.mget([read.rows.store_key(_entity(read, call))], budget_s)
        except OnlineStoreError as error:
            return error

    async def _finish_row(
        self,
        routes: Routes,
        call: DecodedCall,
        reading: PendingRead | OnlineStoreError,
        now_unix_ns: int,
    ) -> SingleCallRow:
        """Wait for what was asked, and join it with the call's inputs."""
        if reading is None:
            return SingleCallRow(np.array([call.inputs], dtype=np.float32), 0, 0, "")
        read = routes.reads[0]
        unread = ""
        try:
            if isinstance(reading, OnlineStoreError):
                raise reading
            (value,) = await reading
            values, flags, broken = read.rows.decode_row(
                value, _entity(read, call), now_unix_ns // 1_000_000
            )
        except OnlineStoreError as error:
            values, broken, unread = read.rows.default_rows(1).values, 0, error.reason
            flags = DEFAULTED | DEGRADED
        if call.inputs:
            values = np.concatenate([values, [call.inputs]], axis=1, dtype=np.float32)
        row = SingleCallRow(values, flags, broken, unread)
        if unread and routes.limits.features_required:
            self._recorder.record_single_feature_read(routes, row)
            raise self._refuse(routes, NO_FEATURES)
        return row

    def _refuse(self, routes: Routes, refusal: Refusal) -> RefusedError:
        self._recorder.record_refusals(routes, routes.model, refusal, 1)
        return RefusedError(refusal)


def _entity(read: ViewRead, call: DecodedCall) -> bytes:
    positions = read.entity_positions
    if len(positions) == 1:
        return call.ids[positions[0]]
    return join_ids([call.ids[position] for position in positions])


def _assign(routes: Routes, call: DecodedCall) -> tuple[int, bool, bool]:
    """Evidence key, whether it is held out, and whether it would come back (`routing`)."""
    deployment = routes.deployment
    first = call.ids[0] if call.ids else b""
    key = call.sticky or first
    sticky = bool(key)
    key = key or call.request_id or os.urandom(KEY_BYTES_RANDOM)
    held_out = (
        deployment.holdout_bp > 0
        and holdout_bucket(deployment.holdout_salt, first or key) < deployment.holdout_bp
    )
    return evidence_key(deployment.split_salt, key), held_out, sticky
