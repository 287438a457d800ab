"""Production, canary, standby, shadows, holdout and pins, over real gRPC and real ONNX."""

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


def test_the_split_decides_by_key_and_each_arm_answers_its_own() -> None:
    """Every key gets the version that its hash says; the canary's answers are the canary's."""

    async def walk() -> None:
        async with gateway_fixture(
            {"1": tiny_files(), "2": tiny_files(weights=DOUBLED_WEIGHTS)}, CANARY_AT_HALF
        ) as gateway:
            for key, reply in (await predict_all_keys(gateway)).items():
                drawn = key in canary_keys()
                assert reply.role == (CANARY if drawn else PRODUCTION)
                assert reply.version == ("2" if drawn else "1")
                assert math.isclose(reply.scores[0], 2.8 if drawn else 1.4, rel_tol=1e-5)
            windows = closed_windows(gateway)
            assert windows["CANARY"].calls.answered == len(canary_keys())
            scores = [r for r in windows["CANARY"].records if r.metric == window_pb2.METRIC_SCORE]
            hashes = {one for records in scores for one in records.key_hash}
            assert hashes == {evidence_key(SALT, key.encode()) for key in canary_keys()}
            assert all(len(r.production_bin) == len(r.key_hash) for r in scores)

    asyncio.run(walk())


@pytest.mark.parametrize("fault", [{"fault_when": 5.0}, {"nan_when": 5.0}])
def test_a_canary_that_faults_is_answered_by_production_inside_the_call(
    fault: dict[str, float],
) -> None:
    """Rows on which the canary raises or scores NaN: role FALLBACK, production's score."""

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


def test_a_canary_that_only_fails_is_stopped_here_and_says_so_once() -> None:
    """Three faulty runs, five keys: the breaker opens, one guard goes out, callers are answered."""

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


def test_where_production_and_canary_both_fail_the_call_is_internal() -> None:
    """Nobody can answer this row: INTERNAL, one fault noted."""

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


def test_while_a_promotion_is_watched_the_standby_keeps_its_keys_and_saves_the_others() -> None:
    """The top of the range stays on the old version; rows the new one faults on fall back to it."""
    watched = replace(PRODUCTION_ONLY, production="2", standby="1", standby_bp=2_000)

    async def walk() -> None:
        versions = {"1": tiny_files(), "2": tiny_files(weights=DOUBLED_WEIGHTS, fault_when=5.0)}
        async with gateway_fixture(versions, watched) as gateway:
            for key, reply in (await predict_all_keys(gateway)).items():
                old = split_bucket(SALT, key.encode()) >= 8_000
                assert (reply.version, reply.role) == ("1" if old else "2", PRODUCTION)
            roles = Counter(r.role for r in (await predict_all_keys(gateway, first=9.0)).values())
            assert roles[FALLBACK] > 0
            windows = closed_windows(gateway)
            assert windows["PRODUCTION"].calls.faulty == roles[FALLBACK]
            assert windows["PRODUCTION"].calls.fallbacks == roles[FALLBACK]
            assert windows["STANDBY"].calls.answered == 2 * roles[PRODUCTION]

    asyncio.run(walk())


def test_shadows_score_copies_and_nobody_waits_for_them() -> None:
    """Two shadows, one of which raises on everything: all pairs counted, every call answered."""
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


def test_a_shadow_samples_by_key_and_drops_before_it_queues() -> None:
    """30 % sample: the same keys each time. No room for rows: all dropped, and counted."""

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


def test_held_out_customers_are_scored_and_leave_no_evidence() -> None:
    """20 % holdout on the customer's key, whatever the sticky key: holdout = true, no record."""
    held = replace(CANARY_AT_HALF, holdout_bp=2_000)

    async def walk() -> None:
        async with gateway_fixture(
            {"1": tiny_files(), "2": tiny_files(weights=DOUBLED_WEIGHTS)}, held
        ) as gateway:
            calls = [
                gateway.predict(predict_request(1, 2, 3, key=k, sticky_key="session"))
                for k in CUSTOMER_KEYS
            ]
            for key, reply in zip(CUSTOMER_KEYS, await asyncio.gather(*calls), strict=True):
                out = holdout_bucket(SALT, key.encode()) < 2_000
                assert reply.holdout == out
                assert read_prediction_id(reply.prediction_id, KEY).holdout == out
            windows = closed_windows(gateway)
            (arm,) = windows.values()
            records = sum(len(r.key_hash) for r in arm.records if r.metric == 4)
            assert arm.calls.holdout == 60 - records

    asyncio.run(walk())


def test_pins_reach_what_is_deployed_by_label_role_or_alias() -> None:
    """Labels, "canary" and "challenger" are one; a shadow too; they leave no evidence."""
    shadowed = replace(CANARY_AT_HALF, shadows=(("3", 1),))
    versions = {
        "1": tiny_files(),
        "2": tiny_files(weights=DOUBLED_WEIGHTS),
        "3": tiny_files(weights=3 * DOUBLED_WEIGHTS),
    }

    async def walk() -> None:
        async with gateway_fixture(versions, shadowed) as gateway:
            for name, version in {
                "1": "1",
                "champion": "1",
                "2": "2",
                "canary": "2",
                "challenger": "2",
                "3": "3",
            }.items():
                reply = await gateway.predict(predict_request(1, 2, 3, version=name))
                assert (reply.version, reply.role) == (version, PINNED), name
            assert (await gateway.refusal(predict_request(1, 2, 3, version="standby"))).code() == (
                grpc.StatusCode.NOT_FOUND
            )
            windows = closed_windows(gateway)
            assert windows["PINNED"].calls.answered > 0
            assert not windows["PINNED"].records

    asyncio.run(walk())


def test_served_vectors_and_scores_are_kept_as_they_were() -> None:
    """The journal has, for each answered call, the vector the version saw and what it scored."""
    thinned = replace(PRODUCTION_ONLY, policy=ServingPolicy(journal_sampled_of_65536=32_768))

    async def walk(deployment: Deployment) -> list[str]:
        async with gateway_fixture({"1": tiny_files()}, deployment) as gateway:
            replies = await predict_all_keys(gateway)
            gateway.recorder.fold()
            kept: list[str] = []
            for raw in gateway.served.records:
                record = journal_pb2.ServedBatch.FromString(raw)
                vectors = np.frombuffer(record.vectors, "<f4").reshape(-1, record.width)
                scores = np.frombuffer(record.scores, "<f4")
                assert np.array_equal(vectors, np.tile([1, 2, 3], (len(vectors), 1)))
                assert np.allclose(scores, 1.4)
                ids = [record.prediction_ids[n : n + 64] for n in range(0, 64 * len(scores), 64)]
                for entity, prediction_id in zip(record.entity_ids, ids, strict=True):
                    assert replies[entity].prediction_id == prediction_id
                kept += record.entity_ids
            return kept

    assert sorted(asyncio.run(walk(PRODUCTION_ONLY))) == sorted(CUSTOMER_KEYS)
    half = asyncio.run(walk(thinned))
    expected = [k for k in CUSTOMER_KEYS if evidence_key(SALT, k.encode()) % 65_536 < 32_768]
    assert sorted(half) == sorted(expected)


def test_a_required_journal_that_cannot_be_written_refuses() -> None:
    """UNAVAILABLE with a pushback, before anything is scored."""
    required = replace(PRODUCTION_ONLY, policy=ServingPolicy(journal_required=True))

    async def walk() -> None:
        async with gateway_fixture({"1": tiny_files()}, required) as gateway:
            gateway.served.healthy = False
            error = await gateway.refusal(predict_request(1, 2, 3))
            assert error.code() == grpc.StatusCode.UNAVAILABLE
            gateway.served.healthy = True
            assert (await gateway.predict(predict_request(1, 2, 3))).version == "1"

    asyncio.run(walk())


def test_a_brief_version_is_asked_on_the_loop_and_others_on_a_thread() -> None:
    """Where a run cannot hang it is done when `start_run` returns, and timed as on a thread."""
    threads: list[str] = []

    class Seen:
        def run(self, matrix: NDArray[np.float32]) -> NDArray[np.float32]:
            threads.append(threading.current_thread().name)
            return matrix[:, :1]

    async def walk() -> None:
        matrix, offsets = np.ones((2, 3), np.float32), np.array([0, 1, 2], np.uint32)
        brief = ModelExecutor(Seen(), 1, short_runs=True).start_run(matrix, offsets)
        scored = brief.result()
        assert scored is not None
        assert scored.faultless
        assert scored.elapsed_ns > 0
        assert await brief.wait() is scored
        thorough = ModelExecutor(Seen(), 1)
        assert (await thorough.start_run(matrix, offsets).wait()).faultless
        thorough.close()

    asyncio.run(walk())
    assert threads[0] == threading.main_thread().name
    assert threads[1].startswith("score")
