"""Copies for a shadow: offered batch by batch, scored many at once, dropped before they pile up."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from gateway.clock import SystemClock
from gateway.models.executor import Scored
from gateway.settings import Settings
from gateway.shadow.shadow_process import shadow_limits_of
from gateway.shadow.shadows import ROWS_PER_SEND, Shadows
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.shadow_copies import ShadowCopies
from gateway.telemetry.windows import Windows

VERSION: Any = SimpleNamespace(
    id=bytes(32), digest8=1, label="3", bundle=SimpleNamespace(model="churn")
)
ROUTES: Any = SimpleNamespace(
    model="churn",
    compared=False,
    deployment=SimpleNamespace(
        revision=1, model="churn", policy=SimpleNamespace(decision_threshold=0.5)
    ),
    limits=SimpleNamespace(evidence_sampled=65_536),
    score_edges=np.array([0.5], dtype=np.float32),
)


class Process:
    """A shadow's process that answers with its first input, and remembers what it was asked."""

    quarantined = ""

    def __init__(self) -> None:
        self.asked: list[tuple[NDArray[np.float32], NDArray[np.uint32]]] = []
        self.scored = asyncio.Event()

    async def score(self, matrix: NDArray[np.float32], row_offsets: NDArray[np.uint32]) -> Scored:
        """Score them all."""
        self.asked.append((matrix, row_offsets))
        self.scored.set()
        return Scored(matrix[:, :1], np.zeros(len(row_offsets) - 1, dtype=np.uint8))

    def close(self) -> None:
        """End it."""

    async def wait_closed(self) -> None:
        """End it."""


def copies(first: int, rows_per_call: list[int], routes: object = ROUTES) -> ShadowCopies:
    """Rows whose first input is their number."""
    rows = sum(rows_per_call)
    numbers = np.arange(first, first + rows, dtype=np.float32)
    return ShadowCopies(
        routes=cast("Any", routes),
        version=VERSION,
        matrix=np.stack([numbers, numbers], axis=1),
        row_offsets=np.cumsum([0, *rows_per_call]).astype(np.uint32),
        key_hash=np.arange(len(rows_per_call), dtype=np.uint64),
        production_scores=numbers,
        flags=np.zeros(rows, dtype=np.uint32),
    )


def begun(process: Process, rows_waiting_max: int = 10_000) -> tuple[Shadows, Windows]:
    """Shadows whose only process is *process*."""
    windows = Windows()
    limits = shadow_limits_of(Settings())
    shadows = Shadows(windows, SystemClock(), rows_waiting_max, limits, lambda _: None, Metrics())
    fake: Any = process
    shadows._executors[VERSION.id] = fake
    return shadows, windows


async def turns() -> None:
    """Let what was begun end."""
    for _ in range(5):
        await asyncio.sleep(0)


def test_many_batches_copies_are_scored_at_once() -> None:
    """In their order, each call's rows together; pairs are those of all of them."""

    async def walk() -> None:
        process = Process()
        shadows, windows = begun(process)
        shadows.offer(copies(0, [1, 2]))
        shadows.offer(copies(3, [1]))
        shadows.offer(copies(4, [3]))
        await turns()
        assert not process.asked
        assert shadows.rows_waiting == 7
        shadows.send_pending()
        await turns()
        ((matrix, row_offsets),) = process.asked
        assert matrix[:, 0].tolist() == [0, 1, 2, 3, 4, 5, 6]
        assert row_offsets.tolist() == [0, 1, 3, 4, 7]
        assert shadows.rows_waiting == 0
        (window,) = windows.close_windows(0, everything=True)
        assert (window.pairs.pairs, window.pairs.absolute_sum) == (7, 0.0)

    asyncio.run(walk())


def test_few_copies_do_not_wait_for_ever() -> None:
    """They go after OFFER_WAIT_S_MAX by themselves, and what comes later goes with the next."""

    async def walk() -> None:
        process = Process()
        shadows, _ = begun(process)
        for number in range(2):
            shadows.offer(copies(number, [1]))
            await asyncio.wait_for(process.scored.wait(), 5)
            process.scored.clear()
        assert [matrix[:, 0].tolist() for matrix, _ in process.asked] == [[0], [1]]

    asyncio.run(walk())


def test_a_full_house_of_copies_does_not_wait() -> None:
    """As many rows as a batch of callers go at once; two revisions never go together."""

    async def walk() -> None:
        process = Process()
        shadows, _ = begun(process)
        shadows.offer(copies(0, [1] * (ROWS_PER_SEND - 1)))
        other: Any = SimpleNamespace(**vars(ROUTES))
        shadows.offer(copies(0, [1], other))
        await turns()
        assert not process.asked
        shadows.offer(copies(0, [1]))
        await turns()
        assert [len(matrix) for matrix, _ in process.asked] == [ROWS_PER_SEND]
        shadows.send_pending()
        await turns()
        assert [len(matrix) for matrix, _ in process.asked] == [ROWS_PER_SEND, 1]

    asyncio.run(walk())


def test_copies_are_dropped_and_counted() -> None:
    """Past the bound, when their version shadows nothing any more, and when all ends."""

    async def walk() -> None:
        process = Process()
        shadows, windows = begun(process, rows_waiting_max=3)
        shadows.offer(copies(0, [1, 1]))
        shadows.offer(copies(0, [2]))
        shadows.set_active_versions(set())
        assert shadows.rows_waiting == 0
        shadows.offer(copies(0, [1]))
        await shadows.wait_closed()
        shadows.offer(copies(0, [3]))
        shadows.send_pending()
        await turns()
        assert not process.asked
        assert shadows.rows_waiting == 0
        (window,) = windows.close_windows(0, everything=True)
        assert window.calls.dropped == 1 + 2 + 1 + 1

    asyncio.run(walk())
