"""What a shadow scored is in the journal, beside what its callers were answered.

Calls come over real gRPC, and a real process scores the shadow's copies.
"""

import asyncio
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from journal.reader import JournalReader
from journal.segment import JournalKind, list_segments
from journal.writer import JournalAppender
from protos.journal_pb2 import UNSEEN_SHADOW, ServedBatch
from protos.predict_pb2 import CANARY, FALLBACK, PRODUCTION, PredictReply
from tests.gateway.canary_at_half import (
    CANARY_AT_HALF,
    DOUBLED_WEIGHTS,
    canary_keys,
    predict_all_keys,
)
from tests.gateway.gateway_fixture import GatewayFixture, gateway_fixture, predict_request
from tests.poll import wait_until
from tests.tiny_models import tiny_files

pytestmark = pytest.mark.walk

VERSIONS = {
    "1": tiny_files(),
    "2": tiny_files(weights=DOUBLED_WEIGHTS, fault_when=5.0),
    "3": tiny_files(weights=DOUBLED_WEIGHTS / 4),
}
"""Production, a canary with twice its scores that raises if the first input is 5 or more, and a
shadow with half its scores."""
VISIBLE_S_MAX = 5.0
SHADOWED = replace(CANARY_AT_HALF, shadows=(("3", 10_000),))


async def records_of_all_keys(
    gateway: GatewayFixture, first: float
) -> tuple[dict[str, PredictReply], dict[str, list[ServedBatch]]]:
    """Call once with each key; return the replies, and the journal's records by version."""
    replies = await predict_all_keys(gateway, first=first)
    gateway.recorder.fold()
    await wait_until(lambda: gateway.parts.shadows.rows_waiting == 0)
    by_version: dict[str, list[ServedBatch]] = {}
    for payload in gateway.served.records:
        record = ServedBatch.FromString(payload)
        by_version.setdefault(record.version, []).append(record)
    gateway.served.records.clear()
    return replies, by_version


def ids_by_entity(records: list[ServedBatch]) -> dict[str, bytes]:
    """Return the prediction id of each entity's call; each call has one row."""
    return {
        entity: record.prediction_ids[64 * call :][:64]
        for record in records
        for call, entity in enumerate(record.entity_ids)
    }


@pytest.mark.parametrize("first", [1.0, 9.0], ids=["canary answers", "canary fails"])
def test_shadow_scores_are_journaled_with_the_ids_of_the_answers(first: float) -> None:
    """An outcome of any answer, also of a fallback, is then one of the shadow's score, too."""

    async def walk() -> None:
        async with gateway_fixture(VERSIONS, SHADOWED) as gateway:
            replies, records = await records_of_all_keys(gateway, first)
            by_canary = {CANARY} if first < 5 else {FALLBACK}
            assert {replies[key].role for key in canary_keys()} == by_canary
            # The shadow's records have every call, and no caller has seen it.
            shadow = records["3"]
            assert {role for record in shadow for role in record.role} == {UNSEEN_SHADOW}
            expected = {entity: reply.prediction_id for entity, reply in replies.items()}
            assert ids_by_entity(shadow) == expected
            assert {reply.version for reply in replies.values()} <= {"1", "2"}
            # They have its own scores, and those of production.
            production = {
                round(reply.scores[0], 4) for reply in replies.values() if reply.version == "1"
            }
            for record in shadow:
                scores = np.frombuffer(record.scores, "<f4")
                paired = np.frombuffer(record.production_scores, "<f4")
                assert {round(float(score), 4) for score in paired} == production
                assert np.allclose(scores * 2, paired)

    asyncio.run(walk())


def test_canary_records_have_the_score_of_production() -> None:
    """Production scores each canary row; records of production have no second score."""

    async def walk() -> None:
        async with gateway_fixture(VERSIONS, SHADOWED) as gateway:
            _, records = await records_of_all_keys(gateway, 1.0)
            assert {role for record in records["2"] for role in record.role} == {CANARY}
            for record in records["2"]:
                scores = np.frombuffer(record.scores, "<f4")
                assert np.allclose(np.frombuffer(record.production_scores, "<f4") * 2, scores)
            assert {role for record in records["1"] for role in record.role} == {PRODUCTION}
            assert {record.production_scores for record in records["1"]} == {b""}

    asyncio.run(walk())


def test_reader_sees_answers_and_shadow_scores_within_seconds(tmp_path: Path) -> None:
    """It reads the segment that the worker is writing, so nothing waits for the segment's end."""

    async def walk() -> None:
        writer = JournalAppender(tmp_path, JournalKind.SERVED)
        async with gateway_fixture(VERSIONS, SHADOWED, served_journal=writer) as gateway:
            # The first call starts the shadow's process, which takes as long as it takes.
            await gateway.predict(predict_request(1, 2, 3))
            reader, versions = JournalReader(tmp_path, JournalKind.SERVED), list[str]()

            def read_versions() -> bool:
                for payload, _ in reader:
                    record = ServedBatch.FromString(payload)
                    versions.extend([record.version] * (len(record.prediction_ids) // 64))
                return "3" in versions

            await wait_until(read_versions)
            # From then on each call is visible within seconds, without any request for it.
            for _ in range(3):
                versions.clear()
                called_s = time.monotonic()
                await predict_all_keys(gateway)
                await wait_until(lambda: read_versions() and len(versions) == 120)
                assert time.monotonic() - called_s < VISIBLE_S_MAX
                assert versions.count("3") == 60
            assert len(list_segments(tmp_path, JournalKind.SERVED)) == 1
        await asyncio.to_thread(writer.close)

    asyncio.run(walk())
