"""ReportOutcome: on disk before it is acknowledged, each key written once, each kind counted."""

import asyncio
import os
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import grpc
import pytest

from gateway.methods.idempotency_keys import IdempotencyKeys
from gateway.methods.report_outcome import ReportOutcomeService
from gateway.models.routes import RouteTable, build_routes
from gateway.telemetry.outcome_windows import OutcomeWindows
from host.clock import SystemClock
from journal.errors import JournalRefusedError
from journal.prediction_id import (
    HOLDOUT_BIT,
    hash_model_name,
    read_prediction_id,
    write_prediction_id,
)
from journal.reader import JournalReader
from journal.segment import JournalKind
from journal.writer import JournalAppender
from protos.journal_pb2 import OutcomeRecord
from protos.predict_pb2 import OutcomeReply, OutcomeRequest, Role
from registry.types import Deployment
from tests.gateway.gateway_fixture import (
    KEY,
    SALT,
    GatewayFixture,
    gateway_fixture,
    predict_request,
)
from tests.tiny_models import tiny_files

pytestmark = pytest.mark.walk

DEPLOYMENT = Deployment(model="churn", revision=1, production="1")
DAY_MS = 86_400_000
BY_ENTITY = {"prediction_id": b"", "model": "churn", "event_time_ms": 1}


async def report(gateway: GatewayFixture, **fields: object) -> OutcomeReply:
    """Send one report over gRPC."""
    request = OutcomeRequest(**{"name": "churned", "value": 1.0, **fields})  # type: ignore[arg-type]
    path = "/turnout.v1.Predictor/ReportOutcome"
    raw = await gateway.channel.unary_unary(path)(request.SerializeToString(), timeout=5.0)
    return OutcomeReply.FromString(raw)


def written_id(model: str, days_ago: float, boot_id: int = 99, role: int = 1) -> bytes:
    """Return a prediction id that a worker of this cluster has written."""
    return write_prediction_id(
        KEY,
        role=role,
        slot=1,
        sequence=5,
        model_hash=hash_model_name(model),
        version=bytes(8),
        revision=1,
        at_ms=int(time.time() * 1e3 - days_ago * DAY_MS),
        key_hash=1,
        boot_id=boot_id,
    )


def test_report_outcome_writes_and_counts_each_kind() -> None:
    """The kinds are on time, late, of a retired model, by entity, and a duplicate."""

    async def walk() -> None:
        async with gateway_fixture({"1": tiny_files()}, DEPLOYMENT) as gateway:
            fresh = (await gateway.predict(predict_request(1, 2, 3))).prediction_id
            # One report of each kind, then a duplicate of the first.
            for fields in (
                {"prediction_id": fresh, "idempotency_key": "k-1"},
                {"prediction_id": written_id("churn", 89)},
                {"prediction_id": written_id("churn", 91)},
                {"prediction_id": written_id("retired", 1)},
                {"model": "churn", "keys": ["S1"], "event_time_ms": 1_700_000_000_000},
            ):
                assert not (await report(gateway, **fields)).duplicate
            again = await report(gateway, prediction_id=fresh, idempotency_key="k-1")
            assert again.duplicate
            assert again.attribution == OutcomeReply.BY_PREDICTION_ID
            # Each is counted by kind; all but the duplicate are in the journal.
            counted = {tuple(k): n for k, n in gateway.metrics.snapshot()["turnout_outcomes"]}
            assert counted == {
                ("churn", "on_time"): 2,
                ("churn", "late"): 1,
                ("other", "orphan"): 1,
                ("churn", "by_entity"): 1,
                ("churn", "duplicate"): 1,
            }
            records = [OutcomeRecord.FromString(raw) for raw in gateway.outcomes.records]
            assert len(records) == 5
            assert (records[4].model, list(records[4].keys)) == ("churn", ["S1"])
            assert records[4].event_time_ms == 1_700_000_000_000

    asyncio.run(walk())


def test_outcome_windows_have_each_report_of_a_version_in_a_rollout_once() -> None:
    """Reports are grouped by version, role and name; holdout and other versions are left out."""
    with_canary = replace(
        DEPLOYMENT, canary="2", canary_bp=5_000, split_salt=SALT, rollout_id="r1", revision=4
    )
    versions = {"1": tiny_files(), "2": {**tiny_files(), "card.json": b"{}"}}

    async def walk() -> None:
        async with gateway_fixture(versions, with_canary) as gateway:
            # 30 predictions of both arms, each reported twice.
            reported: dict[tuple[str, int], dict[int, float]] = defaultdict(dict)
            for number in range(30):
                reply = await gateway.predict(predict_request(1, 2, 3, key=f"S{number}"))
                prediction = read_prediction_id(reply.prediction_id, KEY)
                assert prediction.revision == 4
                reported[reply.version, prediction.role][prediction.key_hash] = number % 3
                for _ in range(2):
                    await report(
                        gateway,
                        prediction_id=reply.prediction_id,
                        value=float(number % 3),
                        idempotency_key=f"k-{number}",
                    )
            # Reports that belong to no arm of the rollout.
            held_out = written_id("churn", 1, role=1 | HOLDOUT_BIT)
            for other_id in (held_out, written_id("churn", 1), written_id("retired", 1)):
                await report(gateway, prediction_id=other_id)
            await report(gateway, **BY_ENTITY, keys=["S1"])
            # The windows have each report of both arms once, and no other.
            windows = gateway.outcome_windows.close_windows(0, everything=True)
            windowed: dict[tuple[str, int], dict[int, float]] = defaultdict(dict)
            for window in windows:
                assert (window.model, window.revision, window.arm) == ("churn", 4, 0)
                for outcomes in window.outcomes:
                    assert outcomes.name == "churned"
                    reports = dict(zip(outcomes.key_hash, outcomes.value, strict=True))
                    assert len(reports) == len(outcomes.key_hash)
                    windowed[window.version, outcomes.role] |= reports
            assert windowed == reported
            assert set(windowed) == {("1", Role.PRODUCTION), ("2", Role.CANARY)}
            # Once the rollout is over, reports go into no window.
            without_rollout = replace(
                with_canary, canary="", canary_bp=0, rollout_id="", revision=5
            )
            loaded = {"1": gateway.routes.all()[0].production.version}
            gateway.routes.swap(build_routes(without_rollout, loaded, gateway.settings))
            await report(gateway, prediction_id=reply.prediction_id)
            assert gateway.outcome_windows.close_windows(0, everything=True) == []

    asyncio.run(walk())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prediction_id": b"x" * 64}, "not written by this cluster"),
        ({"prediction_id": b""}, "send a prediction_id"),
        ({"name": ""}, "1 to 128 bytes"),
        ({"name": "a\nb"}, "control character"),
        ({"idempotency_key": "k" * 129}, "too long"),
        ({"value": float("nan")}, "NaN"),
        (
            {"prediction_id": b"", "model": "churn", "keys": ["a", "b"], "event_time_ms": 1},
            "2 keys",
        ),
        ({"prediction_id": b"", "model": "churn", "keys": ["a\x1f"], "event_time_ms": 1}, "U.001F"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_report_outcome_refuses_a_bad_report_and_writes_nothing(
    fields: dict[str, object], message: str
) -> None:
    """The status is INVALID_ARGUMENT, and its message names the mistake."""

    async def walk() -> None:
        async with gateway_fixture({"1": tiny_files()}, DEPLOYMENT) as gateway:
            with pytest.raises(grpc.aio.AioRpcError, match=message) as refused:
                await report(gateway, **{"prediction_id": written_id("churn", 1), **fields})
            assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
            assert gateway.outcomes.records == []

    asyncio.run(walk())


class OutcomeWorker:
    """ReportOutcome of one worker with a real journal, as it is after a start."""

    def __init__(self, folder: Path, boot_id: int, keys_max: int = 1_000) -> None:
        self.writer = JournalAppender(folder, JournalKind.OUTCOMES, boot_id=boot_id)
        self.keys = IdempotencyKeys(folder, boot_id, keys_max)
        self.keys.rebuild()
        self.counted: list[tuple[str, str]] = []
        self.outcomes = ReportOutcomeService(
            RouteTable(),
            self.writer,
            self.keys,
            SystemClock(),
            lambda: KEY,
            lambda model, kind: self.counted.append((model, kind)),
            90,
            OutcomeWindows().record_outcome,
        )

    async def report(self, key: str) -> bool:
        """Report with an idempotency key; return whether it was a duplicate."""
        request = OutcomeRequest(
            prediction_id=written_id("churn", 1), name="churned", value=1, idempotency_key=key
        )
        reply = await self.outcomes.report(request.SerializeToString())
        return OutcomeReply.FromString(reply).duplicate


@asynccontextmanager
async def outcome_worker(
    folder: Path, boot_id: int, keys_max: int = 1_000
) -> AsyncIterator[OutcomeWorker]:
    """Run a worker and close its journal at the end."""
    worker = OutcomeWorker(folder, boot_id, keys_max)
    try:
        yield worker
    finally:
        await asyncio.to_thread(worker.writer.close)


def keys_on_disk(folder: Path) -> list[str]:
    """Return the idempotency keys of all records on disk."""
    return [
        OutcomeRecord.FromString(raw).idempotency_key
        for raw, _ in JournalReader(folder, JournalKind(2))
    ]


def test_idempotency_key_counts_once_across_workers_and_restarts(
    tmp_path: Path,
) -> None:
    """200 keys are reported three times each at one worker, then at another, then after a start."""
    keys = [f"k-{n}" for n in range(200)]

    async def walk() -> None:
        async with outcome_worker(tmp_path, 1) as first, outcome_worker(tmp_path, 2) as second:
            duplicates = await asyncio.gather(*(first.report(key) for key in keys * 3))
            assert sum(duplicates) == 400
            assert all(await asyncio.gather(*(second.report(key) for key in keys)))
            assert not await second.report("k-new")
            assert await first.report("k-new")
        async with outcome_worker(tmp_path, 3) as third:
            assert len(third.keys) == 201
            assert await third.report("k-7")
            assert not await third.report("k-newer")
        assert sorted(keys_on_disk(tmp_path)) == sorted([*keys, "k-new", "k-newer"])

    asyncio.run(walk())


def test_idempotency_keys_keep_the_newest_only(tmp_path: Path) -> None:
    """After 300 keys over three starts 50 are read back; later keys do not exceed the bound."""

    async def walk() -> None:
        for boot in (1, 2, 3):
            async with outcome_worker(tmp_path, boot) as worker:
                for n in range(100):
                    await worker.report(f"k-{boot}-{n}")
        async with outcome_worker(tmp_path, 4, keys_max=50) as last:
            assert len(last.keys) == 50
            assert "k-3-99" in last.keys
            assert "k-1-0" not in last.keys
            assert await last.report("k-3-99")
            for n in range(100):
                await last.report(f"k-4-{n}")
            assert len(last.keys) == 50

    asyncio.run(walk())


def test_idempotency_keys_read_behind_damage_and_skip_foreign_files(tmp_path: Path) -> None:
    """One segment has a flipped byte in the middle, another file is no segment."""

    async def walk() -> None:
        async with outcome_worker(tmp_path, 1) as worker:
            for n in range(20):
                await worker.report(f"k-{n}")
        (segment,) = tmp_path.iterdir()  # noqa: ASYNC240  a test's own file
        content = bytearray(segment.read_bytes())
        content[len(content) // 2] ^= 0xFF
        segment.write_bytes(content)
        (tmp_path / "outcomes-1700000000000-00000000000000aa-000000.trnj").write_bytes(b"not ours")
        keys = IdempotencyKeys(tmp_path, 2, 1_000)
        keys.rebuild()
        assert len(keys) == 19
        assert keys.catch_up(["k-0", "k-19", "k-absent"]) == {"k-0", "k-19"}

    asyncio.run(walk())


def test_report_outcome_finishes_the_write_of_a_cancelled_call(tmp_path: Path) -> None:
    """A call is cancelled before its record is on disk; the record is written once."""

    async def walk() -> None:
        async with outcome_worker(tmp_path, 1) as worker:
            call = asyncio.create_task(worker.report("k-1"))
            await asyncio.sleep(0)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            assert await worker.report("k-1")
        assert keys_on_disk(tmp_path) == ["k-1"]

    asyncio.run(walk())


def test_report_outcome_is_unavailable_when_the_journal_refuses_and_the_key_stays_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The retry of a refused report is no duplicate, because nothing was written."""

    async def refuse(payload: bytes) -> None:
        raise JournalRefusedError("full")

    async def walk() -> None:
        async with gateway_fixture({"1": tiny_files()}, DEPLOYMENT) as gateway:
            prediction = written_id("churn", 1)
            with monkeypatch.context() as full:
                full.setattr(gateway.outcomes, "append_durably", refuse)
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await report(gateway, prediction_id=prediction, idempotency_key="k-1")
                assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
            assert not (
                await report(gateway, prediction_id=prediction, idempotency_key="k-1")
            ).duplicate

    asyncio.run(walk())


def test_report_outcome_syncs_before_it_acknowledges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another worker's record is synced, too, before this worker calls it a duplicate."""
    synced: list[str] = []
    fdatasync = os.fdatasync

    def recorded_fdatasync(file: int) -> None:
        fdatasync(file)
        synced.append(os.path.basename(os.readlink(f"/proc/self/fd/{file}")))  # noqa: PTH119, PTH115

    async def walk() -> None:
        monkeypatch.setattr(os, "fdatasync", recorded_fdatasync)
        async with outcome_worker(tmp_path, 1) as first, outcome_worker(tmp_path, 2) as second:
            await first.report("k-1")
            assert [name.split("-")[2] for name in synced] == [f"{1:016x}"]
            await second.report("k-1")
            assert [name.split("-")[2] for name in synced] == [f"{1:016x}"] * 2
            await second.report("k-1")
            assert len(synced) == 2

    asyncio.run(walk())
