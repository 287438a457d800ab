"""What a gateway says about a candidate is shown to people, and obeyed by no terminal."""

import asyncio
import time
from pathlib import Path

import pytest

from protos import rollout_pb2, window_pb2
from rollout.policy.policy import POLICIES as NAMED
from tests.rollout.live_rollout import (
    run_live_rollout,
    start_controller_process,
    unused_port,
)

pytestmark = pytest.mark.walk

FORGED = "\x1b[31mforged\x1b[0m\nline2"
ESCAPED = r"\x1b[31mforged\x1b[0m\x0aline2"


@pytest.mark.attack("F17")
def test_reason_of_a_hard_guard_is_escaped(tmp_path: Path) -> None:
    """A gateway puts escapes and a line break into the reason of a hard guard."""

    async def course() -> None:
        sink, log = f"127.0.0.1:{unused_port()}", tmp_path / "controller.log"
        async with run_live_rollout(tmp_path, sink) as live:
            child = start_controller_process(live.registry.address, sink, log=log)
            try:
                started = await live.start(NAMED["demo-direct"])
                # A worker sends the guard, and the rollout ends with its reason.
                guard = window_pb2.HardGuard(
                    model="churn",
                    version=started.version,
                    revision=started.revision,
                    kind=window_pb2.HardGuard.PROCESS_DIED,
                    reason=FORGED,
                    at_unix_ns=time.time_ns(),
                )
                live.workers[0].send_guard(guard)
                last = (await live.watch_statuses(30))[-1]
                assert last.stage == rollout_pb2.ROLLED_BACK
                assert ESCAPED in last.reason
                # The history and the log have it in one line.
                history = await live.registry.bob.history(0, 0, "model/churn/deployment")
                assert ESCAPED in history.entries[-1].reason
                assert ESCAPED in log.read_text()
                assert "\x1b" not in log.read_text()
                assert "\nline2" not in log.read_text()
            finally:
                child.kill()
                child.wait()

    asyncio.run(course())
