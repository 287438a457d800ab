"""The RPC ReportOutcome: what became of a prediction.

A report is on disk before it is acknowledged, and is counted once. A report with an idempotency key
is looked up in three places: among the writes of this worker that are under way, among the reports
that it knows, and in what other workers have appended since. Two workers that get the same report
within the same millisecond may both write it; the reader that joins outcomes also compares keys.
What is kept of a report is bounded in every field, in bytes, and in bytes a second of each caller.
"""

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from features.entity_ids import check_entity_id
from features.errors import EntityIdError
from gateway.caller import Caller
from gateway.methods.idempotency_keys import IdempotencyKeys, ReportDigest, report_digest
from gateway.methods.outcome_budget import OutcomeBudget
from gateway.models.routes import Routes, RouteTable
from gateway.status import Code, Refusal, RefusedError
from gateway.transport.decode import CONTROL, invalid_argument, parse_message
from gateway.transport.server import UnaryMethod
from host.clock import DAY_MS, Clock
from journal.errors import JournalRefusedError
from journal.prediction_id import (
    PredictionId,
    PredictionIdError,
    hash_model_name,
    read_prediction_id,
)
from protos.journal_pb2 import OutcomeRecord
from protos.predict_pb2 import OutcomeReply, OutcomeRequest

NAME_BYTES_MAX = 128
REPORT_BYTES_MAX = 8_192
"""Bytes of one report: an id or a few entity ids, two names and three numbers."""
VALUE_MAX = 1e15
"""The largest outcome, positive or negative: money in cents, with room. Sums stay finite."""
SKEW_MS = 300_000
"""How far the clocks of callers and gateways may differ in an event's time."""
OTHER = "other"
"""Metric label of a model that is not served here."""

ALREADY_REPORTED = Refusal(
    Code.ALREADY_EXISTS,
    "a report with this idempotency_key, prediction and name was kept with another row, value or "
    "event time; it stays as it was; a second outcome needs a key of its own",
)
NOT_WRITTEN = Refusal(Code.UNAVAILABLE, "outcomes cannot be written now; retry", pushback_ms=500)


class DurableJournal(Protocol):
    """A journal that confirms records; journal.writer.JournalAppender and a fake in tests are."""

    async def append_durably(self, payload: bytes) -> None:
        """Return once *payload* is on disk; JournalRefusedError when it cannot be written."""
        ...


class ReportOutcomeService:
    """Answers ReportOutcome for one worker.

    budget             bounds the bytes that are kept.
    prediction_id_key  returns the cluster's present prediction-id key.
    count_outcome      called with (model, kind) of each acknowledged report; see KINDS.
    late_days          an outcome that is further behind its prediction counts as late.
    rows_call_max      rows of any call, above the row of any report.
    on_outcome         called with (routes, prediction, record, Unix ns) of each report that is on
                       disk and has a prediction id of a model served here, without duplicates.
    """

    KINDS = ("on_time", "late", "orphan", "by_entity", "duplicate")

    def __init__(
        self,
        route_table: RouteTable,
        journal: DurableJournal,
        keys: IdempotencyKeys,
        budget: OutcomeBudget,
        clock: Clock,
        prediction_id_key: Callable[[], bytes],
        count_outcome: Callable[[str, str], None],
        late_days: int,
        rows_call_max: int,
        on_outcome: Callable[[Routes, PredictionId, OutcomeRecord, int], None],
    ) -> None:
        self._route_table = route_table
        self._journal = journal
        self._keys = keys
        self._budget = budget
        self._clock = clock
        self._prediction_id_key = prediction_id_key
        self._count_outcome = count_outcome
        self._late_ms = late_days * DAY_MS
        self._rows_call_max = rows_call_max
        self._on_outcome = on_outcome
        self._writes: dict[bytes, asyncio.Task[tuple[int, bool]]] = {}
        self._lookups: list[tuple[bytes, asyncio.Future[int | None]]] = []
        self._lookup_task: asyncio.Task[None] | None = None

    def methods(self) -> Mapping[str, UnaryMethod]:
        """Return the method by its path on the wire."""
        return {"/turnout.v1.Predictor/ReportOutcome": self.report}

    async def report(self, message: bytes, caller: Caller) -> bytes:
        """Write one OutcomeRequest of *caller* and answer once it is on disk.

        Raises RefusedError: INVALID_ARGUMENT, NOT_FOUND, ALREADY_EXISTS, RESOURCE_EXHAUSTED, or
        UNAVAILABLE when the journal refuses.
        """
        if len(message) > REPORT_BYTES_MAX:
            raise RefusedError(
                Refusal(
                    Code.RESOURCE_EXHAUSTED,
                    f"the report has {len(message)} bytes; at most {REPORT_BYTES_MAX} are taken",
                )
            )
        request = parse_message(OutcomeRequest, message)
        self._check(request)
        now_ns = self._clock.unix_ns()
        # Which prediction the report is about, and how it will be counted.
        prediction: PredictionId | None = None
        if request.prediction_id:
            prediction = self._check_prediction_report(request)
            model = self._model_of(prediction)
            caller.check_model(model)
            late = now_ns // 1_000_000 - prediction.at_ms > self._late_ms
            kind = "orphan" if model == OTHER else "late" if late else "on_time"
            attribution = OutcomeReply.BY_PREDICTION_ID
        else:
            caller.check_model(request.model)
            model, kind = self._check_entity_report(request), "by_entity"
            attribution = OutcomeReply.BY_ENTITY_LATER
        # Write it, unless a record with its idempotency key is there already.
        record = _record(request, caller, now_ns)
        try:
            duplicate = await self._write_once(record, caller)
        except JournalRefusedError:
            raise RefusedError(NOT_WRITTEN) from None
        # It is on disk: count it and pass it on.
        self._count_outcome(model, "duplicate" if duplicate else kind)
        routes = self._route_table.get(model)
        if prediction is not None and routes is not None and not duplicate:
            self._on_outcome(routes, prediction, record, self._clock.unix_ns())
        return OutcomeReply(attribution=attribution, duplicate=duplicate).SerializeToString()

    def _check(self, request: OutcomeRequest) -> None:
        """Check the fields that every report has."""
        if not request.name or len(request.name.encode()) > NAME_BYTES_MAX:
            raise invalid_argument(
                f"an outcome's name is 1 to {NAME_BYTES_MAX} bytes, like 'churned'"
            )
        for text in (request.name, request.idempotency_key):
            if CONTROL.search(text) or len(text.encode()) > NAME_BYTES_MAX:
                raise invalid_argument("a name or key is too long or holds a control character")
        if not math.isfinite(request.value):
            raise invalid_argument(
                "an outcome's value is NaN or infinite; send a number, 0 and 1 for no and yes"
            )
        if abs(request.value) > VALUE_MAX:
            raise invalid_argument(
                f"an outcome's value is {request.value:g}; it is at most {VALUE_MAX:g}"
            )
        if request.row >= self._rows_call_max:
            raise invalid_argument(
                f"row {request.row} is of no call: a call has at most {self._rows_call_max} rows, "
                "counted from 0"
            )
        ahead_ms = request.event_time_ms - self._clock.unix_ns() // 1_000_000
        if ahead_ms > SKEW_MS:
            raise invalid_argument(
                f"event_time_ms is {ahead_ms} ms in the future; send the time of the outcome in "
                "Unix milliseconds"
            )

    def _check_prediction_report(self, request: OutcomeRequest) -> PredictionId:
        """Check a report with a prediction id, which says alone what the report is about."""
        named = [name for name in ("model", "keys") if getattr(request, name)]
        if named:
            raise invalid_argument(
                f"the report has a prediction_id and {' and '.join(named)}; the prediction_id "
                "names model and customer already, so leave them out"
            )
        prediction = self._read_prediction_id(request.prediction_id)
        if prediction.rows is not None and request.row >= prediction.rows:
            raise invalid_argument(
                f"row {request.row} is not a row of this prediction: its call had "
                f"{prediction.rows} {'row' if prediction.rows == 1 else 'rows'}, counted from 0"
            )
        if request.event_time_ms and request.event_time_ms < prediction.at_ms - SKEW_MS:
            raise invalid_argument(
                f"event_time_ms is {prediction.at_ms - request.event_time_ms} ms before the "
                "prediction; an outcome comes after it"
            )
        return prediction

    def _read_prediction_id(self, prediction_id: bytes) -> PredictionId:
        """Decode and verify the id, which any gateway of the cluster may have written."""
        try:
            return read_prediction_id(prediction_id, self._prediction_id_key())
        except PredictionIdError as error:
            raise invalid_argument(str(error)) from None

    def _model_of(self, prediction: PredictionId) -> str:
        """Return the name of the prediction's model, or OTHER when it is not served here."""
        names = (routes.model for routes in self._route_table.all())
        return next(
            (name for name in names if hash_model_name(name) == prediction.model_hash), OTHER
        )

    def _check_entity_report(self, request: OutcomeRequest) -> str:
        """Check a report without a prediction id, which monitoring attributes by keys and time.

        Returns the model's name.
        """
        if not request.model or not request.keys or request.event_time_ms <= 0:
            raise invalid_argument("send a prediction_id, or a model with keys and event_time_ms")
        routes = self._route_table.get(request.model)
        if routes is None:
            raise RefusedError(Refusal(Code.NOT_FOUND, "that model is not served here"))
        entities = routes.shape.entities
        if len(request.keys) != entities:
            raise invalid_argument(
                f"the outcome names {len(request.keys)} keys; model {request.model!r} has "
                f"{entities}, in the order DescribeModel gives"
            )
        try:
            for key in request.keys:
                check_entity_id(key)
        except EntityIdError as error:
            raise invalid_argument(str(error)) from None
        return request.model

    async def _write_once(self, record: OutcomeRecord, caller: Caller) -> bool:
        """Return once the record is on disk; True when it was there already.

        When the caller goes away, the write goes on: the caller's retry must find it. Raises
        RefusedError ALREADY_EXISTS when another report was kept under its key.
        """
        payload, digest = record.SerializeToString(), report_digest(record)
        if digest is None:
            await self._append(payload, caller)
            return False
        task = self._writes.get(digest.scope)
        first = task is None
        if task is None:
            task = asyncio.get_running_loop().create_task(self._write(digest, payload, caller))
            self._writes[digest.scope] = task

            def ended(task: "asyncio.Task[tuple[int, bool]]") -> None:
                del self._writes[digest.scope]
                if not task.cancelled():
                    task.exception()  # retrieved, because the caller may be gone

            task.add_done_callback(ended)
        content, duplicate = await asyncio.shield(task)
        if content != digest.content:
            raise RefusedError(ALREADY_REPORTED)
        return duplicate or not first

    async def _write(
        self, digest: ReportDigest, payload: bytes, caller: Caller
    ) -> tuple[int, bool]:
        """Return once a record of this scope is on disk: its content, whether it was there."""
        kept = self._keys.content_of(digest.scope)
        if kept is None:
            kept = await self._appended_elsewhere(digest.scope)
        if kept is None:
            await self._append(payload, caller)
            self._keys.add(digest)
            return digest.content, False
        return kept, True

    async def _append(self, payload: bytes, caller: Caller) -> None:
        await self._budget.spend(caller, len(payload))
        await self._journal.append_durably(payload)

    async def _appended_elsewhere(self, scope: bytes) -> int | None:
        """Return the content that another worker has written; one lookup serves all waiting."""
        loop = asyncio.get_running_loop()
        known: asyncio.Future[int | None] = loop.create_future()
        self._lookups.append((scope, known))
        if self._lookup_task is None:
            self._lookup_task = loop.create_task(self._run_lookups())
        return await known

    async def _run_lookups(self) -> None:
        try:
            while self._lookups:
                lookups, self._lookups = self._lookups, []
                try:
                    found = await self._find_on_disk([scope for scope, _ in lookups])
                except Exception as error:  # noqa: BLE001  each report that waits ends with it
                    for _, known in lookups:
                        if not known.done():
                            known.set_exception(error)
                    continue
                for scope, known in lookups:
                    if not known.done():
                        known.set_result(found.get(scope))
        finally:
            self._lookup_task = None

    async def _find_on_disk(self, scopes: Sequence[bytes]) -> dict[bytes, int]:
        """Return scope -> content of those of *scopes* that are on disk.

        A folder that cannot be read has none: an outcome written twice is better than a lost
        outcome.
        """
        try:
            return await asyncio.to_thread(self._keys.catch_up, scopes)
        except OSError:
            return {}


def _record(request: OutcomeRequest, caller: Caller, received_unix_ns: int) -> OutcomeRecord:
    return OutcomeRecord(
        prediction_id=request.prediction_id,
        model=request.model,
        keys=request.keys,
        row=request.row,
        name=request.name,
        value=request.value,
        event_time_ms=request.event_time_ms,
        idempotency_key=request.idempotency_key,
        received_unix_ns=received_unix_ns,
        caller=caller.name,
    )
