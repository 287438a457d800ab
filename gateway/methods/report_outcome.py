"""The RPC ReportOutcome: what became of a prediction.

A report is on disk before it is acknowledged, and is counted once. The idempotency key of a report
is looked up in three places: among the writes of this worker that are under way, among the keys
that it knows, and in what other workers have appended since. Two workers that get the same key
within the same millisecond may both write it; the reader that joins outcomes also compares keys.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

from features.entity_ids import check_entity_id
from features.errors import EntityIdError
from gateway.methods.idempotency_keys import IdempotencyKeys
from gateway.models.routes import Routes, RouteTable
from gateway.status import Code, Refusal, RefusedError
from gateway.transport.decode import CONTROL, invalid_argument, parse_message
from host.clock import Clock
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
DAY_MS = 86_400_000
OTHER = "other"
"""Metric label of a model that is not served here."""

NOT_WRITTEN = Refusal(Code.UNAVAILABLE, "outcomes cannot be written now; retry", pushback_ms=500)


class DurableJournal(Protocol):
    """A journal that confirms records; journal.writer.JournalAppender and a fake in tests are."""

    async def append_durably(self, payload: bytes) -> None:
        """Return once *payload* is on disk; JournalRefusedError when it cannot be written."""
        ...


class ReportOutcomeService:
    """Answers ReportOutcome for one worker.

    prediction_id_key  returns the cluster's present prediction-id key.
    count_outcome      called with (model, kind) of each acknowledged report; see KINDS.
    late_days          an outcome that is further behind its prediction counts as late.
    on_outcome         called with (routes, prediction, name, value, Unix ns) of each report that
                       is on disk and has a prediction id of a model served here, without
                       duplicates.
    """

    KINDS = ("on_time", "late", "orphan", "by_entity", "duplicate")

    def __init__(
        self,
        route_table: RouteTable,
        journal: DurableJournal,
        keys: IdempotencyKeys,
        clock: Clock,
        prediction_id_key: Callable[[], bytes],
        count_outcome: Callable[[str, str], None],
        late_days: int,
        on_outcome: Callable[[Routes, PredictionId, str, float, int], None],
    ) -> None:
        self._route_table = route_table
        self._journal = journal
        self._keys = keys
        self._clock = clock
        self._prediction_id_key = prediction_id_key
        self._count_outcome = count_outcome
        self._late_ms = late_days * DAY_MS
        self._on_outcome = on_outcome
        self._writes: dict[str, asyncio.Task[bool]] = {}
        self._lookups: list[tuple[str, asyncio.Future[bool]]] = []
        self._lookup_task: asyncio.Task[None] | None = None

    def methods(self) -> Mapping[str, Callable[[bytes], Awaitable[bytes]]]:
        """Return the method by its path on the wire."""
        return {"/turnout.v1.Predictor/ReportOutcome": self.report}

    async def report(self, message: bytes) -> bytes:
        """Write one OutcomeRequest and answer once it is on disk.

        Raises RefusedError: INVALID_ARGUMENT, NOT_FOUND, or UNAVAILABLE when the journal refuses.
        """
        request = parse_message(OutcomeRequest, message)
        _check(request)
        now_ns = self._clock.unix_ns()
        # Which prediction the report is about, and how it will be counted.
        prediction: PredictionId | None = None
        if request.prediction_id:
            prediction = self._read_prediction_id(request.prediction_id)
            model = self._model_of(prediction)
            late = now_ns // 1_000_000 - prediction.at_ms > self._late_ms
            kind = "orphan" if model == OTHER else "late" if late else "on_time"
            attribution = OutcomeReply.BY_PREDICTION_ID
        else:
            model, kind = self._check_entity_report(request), "by_entity"
            attribution = OutcomeReply.BY_ENTITY_LATER
        # Write it, unless a record with its idempotency key is there already.
        payload = _record(request, now_ns).SerializeToString()
        try:
            duplicate = await self._write_once(request.idempotency_key, payload)
        except JournalRefusedError:
            raise RefusedError(NOT_WRITTEN) from None
        # It is on disk: count it and pass it on.
        self._count_outcome(model, "duplicate" if duplicate else kind)
        routes = self._route_table.get(model)
        if prediction is not None and routes is not None and not duplicate:
            self._on_outcome(routes, prediction, request.name, request.value, self._clock.unix_ns())
        return OutcomeReply(attribution=attribution, duplicate=duplicate).SerializeToString()

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
        if not request.model or not request.keys or not request.event_time_ms:
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

    async def _write_once(self, key: str, payload: bytes) -> bool:
        """Return once the record is on disk; True when its key was there already.

        When the caller goes away, the write goes on: the caller's retry must find it.
        """
        if not key:
            await self._journal.append_durably(payload)
            return False
        task = self._writes.get(key)
        if task is not None:
            await asyncio.shield(task)
            return True
        task = asyncio.get_running_loop().create_task(self._write(key, payload))
        self._writes[key] = task

        def ended(task: "asyncio.Task[bool]") -> None:
            del self._writes[key]
            if not task.cancelled():
                task.exception()  # retrieved, because the caller may be gone

        task.add_done_callback(ended)
        return await asyncio.shield(task)

    async def _write(self, key: str, payload: bytes) -> bool:
        if key in self._keys or await self._appended_elsewhere(key):
            return True
        await self._journal.append_durably(payload)
        self._keys.add(key)
        return False

    async def _appended_elsewhere(self, key: str) -> bool:
        """Return whether another worker has written *key*; one lookup serves all waiting keys."""
        loop = asyncio.get_running_loop()
        known: asyncio.Future[bool] = loop.create_future()
        self._lookups.append((key, known))
        if self._lookup_task is None:
            self._lookup_task = loop.create_task(self._run_lookups())
        return await known

    async def _run_lookups(self) -> None:
        try:
            while self._lookups:
                lookups, self._lookups = self._lookups, []
                found = await self._find_on_disk([key for key, _ in lookups])
                for key, known in lookups:
                    if not known.done():
                        known.set_result(key in found)
        finally:
            self._lookup_task = None

    async def _find_on_disk(self, keys: Sequence[str]) -> set[str]:
        """Return those of *keys* that are on disk.

        A folder that cannot be read has none: an outcome written twice is better than a lost
        outcome.
        """
        try:
            return await asyncio.to_thread(self._keys.catch_up, keys)
        except OSError:
            return set()


def _check(request: OutcomeRequest) -> None:
    if not request.name or len(request.name.encode()) > NAME_BYTES_MAX:
        raise invalid_argument(f"an outcome's name is 1 to {NAME_BYTES_MAX} bytes, like 'churned'")
    for text in (request.name, request.idempotency_key):
        if CONTROL.search(text) or len(text.encode()) > NAME_BYTES_MAX:
            raise invalid_argument("a name or key is too long or holds a control character")
    if not math.isfinite(request.value):
        raise invalid_argument(
            "an outcome's value is NaN or infinite; send a number, 0 and 1 for no and yes"
        )


def _record(request: OutcomeRequest, received_unix_ns: int) -> OutcomeRecord:
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
    )
