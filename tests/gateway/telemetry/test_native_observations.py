"""The native path for batches without a fault leaves the same bits as the reference path."""

import asyncio
from dataclasses import fields, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gateway.batch import Batch, FeatureRows
from gateway.columns import Calls, Replies
from gateway.models.executor import ModelExecutor, Scored
from gateway.models.loader import verify_and_open
from gateway.models.routes import LoadedVersion, Routes, build_routes
from gateway.predict.dispatch import Dispatcher
from gateway.predict.prediction_ids import PredictionIdWriter
from gateway.predict.routing import assign_calls
from gateway.settings import Settings
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.native_observations import NATIVE_BATCHES, FaultFreeBatch, native_columns
from gateway.telemetry.recorder import Recorder
from gateway.telemetry.shadow_copies import ShadowCopies
from gateway.telemetry.windows import Windows
from gateway.worker_identity import WorkerIdentity
from journal.prediction_id import read_prediction_id
from protos.journal_pb2 import ServedBatch
from protos.predict_pb2 import STALE
from protos.registry_pb2 import ServingPolicy
from registry.bundle import seal_files
from registry.types import Deployment
from tests.front_doors import NEEDS_NATIVE_INGRESS
from tests.gateway.canary_at_half import CANARY_AT_HALF, DOUBLED_WEIGHTS, PRODUCTION_ONLY
from tests.tiny_models import tiny_contract, tiny_files

SECOND_NS = 1_000_000_000
DEPLOYMENTS = {
    "production only": PRODUCTION_ONLY,
    "canary at half": CANARY_AT_HALF,
    "shadows": replace(PRODUCTION_ONLY, shadows=(("2", 3_000), ("3", 10_000))),
    "all roles": replace(CANARY_AT_HALF, holdout_bp=2_000, shadows=(("3", 3_000),)),
    "no production": replace(CANARY_AT_HALF, canary_bp=10_000, shadows=(("3", 3_000),)),
    "sampled journal": replace(
        CANARY_AT_HALF, policy=ServingPolicy(journal_sampled_of_65536=20_000)
    ),
}


class SteadyExecutor(ModelExecutor):
    """An executor whose runs report 1 us a row, or 1 s a row if the rows are a multiple of 5."""

    def score_timed(self, matrix: NDArray[np.float32], row_offsets: NDArray[np.uint32]) -> Scored:
        """Score on the event loop, and set the reported time."""
        scored = self.score_inline(matrix, row_offsets)
        scored.elapsed_ns = scored.cpu_ns = len(matrix) * (1_000 if len(matrix) % 5 else SECOND_NS)
        return scored


class ScriptedClock:
    """A clock whose time the test sets."""

    ns = 5 * SECOND_NS

    def now_ns(self) -> int:
        """Return the scripted time."""
        return self.ns

    def unix_ns(self) -> int:
        """Return the same scripted time."""
        return self.ns


class MemoryParts:
    """A server, a journal and a copy sink in memory."""

    healthy = True

    def __init__(self) -> None:
        self.replies: list[Replies] = []
        self.records: list[bytes] = []
        self.copies: list[ShadowCopies] = []

    def send_replies(self, replies: Replies, *, more: bool = False) -> None:
        """Append the replies."""
        del more
        self.replies.append(replies)

    def append(self, payload: bytes) -> None:
        """Append a journal record."""
        self.records.append(payload)

    def append_optional(self, payload: bytes) -> bool:
        """Append a journal record."""
        self.records.append(payload)
        return True

    def offer(self, copies: ShadowCopies) -> None:
        """Append the copies."""
        self.copies.append(copies)

    def send_pending(self) -> None:
        """Do nothing: no copies wait here."""


OUTPUTS = {
    "one probability": ("", 1),
    "classes": ("multiclass", 3),
    "unstated classes": ("", 4),
    "values": ("regression", 2),
}
"""Task that a version states, and the number of its outputs."""


@pytest.fixture(scope="module")
def loaded() -> dict[str, dict[str, LoadedVersion]]:
    """Return three versions with different weights for each item of OUTPUTS."""
    return {name: _versions(task, outputs) for name, (task, outputs) in OUTPUTS.items()}


def _versions(task: str, outputs: int) -> dict[str, LoadedVersion]:
    contract = tiny_contract(outputs=[f"output{n}" for n in range(outputs)])
    first = np.random.default_rng(4).random((3, outputs), dtype=np.float32)
    if outputs == 1:
        first = DOUBLED_WEIGHTS / 2
    tables = {"1": first, "2": first[:, ::-1] * 2, "3": first * first * 4}
    versions = {}
    for label, table in tables.items():
        weights = np.ascontiguousarray(table, dtype=np.float32)
        tiny = tiny_files(contract=contract, weights=weights, task=task)
        files = seal_files(tiny, model="churn", author="dana", created_unix_ms=1)
        version = verify_and_open(label, files, None, None)
        versions[label] = replace(
            version, executor=SteadyExecutor(version.executor.scorer, outputs, short_runs=True)
        )
    return versions


def random_batch(routes: Routes, rng: np.random.Generator, now_ns: int, *, wide: bool) -> Batch:
    """Return a batch of 1 to 29 calls. With *wide* calls have 1 to 3 rows, and sticky keys."""
    calls = int(rng.integers(1, 30))
    rows = rng.integers(1, 4, calls) if wide else np.ones(calls, dtype=np.int64)
    total = int(rows.sum())
    ids = [b"S%d" % n if n % 9 else b"" for n in rng.integers(0, 500, total).tolist()]
    sticky = [b"K%d" % n if n % 3 and wide else b"" for n in rng.integers(0, 90, calls).tolist()]
    offsets_of = lambda items: np.cumsum([0, *map(len, items)]).astype(np.uint32)  # noqa: E731
    inputs = rng.random((total, 3), dtype=np.float32)
    columns = Calls(
        model="churn",
        handles=np.arange(calls, dtype=np.uint64),
        arrived_ns=now_ns - rng.integers(1, 10**9, calls),
        deadline_ns=np.full(calls, now_ns + SECOND_NS),
        criticality=np.zeros(calls, dtype=np.uint8),
        row_offsets=np.cumsum([0, *rows]).astype(np.uint32),
        sticky=b"".join(sticky),
        sticky_offsets=offsets_of(sticky),
        request_ids=b"".join(b"r%03d" % n for n in range(calls)),
        request_id_offsets=np.arange(calls + 1, dtype=np.uint32) * 4,
        pins=(),
        entity_ids=b"".join(ids),
        entity_offsets=offsets_of(ids),
        inputs=inputs,
    )
    flags = np.where(rng.random(total) < 0.1, STALE, 0).astype(np.uint32)
    features = FeatureRows(inputs, flags, int(rng.integers(0, 3)), "")
    return Batch(routes, columns, assign_calls(routes, columns), features, now_ns - 7)


def dispatch_results(routes: Routes, seed: int, *, wide: bool, native: bool) -> dict[str, Any]:
    """Dispatch 12 batches; return the replies, windows, metrics, journal records and copies."""
    # A dispatcher and a recorder over parts in memory.
    clock, parts, windows, metrics = ScriptedClock(), MemoryParts(), Windows(), Metrics()
    routes = replace(routes)

    async def dispatch_batches() -> None:
        memory: Any = parts
        recorder = Recorder(windows, metrics, memory, memory, clock, lambda _: None)
        id_writer = PredictionIdWriter(WorkerIdentity("g", 0, 1, bytes(32)))
        no_errors: Any = SimpleNamespace()
        dispatcher = Dispatcher(
            memory, id_writer, recorder, clock, no_errors, fault_free_path=native
        )
        rng = np.random.default_rng(seed)
        for _ in range(12):
            clock.ns += 40_000_000
            await answer_all(dispatcher, random_batch(routes, rng, clock.ns, wide=wide))
            clock.ns += 1_000
        recorder.fold()

    asyncio.run(dispatch_batches())
    # Order, and the number of messages, are not promised, so everything is sorted and joined.
    by_version: dict[str, list[ShadowCopies]] = {}
    for copies in parts.copies:
        by_version.setdefault(copies.version.label, []).append(copies)
    closed_windows = windows.close_windows(clock.ns, everything=True)
    return {
        "replies": sorted(map(reply_fields, parts.replies), key=repr),
        "windows": sorted(
            window.SerializeToString(deterministic=True) for window in closed_windows
        ),
        "metrics": {name: sorted(rows, key=repr) for name, rows in metrics.snapshot().items()},
        "records": records_by_version(parts.records),
        "copies": {
            label: copied_calls(ShadowCopies.concatenated(copies))
            for label, copies in by_version.items()
        },
    }


async def answer_all(dispatcher: Dispatcher, batch: Batch) -> None:
    """Dispatch a batch, and answer the calls that wait for the canary."""
    canary_calls = await dispatcher.dispatch(batch)
    if canary_calls is not None:
        await dispatcher.answer_canary(canary_calls)


def reply_fields(replies: Replies) -> tuple[Any, ...]:
    """Return the values of all fields, with arrays as bytes."""
    values = [getattr(replies, field.name) for field in fields(replies)]
    return tuple(value.tobytes() if isinstance(value, np.ndarray) else value for value in values)


def copied_calls(copies: ShadowCopies) -> list[tuple[Any, ...]]:
    """Return the copies call by call, sorted, because the order of the calls is not promised."""
    calls = []
    for call, key in enumerate(copies.key_hash.tolist()):
        rows = slice(*copies.row_offsets[call : call + 2].tolist())
        columns = (copies.matrix, copies.production_scores, copies.flags)
        entities = copies.entity_ids.select(rows).to_list()  # a row has one
        read_unix_ns = int(copies.read_unix_ns[call])
        prediction = read_prediction_id(copies.prediction_ids[64 * call :][:64], bytes(32))
        calls.append(
            (
                key,
                *(column[rows].tobytes() for column in columns),
                entities,
                read_unix_ns,
                repr(replace(prediction, sequence=0)),
            )
        )
    return sorted(calls)


def records_by_version(records: list[bytes]) -> dict[str, ServedBatch]:
    """Return one record a version, because the number of batches in a record is not promised."""
    by_version: dict[str, ServedBatch] = {}
    for payload in records:
        record = ServedBatch.FromString(payload)
        merged = by_version.setdefault(record.version, ServedBatch())
        for field, value in record.ListFields():
            if isinstance(value, bytes):
                setattr(merged, field.name, getattr(merged, field.name) + value)
            elif field.name == "entity_ids":
                merged.entity_ids.extend(value)
            else:
                setattr(merged, field.name, value)
    return by_version


@NEEDS_NATIVE_INGRESS
@pytest.mark.parametrize("outputs", OUTPUTS)
@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("deployment", DEPLOYMENTS.values(), ids=DEPLOYMENTS)
def test_native_path_leaves_the_same_bits_as_the_reference_path(
    loaded: dict[str, dict[str, LoadedVersion]], deployment: Deployment, wide: bool, outputs: str
) -> None:
    """Windows with their evidence, metrics, journal and copies are the same, bit for bit."""
    versions = {label: loaded[outputs][label] for label in deployment.versions}
    routes = build_routes(deployment, versions, Settings())
    for seed in range(2):
        native = dispatch_results(routes, seed, wide=wide, native=True)
        assert native == dispatch_results(routes, seed, wide=wide, native=False)
        assert native["windows"]
        assert native["records"]


@NEEDS_NATIVE_INGRESS
def test_native_library_refuses_columns_that_do_not_fit(
    loaded: dict[str, dict[str, LoadedVersion]],
) -> None:
    """It raises ValueError with a message, because a panic in Rust would end the worker."""
    # One batch with calls of both arms, as the native library gets it.
    versions = loaded["one probability"]
    routes = build_routes(
        CANARY_AT_HALF, {label: versions[label] for label in CANARY_AT_HALF.versions}, Settings()
    )
    records: list[FaultFreeBatch] = []

    async def dispatch_until_both_arms_have_calls() -> None:
        recorder: Any = SimpleNamespace(record=records.append)
        server: Any = SimpleNamespace(send_replies=lambda *_, **__: None)
        no_errors: Any = SimpleNamespace()
        id_writer = PredictionIdWriter(WorkerIdentity("g", 0, 1, bytes(32)))
        dispatcher = Dispatcher(server, id_writer, recorder, ScriptedClock(), no_errors)
        rng = np.random.default_rng(1)
        while not records or records[0].canary is None or not records[0].production.prediction_ids:
            records.clear()
            await answer_all(dispatcher, random_batch(routes, rng, ScriptedClock.ns, wide=True))

    asyncio.run(dispatch_until_both_arms_have_calls())
    batch_columns = native_columns(records[0])
    # These columns fit. A column of the inputs that is not there is refused.
    fitting = NATIVE_BATCHES([batch_columns], 1, 1, 3)
    assert fitting.record(False, b"", 1, 65_536, [0, 2])
    with pytest.raises(ValueError, match="a column of 3 is not there"):
        fitting.record(False, b"", 1, 65_536, [3])
    # Each column is made shorter and longer.
    for group, columns in enumerate(batch_columns):
        for index, column in enumerate(columns):
            if not (isinstance(column, bytes) and column):
                continue
            for other in (column[: len(column) // 2], column + bytes(64)):
                changed = [list(columns) for columns in batch_columns]
                changed[group][index] = other
                if group in {2, 3} and index == 0 and len(other) > len(column):
                    continue  # a longer buffer still holds every item
                with pytest.raises(ValueError, match="do not fit each other"):
                    NATIVE_BATCHES([tuple(map(tuple, changed))], 1, 1, 3)
