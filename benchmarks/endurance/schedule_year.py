"""A simulated year of schedules in which registry, controllers and runner are killed.

    python -m benchmarks.endurance.schedule_year --runs 1000 --kills 200

No due run is lost and none happens twice; each ends in a version, a verdict or an incident.
"""

import argparse
import asyncio
import itertools
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.endurance.schedule_actors import SharedClock
from benchmarks.endurance.trainer_without_training import ending_of
from features.canonical import canonical_json
from protos import registry_pb2 as pb
from registry.client import RegistryClient
from registry.schedules.schedule import TRAINING_FAILED, parse_schedule
from registry.types import RegistryError
from tests.project.project_files import write_project
from tests.registry.project_definitions import PLAN

CRON = {
    "model": "churn",
    "setting": "candidate",
    "cron": "0 */8 * * *",
    "zone": "Europe/Berlin",
}
FIRST_MS = int(datetime(2026, 1, 1, 0, 30, tzinfo=UTC).timestamp() * 1_000)
SILENCE_MS = 121_000
LEASE_MS = 6_000
PARTS = ("registry", "controller", "runner")
SECTIONS = ("views", "labels", "recipes", "models", "policies")
VERDICTS = {pb.Run.CHAMPION_KEPT, pb.Run.GATE_FAILED}
KILLED = ("no sign of life", "not answer", "UNAVAILABLE", "killed", "stopping", "connect")
"""Words of the errors of a run whose registry or trainer was killed in three attempts."""
STEP_S = 300.0


class Year:
    """The processes of one simulation, and the clock that they share."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.random = random.Random(seed)
        self.clock = SharedClock(folder / "clock")
        self.clock.set(FIRST_MS)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{probe.getsockname()[1]}"
        self._folder = folder
        write_project(folder / "shop")
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str) -> None:
        """Start a process: "registry", "runner", "controller-1" or "controller-2"."""
        folder = self._folder
        line = [sys.executable, "-m", "benchmarks.endurance.schedule_actors", name.split("-")[0]]
        line += ["--address", self.address, "--clock", str(folder / "clock")]
        line += ["--folder", str(folder / "registry"), "--project", str(folder / "shop")]
        with (folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(line, stdout=log, stderr=log)

    def start_all(self) -> None:
        """Start every process."""
        for name in ("registry", "controller-1", "controller-2", "runner"):
            self.start(name)

    def kill_one(self, part: str) -> None:
        """Kill a process with SIGKILL, and start it again."""
        name = f"controller-{self.random.choice((1, 2))}" if part == "controller" else part
        self._processes[name].kill()
        self._processes[name].wait()
        self.start(name)
        # Time passes until the others may notice.
        self.clock.set(self.clock.now_ms() + (SILENCE_MS if part == "runner" else LEASE_MS))

    def stop_all(self) -> None:
        """Kill every process."""
        for process in self._processes.values():
            process.kill()
            process.wait()


def due_times(count: int) -> Iterator[tuple[str, int]]:
    """Yield the key and the Unix milliseconds of each due run of the year."""
    schedule = parse_schedule("often", CRON)
    at = datetime.fromtimestamp(FIRST_MS / 1_000, UTC)
    for _ in range(count):
        due = schedule.due_after(at)
        assert due is not None
        yield f"shop/often@{due:%Y-%m-%dT%H:%MZ}", int(due.timestamp() * 1_000)
        at = due


async def apply_schedule(client: RegistryClient) -> None:
    """Apply a project with one schedule."""
    sections: dict[str, object] = {name: {} for name in SECTIONS}
    content = canonical_json(
        {"format": 1, "name": "shop", **sections, "schedules": {"often": CRON}}
    )
    await client.apply_project(
        "shop",
        expected_revision=0,
        plan_digest=PLAN,
        definitions=content,
        effects=[],
        commit="",
        dirty=False,
        reason="a year",
    )


async def repeat_until_answered(act: Callable[[], "asyncio.Future[object]"]) -> object:
    """Return what the registry answers, which may be starting."""
    give_up = time.monotonic() + STEP_S
    while True:
        try:
            return await act()
        except RegistryError:
            assert time.monotonic() < give_up
            await asyncio.sleep(0.05)


async def live_through(year: Year, count: int, kills: int) -> None:
    """Let *count* runs come due, and kill a process *kills* times while they are under way."""
    killed_at = Counter(year.random.choices(range(count), k=kills))
    parts = itertools.cycle(PARTS)
    async with RegistryClient(year.address, "ann") as client:
        await repeat_until_answered(lambda: apply_schedule(client))  # type: ignore[arg-type,return-value]
        for number, (key, due_ms) in enumerate(due_times(count)):
            year.clock.set(max(due_ms, year.clock.now_ms()))
            for _ in range(killed_at[number]):
                # At any instant: before it is queued, while it trains, after it has ended.
                await asyncio.sleep(year.random.uniform(0.0, 0.8))
                year.kill_one(next(parts))
            await until_ended(year, client, key)


async def until_ended(year: Year, client: RegistryClient, key: str) -> None:
    """Return when the run of *key* has ended. Simulated time passes where a lease must end."""
    give_up, tick = time.monotonic() + STEP_S, time.monotonic() + 3.0
    while True:
        with suppress(RegistryError):
            newest = await client.list_runs("churn", 1)
            if newest and newest[0].key == key and newest[0].ended_unix_ms:
                return
        assert time.monotonic() < give_up, f"{key} has no end after {STEP_S:g} s"
        if time.monotonic() > tick:
            tick += 3.0
            year.clock.set(year.clock.now_ms() + SILENCE_MS)
        await asyncio.sleep(0.02)


async def examine_year(year: Year, count: int) -> Counter[str]:
    """Check every run, every version, every finding and the history; return the ends."""
    ends: Counter[str] = Counter()
    async with RegistryClient(year.address, "ann") as client:
        runs = {run.key: run for run in await client.list_runs("churn", 10 * count)}
        keys = [key for key, _ in due_times(count)]
        # None is lost and none was asked for twice.
        assert sorted(runs) == sorted(keys)
        findings = [finding async for finding in client.findings()]
        for key in keys:
            run, ending = runs[key], ending_of(key)
            incidents = [item for item in findings if f"run {run.id[:8]} " in item.text]
            ends[pb.Run.State.Name(run.state)] += 1
            # A run whose trainers were killed three times is an incident, as one that crashes is.
            if run.state == pb.Run.FAILED:
                assert [item.kind for item in incidents] == [TRAINING_FAILED], run
                if ending not in ("error", "crash"):
                    assert run.failures == 3, run
                    assert any(words in run.error for words in KILLED), run
                continue
            assert not incidents, run
            assert run.state == pb.Run.REGISTERED or run.state in VERDICTS, run
            assert (run.state == pb.Run.REGISTERED) == (ending == "version"), run
        # Each version is of one run: an attempt that was killed after it registered made no second.
        versions = await client.list_versions("churn") if ends["REGISTERED"] else []
        labels = [run.version for run in runs.values() if run.version]
        assert len(set(labels)) == len(labels) <= len(versions)
        assert len(versions) <= sum(ending_of(key) == "version" for key in keys)
        report = await client.audit()
        assert report.intact, report
    return ends


def simulate_year(folder: Path, *, count: int, kills: int, seed: int = 7) -> Counter[str]:
    """Run the simulation, and return how many runs ended in which state."""
    year = Year(folder, seed)
    try:
        year.start_all()
        asyncio.run(live_through(year, count, kills))
        return asyncio.run(examine_year(year, count))
    finally:
        year.stop_all()


def main() -> None:
    """Run the simulation in a temporary folder, and print how the runs ended."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.endurance.schedule_year", description=__doc__
    )
    parser.add_argument("--runs", type=int, default=1_000)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        ends = simulate_year(
            Path(folder), count=options.runs, kills=options.kills, seed=options.seed
        )
    minutes = (time.monotonic() - began) / 60
    print(f"{options.runs} due runs, {options.kills} kills, {minutes:.1f} min: {dict(ends)}")


if __name__ == "__main__":
    main()
