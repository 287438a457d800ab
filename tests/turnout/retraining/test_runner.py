"""Tests of the runner with a real registry: it hands back, gives up, and its children are bound."""

import asyncio
import errno
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from protos import registry_pb2 as pb
from registry.types import RegistryUnavailableError
from tests.project.project_files import write_project
from tests.registry.registry_fixture import RegistryFixture, registry_fixture
from turnout.cli.context import context_from_options
from turnout.retraining.runner import Runner, RunnerSettings
from turnout.training_runs.run_record import end_text, recorded_run

pytestmark = pytest.mark.walk

CHILD = """
import argparse, asyncio, os, sys, time
from protos import registry_pb2 as pb
from registry.client import RegistryClient
from turnout.retraining.child import confine_training

parser = argparse.ArgumentParser()
for name in ("parent", "memory-mb", "cpu-s", "log-fd"):
    parser.add_argument(f"--{name}", type=int, required=True)
parser.add_argument("command", nargs="+")
options = parser.parse_args()
confine_training(options.parent, options.memory_mb, options.cpu_s, options.log_fd)
values = dict(zip(options.command[2::2], options.command[3::2], strict=True))

async def main():
    async with RegistryClient(values["--registry"], values["--as"]) as client:
        await act(client, values["--run-key"])

async def begin(client, key):
    reply = await client.begin_run("churn", "candidate", key=key, cause="x", inputs=b"{}")
    return reply.run
"""


@asynccontextmanager
async def running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: str, **settings: object
) -> AsyncIterator[tuple[RegistryFixture, Runner, list[str]]]:
    """Yield a registry, a runner whose children do *act*, and what the runner says."""
    (tmp_path / "child_of_runner.py").write_text(f"{CHILD}\n{act}\nasyncio.run(main())\n")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{Path(__file__).parents[3]}")
    project = write_project(tmp_path / "shop")
    said: list[str] = []
    async with registry_fixture(tmp_path / "registry") as registry:
        context = context_from_options(
            str(tmp_path), registry.address, "", "ann", False, {}, project=str(project.root)
        )
        chosen = RunnerSettings(
            poll_s=0.05,
            retry_s=0.01,
            program="child_of_runner",
            **settings,  # type: ignore[arg-type]
        )
        yield registry, Runner(context, registry.ann, chosen, said.append), said


async def queue(registry: RegistryFixture, key: str = "k") -> pb.Run:
    """Queue a run of churn/candidate."""
    request = pb.QueueRunRequest(model="churn", setting="candidate", key=key, cause="by hand")
    return (await registry.ann.queue_run(request)).run


WAITS = """
async def act(client, key):
    run = await begin(client, key)
    await client.append_run_log(run, "fits\\n")
    time.sleep(60)
"""


def test_runner_that_stops_hands_its_run_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits for another attempt, and nothing has failed. A cancelled run is left alone."""

    async def walk() -> None:
        async with running(tmp_path, monkeypatch, WAITS) as (registry, runner, said):
            run = await queue(registry)
            stop = asyncio.Event()
            working = asyncio.create_task(runner.run(stop))
            await _until_log(registry, run, b"fits\n")
            stop.set()
            await working
            back = await registry.ann.get_run(run.id)
            assert (back.state, back.failures, back.attempt) == (pb.Run.QUEUED, 0, 1)
            # The next runner takes it again, and a person cancels it meanwhile.
            stop.clear()
            working = asyncio.create_task(runner.run(stop))
            await _until_log(registry, run, b"fits\nfits\n")
            await registry.cleo.cancel_run(run.id, "wrong labels")
            stop.set()
            await working
            assert (await registry.ann.get_run(run.id)).state == pb.Run.CANCELLED
            assert said[0] == f"run {run.id[:8]} of churn/candidate: begins (by hand)"

    asyncio.run(asyncio.wait_for(walk(), 60))


async def _until_log(registry: RegistryFixture, run: pb.Run, text: bytes) -> None:
    """Wait until the log of a run is *text*."""
    read = b""
    async with asyncio.timeout(30):
        async for part in registry.ann.read_run_log(run.id, follow=True):
            read += part
            if read == text:
                return


def test_run_that_ends_its_child_three_times_is_an_incident(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when the child ends before it has begun the run, as with a broken project."""
    act = """
async def act(client, key):
    if key == "early":
        sys.exit("views/usage.py:3: NameError")
    await begin(client, key)
    os.kill(os.getpid(), 9)
"""

    async def walk() -> None:
        # One child never begins its run, the other is killed.
        async with running(tmp_path, monkeypatch, act, concurrency=2) as parts:
            registry, runner, _ = parts
            early, late = await queue(registry, "early"), await queue(registry, "late")
            working = asyncio.create_task(runner.run(asyncio.Event()))
            async with asyncio.timeout(50):
                for run in (early, late):
                    async for _ in registry.ann.read_run_log(run.id, follow=True):
                        pass
            # Each has three attempts and one finding.
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
            early, late = [await registry.ann.get_run(run.id) for run in (early, late)]
            assert (early.state, early.attempt) == (late.state, late.attempt) == (pb.Run.FAILED, 3)
            assert early.error.endswith("no other follows: views/usage.py:3: NameError")
            assert "it was killed (SIGKILL)" in late.error
            texts = [finding.text async for finding in registry.ann.findings()]
            assert sorted(text[4:12] for text in texts) == sorted((early.id[:8], late.id[:8]))

    asyncio.run(asyncio.wait_for(walk(), 60))


def test_child_may_do_its_own_run_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no token, and the door of the runner refuses what a run does not do."""
    # Each refusal is kept as the error of the run's end.
    act = """
async def act(client, key):
    from registry.types import RegistryError
    from tests.tiny_models import tiny_files
    run = await begin(client, key)
    refused = []
    async def attempt(name, call):
        try:
            await call
        except RegistryError as error:
            refused.append(f"{name}: {type(error).__name__}")
    request = pb.EndRunRequest(id="00" * 16, attempt=1, state=pb.Run.FAILED, result_json=b"{}")
    await attempt("other run", client.end_run(request))
    await attempt("other key", client.begin_run("churn", "x", key="mine", cause="x", inputs=b"{}"))
    await attempt("other model", client.register("offer", tiny_files("offer")))
    await attempt("queue", client.queue_run(pb.QueueRunRequest(model="churn", cause="x")))
    await attempt("keys", client.serving_keys())
    await attempt("status", client.set_status("churn", "1", pb.STAGING, "x"))
    version = await client.register("churn", tiny_files("churn"))
    await client.end_run(pb.EndRunRequest(id=run.id, attempt=1, state=pb.Run.REGISTERED,
        version=version.label, error=" ".join(refused), result_json=b"{}"))
"""

    async def walk() -> None:
        async with running(tmp_path, monkeypatch, act, once=True) as (registry, runner, said):
            run = await queue(registry)
            await runner.run(asyncio.Event())
            # What belongs to the run went through.
            ended = await registry.ann.get_run(run.id)
            assert ended.state == pb.Run.REGISTERED, said
            names = [part.rstrip(":") for part in ended.error.split(" ") if part.endswith(":")]
            assert len(names) == 6, ended.error
            (version,) = await registry.ann.list_versions("churn")
            assert (version.author, ended.actor) == ("ann", "ann")

    asyncio.run(asyncio.wait_for(walk(), 60))


@pytest.mark.parametrize(
    ("queued", "state", "failures"), [(True, pb.Run.QUEUED, 1), (False, pb.Run.FAILED, 0)]
)
def test_registry_that_is_gone_at_the_seal_is_no_end_of_a_queued_run(
    queued: bool, state: pb.Run.State, failures: int, tmp_path: Path
) -> None:
    """A person sees it fail; a queued run waits for another attempt."""

    async def walk() -> None:
        async with registry_fixture(tmp_path / "registry") as registry:
            if queued:
                await queue(registry)
            run = (
                await registry.ann.begin_run("churn", "candidate", key="k", cause="c", inputs=b"{}")
            ).run
            with pytest.raises(RegistryUnavailableError):
                async with recorded_run(registry.ann, run):
                    raise RegistryUnavailableError("the registry did not answer")
            ended = await registry.ann.get_run(run.id)
            assert (ended.state, ended.failures) == (state, failures)

    asyncio.run(asyncio.wait_for(walk(), 20))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "needs more memory than this host has"),
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full"),
        (KeyboardInterrupt(), "the run was interrupted"),
        (ValueError("no such column"), "no such column"),
        (RuntimeError(), "RuntimeError"),
    ],
)
def test_end_of_a_training_is_one_sentence(error: BaseException, words: str) -> None:
    """Its log has the rest."""
    assert words in end_text(error)
