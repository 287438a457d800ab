"""Shadows: versions that score copies of answered calls. Dropped first, awaited by no one."""

import asyncio
import os
import threading
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.batch import Batch, Part
from gateway.clock import Clock
from gateway.deployed import LoadedVersion, Participant, Routes
from gateway.scoring import Lane, Scored
from gateway.windows import Told, Windows
from registry.types import WHOLE_BP, shadow_bucket

NICE = 10
"""Shadow threads yield to everything that answers somebody."""


@dataclass(slots=True)
class Copies:
    """Some calls' rows, copied for one shadow after their replies were sent."""

    routes: Routes
    version: LoadedVersion
    matrix: NDArray[np.float32]
    """(R, F) as the shadow wants it."""
    row_offsets: NDArray[np.uint32]
    """(C + 1,)."""
    key_hash: NDArray[np.uint64]
    """(C,)."""
    expected: NDArray[np.float32]
    """(R,) production's first output, finite."""
    flags: NDArray[np.uint32]
    """(R,)."""


def yield_to_callers() -> None:
    """Lower this thread's priority: threads have their own on Linux."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)


class Shadows:
    """A lane a shadow version, and a bound on the rows that wait for all of them."""

    def __init__(self, windows: Windows, clock: Clock, rows_waiting_max: int) -> None:
        self._windows = windows
        self._clock = clock
        self._rows_waiting_max = rows_waiting_max
        self._lanes: dict[bytes, Lane] = {}
        self._running: set[asyncio.Task[None]] = set()
        self.rows_waiting = 0

    def sample(
        self,
        batch: Batch,
        part: Part,
        places: NDArray[np.intp],
        participant: Participant,
        sample_bp: int,
    ) -> NDArray[np.intp]:
        """Which of *places* in *part* this shadow copies: by key, so a key is in or out whole."""
        if sample_bp >= WHOLE_BP:
            return places
        salt, version_id = batch.routes.deployment.split_salt, participant.version.id
        keys = batch.assignment.keys
        drawn = [
            shadow_bucket(salt, version_id, keys[call]) < sample_bp
            for call in part.indexes()[places].tolist()
        ]
        return places[np.array(drawn, dtype=np.bool_)]

    def offer(self, copies: Copies) -> None:
        """Queue copies, or drop them when too many rows wait already."""
        rows = len(copies.matrix)
        if self.rows_waiting + rows > self._rows_waiting_max:
            unix_ns = self._clock.unix_ns()
            calls = len(copies.key_hash)
            self._windows.drop(copies.routes, copies.version, calls, unix_ns)
            return
        self.rows_waiting += rows
        task = asyncio.get_running_loop().create_task(self._score(copies))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _score(self, copies: Copies) -> None:
        started_ns = self._clock.now_ns()
        try:
            run = self._lane(copies.version).score_aside(copies.matrix, copies.row_offsets)
            scored = await run.on_loop
        finally:
            self.rows_waiting -= len(copies.matrix)
        self._compare(copies, scored, started_ns)

    def _compare(self, copies: Copies, scored: Scored, started_ns: int) -> None:
        calls = len(copies.key_hash)
        told = Told(
            key_hash=copies.key_hash,
            faults=scored.faults,
            held_out=None,
            latency_ns=np.full(calls, self._clock.now_ns() - started_ns, dtype=np.int64),
            scores=scored.scores[:, 0],
            expected=copies.expected,
            row_offsets=copies.row_offsets,
            flags=copies.flags,
        )
        threshold = copies.routes.deployment.policy.decision_threshold or 0.5
        self._windows.tell_pairs(
            copies.routes, copies.version, told, self._clock.unix_ns(), threshold
        )

    def _lane(self, version: LoadedVersion) -> Lane:
        lane = self._lanes.get(version.id)
        if lane is None:
            lane = Lane(version.lane.scorer, version.lane.outputs, on_start=yield_to_callers)
            self._lanes[version.id] = lane
        return lane

    def keep(self, version_ids: set[bytes]) -> None:
        """Let go of the lanes of versions that shadow nothing any more."""
        for version_id in set(self._lanes) - version_ids:
            self._lanes.pop(version_id).close()
