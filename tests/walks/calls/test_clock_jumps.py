"""The host's wall clock jumps; deadlines, waits and answers use the monotonic clock."""

import asyncio
import time
from pathlib import Path

import pytest

from host.clock import SystemClock
from journal.prediction_id import read_prediction_id
from protos.predict_pb2 import PredictRequest, Row
from tests.gateway.gateway_fixture import KEY
from tests.servers import redis_server
from tests.walks.gateway_with_store import (
    customer_key,
    gateway_with_store,
    median_call_s,
    write_customer_rows,
)

pytestmark = pytest.mark.walk

HOUR_NS = 3_600_000_000_000


def test_gateway_answers_while_the_wall_clock_jumps_by_hours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Calls are answered in time with fresh rows, and prediction ids stay distinct."""
    shift_ns = 0
    monkeypatch.setattr(SystemClock, "unix_ns", lambda _self: time.time_ns() + shift_ns)

    async def walk(url: str) -> None:
        nonlocal shift_ns
        ids = []
        async with gateway_with_store(url) as gateway:
            for jump_ns in (0, HOUR_NS, -HOUR_NS, 0):
                # A hundred calls after each jump.
                shift_ns = jump_ns
                first = len(gateway.results)
                for number in range(100):
                    await gateway.predict(number)
                results = gateway.results[first:]
                assert {result.code for result in results} == {"OK"}
                assert sum(result.defaulted for result in results) <= 3
                assert median_call_s(results) < 0.05
                # One more, whose prediction id is read.
                reply = await gateway.gateway.predict(
                    PredictRequest(model="churn", rows=[Row(keys=[customer_key(7)])])
                )
                ids.append(read_prediction_id(reply.prediction_id, KEY))
                gateway.gateway.recorder.fold()
                windows = gateway.gateway.windows.close_windows(0, everything=True)
                assert sum(window.calls.answered for window in windows) == 101
            assert gateway.wrong_answers == []
        assert len({prediction_id.sequence for prediction_id in ids}) == 4
        assert ids[1].at_ms - ids[0].at_ms > 3_000_000
        assert ids[2].at_ms - ids[1].at_ms < -6_000_000

    with redis_server() as server:
        write_customer_rows(server.url)
        asyncio.run(walk(server.url))


def test_gateway_keeps_deadlines_while_the_wall_clock_runs_a_thousand_times_too_fast(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Calls with 200 ms get their defaults in time from a gateway without a store."""
    began = time.time_ns()
    fast = lambda _self: began + 1_000 * (time.time_ns() - began)  # noqa: E731
    monkeypatch.setattr(SystemClock, "unix_ns", fast)

    async def walk() -> None:
        async with gateway_with_store("redis://127.0.0.1:1/0") as gateway:
            for number in range(50):
                await gateway.predict(number, within_s=0.2)
            assert {result.code for result in gateway.results} == {"OK"}

    asyncio.run(walk())


def test_gateway_reads_the_wall_clock_only_in_its_clock_module() -> None:
    """host/clock.py reads it for the times that are recorded."""
    repository = Path(__file__).parents[3]
    sources = {
        path.name: path.read_text()
        for folder in ("gateway", "host")
        for path in (repository / folder).rglob("*.py")
    }
    assert [name for name, text in sources.items() if "time.time()" in text] == []
    assert [name for name, text in sources.items() if "time.time_ns" in text] == ["clock.py"]
