"""The dispatcher answers for production, canary, standby and pins; shadows and holdout follow.

Calls come over real gRPC and are scored by real ONNX files.
"""

import asyncio
import math
import threading
from collections import Counter
from dataclasses import replace

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray

from gateway.models.executor import ModelExecutor
from gateway.settings import Settings
from journal.prediction_id import read_prediction_id
from protos import journal_pb2, window_pb2
from protos.predict_pb2 import CANARY, FALLBACK, PINNED, PRODUCTION
from protos.registry_pb2 import ServingPolicy
from registry.types import Deployment, evidence_key, holdout_bucket, split_bucket
from tests.gateway.canary_at_half import (
    CANARY_AT_HALF,
    CUSTOMER_KEYS,
    DOUBLED_WEIGHTS,
    PRODUCTION_ONLY,
    canary_keys,
    closed_windows,
    predict_all_keys,
)
from tests.gateway.gateway_fixture import KEY, SALT, gateway_fixture, predict_request
from tests.poll import wait_until
from tests.tiny_models import tiny_files

pytestmark = pytest.mark.walk


def test_dispatcher_answers_each_key_with_the_version_of_its_hash() -> None:
    """Each arm scores the keys that the split gives to it, and only its keys have evidence."""

    async def walk() -> None:
        async with gateway_fixture(
            {"1": tiny_files(), "2": tiny_files(weights=DOUBLED_WEIGHTS)}, CANARY_AT_HALF
        ) as gateway:
            for key, reply in (await predict_all_keys(gateway)).items():
                is_canary = key in canary_keys()
                assert reply.role == (CANARY if is_canary else PRODUCTION)
                assert reply.version == ("2" if is_canary else "1")
                assert math.isclose(reply.scores[0], 2.8 if is_canary else 1.4, rel_tol=1e-5)
            windows = closed_windows(gateway)
            assert windows["CANARY"].calls.answered == len(canary_keys())
            scores = [r for r in windows["CANARY"].records if r.metric == window_pb2.METRIC_SCORE]
            hashes = {key_hash for records in scores for key_hash in records.key_hash}
            assert hashes == {evidence_key(SALT, key.encode()) for key in canary_keys()}
            assert all(len(r.production_bin) == len(r.key_hash) for r in scores)

    asyncio.run(walk())


@pytest.mark.parametrize("fault", [{"fault_when": 5.0}, {"nan_when": 5.0}])
def test_dispatcher_falls_back_to_production_where_the_canary_faults(
    fault: dict[str, float],
) -> None:
    """Where the canary raises or scores NaN, the reply has role FALLBACK and production's score."""

    async def walk() -> None:
        versions = {"1": tiny_files(), "2": tiny_files(weights=DOUBLED_WEIGHTS, **fault)}
        async with gateway_fixture(versions, CANARY_AT_HALF) as gateway:
            for key, reply in (await predict_all_keys(gateway, first=9.0)).items():
                assert reply.role == (FALLBACK if key in canary_keys() else PRODUCTION)
                assert (reply.version, round(reply.scores[0], 4)) == ("1", 2.2)
            calls = closed_windows(gateway)["CANARY"].calls
            assert calls.answered == 0
            assert calls.fallbacks == len(canary_keys())

    asyncio.run(walk())


def test_canary_breaker_opens_and_sends_one_guard() -> None:
    """It opens after three faulty runs on five keys; production answers every call."""

    async def walk() -> None:
        versions = {"1": tiny_files(), "2": tiny_files(fault_when=5.0)}
        async with gateway_fixture(versions, CANARY_AT_HALF) as gateway:
            for key in sorted(canary_keys())[:8]:
                reply = await gateway.predict(predict_request(9, 2, 3, key=key))
                assert reply.role == FALLBACK
            (guard,) = gateway.guards
            assert guard.kind == window_pb2.HardGuard.BREAKER_OPEN
            assert (guard.version, guard.revision) == ("2", 2)
            assert 0 < guard.first_bad_unix_ns <= guard.at_unix_ns
            assert closed_windows(gateway)["CANARY"].calls.faulty == 5

    asyncio.run(walk())


def test_dispatcher_returns_internal_when_production_and_canary_both_fault() -> None:
    """One internal error is logged."""

    async def walk() -> None:
        versions = {
            "1": tiny_files(fault_when=5.0),
            "2": tiny_files(weights=DOUBLED_WEIGHTS, fault_when=5.0),
        }
        async with gateway_fixture(versions, CANARY_AT_HALF) as gateway:
            error = await gateway.refusal(predict_request(9, 2, 3, key=min(canary_keys())))
            assert error.code() == grpc.StatusCode.INTERNAL
            assert len(gateway.faults) == 1

    asyncio.run(walk())


def test_dispatcher_uses_the_standby_for_its_keys_and_as_the_fallback_of_production() -> None:
    """The old version has 20 % of the keys, and answers rows that the new one faults on."""
    watched = replace(PRODUCTION_ONLY, production="2", standby="1", standby_bp=2_000)

    async def walk() -> None:
        versions = {"1": tiny_files(), "2": tiny_files(weights=DOUBLED_WEIGHTS, fault_when=5.0)}
        async with gateway_fixture(versions, watched) as gateway:
            for key, reply in (await predict_all_keys(gateway)).items():
                is_standby = split_bucket(SALT, key.encode()) >= 8_000
                assert (reply.version, reply.role) == ("1" if is_standby else "2", PRODUCTION)
            roles = Counter(r.role for r in (await predict_all_keys(gateway, first=9.0)).values())
            assert roles[FALLBACK] > 0
            windows = closed_windows(gateway)
            assert windows["PRODUCTION"].calls.faulty == roles[FALLBACK]
            assert windows["PRODUCTION"].calls.fallbacks == roles[FALLBACK]
            assert windows["STANDBY"].calls.answered == 2 * roles[PRODUCTION]

    asyncio.run(walk())


def test_shadows_score_copies_while_production_answers_every_call() -> None:
    """One of two shadows raises on every row; the pairs of both are counted."""
    shadowed = replace(PRODUCTION_ONLY, shadows=(("2", 10_000), ("3", 10_000)))
    versions = {
        "1": tiny_files(),
        "2": tiny_files(weights=DOUBLED_WEIGHTS),
        "3": tiny_files(fault_when=5.0),
    }

    async def walk() -> None:
        async with gateway_fixture(versions, shadowed) as gateway:
            replies = await predict_all_keys(gateway, first=9.0)
            assert {reply.role for reply in replies.values()} == {PRODUCTION}
            shadows = gateway.parts.shadows
            gateway.recorder.fold()
            await wait_until(lambda: shadows.rows_waiting == 0)
            pairs, faulty = 0, 0
            for window in gateway.windows.close_windows(0, everything=True):
                if window.arm == window_pb2.ARM_SHADOW:
                    pairs += window.pairs.pairs
                    faulty += window.pairs.faulty
            assert (pairs, faulty) == (60, 60)

    asyncio.run(walk())


def test_shadows_sample_by_key_and_drop_copies_without_space() -> None:
    """A sample of 30 % has the same keys each time. With a bound of 0 rows all are dropped."""

    async def walk(settings: Settings, sample_bp: int) -> tuple[int, int]:
        shadowed = replace(PRODUCTION_ONLY, shadows=(("2", sample_bp),))
        versions = {"1": tiny_files(), "2": tiny_files(weights=DOUBLED_WEIGHTS)}
        async with gateway_fixture(versions, shadowed, settings=settings) as gateway:
            await predict_all_keys(gateway)
            await predict_all_keys(gateway)
            gateway.recorder.fold()
            await wait_until(lambda: gateway.parts.shadows.rows_waiting == 0)
            windows = closed_windows(gateway)
            shadow = windows.get("SHADOW", window_pb2.Window())
            return shadow.pairs.pairs, shadow.calls.dropped

    sampled, dropped = asyncio.run(walk(Settings(), 3_000))
    assert dropped == 0
    assert sampled % 2 == 0
    assert 2 * 8 <= sampled <= 2 * 30
    assert asyncio.run(walk(Settings(shadow_rows_waiting_max=0), 10_000)) == (0, 120)


def test_recorder_writes_no_evidence_of_held_out_customers() -> None:
    """The holdout of 20 % goes by the customer's key and not by the sticky key."""
    with_holdout = replace(CANARY_AT_HALF, holdout_bp=2_000)

    async def walk() -> None:
        async with gateway_fixture(
            {"1": tiny_files(), "2": tiny_files(weights=DOUBLED_WEIGHTS)}, with_holdout
        ) as gateway:
            calls = [
                gateway.predict(predict_request(1, 2, 3, key=k, sticky_key="session"))
                for k in CUSTOMER_KEYS
            ]
            for key, reply in zip(CUSTOMER_KEYS, await asyncio.gather(*calls), strict=True):
                in_holdout = holdout_bucket(SALT, key.encode()) < 2_000
                assert reply.holdout == in_holdout
                assert read_prediction_id(reply.prediction_id, KEY).holdout == in_holdout
            windows = closed_windows(gateway)
            (arm,) = windows.values()
            records = sum(len(r.key_hash) for r in arm.records if r.metric == 4)
            assert arm.calls.holdout == 60 - records

    asyncio.run(walk())


def test_assign_calls_finds_a_pinned_version_by_label_role_or_alias() -> None:
    """A shadow and a version outside the deployment are NOT_FOUND in the same words.

    So is a role without a version. No evidence is written.
    """
    shadowed = replace(CANARY_AT_HALF, shadows=(("3", 1),))
    versions = {
        "1": tiny_files(),
        "2": tiny_files(weights=DOUBLED_WEIGHTS),
        "3": tiny_files(weights=3 * DOUBLED_WEIGHTS),
    }

    async def walk() -> None:
        async with gateway_fixture(versions, shadowed) as gateway:
            # Versions that answer customers answer pins.
            for name, version in {
                "1": "1",
                "champion": "1",
                "2": "2",
                "canary": "2",
                "challenger": "2",
            }.items():
                reply = await gateway.predict(predict_request(1, 2, 3, version=name))
                assert (reply.version, reply.role) == (version, PINNED), name
            # Nothing else does, and the words do not tell a shadow from nothing.
            for name in ("3", "9", "standby", "shadow"):
                refused = await gateway.refusal(predict_request(1, 2, 3, version=name))
                assert refused.code() == grpc.StatusCode.NOT_FOUND
                assert refused.details() == (
                    f"version '{name}' of model 'churn' answers no pinned call; production, "
                    "standby and canary do, and DescribeModel lists them"
                )
            windows = closed_windows(gateway)
            assert windows["PINNED"].calls.answered > 0
            assert not windows["PINNED"].records

    asyncio.run(walk())


def test_assign_calls_gives_no_pin_to_a_quarantined_version() -> None:
    """A quarantined canary answers no pin, by label or role. Production answers its own."""

    async def walk() -> None:
        async with gateway_fixture(
            {"1": tiny_files(), "2": tiny_files(weights=DOUBLED_WEIGHTS)}, CANARY_AT_HALF
        ) as gateway:
            routes = gateway.parts.route_table.get("churn")
            assert routes is not None
            assert (await gateway.predict(predict_request(1, 2, 3, version="2"))).version == "2"
            for participant in (routes.production, routes.canary):
                assert participant is not None
                digest = participant.version.bundle.digest
                gateway.parts.route_table.quarantined[digest] = ("2 workers died", 1)
            for name in ("2", "canary", "challenger"):
                refused = await gateway.refusal(predict_request(1, 2, 3, version=name))
                assert refused.code() == grpc.StatusCode.NOT_FOUND
            assert (await gateway.predict(predict_request(1, 2, 3, version="1"))).role == PINNED

    asyncio.run(walk())


def test_journal_has_the_vectors_and_scores_of_each_sampled_call() -> None:
    """Vectors are what the version got, scores what it returned. Half the keys can be sampled."""
    half_sampled = replace(PRODUCTION_ONLY, policy=ServingPolicy(journal_sampled_of_65536=32_768))

    async def walk(deployment: Deployment) -> list[str]:
        async with gateway_fixture({"1": tiny_files()}, deployment) as gateway:
            replies = await predict_all_keys(gateway)
            gateway.recorder.fold()
            sampled_ids: list[str] = []
            for raw in gateway.served.records:
                record = journal_pb2.ServedBatch.FromString(raw)
                vectors = np.frombuffer(record.vectors, "<f4").reshape(-1, record.width)
                scores = np.frombuffer(record.scores, "<f4")
                assert np.array_equal(vectors, np.tile([1, 2, 3], (len(vectors), 1)))
                assert np.allclose(scores, 1.4)
                ids = [record.prediction_ids[n : n + 64] for n in range(0, 64 * len(scores), 64)]
                for entity, prediction_id in zip(record.entity_ids, ids, strict=True):
                    assert replies[entity].prediction_id == prediction_id
                sampled_ids += record.entity_ids
            return sampled_ids

    assert sorted(asyncio.run(walk(PRODUCTION_ONLY))) == sorted(CUSTOMER_KEYS)
    half = asyncio.run(walk(half_sampled))
    expected = [k for k in CUSTOMER_KEYS if evidence_key(SALT, k.encode()) % 65_536 < 32_768]
    assert sorted(half) == sorted(expected)


def test_pipeline_refuses_calls_while_a_required_journal_cannot_be_written() -> None:
    """Calls are UNAVAILABLE; they are answered again when the journal is healthy."""
    required = replace(PRODUCTION_ONLY, policy=ServingPolicy(journal_required=True))

    async def walk() -> None:
        async with gateway_fixture({"1": tiny_files()}, required) as gateway:
            gateway.served.healthy = False
            error = await gateway.refusal(predict_request(1, 2, 3))
            assert error.code() == grpc.StatusCode.UNAVAILABLE
            gateway.served.healthy = True
            assert (await gateway.predict(predict_request(1, 2, 3))).version == "1"

    asyncio.run(walk())


def test_model_executor_runs_short_versions_on_the_event_loop_and_others_on_a_thread() -> None:
    """A short run has ended when `start_run` returns, and its time is measured as on a thread."""
    threads: list[str] = []

    class ThreadNoter:
        def run(self, matrix: NDArray[np.float32]) -> NDArray[np.float32]:
            threads.append(threading.current_thread().name)
            return matrix[:, :1]

    async def walk() -> None:
        matrix, offsets = np.ones((2, 3), np.float32), np.array([0, 1, 2], np.uint32)
        short_run = ModelExecutor(ThreadNoter(), 1, short_runs=True).start_run(matrix, offsets)
        scored = short_run.result()
        assert scored is not None
        assert scored.faultless
        assert scored.elapsed_ns > 0
        assert await short_run.wait() is scored
        on_thread = ModelExecutor(ThreadNoter(), 1)
        assert (await on_thread.start_run(matrix, offsets).wait()).faultless
        on_thread.close()

    asyncio.run(walk())
    assert threads[0] == threading.main_thread().name
    assert threads[1].startswith("score")
