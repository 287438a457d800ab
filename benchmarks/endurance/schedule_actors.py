"""The processes of a simulated year of schedules: registry, controller and runner.

Only time and what a training computes are made up. The registry is the real one on its SQLite file,
the controllers run the real scheduler under the real lease, and the runner is the real one. Its
children come to the end that their run's key says, without a training.
"""

import argparse
import asyncio
import mmap
import os
import signal
import struct
from pathlib import Path

from host.processes import die_with_parent
from registry.api.server import serve_registry
from registry.client import RegistryClient
from registry.types import RegistryError
from tests.registry.registry_fixture import prove_in_process
from turnout.cli.context import context_from_options
from turnout.retraining.runner import Runner, RunnerSettings
from turnout.retraining.scheduler import Scheduler

LEASE, LEASE_S = "rollout", 5
PAUSE_S = 0.05
TRAINER = "benchmarks.endurance.trainer_without_training"


class SharedClock:
    """The simulated time, in a file that all processes see."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(8))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 8)

    def now_ms(self) -> int:
        """Unix milliseconds."""
        (value,) = struct.unpack("<q", self._memory[:8])
        return int(value)

    def now_ns(self) -> int:
        """Unix nanoseconds."""
        return self.now_ms() * 1_000_000

    def set(self, unix_ms: int) -> None:
        """Set the time for every process."""
        self._memory[:8] = struct.pack("<q", unix_ms)


async def run_simulated_registry(folder: Path, address: str, clock: SharedClock) -> None:
    """Serve the registry until the process is killed."""
    server = await serve_registry(folder, address, now_ns=clock.now_ns, prove=prove_in_process)
    await server.wait()


async def run_simulated_controller(address: str, clock: SharedClock) -> None:
    """Ask for due runs whenever the lease can be had, until the process is killed."""
    holder = f"controller-{os.getpid()}"
    async with RegistryClient(address, "rollout") as client:
        lease = 0
        while True:
            try:
                lease = (await client.acquire_lease(LEASE, holder, LEASE_S, lease)).token
                await Scheduler(client, lease, clock.now_ms).look()
            except RegistryError:
                lease = 0
            await asyncio.sleep(PAUSE_S)


async def run_simulated_runner(address: str, project: Path, folder: Path) -> None:
    """Take queued runs until SIGTERM, or until the process is killed."""
    context = context_from_options(
        str(folder), address, "", "robot", False, {}, project=str(project), env="dev"
    )
    settings = RunnerSettings(poll_s=PAUSE_S, retry_s=PAUSE_S, program=TRAINER)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with RegistryClient(address, "robot") as client:
        await Runner(context, client, settings, print).run(stop)


def main() -> None:
    """Run one of the three processes, as long as its parent lives."""
    parser = argparse.ArgumentParser()
    parser.add_argument("part", choices=("registry", "controller", "runner"))
    parser.add_argument("--address", required=True)
    for name in ("folder", "clock", "project"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    options = parser.parse_args()
    die_with_parent(signal.SIGKILL)
    clock = SharedClock(options.clock)
    if options.part == "registry":
        asyncio.run(run_simulated_registry(options.folder, options.address, clock))
    elif options.part == "controller":
        asyncio.run(run_simulated_controller(options.address, clock))
    else:
        asyncio.run(run_simulated_runner(options.address, options.project, options.folder.parent))


if __name__ == "__main__":
    main()
