"""ReportOutcome: on disk before it is acknowledged, each key written once, each kind counted."""

import asyncio
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from gateway.models.routes import build_routes
from journal.errors import JournalRefusedError
from journal.prediction_id import (
    HOLDOUT_BIT,
    hash_model_name,
    read_prediction_id,
    write_prediction_id,
)
from journal.score_code import ScoreRule
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


def written_id(
    model: str, days_ago: float, boot_id: int = 99, role: int = 1, rows: int = 1
) -> bytes:
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
        rows=rows,
        score=0.25,
        rule=ScoreRule(probability=True, threshold=0.5),
    )


NOW_MS = int(time.time() * 1e3)
PREDICTION = written_id("churn", 1, rows=2)


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
        ({"value": 1e308}, "at most 1e.15"),
        ({"row": 4_294_967_295}, "a call has at most 1024 rows"),
        ({"row": 1}, "its call had 1 row, counted from 0"),
        ({"prediction_id": written_id("churn", 1, rows=2), "row": 2}, "its call had 2 rows"),
        ({"event_time_ms": 2**62}, "in the future"),
        ({"event_time_ms": -(2**62)}, "before the prediction"),
        ({"event_time_ms": 1}, "before the prediction"),
        ({"model": "\x1b[31m"}, "has a prediction_id and model;"),
        ({"model": "churn", "keys": ["S1"]}, "has a prediction_id and model and keys;"),
        ({"prediction_id": b"", "model": "churn", "keys": ["a"], "event_time_ms": -5}, "send a"),
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


@pytest.mark.parametrize(("keys", "bytes_max"), [(300, 8_192), (100_000, 65_536)])
def test_report_outcome_refuses_a_large_report_before_it_is_parsed(
    keys: int, bytes_max: int
) -> None:
    """10 kB and, as in the finding, 3 MB of keys beside a prediction id: nothing is kept."""

    async def walk() -> None:
        async with gateway_fixture({"1": tiny_files()}, DEPLOYMENT) as gateway:
            words = f"at most {bytes_max} are taken"
            with pytest.raises(grpc.aio.AioRpcError, match=words) as refused:
                await report(gateway, prediction_id=PREDICTION, keys=["k" * 30] * keys)
            assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert gateway.outcomes.records == []

    asyncio.run(walk())


def test_idempotency_key_belongs_to_caller_prediction_and_name() -> None:
    """Another prediction or name may use the key. Another value under the same is an error."""

    async def walk() -> None:
        async with gateway_fixture({"1": tiny_files()}, DEPLOYMENT) as gateway:
            order: dict[str, Any] = {"prediction_id": PREDICTION, "idempotency_key": "order-1"}
            assert not (await report(gateway, **order)).duplicate
            assert (await report(gateway, **order)).duplicate
            # Whoever knows the key cannot use it up for other predictions and names.
            for fields in ({"prediction_id": written_id("churn", 2)}, {"name": "accepted"}):
                assert not (await report(gateway, **{**order, **fields})).duplicate
            for fields in ({"value": 0.0}, {"row": 1}, {"event_time_ms": NOW_MS}):
                with pytest.raises(grpc.aio.AioRpcError, match="a key of its own") as refused:
                    await report(gateway, **{**order, **fields})
                assert refused.value.code() == grpc.StatusCode.ALREADY_EXISTS
            assert len(gateway.outcomes.records) == 3

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
