"""The supervisor with real processes without models, which are killed, stopped and restarted."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from itertools import chain
from pathlib import Path

import pytest

from gateway.settings import Settings
from gateway.supervision.exposition import Report
from gateway.supervision.supervisor import Supervisor
from tests import poll

pytestmark = pytest.mark.walk

FAKE_WORKER = (sys.executable, "-m", "tests.gateway.supervision.fake_worker")


HANG_S = 60.0
"""What is not so by then will never be. A worker starts an interpreter that imports numpy: on a
busy machine three of them took more than 10 s. A test that promises a time asserts that time."""

wait_until = partial(poll.wait_until, within_s=HANG_S)


class Gateway:
    """A running supervisor, with its pids, its port and its pages."""

    def __init__(self, supervisor: Supervisor) -> None:
        self.supervisor = supervisor
        self.port = supervisor.settings.port

    def pids(self, state: str) -> list[int]:
        """Return the pids of the workers in *state*; serving ones only once they have opened."""
        return [
            row["pid"]
            for row in self.supervisor.report.workers
            if row["state"] == state and (state != "serving" or row["open"])
        ]

    def fully_serving(self) -> bool:
        """Return whether each slot is open and a spare is warm."""
        return self.supervisor.report.serving == 2 and len(self.pids("spare")) == 1

    async def answering_pid(self, command: str = "") -> int:
        """Send a command on a new connection; return the pid that answers, within 2 s."""
        async with asyncio.timeout(2.0):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            try:
                writer.write(f"{command}\n".encode())
                if not (line := await reader.readline()):
                    raise ConnectionResetError("the worker that accepted has ended")
                return int(line)
            finally:
                writer.close()

    async def page(self, path: str) -> tuple[int, str]:
        """Return (status, text) of a GET of *path* on the metrics port."""
        url = f"http://127.0.0.1:{self.supervisor.settings.metrics_port}{path}"

        def get() -> tuple[int, str]:
            try:
                with urllib.request.urlopen(url, timeout=5) as answer:
                    return answer.status, answer.read().decode()
            except urllib.error.HTTPError as error:
                with error:
                    return error.code, error.read().decode()

        return await asyncio.to_thread(get)


@asynccontextmanager
async def running_gateway(folder: Path, **settings: int) -> AsyncIterator[Gateway]:
    """Run a supervisor with fake workers: two slots and a spare, all ready; drained on exit."""
    supervisor = Supervisor(
        Settings.from_json(json.dumps({"folder": str(folder), **settings})), command=FAKE_WORKER
    )
    running = asyncio.create_task(supervisor.run())
    gateway = Gateway(supervisor)
    try:
        await wait_until(lambda: gateway.fully_serving() or running.done())
        yield gateway
    finally:
        if not running.done():
            supervisor.stop()
        assert await asyncio.wait_for(running, HANG_S) == 0


def reported_calls(report: Report) -> int:
    """Return the calls that the snapshots of a report have, over all slots."""
    snapshots = chain.from_iterable(report.counts.values())
    return sum(calls for shot in snapshots for _, calls in shot.get("turnout_calls", ()))


def pid_exists(pid: int) -> bool:
    """Return whether there is such a process; zombies count."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


def is_running(pid: int) -> bool:
    """Return whether the process runs, because an ended orphan may stay a zombie for a time."""
    with contextlib.suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def test_supervisor_replaces_a_killed_worker_by_the_spare_within_a_second(tmp_path: Path) -> None:
    """Its slot is open again at once, a new spare becomes warm, the other worker stays."""

    async def walk() -> None:
        async with running_gateway(tmp_path) as gateway:
            (victim, other), (spare,) = gateway.pids("serving"), gateway.pids("spare")
            os.kill(victim, signal.SIGKILL)
            elapsed_s = await wait_until(lambda: set(gateway.pids("serving")) == {other, spare})
            assert elapsed_s < 1.0
            # The next tick looks at processes.
            await wait_until(lambda: not pid_exists(victim))
            await wait_until(gateway.fully_serving)
            assert await gateway.answering_pid() in {other, spare}

    asyncio.run(walk())


def test_supervisor_kills_a_stopped_worker_at_the_heartbeat_timeout(tmp_path: Path) -> None:
    """After SIGSTOP the kernel goes on giving it connections, so it is killed; 2 s by default."""

    async def walk() -> None:
        async with running_gateway(tmp_path) as gateway:
            victim = gateway.pids("serving")[0]
            os.kill(victim, signal.SIGSTOP)
            elapsed_s = await wait_until(lambda: victim not in gateway.pids("serving"))
            assert 1.7 < elapsed_s < 2.4
            await wait_until(gateway.fully_serving)
            restarts = gateway.supervisor.report.restarts
            assert [cause for _, cause in restarts] == ["silent"]

    asyncio.run(walk())


def test_supervisor_kills_a_worker_whose_loop_hangs(tmp_path: Path) -> None:
    """Heartbeats are sent by the loop, so a loop that hangs sends none."""

    async def walk() -> None:
        async with running_gateway(tmp_path, heartbeat_timeout_ms=500) as gateway:
            before = set(gateway.pids("serving"))
            with pytest.raises((TimeoutError, ConnectionError, ValueError)):
                await gateway.answering_pid("hang")
            await wait_until(
                lambda: before - set(gateway.pids("serving")) and gateway.fully_serving()
            )
            assert len(before - set(gateway.pids("serving"))) == 1

    asyncio.run(walk())


def test_rolling_restart_replaces_all_workers_and_refuses_no_connection(tmp_path: Path) -> None:
    """SIGHUP brings three new pids, and two slots are open at every moment."""

    async def walk() -> None:
        async with running_gateway(tmp_path) as gateway:
            before = set(gateway.pids("serving") + gateway.pids("spare"))
            os.kill(os.getpid(), signal.SIGHUP)
            open_least = 2
            while (
                before & set(gateway.pids("serving") + gateway.pids("spare"))
                or not gateway.fully_serving()
            ):
                open_least = min(open_least, gateway.supervisor.report.serving)
                await asyncio.sleep(0.005)
            assert open_least == 2
            await wait_until(lambda: not any(map(pid_exists, before)))
            assert {cause for _, cause in gateway.supervisor.report.restarts} == {"rolling"}

    asyncio.run(asyncio.wait_for(walk(), 20))


def test_supervisor_drains_a_worker_above_its_memory_mark_after_its_successor_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its slot stays open all the time. The pause of 30 s before a replacement is set to 0."""
    monkeypatch.setattr("gateway.supervision.slots.MEMORY_REPLACE_PAUSE_MS", 0)

    async def walk() -> None:
        async with running_gateway(tmp_path, worker_rss_mb_max=120) as gateway:
            victim = await gateway.answering_pid("eat")
            while victim in gateway.pids("serving"):
                with contextlib.suppress(ConnectionError):
                    await gateway.answering_pid(
                        "eat" if await gateway.answering_pid() == victim else ""
                    )
            await wait_until(gateway.fully_serving)
            assert {cause for _, cause in gateway.supervisor.report.restarts} == {"memory"}

    asyncio.run(asyncio.wait_for(walk(), 20))


def test_supervisor_keeps_serving_workers_while_spares_cannot_start(tmp_path: Path) -> None:
    """After failing starts at pauses of 0.1, 0.2, 0.4 s, a spare starts once the cause is gone."""

    async def walk() -> None:
        async with running_gateway(tmp_path, restart_backoff_ms_max=400) as gateway:
            (spare,) = gateway.pids("spare")
            serving = gateway.pids("serving")
            (tmp_path / "crash").touch()
            os.kill(spare, signal.SIGKILL)
            restarts = gateway.supervisor.report.restarts
            await wait_until(lambda: gateway.supervisor.report.restarts != restarts)
            await wait_until(
                lambda: gateway.supervisor.report.restarts.get(("spare", "died"), 0) >= 4
            )
            assert gateway.pids("serving") == serving
            assert await gateway.answering_pid() in serving
            (tmp_path / "crash").unlink()
            await wait_until(gateway.fully_serving)

    asyncio.run(walk())


def test_metrics_totals_never_go_back_when_a_worker_is_replaced(tmp_path: Path) -> None:
    """A dead worker's last snapshot stays with its slot; the next worker's counts are added."""

    async def answered(gateway: Gateway) -> float:
        _, text = await gateway.page("/metrics")
        lines = [line for line in text.splitlines() if line.startswith("turnout_calls_total{")]
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    async def settled(gateway: Gateway, calls: int) -> float:
        await wait_until(lambda: reported_calls(gateway.supervisor.report) >= calls)
        return await answered(gateway)

    async def walk() -> None:
        async with running_gateway(tmp_path) as gateway:
            for _ in range(30):
                await gateway.answering_pid()
            assert await settled(gateway, 30) == 30
            victim = gateway.pids("serving")[0]
            os.kill(victim, signal.SIGKILL)
            await wait_until(
                lambda: victim not in gateway.pids("serving") and gateway.fully_serving()
            )
            assert await answered(gateway) == 30
            await gateway.answering_pid()
            assert await settled(gateway, 31) == 31

    asyncio.run(walk())


def test_metrics_endpoint_serves_health_workers_and_metrics(tmp_path: Path) -> None:
    """The pages are read over HTTP; an unknown path is 404."""

    async def walk() -> None:
        async with running_gateway(tmp_path) as gateway:
            said = "2 of 2 slots serving, 0 of them connected to the registry\n"
            assert await gateway.page("/healthz") == (200, said)
            status, text = await gateway.page("/workers")
            rows = json.loads(text)
            assert status == 200
            assert [(row["slot"], row["state"]) for row in rows] == [
                (0, "serving"),
                (1, "serving"),
                (None, "spare"),
            ]
            assert all(row["rss_bytes"] > 1e6 for row in rows)
            revision = "turnout_deployment_revision"
            await wait_until(
                lambda: [s for s in gateway.supervisor.report.counts.get("1", ()) if revision in s]
            )
            _, text = await gateway.page("/metrics")
            assert 'turnout_workers{state="spare"} 1.0' in text
            assert 'turnout_deployment_revision{model="churn",worker="1"} 2.0' in text
            assert 'turnout_loop_lag_seconds{worker="0"}' in text
            assert (await gateway.page("/secrets"))[0] == 404

    asyncio.run(walk())


def test_metrics_endpoint_serves_the_statistics_of_each_worker(tmp_path: Path) -> None:
    """/statistics has the newest snapshot's statistics by slot; they are no metrics."""

    async def walk() -> None:
        async with running_gateway(tmp_path) as gateway:
            pids = [*gateway.pids("serving"), *gateway.pids("spare")]
            answered_by = await gateway.answering_pid()
            connections = {pid: int(pid == answered_by) for pid in pids}
            expected = [
                {"slot": slot, "pid": pid, "statistics": {"pipeline": {"connections": count}}}
                for slot, (pid, count) in zip((0, 1, None), connections.items(), strict=True)
            ]
            supervisor = gateway.supervisor
            await wait_until(lambda: list(supervisor.report.statistics) == expected)
            status, text = await gateway.page("/statistics")
            assert (status, json.loads(text)) == (200, expected)
            assert "statistics" not in (await gateway.page("/metrics"))[1]

    asyncio.run(walk())


def test_supervisor_drains_all_workers_at_sigterm_and_exits_0(tmp_path: Path) -> None:
    """No process is left, the port is free again, and it takes much less than the grace."""

    async def walk() -> None:
        supervisor = Supervisor(Settings(folder=str(tmp_path)), command=FAKE_WORKER)
        gateway = Gateway(supervisor)
        running = asyncio.create_task(supervisor.run())
        await wait_until(gateway.fully_serving)
        pids = gateway.pids("serving") + gateway.pids("spare")

        os.kill(os.getpid(), signal.SIGTERM)
        start = time.monotonic()
        assert await asyncio.wait_for(running, 10) == 0
        assert time.monotonic() - start < 3.0
        assert not any(map(pid_exists, pids))
        with pytest.raises(ConnectionRefusedError):
            await gateway.answering_pid()

    asyncio.run(walk())


def test_supervisor_kills_workers_at_a_second_sigterm(tmp_path: Path) -> None:
    """A worker that cannot drain, here a stopped one, does not delay the end."""

    async def walk() -> None:
        supervisor = Supervisor(
            Settings(folder=str(tmp_path), heartbeat_timeout_ms=8_000), command=FAKE_WORKER
        )
        gateway = Gateway(supervisor)
        running = asyncio.create_task(supervisor.run())
        await wait_until(gateway.fully_serving)
        os.kill(gateway.pids("serving")[0], signal.SIGSTOP)

        os.kill(os.getpid(), signal.SIGTERM)
        await wait_until(lambda: len(supervisor.report.workers) == 1)
        os.kill(os.getpid(), signal.SIGTERM)
        start = time.monotonic()
        assert await asyncio.wait_for(running, 5) == 1
        assert time.monotonic() - start < 1.0

    asyncio.run(walk())


SUPERVISOR_PROGRAM = """
import asyncio, sys
from gateway.settings import Settings
from gateway.supervision.exposition import Report
from gateway.supervision.supervisor import Supervisor
from tests import poll
supervisor = Supervisor(Settings(folder=sys.argv[1]), command=sys.argv[2:])
sys.exit(asyncio.run(supervisor.run()))
"""


def test_workers_drain_when_their_supervisor_is_killed(tmp_path: Path) -> None:
    """After SIGKILL to the supervisor each worker drains itself, so no process is left."""

    def children(pid: int) -> list[int]:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    with subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR_PROGRAM, str(tmp_path), *FAKE_WORKER]
    ) as program:
        asyncio.run(wait_until(lambda: len(children(program.pid)) == 3))
        workers = children(program.pid)
        # The workers may be importing, loading or serving by then.
        program.kill()
        try:
            asyncio.run(wait_until(lambda: not any(map(is_running, workers))))
        finally:
            for pid in workers:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def test_supervisor_refuses_a_metrics_port_that_is_taken(tmp_path: Path) -> None:
    """A port in use is an error at the start."""

    async def walk() -> None:
        async with running_gateway(tmp_path) as gateway:
            port = gateway.supervisor.settings.metrics_port
            with pytest.raises(OSError, match="in use"):
                Supervisor(Settings(folder=str(tmp_path), metrics_port=port), command=FAKE_WORKER)

    asyncio.run(walk())
