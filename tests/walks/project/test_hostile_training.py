"""A fit that never ends, eats memory, forks or prints without end, in a runner's training."""

import asyncio
import os
from pathlib import Path

import pytest

from protos import registry_pb2 as pb
from registry.client import RegistryClient
from tests.walks.project.test_runs import project, system
from tests.walks.running_system import RunningSystem
from turnout.cli.context import context_from_options
from turnout.retraining.runner import Runner, RunnerSettings
from turnout.retraining.training_child import TrainingLimits

pytestmark = pytest.mark.nightly
__all__ = ["project", "system"]  # fixtures

PROGRAM = """
import argparse, errno, os, sys, time
from pathlib import Path
from turnout.retraining.child import confine_training

parser = argparse.ArgumentParser()
for name in ("parent", "memory-mb", "cpu-s", "log-fd"):
    parser.add_argument(f"--{name}", type=int, required=True)
parser.add_argument("command", nargs="+")
options = parser.parse_args()
confine_training(options.parent, options.memory_mb, options.cpu_s, options.log_fd)

from registry.client import RegistryClient
from registry.types import RegistryUnavailableError
from training import train

fit, register = train._fit, RegistryClient.register

def hostile_fit(*arguments):
    FIT
    return fit(*arguments)

async def hostile_register(self, *arguments):
    REGISTER
    return await register(self, *arguments)

train._fit, RegistryClient.register = hostile_fit, hostile_register
from turnout.__main__ import main
main(options.command)
"""


def trained(
    system: RunningSystem,
    project: Path,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    fit: str = "pass",
    register: str = "pass",
    limits: TrainingLimits,
) -> tuple[pb.Run, bytes, list[pb.Finding]]:
    """Queue a run and let a runner train it until it ends; return it, its log and its findings."""
    # The child does all that a training does, and then what *fit* and *register* say.
    (folder / "hostile_training.py").write_text(
        PROGRAM.replace("FIT", fit).replace("REGISTER", register)
    )
    monkeypatch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{Path(__file__).parents[3]}")
    context = context_from_options(
        str(system.folder), "", "", "sam", False, {}, project=str(project)
    )
    settings = RunnerSettings(limits=limits, poll_s=0.1, retry_s=0.1, program="hostile_training")

    # The log of a run ends when the run does.
    async def act(client: RegistryClient) -> tuple[pb.Run, bytes, list[pb.Finding]]:
        request = pb.QueueRunRequest(model="churned", setting="first", cause="hostile")
        run = (await client.queue_run(request)).run
        working = asyncio.create_task(Runner(context, client, settings, print).run(asyncio.Event()))
        log = b"".join([part async for part in client.read_run_log(run.id, follow=True)])
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        findings = [item async for item in client.findings() if run.id[:8] in item.text]
        return await client.get_run(run.id), log, findings

    async def walk() -> tuple[pb.Run, bytes, list[pb.Finding]]:
        async with system.registry_client("sam") as client:
            return await act(client)

    return asyncio.run(walk())


@pytest.mark.parametrize(
    ("fit", "limits", "words", "attempts"),
    [
        ("while True: pass", TrainingLimits(seconds=20.0), "it was not done after 20 s", 3),
        ("while True: pass", TrainingLimits(cpu_s=12), "more than 12 s of CPU time", 3),
        (
            "[os.fork() or (time.sleep(60), os._exit(0)) for _ in range(40)]; time.sleep(60)",
            TrainingLimits(),
            "processes; it may have 32",
            3,
        ),
        ("bytearray(30 * 2**30)", TrainingLimits(), "needs more memory than 8192 MB", 1),
        ("raise OSError(errno.ENOSPC, 'No space left')", TrainingLimits(), "the disk is full", 1),
        ("os.kill(os.getpid(), 11)", TrainingLimits(), "it crashed with SIGSEGV", 3),
    ],
)
def test_hostile_fit_ends_with_its_sentence(
    fit: str,
    limits: TrainingLimits,
    words: str,
    attempts: int,
    system: RunningSystem,
    project: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The run is marked, one finding says why, and no version is there."""
    run, _, findings = trained(system, project, tmp_path, monkeypatch, fit=fit, limits=limits)
    assert (run.state, run.version, run.attempt) == (pb.Run.FAILED, "", attempts)
    assert words in run.error
    assert len(findings) == 1


def test_fit_that_prints_a_gigabyte_still_trains(
    system: RunningSystem, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its log has the first part, and the version is registered."""
    fit = "[print('x' * 65_535) for _ in range(16_000)]"
    run, log, _ = trained(
        system, project, tmp_path, monkeypatch, fit=fit, limits=TrainingLimits(seconds=120.0)
    )
    assert run.state == pb.Run.REGISTERED, run.error
    assert len(log) <= 2**20
    assert b"the log is full" in log or b"it printed more" in log


def test_registry_that_is_gone_at_the_seal_gets_the_version_later(
    system: RunningSystem, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first attempt could not register; the second one does, and nothing is there twice."""
    mark = tmp_path / "tried"
    register = (
        f"mark = Path({str(mark)!r})\n"
        "    if not mark.exists():\n"
        "        mark.touch()\n"
        "        raise RegistryUnavailableError('the registry did not answer')"
    )
    run, _, findings = trained(
        system, project, tmp_path, monkeypatch, register=register, limits=TrainingLimits()
    )
    assert (run.state, run.attempt, run.failures) == (pb.Run.REGISTERED, 2, 1)
    assert not findings
