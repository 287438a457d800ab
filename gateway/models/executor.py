"""Scoring: where a version runs, what one run made of a batch, and when to stop trying."""

import asyncio
import concurrent.futures
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from registry.types import ScoringError

RUNS_WAITING_MAX = 4
"""Runs on one lane not yet done; past that the version is stuck, and more would only pile up."""

BLAME_CPU_SHARE = 0.5
"""Of a time budget: a run past its budget that worked for less was held up by the host."""

HUNG_NS = 1_000_000_000
"""A run of 256 rows through 100 trees takes under a millisecond; this is a thousand of them."""


class Scorer(Protocol):
    """A version's session: registry.bundle.Session, or a fake of it."""

    def run(self, matrix: NDArray[np.float32]) -> NDArray[np.float32]:
        """(B, F) to (B, K); raises ScoringError."""
        ...


class Fault(IntEnum):
    """What became of one call in one version's run."""

    NONE = 0
    RAISED = 1
    NOT_FINITE = 2
    LATE = 3


NO_FAULT = int(Fault.NONE)
"""For arithmetic on columns: an enum's member costs a look-up each time in Python 3.11."""


@dataclass(slots=True)
class Scored:
    """What one version made of C calls with R rows."""

    scores: NDArray[np.float32]
    """(R, K); NaN in the rows of calls that raised or came late."""
    faults: NDArray[np.uint8]
    """(C,) Fault."""
    elapsed_ns: int = 0
    """From being asked to being done; 0 where nobody compares."""
    cpu_ns: int = 0
    """Processor time of that: without waits for a processor or for the interpreter's lock, which
    are the host's doing and fall on one arm more than on the other."""

    @property
    def faultless(self) -> bool:
        """True when every call was answered."""
        return not self.faults.tobytes().strip(b"\0")  # a fifth of what any() costs

    def overdue(self, budget_ns: int) -> bool:
        """Whether the run took longer than a canary may, and not because the host held it up."""
        return self.elapsed_ns > budget_ns and self.cpu_ns >= BLAME_CPU_SHARE * budget_ns

    def first_calls(self, calls: int, rows: int) -> "Scored":
        """Only the first *calls* calls, which have the first *rows* rows."""
        if calls == len(self.faults):
            return self
        return Scored(self.scores[:rows], self.faults[:calls], self.elapsed_ns, self.cpu_ns)

    def select_calls(
        self, calls: NDArray[np.intp] | slice, rows: NDArray[np.intp] | slice
    ) -> "Scored":
        """Only these calls, in this order, with their rows."""
        return Scored(self.scores[rows], self.faults[calls], self.elapsed_ns, self.cpu_ns)

    @staticmethod
    def all_late(row_offsets: NDArray[np.uint32], outputs: int) -> "Scored":
        """Nothing came in time."""
        rows, calls = int(row_offsets[-1]), len(row_offsets) - 1
        return Scored(
            np.full((rows, outputs), np.nan, dtype=np.float32),
            np.full(calls, Fault.LATE, dtype=np.uint8),
        )


def score_calls(
    scorer: Scorer, matrix: NDArray[np.float32], row_offsets: NDArray[np.uint32], outputs: int
) -> Scored:
    """Score C calls in one run; when the run raises, halve until only the poisoned calls fail.

    matrix       (R, F) float32.
    row_offsets  (C + 1,) rows of call c are row_offsets[c] to row_offsets[c + 1].

    One poisoned call among C costs about 2 log2 C more runs, and harms nobody else.
    """
    faults = np.zeros(len(row_offsets) - 1, dtype=np.uint8)
    try:
        scores = scorer.run(matrix)
    except ScoringError:
        scores = _score_in_halves(scorer, matrix, row_offsets, faults, outputs)
    if not np.isfinite(scores).all():
        unusable = ~np.isfinite(scores).all(axis=1)
        by_call = np.logical_or.reduceat(unusable, row_offsets[:-1].astype(np.intp))
        faults[by_call & (faults == NO_FAULT)] = Fault.NOT_FINITE
    return Scored(scores, faults)


def _score_in_halves(
    scorer: Scorer,
    matrix: NDArray[np.float32],
    row_offsets: NDArray[np.uint32],
    faults: NDArray[np.uint8],
    outputs: int,
) -> NDArray[np.float32]:
    """Score what a whole run could not; *faults* is written where a call raises alone."""
    scores = np.full((len(matrix), outputs), np.nan, dtype=np.float32)
    middle = len(faults) // 2
    waiting = [(0, middle), (middle, len(faults))] if middle else []
    if not middle:
        faults[0] = Fault.RAISED
    while waiting:
        first, last = waiting.pop()
        rows = slice(int(row_offsets[first]), int(row_offsets[last]))
        try:
            scores[rows] = scorer.run(matrix[rows])
        except ScoringError:
            if last - first == 1:
                faults[first] = Fault.RAISED
            else:
                middle = (first + last) // 2
                waiting += [(first, middle), (middle, last)]
    return scores


@dataclass(frozen=True, slots=True)
class ScoringRun:
    """One run that was asked for beside production's."""

    thread_future: "concurrent.futures.Future[Scored] | None"
    """On the version's own thread; None: it was done where it was asked for."""
    loop_future: "asyncio.Future[Scored] | None"
    """The same, to be awaited."""
    immediate: Scored | None = None
    """What came of it, where it was asked for."""

    def result(self) -> Scored | None:
        """What the thread made of it by now; None: it is not done.

        Asks the thread, not the loop: a loop that was held up learns of a run later than it ended.
        """
        run = self.thread_future
        return run.result() if run is not None and run.done() else self.immediate

    async def wait(self) -> Scored:
        """Wait for it."""
        if self.loop_future is not None:
            return await self.loop_future
        assert self.immediate is not None
        return self.immediate


class ModelExecutor:
    """Where one version scores: on the loop, or on a thread of its own.

    Inline saves the 70 us of a hop; production always scores there, after the others were asked.
    While versions are compared every other one takes a thread of its own, so that a hung candidate
    blocks nobody; what is compared is processor time, which a hop does not lengthen. One that
    cannot hang and is soon done (gateway.models.native_trees) is asked on the loop, too.
    """

    def __init__(
        self,
        scorer: Scorer,
        outputs: int,
        *,
        short_runs: bool = False,
        on_start: Callable[[], None] | None = None,
        now_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """brief: no run takes longer than about a millisecond, whatever its rows hold."""
        self._short_runs = short_runs
        self.scorer = scorer
        self._outputs = outputs
        self._on_start = on_start
        self._now_ns = now_ns
        self._thread: ThreadPoolExecutor | None = None
        self._queued_ns: deque[int] = deque()
        self._thread_clock: int | None = None
        """The clock of the thread's own processor time; None before its first run."""
        self._began_ns = 0
        """By that clock: when the newest run began."""
        self._running_since_ns: int | None = None
        """By ours; None between runs."""

    @property
    def outputs(self) -> int:
        """K."""
        return self._outputs

    @property
    def runs_waiting(self) -> int:
        """Runs asked for on the version's own thread and not done."""
        return len(self._queued_ns)

    @property
    def hung(self) -> bool:
        """True once a run has not come back for HUNG_NS: no busy host explains that.

        From when it began: on a host where a slow version takes .33 s for a run, the fourth that
        was asked for is back after more than a second, and nothing hangs.
        """
        since_ns = self._running_since_ns
        return since_ns is not None and self._now_ns() - since_ns > HUNG_NS

    @property
    def queue_full(self) -> bool:
        """True while so many runs wait that one more could not be answered in time."""
        return self.runs_waiting >= RUNS_WAITING_MAX

    def score_inline(self, matrix: NDArray[np.float32], row_offsets: NDArray[np.uint32]) -> Scored:
        """Score on the calling thread."""
        return score_calls(self.scorer, matrix, row_offsets, self._outputs)

    def score_timed(self, matrix: NDArray[np.float32], row_offsets: NDArray[np.uint32]) -> Scored:
        """Score on the calling thread, and say how long it took, as on the version's own."""
        asked_ns, began_ns = self._now_ns(), time.thread_time_ns()
        scored = self.score_inline(matrix, row_offsets)
        scored.cpu_ns = time.thread_time_ns() - began_ns
        scored.elapsed_ns = self._now_ns() - asked_ns
        return scored

    def start_run(
        self, matrix: NDArray[np.float32], row_offsets: NDArray[np.uint32]
    ) -> "ScoringRun":
        """Score where nobody is held up; the run never raises ScoringError."""
        if self._short_runs:
            return ScoringRun(None, None, self.score_timed(matrix, row_offsets))
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "score", initializer=self._on_start)
        asked_ns = self._now_ns()
        self._queued_ns.append(asked_ns)
        run = self._thread.submit(self._run_on_thread, matrix, row_offsets, asked_ns)
        future = asyncio.wrap_future(run)
        future.add_done_callback(self._on_run_done)
        return ScoringRun(run, future)

    def _run_on_thread(
        self, matrix: NDArray[np.float32], row_offsets: NDArray[np.uint32], queued_ns: int
    ) -> Scored:
        if self._thread_clock is None:
            self._thread_clock = time.pthread_getcpuclockid(threading.get_ident())
        self._began_ns = began_ns = time.thread_time_ns()
        self._running_since_ns = self._now_ns()
        try:
            scored = score_calls(self.scorer, matrix, row_offsets, self._outputs)
        finally:
            self._running_since_ns = None
        scored.cpu_ns = time.thread_time_ns() - began_ns
        scored.elapsed_ns = self._now_ns() - queued_ns
        return scored

    def caused_delay(self, run: ScoringRun, budget_ns: int) -> bool:
        """Whether *run*, past *budget_ns*, is to blame for it: it worked, or hangs."""
        if (scored := run.result()) is not None:
            return scored.cpu_ns >= BLAME_CPU_SHARE * budget_ns
        if (
            self._thread_clock is None
            or run.thread_future is None
            or not run.thread_future.running()
        ):
            return self.hung
        try:
            worked_ns = time.clock_gettime_ns(self._thread_clock) - self._began_ns
        except OSError:  # its thread, let go by close(), ended since we looked: the run is back
            scored = run.result()
            return scored is not None and scored.cpu_ns >= BLAME_CPU_SHARE * budget_ns
        return self.hung or worked_ns >= BLAME_CPU_SHARE * budget_ns

    def _on_run_done(self, future: "asyncio.Future[Scored]") -> None:
        self._queued_ns.popleft()  # one thread: runs end in the order they were asked for
        if not future.cancelled():
            future.exception()  # retrieved here: whoever still waits reads it too

    def close(self) -> None:
        """Let the thread go once it has run what it was asked for.

        A batch may have taken the routes of before: its runs are neither cancelled (the calls in
        it would fail) nor refused later. A run that never ends is not waited for.
        """
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.shutdown(wait=False)


class CanaryBreaker:
    """Stops asking a canary that only fails here, without waiting for the controller.

    It opens when the newest runs failed on every key, without one good answer between, in at
    least *runs* runs and on at least *keys* different keys, while production was fine on the same
    rows. A canary that fails now and then, or is only late, is the controller's to judge, not the
    breaker's: on a starved host every candidate is late.
    """

    def __init__(self, runs: int, keys: int) -> None:
        self._runs_to_open = runs
        self._keys_to_open = keys
        self._runs = 0
        self._keys: set[int] = set()
        self.open = False
        self.first_bad_unix_ns = 0

    def record(self, faulty_keys: list[int], *, any_answered: bool, at_unix_ns: int) -> bool:
        """Count one run of the canary; True when this very run opened the breaker."""
        if any_answered:
            self._runs, self._keys, self.first_bad_unix_ns = 0, set(), 0
        elif faulty_keys:
            self._runs += 1
            self._keys.update(faulty_keys[: self._keys_to_open])
            self.first_bad_unix_ns = self.first_bad_unix_ns or at_unix_ns
        if self.open or self._runs < self._runs_to_open or len(self._keys) < self._keys_to_open:
            return False
        self.open = True
        return True
