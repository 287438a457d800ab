"""Batches without a fault, counted and kept together: to the bit what each alone would say."""

import asyncio
from dataclasses import fields, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gateway.columns import Calls, Replies
from gateway.models.executor import ModelExecutor, Scored
from gateway.models.loader import verify_and_open
from gateway.models.routes import LoadedVersion, Routes, build_routes
from gateway.predict.batch import Batch, PredictionIdWriter, WorkerIdentity
from gateway.predict.dispatch import Dispatcher
from gateway.predict.feature_lookup import FeatureRows
from gateway.predict.routing import assign_calls
from gateway.settings import Settings
from gateway.shadow.shadows import Copies, concatenate_copies
from gateway.telemetry import native_observations
from gateway.telemetry.fault_free import FaultFreeBatch
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.recorder import Recorder
from gateway.telemetry.windows import Windows
from protos.journal_pb2 import ServedBatch
from protos.predict_pb2 import STALE
from protos.registry_pb2 import ServingPolicy
from registry.bundle import seal_files
from registry.types import Deployment
from tests.front_doors import NEEDS_NATIVE_INGRESS
from tests.gateway.canary_at_half import CANARY_AT_HALF, DOUBLED_WEIGHTS, PRODUCTION_ONLY
from tests.tiny_models import tiny_files

SECOND_NS = 1_000_000_000
NAMED = (
    ("alone", PRODUCTION_ONLY),
    ("halved", CANARY_AT_HALF),
    ("shadowed", replace(PRODUCTION_ONLY, shadows=(("2", 3_000), ("3", 10_000)))),
    ("everything", replace(CANARY_AT_HALF, holdout_bp=2_000, shadows=(("3", 3_000),))),
    ("none of production", replace(CANARY_AT_HALF, canary_bp=10_000, shadows=(("3", 3_000),))),
    ("thinned", replace(CANARY_AT_HALF, policy=ServingPolicy(journal_sampled_of_65536=20_000))),
)


class Steady(ModelExecutor):
    """Takes as long as it has rows to score, on every machine; now and then far too long."""

    def score_timed(self, matrix: NDArray[np.float32], row_offsets: NDArray[np.uint32]) -> Scored:
        """Score on the loop."""
        scored = self.score_inline(matrix, row_offsets)
        scored.elapsed_ns = scored.cpu_ns = len(matrix) * (1_000 if len(matrix) % 5 else SECOND_NS)
        return scored


class Clock:
    """Goes on from batch to batch."""

    ns = 5 * SECOND_NS

    def now_ns(self) -> int:
        """Monotonic."""
        return self.ns

    def unix_ns(self) -> int:
        """Since 1970, as it were."""
        return self.ns


class Heard:
    """A door, a journal and shadows that remember."""

    healthy = True

    def __init__(self) -> None:
        self.replies: list[Replies] = []
        self.records: list[bytes] = []
        self.copies: list[Copies] = []

    def send_replies(self, replies: Replies, *, more: bool = False) -> None:
        """Keep them."""
        del more
        self.replies.append(replies)

    def append(self, payload: bytes) -> None:
        """Keep a record."""
        self.records.append(payload)

    def offer(self, copies: Copies) -> None:
        """Keep copies."""
        self.copies.append(copies)

    def send_pending(self) -> None:
        """Nothing waits."""


class OneByOne(Dispatcher):
    """Answers and tells every batch as if something in it might have gone wrong."""

    def _answer_fault_free(self, *_: Any) -> bool:  # noqa: ANN401
        return False


@pytest.fixture(scope="module")
def loaded() -> dict[str, LoadedVersion]:
    """Three versions."""
    weights = {"1": None, "2": DOUBLED_WEIGHTS, "3": DOUBLED_WEIGHTS * 2}
    versions = {}
    for label, table in weights.items():
        files = seal_files(
            tiny_files(weights=table), model="churn", author="dana", created_unix_ms=1
        )
        version = verify_and_open(label, files, None, None)
        versions[label] = replace(
            version, executor=Steady(version.executor.scorer, 1, short_runs=True)
        )
    return versions


def batch_of(routes: Routes, rng: np.random.Generator, now_ns: int, *, wide: bool) -> Batch:
    """A few calls of one row, or of some; some with sticky keys, or with none at all."""
    calls = int(rng.integers(1, 30))
    rows = rng.integers(1, 4, calls) if wide else np.ones(calls, dtype=np.int64)
    total = int(rows.sum())
    ids = [b"S%d" % n if n % 9 else b"" for n in rng.integers(0, 500, total).tolist()]
    sticky = [b"K%d" % n if n % 3 and wide else b"" for n in rng.integers(0, 90, calls).tolist()]
    laid = lambda items: np.cumsum([0, *map(len, items)]).astype(np.uint32)  # noqa: E731
    inputs = rng.random((total, 3), dtype=np.float32)
    columns = Calls(
        model="churn",
        handles=np.arange(calls, dtype=np.uint64),
        arrived_ns=now_ns - rng.integers(1, 10**9, calls),
        deadline_ns=np.full(calls, now_ns + SECOND_NS),
        criticality=np.zeros(calls, dtype=np.uint8),
        row_offsets=np.cumsum([0, *rows]).astype(np.uint32),
        sticky=b"".join(sticky),
        sticky_offsets=laid(sticky),
        request_ids=b"".join(b"r%03d" % n for n in range(calls)),
        request_id_offsets=np.arange(calls + 1, dtype=np.uint32) * 4,
        pins=(),
        entity_ids=b"".join(ids),
        entity_offsets=laid(ids),
        inputs=inputs,
    )
    flags = np.where(rng.random(total) < 0.1, STALE, 0).astype(np.uint32)
    looked = FeatureRows(inputs, flags, int(rng.integers(0, 3)), "")
    return Batch(routes, columns, assign_calls(routes, columns), looked, now_ns - 7)


def told_by(kind: type[Dispatcher], routes: Routes, seed: int, *, wide: bool) -> Any:  # noqa: ANN401
    """What some batches leave behind: replies, windows, metrics, records, copies."""
    clock, heard, windows, metrics = Clock(), Heard(), Windows(), Metrics()
    routes = replace(routes)

    async def walk() -> None:
        shadows: Any = heard
        aside = Recorder(windows, metrics, shadows, heard, clock, lambda _: None)
        door: Any = heard
        arms = kind(
            door,
            PredictionIdWriter(WorkerIdentity("g", 0, 1, bytes(32))),
            aside,
            clock,
            SimpleNamespace(),
        )  # type: ignore[arg-type]
        rng = np.random.default_rng(seed)
        for _ in range(12):
            clock.ns += 40_000_000
            await arms.dispatch(batch_of(routes, rng, clock.ns, wide=wide), lambda: None)
            clock.ns += 1_000
        aside.fold()

    asyncio.run(walk())
    by_version: dict[str, list[Copies]] = {}
    for copies in heard.copies:
        by_version.setdefault(copies.version.label, []).append(copies)
    closed = windows.close_windows(clock.ns, everything=True)
    return {
        "replies": sorted(map(said, heard.replies), key=repr),
        "windows": sorted(one.SerializeToString(deterministic=True) for one in closed),
        "metrics": {name: sorted(value, key=repr) for name, value in metrics.snapshot().items()},
        "records": whole(heard.records),
        "copies": {
            key: calls_of(concatenate_copies(several)) for key, several in by_version.items()
        },
    }


def said(replies: Replies) -> tuple[Any, ...]:
    """Every field, arrays by their bytes."""
    every = [getattr(replies, field.name) for field in fields(replies)]
    return tuple(one.tobytes() if isinstance(one, np.ndarray) else one for one in every)


def calls_of(copies: Copies) -> list[tuple[Any, ...]]:
    """Call by call: in which order a batch's calls are copied is not promised."""
    calls = []
    for call, key in enumerate(copies.key_hash.tolist()):
        rows = slice(*copies.row_offsets[call : call + 2].tolist())
        columns = (copies.matrix, copies.expected, copies.flags)
        calls.append((key, *(column[rows].tobytes() for column in columns)))
    return sorted(calls)


def whole(records: list[bytes]) -> dict[str, ServedBatch]:
    """A version's records as one: how many batches share a record is not promised."""
    by_version: dict[str, ServedBatch] = {}
    for payload in records:
        record = ServedBatch.FromString(payload)
        held = by_version.setdefault(record.version, ServedBatch())
        for field, value in record.ListFields():
            if isinstance(value, bytes):
                setattr(held, field.name, getattr(held, field.name) + value)
            elif field.name == "entity_ids":
                held.entity_ids.extend(value)
            else:
                setattr(held, field.name, value)
    return by_version


@pytest.mark.parametrize("native", [False, pytest.param(True, marks=NEEDS_NATIVE_INGRESS)])
@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize(("plan"), [plan for _, plan in NAMED], ids=[name for name, _ in NAMED])
def test_many_batches_say_what_each_would(
    loaded: dict[str, LoadedVersion],
    plan: Deployment,
    wide: bool,
    native: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Windows with their evidence, metrics, journal and copies are the same, bit for bit."""
    if not native:
        monkeypatch.setattr(native_observations, "NATIVE_BATCHES", None)
    versions = {label: loaded[label] for label in plan.versions}
    routes = build_routes(plan, versions, Settings())
    for seed in range(2):
        together = told_by(Dispatcher, routes, seed, wide=wide)
        assert together == told_by(OneByOne, routes, seed, wide=wide)
        assert together["windows"]
        assert together["records"]


@NEEDS_NATIVE_INGRESS
def test_the_library_refuses_columns_that_do_not_fit(loaded: dict[str, LoadedVersion]) -> None:
    """In words: where Rust panics, the worker ends."""
    routes = build_routes(
        CANARY_AT_HALF, {label: loaded[label] for label in CANARY_AT_HALF.versions}, Settings()
    )
    kept: list[FaultFreeBatch] = []

    async def walk() -> None:
        aside: Any = SimpleNamespace(clean=kept.append)
        door: Any = SimpleNamespace(answer=lambda *_, **__: None)
        ids = PredictionIdWriter(WorkerIdentity("g", 0, 1, bytes(32)))
        arms = Dispatcher(door, ids, aside, Clock(), SimpleNamespace())  # type: ignore[arg-type]
        rng = np.random.default_rng(1)
        while not kept or kept[0].canary is None or not kept[0].production.prediction_ids:
            kept.clear()
            await arms.dispatch(batch_of(routes, rng, Clock.ns, wide=True), lambda: None)

    asyncio.run(walk())
    laid = native_observations._native_columns(kept[0])
    whole = native_observations.NATIVE_BATCHES([laid], 1, 1, 3)
    assert whole.record(False, b"", 1, 65_536, [0, 2])
    with pytest.raises(ValueError, match="a column of 3 is not there"):
        whole.record(False, b"", 1, 65_536, [3])
    for group, columns in enumerate(laid):
        for place, column in enumerate(columns):
            if not (isinstance(column, bytes) and column):
                continue
            for other in (column[: len(column) // 2], column + bytes(64)):
                changed = [list(one) for one in laid]
                changed[group][place] = other
                if group in {2, 3} and place == 0 and len(other) > len(column):
                    continue  # a longer buffer holds all that lies in it
                with pytest.raises(ValueError, match="do not fit each other"):
                    native_observations.NATIVE_BATCHES([tuple(map(tuple, changed))], 1, 1, 3)
