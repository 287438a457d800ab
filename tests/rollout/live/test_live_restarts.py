"""Rollouts over real gRPC across controllers: changed policy files and findings."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from protos import registry_pb2, rollout_pb2
from rollout.api.server import serve_rollout
from rollout.policy.policy_files import read_policy_file
from tests.rollout.live_rollout import (
    SAM_METADATA,
    LiveRollout,
    call_until_leading,
    run_live_rollout,
    start_controller_process,
    take_free_lease,
    unused_port,
)
from tests.rollout.scripted_parts import POLICIES

pytestmark = pytest.mark.walk

CHURN = rollout_pb2.RolloutSelector(model="churn")
APPROVED = """
name = "own"
base = "demo-direct"
failure_bar = 0.02
watch_s = 1.0

[[canary]]
share_bp = 1000
bake_s = 0.5

[[canary]]
share_bp = 5000
bake_s = 0.5
"""
CHANGED = """
name = "own"
base = "demo-direct"
failure_bar = 0.0001
freeze = ["2020-01-01 - 2040-01-01"]

[[canary]]
share_bp = 2000
bake_s = 3600
"""

Shown = Callable[[rollout_pb2.RolloutStatus], bool]


async def wait_for_status(live: LiveRollout, holds: Shown) -> rollout_pb2.RolloutStatus:
    """Read the status until it *holds*, for at most 30 seconds."""
    async with asyncio.timeout(30):
        while True:
            status = await call_until_leading(
                lambda: live.stub.GetStatus(CHURN, wait_for_ready=True)
            )
            if holds(status):
                return status
            await asyncio.sleep(0.05)


def written_by_rollout(entry: registry_pb2.HistoryEntry) -> bool:
    """Whether a rollout wrote the history entry."""
    return entry.reason.startswith("rollout r")


def has_fifty_keys(status: rollout_pb2.RolloutStatus) -> bool:
    """Whether fifty customers got the candidate's answer."""
    return bool(status.evidence) and status.evidence[0].canary_keys >= 50


def test_live_rollout_goes_on_under_the_approved_policy_after_a_restart(tmp_path: Path) -> None:
    """The controller is killed and the policy's file rewritten. The rollout ends as approved."""

    async def course() -> None:
        sink, log, folder = f"127.0.0.1:{unused_port()}", tmp_path / "log", tmp_path / "policies"
        folder.mkdir()
        (folder / "own.toml").write_text(APPROVED)
        approved = read_policy_file(folder / "own.toml")["own"]
        async with run_live_rollout(tmp_path / "registry", sink) as live:
            arguments = (live.registry.address, sink, "--policies", str(folder))
            child = start_controller_process(*arguments)
            try:
                await live.start(approved)
                before = await wait_for_status(live, has_fifty_keys)
                # Kill the controller, change the file, and start another controller.
                child.kill()
                child.wait()
                (folder / "own.toml").write_text(CHANGED)
                changed = read_policy_file(folder / "own.toml")["own"]
                child = start_controller_process(*arguments, log=log)
                last = (await watch_to_end(live))[-1]
                assert (last.rollout_id, last.stage) == (before.rollout_id, rollout_pb2.DONE)
                assert last.policy_digest == approved.digest
                assert f"another edition ({changed.digest[:12]})" in last.policy_note
                assert last.policy_note in (await live.stub.Explain(CHURN)).text
                # Every deployment is that of the approved policy.
                history = await live.registry.cleo.history(0, 0, "model/churn/deployment")
                written = [
                    json.loads(entry.after)
                    for entry in history.entries
                    if written_by_rollout(entry)
                ]
                assert [entry["canary_bp"] for entry in written] == [0, 1_000, 5_000, 0, 0]
                assert {entry["policy_digest"] for entry in written} == {approved.digest}
                with pytest.raises(grpc.aio.AioRpcError, match="starts nothing in '2020-01-01"):
                    await live.start(approved)
            finally:
                child.kill()
                child.wait()
        assert log.read_text().count("kept from its start") == 1

    asyncio.run(course())


async def watch_to_end(live: LiveRollout) -> list[rollout_pb2.RolloutStatus]:
    """Watch the rollout to its end and return every status."""
    await wait_for_status(live, lambda _: True)
    return await live.watch_statuses(60)


def on_hold_by_monitoring(status: rollout_pb2.RolloutStatus) -> bool:
    """Whether a finding of monitoring holds the rollout."""
    return status.verdict == rollout_pb2.HOLD and "monitoring says: PSI .4" in status.reason


def on_hold_despite_evidence(status: rollout_pb2.RolloutStatus) -> bool:
    """Whether monitoring holds the rollout although the evidence would promote it."""
    first = status.evidence[0]
    return on_hold_by_monitoring(status) and first.promote_log_e >= first.promote_log_threshold


def test_live_rollout_is_on_hold_until_the_finding_is_cleared(tmp_path: Path) -> None:
    """The controller watches the registry's findings. The next controller reads them too."""

    async def course() -> None:
        sink = f"127.0.0.1:{unused_port()}"
        async with run_live_rollout(tmp_path, sink) as live:
            say = live.registry.cleo.write_finding
            server = await serve_rollout(live.registry.address, sink, policies=POLICIES)
            try:
                await live.start(POLICIES["quick-direct"])
                await wait_for_status(live, lambda entry: entry.stage == rollout_pb2.CANARY_STAGE)
                finding = registry_pb2.Finding(
                    model="churn", version="2", kind="hold", text="PSI .4"
                )
                # A hold, and a finding of another kind, which does not end it.
                await say(finding)
                status = await wait_for_status(live, on_hold_despite_evidence)
                await say(registry_pb2.Finding(model="churn", version="2", kind="outcome"))
                # The next controller holds too, until the finding is cleared.
                await server.stop()
                server = await serve_rollout(live.registry.address, sink, policies=POLICIES)
                again = await wait_for_status(live, on_hold_despite_evidence)
                for _ in range(30):
                    await asyncio.sleep(0.05)
                    again = await wait_for_status(live, lambda _: True)
                    assert on_hold_by_monitoring(again)
                assert (again.revision, again.step) == (status.revision, status.step)
                await say(registry_pb2.Finding(model="churn", version="2", kind="clear"))
                last = (await live.watch_statuses(60))[-1]
                assert last.stage == rollout_pb2.DONE, last.reason
            finally:
                await server.stop()

    asyncio.run(course())


def test_live_rollout_with_an_altered_policy_is_ended_by_abort(tmp_path: Path) -> None:
    """The next controller does not go on under a policy without an approval, and says why."""

    async def course() -> None:
        sink = f"127.0.0.1:{unused_port()}"
        async with run_live_rollout(tmp_path, sink) as live:
            cleo = live.registry.cleo
            server = await serve_rollout(live.registry.address, sink, policies=POLICIES)
            try:
                await live.start(POLICIES["quick-direct"])
                before = await wait_for_status(
                    live, lambda entry: entry.stage == rollout_pb2.CANARY_STAGE
                )
                await server.stop()
                # Alter the policy in the checkpoint.
                checkpoint = await cleo.load_checkpoint(before.rollout_id)
                state = rollout_pb2.RolloutState.FromString(checkpoint.state)
                altered = state.policy_json.replace(b'"watch_s":1,', b'"watch_s":0,')
                assert altered != state.policy_json
                state.policy_json = altered
                # Only the holder of the lease saves a checkpoint.
                lease = await take_free_lease(cleo)
                checkpoint.state, checkpoint.lease_token = state.SerializeToString(), lease.token
                await cleo.save_checkpoint(checkpoint)
                await cleo.acquire_lease("rollout", lease.holder, 1, lease.token)
                server = await serve_rollout(live.registry.address, sink, policies=POLICIES)
                with pytest.raises(grpc.aio.AioRpcError, match="it was altered") as caught:
                    await wait_for_status(live, lambda _: False)
                assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION
                # Abort it, and start another rollout.
                command = rollout_pb2.RolloutCommand(model="churn", reason="enough")
                ended = await live.stub.Abort(command, metadata=SAM_METADATA)
                assert (ended.stage, ended.rollout_id) == (
                    rollout_pb2.ROLLED_BACK, before.rollout_id,
                )  # fmt: skip
                deployment = await cleo.deployment("churn")
                assert (deployment.production, deployment.canary, deployment.rollout_id) == (
                    "1",
                    "",
                    "",
                )
                await live.start(POLICIES["quick-direct"])
            finally:
                await server.stop()

    asyncio.run(course())
