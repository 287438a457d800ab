"""Running a version: on the event loop or on a thread of its own, and when to stop asking it.

C is the number of calls of a run, R the number of their rows, F the inputs and K the outputs of the
version.
"""

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
"""Runs of one version that are queued or running. One more could not be answered in time."""

BLAME_CPU_SHARE = 0.5
"""Share of a time budget. A run that exceeded its budget but used less processor time than this was
delayed by the host."""

HUNG_NS = 1_000_000_000
"""A run of 256 rows through 100 trees takes less than a millisecond, a thousandth of this."""


class Scorer(Protocol):
    """Scores rows: registry.scoring.Session, NativeScorer, or a fake of it in tests."""

    def run(self, matrix: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the (R, K) scores of an (R, F) float32 matrix. Raises ScoringError."""
        ...


class Fault(IntEnum):
    """Why a version has no usable score for a call."""

    NONE = 0
    RAISED = 1
    NOT_FINITE = 2
    LATE = 3
    BAD_INPUT = 4
    """The score is not finite because of an input of the caller, and no other version that was
    asked has a score. The dispatcher finds out; a run says NOT_FINITE."""


NO_FAULT = int(Fault.NONE)
"""Fault.NONE as an int, for comparisons with columns. In 3.11 reading an enum member is slow."""


@dataclass(slots=True)
class Scored:
    """The result of one run."""

    scores: NDArray[np.float32]
    """(R, K) NaN in the rows of calls that raised or came late."""
    faults: NDArray[np.uint8]
    """(C,) Fault of each call."""
    elapsed_ns: int = 0
    """Time from the request to the result. 0 if no arms are compared."""
    cpu_ns: int = 0
    """Processor time of the run. It leaves out waits for a processor or for the interpreter's lock,
    which the host causes and which delay one arm more than the other."""

    @property
    def faultless(self) -> bool:
        """True if every call has finite scores."""
        return not self.faults.tobytes().strip(b"\0")  # a fifth of any()'s cost

    @property
    def answered(self) -> NDArray[np.bool_]:
        """(C,) True where the call has finite scores."""
        answered: NDArray[np.bool_] = self.faults == NO_FAULT
        return answered

    def overdue(self, budget_ns: int) -> bool:
        """Return whether the run exceeded a canary's budget by its own processor time."""
        return self.elapsed_ns > budget_ns and self.cpu_ns >= BLAME_CPU_SHARE * budget_ns

    def first_calls(self, calls: int, rows: int) -> "Scored":
        """Return the result of the first *calls* calls, which have the first *rows* rows."""
        if calls == len(self.faults):
            return self
        return Scored(self.scores[:rows], self.faults[:calls], self.elapsed_ns, self.cpu_ns)

    def last_calls(self, calls: int, rows: int) -> "Scored":
        """Return the result of the last *calls* calls, which have the last *rows* rows."""
        first = len(self.faults) - calls
        return Scored(self.scores[len(self.scores) - rows :], self.faults[first:])

    def select_calls(
        self, calls: NDArray[np.intp] | slice, rows: NDArray[np.intp] | slice
    ) -> "Scored":
        """Return the result of some calls in the given order, with their rows."""
        return Scored(self.scores[rows], self.faults[calls], self.elapsed_ns, self.cpu_ns)

    @staticmethod
    def all_late(row_offsets: NDArray[np.uint32], outputs: int) -> "Scored":
        """Return the result of a run that did not end in time."""
        rows, calls = int(row_offsets[-1]), len(row_offsets) - 1
        return Scored(
            np.full((rows, outputs), np.nan, dtype=np.float32),
            np.full(calls, Fault.LATE, dtype=np.uint8),
        )


def score_calls(
    scorer: Scorer, matrix: NDArray[np.float32], row_offsets: NDArray[np.uint32], outputs: int
) -> Scored:
    """Score C calls in one run. If the run raises, halve it until only the poisoned calls fail.

    matrix       (R, F) float32.
    row_offsets  (C + 1,) the rows of call c are row_offsets[c] to row_offsets[c + 1].

    One poisoned call among C costs about 2 log2 C more runs and changes no other call's result.
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
    """Return the (R, K) scores. Set Fault.RAISED in *faults* for each call that raises alone."""
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
    """One run of a version other than production: in progress, or done already."""

    thread_future: "concurrent.futures.Future[Scored] | None"
    """The run on the version's own thread. None: it ran on the event loop and is done."""
    loop_future: "asyncio.Future[Scored] | None"
    """The run as a future of the event loop."""
    immediate: Scored | None = None
    """The result of a run on the event loop."""

    def result(self) -> Scored | None:
        """Return the result if the run has ended, else None.

        The thread knows this earlier than the event loop does, which may have been held up.
        """
        run = self.thread_future
        return run.result() if run is not None and run.done() else self.immediate

    async def wait(self) -> Scored:
        """Wait for the run to end and return its result."""
        if self.loop_future is not None:
            return await self.loop_future
        assert self.immediate is not None
        return self.immediate


class ModelExecutor:
    """Runs one version: on the event loop, or on a thread of its own.

    Production always runs on the event loop, after the runs of other versions were started. That
    saves the 70 us of a thread switch. Every other version runs on a thread of its own, so that a
    hung canary blocks no caller. Arms are compared by processor time, which a thread switch does
    not lengthen. A version that cannot hang and runs briefly (a native model) needs no thread.
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
        """Create an executor without a thread; the first run on a thread starts it.

        short_runs  no run of *scorer* takes longer than about a millisecond, whatever the rows
                    hold.
        on_start    is called on the thread when it starts.
        """
        self.scorer = scorer
        self._short_scorer = scorer if short_runs else None
        self._outputs = outputs
        self._on_start = on_start
        self._now_ns = now_ns
        self._thread: ThreadPoolExecutor | None = None
        self._queued_ns: deque[int] = deque()
        self._thread_clock: int | None = None
        """Id of the clock of the thread's processor time. None before its first run."""
        self._began_ns = 0
        """Processor time of the thread when the newest run began."""
        self._running_since_ns: int | None = None
        """Monotonic time at which the present run began. None between runs."""

    @property
    def outputs(self) -> int:
        """K, the number of outputs."""
        return self._outputs

    @property
    def runs_waiting(self) -> int:
        """Number of runs on the version's own thread that are queued or running."""
        return len(self._queued_ns)

    @property
    def hung(self) -> bool:
        """True if the present run takes longer than HUNG_NS, which no busy host explains.

        The time counts from the run's own start. If runs take .33 s, the fourth in the queue ends
        after more than a second, and nothing hangs.
        """
        since_ns = self._running_since_ns
        return since_ns is not None and self._now_ns() - since_ns > HUNG_NS

    @property
    def queue_full(self) -> bool:
        """True if so many runs wait that one more could not be answered in time."""
        return self.runs_waiting >= RUNS_WAITING_MAX

    def score_inline(self, matrix: NDArray[np.float32], row_offsets: NDArray[np.uint32]) -> Scored:
        """Score on the calling thread, without measuring."""
        return score_calls(self.scorer, matrix, row_offsets, self._outputs)

    def score_timed(self, matrix: NDArray[np.float32], row_offsets: NDArray[np.uint32]) -> Scored:
        """Score on the calling thread and measure elapsed and processor time."""
        requested_ns, began_ns = self._now_ns(), time.thread_time_ns()
        scored = self.score_inline(matrix, row_offsets)
        scored.cpu_ns = time.thread_time_ns() - began_ns
        scored.elapsed_ns = self._now_ns() - requested_ns
        return scored

    def start_run(
        self, matrix: NDArray[np.float32], row_offsets: NDArray[np.uint32]
    ) -> "ScoringRun":
        """Start a run that delays no other caller. The run never raises ScoringError."""
        if self.scorer is self._short_scorer:
            return ScoringRun(None, None, self.score_timed(matrix, row_offsets))
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "score", initializer=self._on_start)
        requested_ns = self._now_ns()
        self._queued_ns.append(requested_ns)
        run = self._thread.submit(self._run_on_thread, matrix, row_offsets, requested_ns)
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
        """Return whether *run* exceeded *budget_ns* by its own work, or because it hangs.

        A run that waited for a processor or for the interpreter's lock was delayed by the host.
        """
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
        except OSError:  # close() let the thread end after the check above, so the run has ended
            scored = run.result()
            return scored is not None and scored.cpu_ns >= BLAME_CPU_SHARE * budget_ns
        return self.hung or worked_ns >= BLAME_CPU_SHARE * budget_ns

    def _on_run_done(self, future: "asyncio.Future[Scored]") -> None:
        self._queued_ns.popleft()  # one thread, so runs end in the order of their start
        if not future.cancelled():
            future.exception()  # marks the exception as retrieved; a waiter still gets it

    def close(self) -> None:
        """Let the thread end after the runs that are queued.

        A batch may still hold earlier routes, so its runs are neither cancelled nor refused. A run
        that never ends is not waited for.
        """
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.shutdown(wait=False)


class CanaryBreaker:
    """Stops one worker from asking a canary, without waiting for the controller.

    The breaker opens if the newest runs failed on every key, in at least *runs* runs and on at
    least *keys* different keys, while production scored the same rows without a fault. One good
    answer starts the count anew. A canary that fails now and then, or is only late, is judged by
    the controller: on a starved host every canary is late.
    """

    def __init__(self, runs: int, keys: int) -> None:
        self._runs_to_open = runs
        self._keys_to_open = keys
        self._runs = 0
        self._keys: set[int] = set()
        self.open = False
        self.first_bad_unix_ns = 0
        """When the first run of the present series failed; 0 if the last run was good."""

    def record(self, faulty_keys: list[int], *, any_answered: bool, at_unix_ns: int) -> bool:
        """Count one run of the canary. Return True if this run opened the breaker.

        faulty_keys  evidence keys that the canary failed on and production did not.
        """
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
