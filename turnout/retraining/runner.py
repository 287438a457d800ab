"""The runner: it takes queued runs of one project, and trains each in a child with limits.

The queue is the registry's, so several runners may work beside each other: a run is begun by one of
them only. A run whose child was killed waits for another attempt, and the registry ends it after
the third failure with a finding. A run that the runner cannot finish is handed back.
"""

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from project.definitions import ProjectDefinitions
from project.errors import ProjectError
from protos import registry_pb2 as pb
from registry.client import RegistryClient
from registry.types import FencedError, RegistryError
from turnout.cli.context import CommandContext
from turnout.cli.projects import load_definitions
from turnout.retraining.data_triggers import DataTriggers
from turnout.retraining.registry_door import RegistryDoor
from turnout.retraining.training_child import PROGRAM, ChildEnd, TrainingLimits, run_child

log = logging.getLogger(__name__)

OPEN_RUNS_MAX = 1_000
LOG_BYTES_MAX = 2**20
"""What is sent of one child's prints; the registry keeps no more of a log."""
LOG_FULL = b"\n(it printed more, which was left out)\n"
REGISTRY_RETRY_S = 1.0
DATA_KEYS = {"after_view", "new_labels"}
"""Keys of a schedule that only a process with the project's data can answer."""
RELOAD_S = 60.0
"""Time after which the project's files are read again for a recipe that was not there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerSettings:
    """How a runner works.

    concurrency  runs at one time.
    poll_s       time between two looks at the queue.
    data_poll_s  time between two looks at views and labels, for schedules that wait for them.
    retry_s      pause after a run's first failed attempt. It doubles with each further one.
    once         end when nothing is left that may run now.
    program      the module of the child.
    """

    concurrency: int = 1
    limits: TrainingLimits = field(default_factory=TrainingLimits)
    poll_s: float = 5.0
    data_poll_s: float = 300.0
    retry_s: float = 60.0
    once: bool = False
    program: str = PROGRAM


class Runner:
    """Takes runs of the project in *context* until it is stopped.

    say  is told in a sentence what begins and ends.
    """

    def __init__(
        self,
        context: CommandContext,
        client: RegistryClient,
        settings: RunnerSettings,
        say: Callable[[str], None],
    ) -> None:
        self._context = context
        self._client = client
        self._settings = settings
        self._say = say
        self._definitions: ProjectDefinitions | None = None
        self._loaded_s = 0.0
        self._triggers = DataTriggers(context)
        self._looked_at_data_s = float("-inf")
        self._attempts: dict[str, asyncio.Task[None]] = {}
        """Run id -> its attempt here."""
        self._not_before_s: dict[str, float] = {}
        """Run id -> when it may be tried again here."""
        self._told: set[str] = set()

    async def run(self, stop: asyncio.Event) -> None:
        """Take runs until *stop* is set, then hand back those that have not ended.

        Raises ProjectError when the project's files have a problem at the start.
        """
        self._definitions = await load_definitions(self._context)
        self._loaded_s = asyncio.get_running_loop().time()
        try:
            while not stop.is_set():
                left = False
                try:
                    await self._look_at_data()
                    left = await self._take_runs()
                except RegistryError as error:
                    # The registry may be back at the next look.
                    log.warning("the queue was not looked at: %s", error)
                    left = True
                if self._settings.once and not self._attempts and not left:
                    return
                await self._wait(stop)
        finally:
            tasks = list(self._attempts.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _wait(self, stop: asyncio.Event) -> None:
        """Wait for the next look: an attempt that ended frees its place at once."""
        stopping = asyncio.ensure_future(stop.wait())
        await asyncio.wait(
            {stopping, *self._attempts.values()},
            timeout=self._settings.poll_s,
            return_when=asyncio.FIRST_COMPLETED,
        )
        stopping.cancel()
        for run_id, task in list(self._attempts.items()):
            if task.done():
                del self._attempts[run_id]
                if not task.cancelled() and (error := task.exception()) is not None:
                    log.error("run %s", run_id, exc_info=error)

    # The queue

    async def _take_runs(self) -> bool:
        """Begin attempts of the oldest runs that wait, and return whether any was begun."""
        waiting = await self._client.list_runs(limit=OPEN_RUNS_MAX, open_only=True)
        now_s = asyncio.get_running_loop().time()
        begun = False
        for run in reversed(waiting):
            if len(self._attempts) >= self._settings.concurrency:
                break
            takeable = run.state == pb.Run.QUEUED or (run.silent and run.queued_unix_ms)
            early = now_s < self._not_before_s.get(run.id, 0.0)
            if takeable and not early and run.id not in self._attempts and await self._is_ours(run):
                self._attempts[run.id] = asyncio.create_task(self._attempt(run))
                begun = True
        return begun

    async def _is_ours(self, run: pb.Run) -> bool:
        """Whether the project has the run's recipe. Others may be another runner's."""
        named = f"{run.model}/{run.setting}"
        assert self._definitions is not None
        now_s = asyncio.get_running_loop().time()
        if named not in self._definitions.recipes and now_s - self._loaded_s > RELOAD_S:
            await self._reload()
        known = named in self._definitions.recipes
        if not known and run.id not in self._told:
            self._told.add(run.id)
            self._say(
                f"run {run.id[:8]} is left alone: this project has no recipe {named} (turnout runs "
                f"cancel {run.id[:8]} ends it)"
            )
        return known

    async def _reload(self) -> None:
        """Read the project's files again. With a problem in them, the former ones stay."""
        self._loaded_s = asyncio.get_running_loop().time()
        try:
            self._definitions = await load_definitions(self._context)
        except ProjectError as error:
            log.warning("the project's files were not read again: %s", error)

    # One attempt

    async def _attempt(self, run: pb.Run) -> None:
        """Train in a child, and see to it that the run has an end or waits again."""
        self._say(f"run {run.id[:8]} of {run.model}/{run.setting}: begins ({run.cause})")
        async with RegistryDoor(self._client, run) as door:
            try:
                end = await self._run_child(run, door)
            except asyncio.CancelledError:
                # The runner stops: nothing has failed.
                await self._hand_back(run, door, "")
                raise
            except OSError as error:
                end = ChildEnd(1, f"the host started no child: {error}")
            if door.ended is None and not door.fenced.is_set() and door.answered is None:
                await self._hand_back(run, door, end.reason or "it ended without a result")
        if door.ended is not None and door.ended.state == pb.Run.QUEUED:
            pause_s = self._settings.retry_s * 2 ** max(door.ended.failures - 1, 0)
            self._not_before_s[run.id] = asyncio.get_running_loop().time() + pause_s
        self._report(run, door, end)

    async def _run_child(self, run: pb.Run, door: RegistryDoor) -> ChildEnd:
        environment = self._context.required_environment()
        command = [
            *("train", run.model, "--setting", run.setting, "--run-key", run.key),
            *("--cause", run.cause, "--registry", door.address),
            *("--project", str(environment.project.root), "--env", environment.name),
            *("--folder", str(self._context.folder.absolute()), "--as", self._context.actor),
        ]
        return await run_child(
            command,
            self._settings.limits,
            _RunLog(self._client, door).append,
            door.fenced,
            program=self._settings.program,
            without=environment.variables_of("token"),
        )

    async def _hand_back(self, run: pb.Run, door: RegistryDoor, error: str) -> None:
        """Let the run wait for another attempt; an *error* counts as a failure.

        The registry may be gone: then this goes on until it is back, or the runner is killed.
        """
        while True:
            try:
                begun = door.begun or (await self._begin(run) if error else None)
                if begun is None:
                    return
                request = pb.EndRunRequest(
                    id=begun.id, attempt=begun.attempt, state=pb.Run.QUEUED, error=error
                )
                request.result_json = b"{}"
                door.ended = await self._client.end_run(request)
            except FencedError:
                return
            except RegistryError as problem:
                log.warning("run %s is not handed back yet: %s", run.id, problem)
                await asyncio.sleep(REGISTRY_RETRY_S)
                continue
            return

    async def _begin(self, run: pb.Run) -> pb.Run | None:
        """Begin a run whose child ended before it did so itself, to count its failure."""
        reply = await self._client.begin_run(
            run.model, run.setting, key=run.key, cause=run.cause, inputs=b"{}"
        )
        return reply.run if reply.begun else None

    def _report(self, run: pb.Run, door: RegistryDoor, end: ChildEnd) -> None:
        ended = door.ended or door.answered
        state = "no longer this runner's" if ended is None else _state_text(ended)
        reason = "" if ended is None else ended.error
        self._say(f"run {run.id[:8]}: {state}{f': {reason or end.reason}' if reason else ''}")

    # Schedules that wait for data

    async def _look_at_data(self) -> None:
        """Ask for the runs of schedules whose view or labels have come."""
        now_s = asyncio.get_running_loop().time()
        if now_s - self._looked_at_data_s < self._settings.data_poll_s:
            return
        self._looked_at_data_s = now_s
        assert self._definitions is not None
        applied = await self._client.list_schedules(with_runs=True)
        own = [item for item in applied if item.project == self._definitions.name]
        # Cron and findings need no data.
        if not any(DATA_KEYS & json.loads(item.definition_json).keys() for item in own):
            return
        if now_s - self._loaded_s > RELOAD_S:
            await self._reload()
        for request in await asyncio.to_thread(self._triggers.due, self._definitions, own):
            reply = await self._client.queue_run(request)
            if reply.begun:
                self._say(f"{request.cause}: {_state_text(reply.run)} {reply.run.error}".rstrip())


class _RunLog:
    """Sends what a child prints to the log of its run, up to LOG_BYTES_MAX."""

    def __init__(self, client: RegistryClient, door: RegistryDoor) -> None:
        self._client = client
        self._door = door
        self._early = bytearray()
        """What came before the run was begun."""
        self._bytes_left = LOG_BYTES_MAX

    async def append(self, data: bytes) -> None:
        """Send the next bytes. What cannot be sent is lost: no decision depends on a log."""
        if self._bytes_left <= 0:
            return
        self._early += data[: self._bytes_left]
        self._bytes_left -= len(data)
        if self._bytes_left <= 0:
            self._early += LOG_FULL
        run = self._door.begun
        if run is None:
            return
        text = self._early.decode("utf-8", "replace")
        self._early.clear()
        with contextlib.suppress(RegistryError):
            await self._client.append_run_log(run, text)


STATE_TEXTS: Mapping[int, str] = {pb.Run.QUEUED: "waits for another attempt"}


def _state_text(run: pb.Run) -> str:
    name = pb.Run.State.Name(run.state).lower().replace("_", " ")
    return STATE_TEXTS.get(run.state, f"{name} {run.version}".rstrip())
