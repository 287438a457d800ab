"""Rollouts over real gRPC with a real registry and scripted workers."""

import asyncio
from pathlib import Path

import grpc
import pytest

from protos import rollout_pb2, rollout_pb2_grpc, window_pb2, window_pb2_grpc
from rollout.api.server import serve_rollout
from rollout.policy.policy import JUDGED_METRICS
from rollout.policy.policy import POLICIES as NAMED
from tests.registry.registry_fixture import registry_fixture
from tests.rollout.live_rollout import (
    SAM_METADATA,
    call_until_leading,
    run_live_rollout,
    start_controller_process,
    unused_port,
    wait_until_leading,
)
from tests.rollout.scripted_parts import POLICIES

pytestmark = pytest.mark.walk


def test_live_rollout_promotes_a_healthy_candidate(tmp_path: Path) -> None:
    """Every stage comes in order, and the history has each deployment with its reason."""

    async def course() -> None:
        async with run_live_rollout(tmp_path) as live:
            # The rollout passes every stage by itself.
            await live.start(POLICIES["quick"])
            statuses = await live.watch_statuses(60)
            stages = list(dict.fromkeys((row.stage, row.step) for row in statuses))
            canary = rollout_pb2.CANARY_STAGE
            assert stages == [
                (rollout_pb2.PRELOAD, 0), (rollout_pb2.SHADOW_STAGE, 0), (canary, 0), (canary, 1),
                (rollout_pb2.WATCH, 0), (rollout_pb2.DONE, 0),
            ]  # fmt: skip
            deployment = await live.registry.cleo.deployment("churn")
            assert (deployment.production, deployment.standby, deployment.rollout_id) == (
                "2",
                "",
                "",
            )
            history = await live.registry.cleo.history(0, 0, "model/churn/deployment")
            reasons = [entry.reason for entry in history.entries if entry.actor == "rollout"]
            assert len(reasons) == 6
            assert all(
                reason.startswith(f"rollout {statuses[0].rollout_id}: ") for reason in reasons
            )
            # Its explanation names each decision, and the evidence behind it.
            explanation = await live.stub.Explain(rollout_pb2.RolloutSelector(model="churn"))
            assert "What was decided" in explanation.text
            assert len(explanation.decisions) == 6
            assert explanation.evidence_history
            assert [row.metric for row in explanation.status.evidence] == list(JUDGED_METRICS)
            request = rollout_pb2.ForecastRequest(model="churn", policy="quick")
            forecast = await live.stub.Forecast(request)
            assert 200 < forecast.calls_a_second < 500
            # An operator takes the promotion back.
            back = rollout_pb2.RolloutCommand(model="churn", to_version="1", reason="complaints")
            undone = await live.stub.Undo(back, metadata=SAM_METADATA)
            assert (undone.version, undone.baseline) == ("1", "2")
            deployment = await live.registry.cleo.deployment("churn")
            assert (deployment.production, deployment.preload, deployment.why) == (
                "1", (), "undo to 1 by sam: complaints",
            )  # fmt: skip

    asyncio.run(course())


def test_live_rollout_moves_traffic_within_a_second_of_the_verdict(tmp_path: Path) -> None:
    """The four times are in order, and no customer's call failed."""

    async def course() -> None:
        async with run_live_rollout(tmp_path) as live:
            for worker in live.workers:
                worker.failure_rates = {"2": 0.10}
            await live.start(POLICIES["quick-direct"])
            last = (await live.watch_statuses(60))[-1]
            assert last.stage == rollout_pb2.ROLLED_BACK
            assert last.verdict == rollout_pb2.FAULTY
            times = last.times
            assert 0 < times.first_bad_unix_ns < times.verdict_unix_ns < times.moved_unix_ns
            assert times.moved_unix_ns - times.verdict_unix_ns < 1_000_000_000
            assert times.last_bad_unix_ns < times.moved_unix_ns + 1_000_000_000
            assert last.calls.failed == 0
            assert last.calls.fallbacks > 0
            deployment = await live.registry.cleo.deployment("churn")
            assert (deployment.production, deployment.canary) == ("1", "")

    asyncio.run(course())


def test_service_refuses_commands_with_status_and_reason(tmp_path: Path) -> None:
    """Callers without a name, unknown rollouts and commands that do not fit are refused."""

    async def course() -> None:
        async with run_live_rollout(tmp_path) as live:
            command = rollout_pb2.RolloutCommand(model="churn", reason="why not")
            start = rollout_pb2.StartRolloutRequest(model="churn", version="1", policy="quick")
            back = rollout_pb2.RolloutCommand(model="churn", to_version="1")
            request = rollout_pb2.ForecastRequest(model="churn", policy="bold")
            # Each call with its status and a part of its message.
            for call, code, message in (
                (live.stub.Start(start), "UNAUTHENTICATED", "x-turnout-actor"),
                (
                    live.stub.Start(start, metadata=SAM_METADATA),
                    "FAILED_PRECONDITION",
                    "is production",
                ),
                (live.stub.Abort(command, metadata=SAM_METADATA), "NOT_FOUND", "knows no"),
                (live.stub.SetWeight(command, metadata=SAM_METADATA), "NOT_FOUND", "knows no"),
                (live.stub.Retry(command, metadata=SAM_METADATA), "NOT_FOUND", "knows no"),
                (
                    live.stub.Undo(back, metadata=SAM_METADATA),
                    "FAILED_PRECONDITION",
                    "production already",
                ),
                (live.stub.Forecast(request), "NOT_FOUND", "there are quick"),
            ):
                with pytest.raises(grpc.aio.AioRpcError, match=message) as caught:
                    await call
                assert caught.value.code().name == code
            # Reading needs no name.
            policies = await live.stub.ListPolicies(rollout_pb2.ListPoliciesRequest())
            assert [row.name for row in policies.policies] == list(POLICIES)

    asyncio.run(course())


def test_window_sink_acknowledges_saved_batches(tmp_path: Path) -> None:
    """The first ack has the saved sequence number. A source without a name is refused."""

    async def course() -> None:
        async with registry_fixture(tmp_path) as registry:
            server = await serve_rollout(registry.address, "127.0.0.1:0", policies=POLICIES)
            async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
                stub = window_pb2_grpc.WindowSinkStub(channel)  # type: ignore[no-untyped-call]
                source = window_pb2.Source(gateway="g", slot=3, boot_id=9)
                async with asyncio.timeout(10):
                    rollouts = rollout_pb2_grpc.RolloutsStub(channel)  # type: ignore[no-untyped-call]
                    listed = rollout_pb2.RolloutSelector()
                    await call_until_leading(lambda: rollouts.ListRollouts(listed))
                    # Send three batches and wait until all are acknowledged.
                    call = stub.Push()
                    await call.write(window_pb2.WindowBatch(source=source))
                    assert (await call.read()).sequence == 0
                    for sequence in (1, 2, 3):
                        await call.write(window_pb2.WindowBatch(source=source, sequence=sequence))
                    acknowledged = 0
                    while acknowledged < 3:
                        acknowledged = (await call.read()).sequence
                    call.cancel()
                    # A second stream of the same source begins after the last saved batch.
                    again = stub.Push()
                    await again.write(window_pb2.WindowBatch(source=source))
                    assert (await again.read()).sequence == 3
                    again.cancel()
                    # A stream that names no source is refused.
                    nameless = stub.Push()
                    await nameless.write(window_pb2.WindowBatch(sequence=4))
                    with pytest.raises(grpc.aio.AioRpcError, match="names its source"):
                        await nameless.read()
            await server.stop()

    asyncio.run(course())


def test_second_controller_leads_when_the_first_stops(tmp_path: Path) -> None:
    """The first gives its lease up, so the second need not wait for its end."""

    async def course() -> None:
        async with registry_fixture(tmp_path) as registry:
            first = await serve_rollout(registry.address, "127.0.0.1:0", policies=POLICIES)
            async with asyncio.timeout(20):
                await wait_until_leading(first)
                second = await serve_rollout(registry.address, "127.0.0.1:0", policies=POLICIES)
                await asyncio.sleep(1.0)
                assert (
                    first.component.controller.leading,
                    second.component.controller.leading,
                ) == (
                    True,
                    False,
                )
                began = asyncio.get_running_loop().time()
                await first.stop()
                await wait_until_leading(second)
                assert asyncio.get_running_loop().time() - began < 4.0
            await second.stop()

    asyncio.run(course())


def test_controller_killed_in_the_canary_is_replaced_without_loss(
    tmp_path: Path,
) -> None:
    """Calls go on, and the next controller resumes and promotes."""

    async def course() -> None:
        sink = f"127.0.0.1:{unused_port()}"
        async with run_live_rollout(tmp_path, sink) as live:
            child = start_controller_process(live.registry.address, sink)
            try:
                await live.start(NAMED["demo-direct"])
                model = rollout_pb2.RolloutSelector(model="churn")
                async with asyncio.timeout(30):
                    status = await live.stub.GetStatus(model)
                    while not status.evidence or status.evidence[0].canary_keys < 50:
                        await asyncio.sleep(0.1)
                        status = await live.stub.GetStatus(model)
                # Kill it in the canary stage, and start another controller.
                child.kill()
                child.wait()
                child = start_controller_process(live.registry.address, sink)
                # It has the evidence of the checkpoint, and promotes.
                resumed = await call_until_leading(
                    lambda: live.stub.GetStatus(model, wait_for_ready=True)
                )
                assert resumed.rollout_id == status.rollout_id
                assert resumed.evidence[0].canary_keys >= status.evidence[0].canary_keys - 100
                last = (await live.watch_statuses(90))[-1]
                assert last.stage == rollout_pb2.DONE, last.reason
            finally:
                child.kill()
                child.wait()

    asyncio.run(course())
