"""Real processes, killed, stopped, swollen and restarted; only the models are missing."""

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
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.settings import Settings
from gateway.supervision.supervisor import Supervisor

pytestmark = pytest.mark.walk

FAKE = (sys.executable, "-m", "tests.gateway.supervision.fake_worker")


async def until(holds: Callable[[], Any], seconds: float = 10.0) -> float:
    """Wait for *holds*; return how many seconds it took."""
    start = time.monotonic()
    while not holds():
        assert time.monotonic() - start < seconds, f"still not so after {seconds} s"
        await asyncio.sleep(0.002)
    return time.monotonic() - start


class Gateway:
    """A running supervisor, seen from outside."""

    def __init__(self, supervisor: Supervisor) -> None:
        self.supervisor = supervisor
        self.port = supervisor.settings.port

    def pids(self, state: str) -> list[int]:
        """Pids of the workers in *state*, opened ones only where that is a question."""
        return [
            row["pid"]
            for row in self.supervisor.report.workers
            if row["state"] == state and (state != "serving" or row["open"])
        ]

    def whole(self) -> bool:
        """Every slot open, and a spare warm."""
        return self.supervisor.report.serving == 2 and len(self.pids("spare")) == 1

    async def ask(self, word: str = "") -> int:
        """Return the pid that answered one connection, within 2 s."""
        async with asyncio.timeout(2.0):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            try:
                writer.write(f"{word}\n".encode())
                if not (line := await reader.readline()):
                    raise ConnectionResetError("taken by a worker that left")
                return int(line)
            finally:
                writer.close()

    async def page(self, path: str) -> tuple[int, str]:
        """GET *path* of the observe port."""
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
async def gateway(folder: Path, **settings: int) -> AsyncIterator[Gateway]:
    """Two slots and a spare of fake workers, whole on entry, drained on exit."""
    supervisor = Supervisor(
        Settings.from_json(json.dumps({"folder": str(folder), **settings})), command=FAKE
    )
    running = asyncio.create_task(supervisor.run())
    house = Gateway(supervisor)
    try:
        await until(lambda: house.whole() or running.done())
        yield house
    finally:
        if not running.done():
            supervisor.stop()
        assert await asyncio.wait_for(running, 20) == 0


def alive(pid: int) -> bool:
    """Whether there is such a process, zombies included."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


def running(pid: int) -> bool:
    """Whether it still runs: a dead orphan is a zombie until whoever adopted it looks."""
    with contextlib.suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def test_a_killed_worker_is_replaced_by_the_spare_within_a_second(tmp_path: Path) -> None:
    """Its slot is open again at once; a new spare is warm soon after; the other is untouched."""

    async def walk() -> None:
        async with gateway(tmp_path) as house:
            (victim, other), (spare,) = house.pids("serving"), house.pids("spare")
            os.kill(victim, signal.SIGKILL)
            took = await until(lambda: set(house.pids("serving")) == {other, spare})
            assert took < 1.0
            assert not alive(victim)
            await until(house.whole)
            assert await house.ask() in {other, spare}

    asyncio.run(walk())


def test_a_stopped_worker_is_killed_at_its_silence_bound(tmp_path: Path) -> None:
    """SIGSTOP: the kernel goes on giving it connections, so only a kill helps; 2 s by default."""

    async def walk() -> None:
        async with gateway(tmp_path) as house:
            victim = house.pids("serving")[0]
            os.kill(victim, signal.SIGSTOP)
            took = await until(lambda: victim not in house.pids("serving"))
            assert 1.7 < took < 2.4
            await until(house.whole)
            restarts = house.supervisor.report.restarts
            assert [cause for _, cause in restarts] == ["silent"]

    asyncio.run(walk())


def test_a_worker_whose_loop_hangs_is_killed_too(tmp_path: Path) -> None:
    """Its heartbeat comes from its loop: a blocked loop is a silent one."""

    async def walk() -> None:
        async with gateway(tmp_path, heartbeat_timeout_ms=500) as house:
            before = set(house.pids("serving"))
            with pytest.raises((TimeoutError, ConnectionError, ValueError)):
                await house.ask("hang")
            await until(lambda: before - set(house.pids("serving")) and house.whole())
            assert len(before - set(house.pids("serving"))) == 1

    asyncio.run(walk())


def test_a_rolling_restart_replaces_everybody_and_refuses_nobody(tmp_path: Path) -> None:
    """SIGHUP: three new pids, and a slot open on the port at every moment."""

    async def walk() -> None:
        async with gateway(tmp_path) as house:
            before = set(house.pids("serving") + house.pids("spare"))
            os.kill(os.getpid(), signal.SIGHUP)
            open_least = 2
            while before & set(house.pids("serving") + house.pids("spare")) or not house.whole():
                open_least = min(open_least, house.supervisor.report.serving)
                await asyncio.sleep(0.005)
            assert open_least == 2
            await until(lambda: not any(map(alive, before)))
            assert {cause for _, cause in house.supervisor.report.restarts} == {"rolling"}

    asyncio.run(asyncio.wait_for(walk(), 20))


def test_a_swollen_worker_is_drained_after_its_successor_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over its memory mark: replaced without a moment's gap; its 30 s of rest are waived."""
    monkeypatch.setattr("gateway.supervision.slots.MEMORY_REPLACE_PAUSE_MS", 0)

    async def walk() -> None:
        async with gateway(tmp_path, worker_rss_mb_max=120) as house:
            victim = await house.ask("eat")
            while victim in house.pids("serving"):
                with contextlib.suppress(ConnectionError):
                    await house.ask("eat" if await house.ask() == victim else "")
            await until(house.whole)
            assert {cause for _, cause in house.supervisor.report.restarts} == {"memory"}

    asyncio.run(asyncio.wait_for(walk(), 20))


def test_spares_that_cannot_start_leave_the_others_alone(tmp_path: Path) -> None:
    """Starts that fail wait 0.1, 0.2, 0.4 ... s; who serves goes on; mended, a spare comes."""

    async def walk() -> None:
        async with gateway(tmp_path, restart_backoff_ms_max=400) as house:
            (spare,) = house.pids("spare")
            serving = house.pids("serving")
            (tmp_path / "crash").touch()
            os.kill(spare, signal.SIGKILL)
            died = house.supervisor.report.restarts
            await until(lambda: house.supervisor.report.restarts != died)
            await until(lambda: house.supervisor.report.restarts.get(("spare", "died"), 0) >= 4)
            assert house.pids("serving") == serving
            assert await house.ask() in serving
            (tmp_path / "crash").unlink()
            await until(house.whole)

    asyncio.run(walk())


def test_totals_never_go_back_when_a_worker_is_replaced(tmp_path: Path) -> None:
    """The dead one's last snapshot stays with its slot; the newcomer counts on top of it."""

    async def answered(house: Gateway) -> float:
        _, text = await house.page("/metrics")
        lines = [line for line in text.splitlines() if line.startswith("turnout_calls_total{")]
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    async def settled(house: Gateway, calls: int) -> float:
        deadline = time.monotonic() + 20
        while (total := await answered(house)) < calls and time.monotonic() < deadline:
            pass
        return total

    async def walk() -> None:
        async with gateway(tmp_path) as house:
            for _ in range(30):
                await house.ask()
            assert await settled(house, 30) == 30
            victim = house.pids("serving")[0]
            os.kill(victim, signal.SIGKILL)
            await until(lambda: victim not in house.pids("serving") and house.whole())
            assert await answered(house) == 30
            await house.ask()
            assert await settled(house, 31) == 31

    asyncio.run(walk())


def test_the_page_tells_health_workers_and_metrics(tmp_path: Path) -> None:
    """What an SRE and a scraper read, over real HTTP."""

    async def walk() -> None:
        async with gateway(tmp_path) as house:
            assert await house.page("/healthz") == (200, "2 of 2 slots serving\n")
            status, text = await house.page("/workers")
            rows = json.loads(text)
            assert status == 200
            assert [(row["slot"], row["state"]) for row in rows] == [
                (0, "serving"),
                (1, "serving"),
                (None, "spare"),
            ]
            assert all(row["rss_bytes"] > 1e6 for row in rows)
            revision = "turnout_deployment_revision"
            await until(
                lambda: [s for s in house.supervisor.report.counts.get("1", ()) if revision in s]
            )
            _, text = await house.page("/metrics")
            assert 'turnout_workers{state="spare"} 1.0' in text
            assert 'turnout_deployment_revision{model="churn",worker="1"} 2.0' in text
            assert 'turnout_loop_lag_seconds{worker="0"}' in text
            assert (await house.page("/secrets"))[0] == 404

    asyncio.run(walk())


def test_sigterm_drains_everybody_and_exits_0(tmp_path: Path) -> None:
    """Nobody is left, the port is free again, and it took well under the grace."""

    async def walk() -> None:
        supervisor = Supervisor(Settings(folder=str(tmp_path)), command=FAKE)
        house = Gateway(supervisor)
        running = asyncio.create_task(supervisor.run())
        await until(house.whole)
        pids = house.pids("serving") + house.pids("spare")

        os.kill(os.getpid(), signal.SIGTERM)
        start = time.monotonic()
        assert await asyncio.wait_for(running, 10) == 0
        assert time.monotonic() - start < 3.0
        assert not any(map(alive, pids))
        with pytest.raises(ConnectionRefusedError):
            await house.ask()

    asyncio.run(walk())


def test_a_second_sigterm_kills(tmp_path: Path) -> None:
    """A worker that cannot drain (stopped here) does not hold the second one up."""

    async def walk() -> None:
        supervisor = Supervisor(
            Settings(folder=str(tmp_path), heartbeat_timeout_ms=8_000), command=FAKE
        )
        house = Gateway(supervisor)
        running = asyncio.create_task(supervisor.run())
        await until(house.whole)
        os.kill(house.pids("serving")[0], signal.SIGSTOP)

        os.kill(os.getpid(), signal.SIGTERM)
        await until(lambda: len(supervisor.report.workers) == 1)
        os.kill(os.getpid(), signal.SIGTERM)
        start = time.monotonic()
        assert await asyncio.wait_for(running, 5) == 1
        assert time.monotonic() - start < 1.0

    asyncio.run(walk())


SUPERVISE = """
import asyncio, sys
from gateway.settings import Settings
from gateway.supervision.supervisor import Supervisor
supervisor = Supervisor(Settings(folder=sys.argv[1]), command=sys.argv[2:])
sys.exit(asyncio.run(supervisor.run()))
"""


def test_workers_leave_when_their_supervisor_is_killed(tmp_path: Path) -> None:
    """SIGKILL to the supervisor: each worker drains itself, so nothing is left behind."""

    def children(pid: int) -> list[int]:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    with subprocess.Popen([sys.executable, "-c", SUPERVISE, str(tmp_path), *FAKE]) as program:
        asyncio.run(until(lambda: len(children(program.pid)) == 3))
        workers = children(program.pid)
        # Whatever they are doing by then: importing, loading or serving.
        program.kill()
        try:
            asyncio.run(until(lambda: not any(map(running, workers))))
        finally:
            for pid in workers:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def test_two_gateways_cannot_have_one_observe_port(tmp_path: Path) -> None:
    """A taken port is an error at the start, not a page nobody finds."""

    async def walk() -> None:
        async with gateway(tmp_path) as house:
            port = house.supervisor.settings.metrics_port
            with pytest.raises(OSError, match="in use"):
                Supervisor(Settings(folder=str(tmp_path), metrics_port=port), command=FAKE)

    asyncio.run(walk())
