"""Keeps a training run in the registry: its beginning, its log, its signs of life and its end."""

import asyncio
import contextlib
import errno
import json
import resource
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from features.canonical import canonical_json
from host.processes import peak_rss_bytes
from protos import registry_pb2 as pb
from registry.client import RegistryClient
from registry.types import FencedError, RegistryError, RegistryUnavailableError
from training.errors import GateFailedError
from training.retrain.build_record import SECTION
from training.retrain.champion_now import ChampionNow
from training.train import TrainedVersion

SIGN_OF_LIFE_S = 15.0
"""Time between two signs of life. The registry takes a run for silent after 120 s."""
CARD_FACTS = (
    *("task", "data", "joined", "metrics", "champion", "parity", "gate", "fairness"),
    *("packages", SECTION),
)
"""Facts of a version's card that a run keeps too, so that runs can be compared."""
GAIN = "_gain"
"""End of the name of the fact that says by how much the main metric is better."""


class RunRecord:
    """A run that was begun.

    `step` and `judged` may be called from any thread, all else from the event loop.
    """

    def __init__(self, client: RegistryClient, run: pb.Run) -> None:
        self._client = client
        self.run = run
        self._lines: deque[str] = deque()
        self._loop = asyncio.get_running_loop()
        self._has_lines = asyncio.Event()
        self._seconds: dict[str, float] = {}
        self._step, self._step_began = "", time.monotonic()
        self._ending: pb.EndRunRequest | None = None
        self._judged: dict[str, Any] = {}

    def step(self, name: str) -> None:
        """Note that a step begins."""
        self._close_step()
        self._step = name
        self._lines.append(f"{time.strftime('%H:%M:%S', time.gmtime())} {name}\n")
        self._loop.call_soon_threadsafe(self._has_lines.set)

    def _close_step(self) -> None:
        now = time.monotonic()
        if self._step:
            took = now - self._step_began
            self._seconds[self._step] = round(self._seconds.get(self._step, 0.0) + took, 3)
        self._step_began = now

    async def keep_alive(self) -> None:
        """Send what was logged, and a sign of life every SIGN_OF_LIFE_S, until cancelled.

        Ends when another attempt has taken the run over; then `end` raises FencedError.
        """
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SIGN_OF_LIFE_S):
                    await self._has_lines.wait()
            try:
                await self.send_lines()
            except RegistryUnavailableError:
                # The registry may be back in time for the next sign of life.
                await asyncio.sleep(1.0)
            except FencedError:
                return

    async def send_lines(self) -> None:
        """Send what was logged and not sent yet. What cannot be sent is kept for the next time."""
        self._has_lines.clear()
        text = "".join(self._lines)
        count = len(self._lines)
        await self._client.append_run_log(self.run, text)
        for _ in range(count):
            self._lines.popleft()

    def judged(self, champion_now: ChampionNow) -> None:
        """Note what the champion is worth on the newest labels, also for a run that fails later."""
        self._judged = {"champion": champion_now.definition()}
        self._lines.append(f"{champion_now.text}\n")

    def registered(self, trained: TrainedVersion, version: pb.Version) -> None:
        """Note that the run made a version which is registered."""
        self._note_end(pb.Run.REGISTERED, _facts(trained), version=version.label)

    def written(self, trained: TrainedVersion, digest: str) -> None:
        """Note that the run made a version which was written to a folder only."""
        self._note_end(pb.Run.WRITTEN, _facts(trained), digest=digest)

    def failed(self, error: BaseException) -> None:
        """Note why the run makes no version."""
        if isinstance(error, GateFailedError):
            state = pb.Run.CHAMPION_KEPT if error.only_better else pb.Run.GATE_FAILED
            facts = _kept_facts(error.facts)
            self._note_end(state, {**facts, "gate": list(error.report)}, error=str(error))
            return
        # A queued run waits for another attempt when only the registry was missing.
        again = isinstance(error, RegistryUnavailableError) and self.run.queued_unix_ms
        state = pb.Run.QUEUED if again else pb.Run.FAILED
        self._note_end(state, {}, error=end_text(error))

    def _note_end(
        self,
        state: pb.Run.State,
        facts: Mapping[str, Any],
        *,
        version: str = "",
        digest: str = "",
        error: str = "",
    ) -> None:
        self._close_step()
        result = {
            **self._judged,
            **facts,
            "seconds": self._seconds,
            "memory_mb": round(peak_rss_bytes() / 2**20),
        }
        if error:
            self._lines.append(f"{error}\n")
        self._ending = pb.EndRunRequest(
            id=self.run.id,
            attempt=self.run.attempt,
            state=state,
            version=version,
            version_digest=digest,
            error=error,
            result_json=canonical_json(result),
        )

    async def end(self) -> None:
        """Send the rest of the log, and the end that was noted."""
        await self.send_lines()
        if self._ending is not None:
            self.run = await self._client.end_run(self._ending)


@asynccontextmanager
async def recorded_run(client: RegistryClient, run: pb.Run) -> AsyncIterator[RunRecord]:
    """Keep a run that was begun until the block ends, and then write its end.

    An error of the block is the run's end and is raised on. If the registry is gone then, the run
    stays without an end, and can be begun again with its key.
    """
    record = RunRecord(client, run)
    keeper = asyncio.create_task(record.keep_alive())
    try:
        yield record
    except BaseException as error:
        record.failed(error)
        await _stop(keeper)
        with contextlib.suppress(RegistryError):
            await record.end()
        raise
    await _stop(keeper)
    await record.end()


async def _stop(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


def _facts(trained: TrainedVersion) -> dict[str, Any]:
    return _kept_facts(json.loads(trained.files["card.json"]))


def _kept_facts(card: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value for name, value in card.items() if name in CARD_FACTS or name.endswith(GAIN)
    }


def end_text(error: BaseException) -> str:
    """Return why *error* ended a training, with the way out where its own words have none."""
    if isinstance(error, asyncio.CancelledError | KeyboardInterrupt):
        return "the run was interrupted"
    if isinstance(error, MemoryError):
        most = resource.getrlimit(resource.RLIMIT_AS)[0]
        bound = "this host has" if most == resource.RLIM_INFINITY else f"{most // 2**20} MB"
        return (
            f"the training needs more memory than {bound} ({str(error) or 'MemoryError'}); give it "
            "more (turnout run training --memory-mb), or train on fewer rows"
        )
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full ({error}); make room, then queue the run again"
    return str(error) or type(error).__name__
