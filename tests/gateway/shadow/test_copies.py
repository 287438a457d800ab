"""Shadow copies are offered batch by batch, scored many at once, and dropped beyond a bound."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from gateway.key_column import KeyColumn
from gateway.models.executor import Fault, Scored
from gateway.settings import Settings
from gateway.shadow.shadow_process import shadow_limits_of
from gateway.shadow.shadows import ROWS_PER_SEND, Shadows
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.shadow_copies import ShadowCopies
from gateway.telemetry.windows import Windows
from host.clock import SystemClock
from protos.journal_pb2 import UNSEEN_SHADOW, ServedBatch
from stats.score_scale import OutputReference, ScoreScale
from tests.gateway.gateway_fixture import MemoryJournal

VERSION: Any = SimpleNamespace(
    id=bytes(32),
    digest8=1,
    label="3",
    bundle=SimpleNamespace(
        digest="ab" * 32, model="churn", contract=SimpleNamespace(model_contract="c0")
    ),
)
ROUTES: Any = SimpleNamespace(
    model="churn",
    compared=False,
    deployment=SimpleNamespace(
        revision=1, model="churn", policy=SimpleNamespace(decision_threshold=0.5)
    ),
    limits=SimpleNamespace(evidence_sampled=65_536, journal_sampled=32_768),
    shape=SimpleNamespace(entities=2),
    scale=ScoreScale(
        [OutputReference("score", np.array([0.5], dtype=np.float32), spread=1.0)], "binary", 0.5
    ),
)


class FakeShadowExecutor:
    """A shadow executor that scores a row with its first input and keeps what it received."""

    quarantined = ""

    def __init__(self) -> None:
        self.received: list[tuple[NDArray[np.float32], NDArray[np.uint32]]] = []
        self.scored = asyncio.Event()

    async def score(self, matrix: NDArray[np.float32], row_offsets: NDArray[np.uint32]) -> Scored:
        """Score a copy as ShadowExecutor does."""
        self.received.append((matrix, row_offsets))
        self.scored.set()
        return Scored(matrix[:, :1], np.zeros(len(row_offsets) - 1, dtype=np.uint8))

    def close(self) -> None:
        """Do nothing; ShadowExecutor would kill its executor."""

    async def wait_closed(self) -> None:
        """Do nothing; ShadowExecutor would wait for its executor."""


def copies(first: int, rows_per_call: list[int], routes: object = ROUTES) -> ShadowCopies:
    """Return copies of calls; a row's first input is its number, counted from *first*."""
    rows = sum(rows_per_call)
    numbers = np.arange(first, first + rows, dtype=np.float32)
    return ShadowCopies(
        routes=cast("Any", routes),
        version=VERSION,
        matrix=np.stack([numbers, numbers], axis=1),
        row_offsets=np.cumsum([0, *rows_per_call]).astype(np.uint32),
        key_hash=np.arange(len(rows_per_call), dtype=np.uint64),
        production_scores=numbers[:, np.newaxis],
        flags=np.zeros(rows, dtype=np.uint32),
        read_unix_ns=np.full(len(rows_per_call), 7, dtype=np.int64),
        prediction_ids=b"".join([bytes([9, first + n]) * 32 for n in range(len(rows_per_call))]),
        entity_ids=KeyColumn.from_list([b"%d" % n for n in range(2 * first, 2 * (first + rows))]),
    )


def shadows_with(
    executor: FakeShadowExecutor,
    rows_waiting_max: int = 10_000,
    quarantined: dict[str, tuple[str, int]] | None = None,
    journal: MemoryJournal | None = None,
) -> tuple[Shadows, Windows]:
    """Return shadows whose only executor is *executor*, and their windows."""
    windows = Windows()
    limits = shadow_limits_of(Settings())
    shadows = Shadows(
        windows,
        SystemClock(),
        rows_waiting_max,
        limits,
        lambda _: None,
        Metrics(),
        {} if quarantined is None else quarantined,
        MemoryJournal() if journal is None else journal,
    )
    shadows._executors[VERSION.id] = executor
    return shadows, windows


async def run_ready_tasks() -> None:
    """Let the tasks that are ready run."""
    for _ in range(5):
        await asyncio.sleep(0)


def test_shadows_send_the_copies_of_many_batches_together() -> None:
    """They are sent in order with each call's rows together, and all their pairs are counted."""

    async def walk() -> None:
        executor = FakeShadowExecutor()
        shadows, windows = shadows_with(executor)
        shadows.offer(copies(0, [1, 2]))
        shadows.offer(copies(3, [1]))
        shadows.offer(copies(4, [3]))
        await run_ready_tasks()
        assert not executor.received
        assert shadows.rows_waiting == 7
        shadows.send_pending()
        await run_ready_tasks()
        ((matrix, row_offsets),) = executor.received
        assert matrix[:, 0].tolist() == [0, 1, 2, 3, 4, 5, 6]
        assert row_offsets.tolist() == [0, 1, 3, 4, 7]
        assert shadows.rows_waiting == 0
        (window,) = windows.close_windows(0, everything=True)
        assert (window.pairs.pairs, window.pairs.absolute_sum) == (7, 0.0)

    asyncio.run(walk())


def test_shadows_drop_the_copies_of_a_quarantined_version() -> None:
    """Workers died of it, so its process gets nothing; other copies were sent before."""

    async def walk() -> None:
        executor, quarantined = FakeShadowExecutor(), dict[str, tuple[str, int]]()
        shadows, windows = shadows_with(executor, quarantined=quarantined)
        shadows.offer(copies(0, [1]))
        shadows.send_pending()
        await run_ready_tasks()
        quarantined[VERSION.bundle.digest] = ("2 workers died while they ran it", 1)
        shadows.offer(copies(1, [1, 1]))
        shadows.send_pending()
        await run_ready_tasks()
        assert [matrix[:, 0].tolist() for matrix, _ in executor.received] == [[0]]
        (window,) = windows.close_windows(0, everything=True)
        assert (window.pairs.pairs, window.calls.dropped) == (1, 2)

    asyncio.run(walk())


def test_shadows_send_few_copies_after_a_bounded_wait() -> None:
    """They are sent after OFFER_WAIT_S_MAX; a later copy is sent with the next batch."""

    async def walk() -> None:
        executor = FakeShadowExecutor()
        shadows, _ = shadows_with(executor)
        for number in range(2):
            shadows.offer(copies(number, [1]))
            await asyncio.wait_for(executor.scored.wait(), 5)
            executor.scored.clear()
        assert [matrix[:, 0].tolist() for matrix, _ in executor.received] == [[0], [1]]

    asyncio.run(walk())


def test_shadows_send_a_full_batch_at_once_and_never_mix_revisions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """ROWS_PER_SEND rows are sent at once; copies of two revisions are sent apart."""
    monkeypatch.setattr("gateway.shadow.shadows.OFFER_WAIT_S_MAX", 60.0)  # none is sent by time

    async def walk() -> None:
        executor = FakeShadowExecutor()
        shadows, _ = shadows_with(executor)
        shadows.offer(copies(0, [1] * (ROWS_PER_SEND - 1)))
        other: Any = SimpleNamespace(**vars(ROUTES))
        shadows.offer(copies(0, [1], other))
        await run_ready_tasks()
        assert not executor.received
        shadows.offer(copies(0, [1]))
        await run_ready_tasks()
        assert [len(matrix) for matrix, _ in executor.received] == [ROWS_PER_SEND]
        shadows.send_pending()
        await run_ready_tasks()
        assert [len(matrix) for matrix, _ in executor.received] == [ROWS_PER_SEND, 1]

    asyncio.run(walk())


def test_shadows_drop_and_count_copies() -> None:
    """They are dropped beyond the bound, when their version is no shadow, and at the end."""

    async def walk() -> None:
        executor = FakeShadowExecutor()
        shadows, windows = shadows_with(executor, rows_waiting_max=3)
        shadows.offer(copies(0, [1, 1]))
        shadows.offer(copies(0, [2]))
        shadows.set_active_versions(set())
        assert shadows.rows_waiting == 0
        shadows.offer(copies(0, [1]))
        await shadows.wait_closed()
        shadows.offer(copies(0, [3]))
        shadows.send_pending()
        await run_ready_tasks()
        assert not executor.received
        assert shadows.rows_waiting == 0
        (window,) = windows.close_windows(0, everything=True)
        assert window.calls.dropped == 1 + 2 + 1 + 1

    asyncio.run(walk())


def test_shadows_journal_what_they_scored_of_sampled_keys() -> None:
    """A record has the calls of sampled keys that the shadow scored and whose caller got an answer.

    It has the prediction id of that answer and production's score, so an outcome finds both.
    """
    journal = MemoryJournal()
    executor = FakeShadowExecutor()
    shadows, _ = shadows_with(executor, journal=journal)
    offered = copies(10, [1, 2, 1, 1, 1])
    # Key 2 is outside the sample, call 3 got no answer, and the shadow fails on call 4.
    offered.key_hash = np.array([32_767, 5, 32_768, 1, 0], dtype=np.uint64)
    offered.prediction_ids = offered.prediction_ids[: 3 * 64] + bytes(64) + b"i" * 64
    scored = Scored(
        offered.production_scores * 2,
        np.array([Fault.NONE] * 4 + [Fault.NOT_FINITE], dtype=np.uint8),
    )
    shadows._keep_scores(offered, scored)
    (payload,) = journal.records
    record = ServedBatch.FromString(payload)
    assert (record.model, record.version, record.model_contract) == ("churn", "3", "c0")
    assert list(record.role) == [UNSEEN_SHADOW] * 2
    assert record.prediction_ids == offered.prediction_ids[: 2 * 64]
    assert np.frombuffer(record.row_count, "<u4").tolist() == [1, 2]
    assert np.frombuffer(record.key_hash, "<u8").tolist() == [32_767, 5]
    assert np.frombuffer(record.at_unix_ns, "<i8").tolist() == [7, 7]
    assert np.frombuffer(record.vectors, "<f4").tolist() == [10, 10, 11, 11, 12, 12]
    assert np.frombuffer(record.scores, "<f4").tolist() == [20, 22, 24]
    assert np.frombuffer(record.production_scores, "<f4").tolist() == [10, 11, 12]
    assert record.entity_ids == [str(n) for n in range(20, 26)]


def test_shadows_count_the_calls_that_a_busy_journal_does_not_take() -> None:
    """Nothing waits for the journal, and each scored call of a sampled key is counted once."""
    journal = MemoryJournal()
    shadows, _ = shadows_with(FakeShadowExecutor(), journal=journal)
    for healthy, first in ((True, 1), (False, 5), (True, 7)):
        journal.healthy = healthy
        offered = copies(first, [1, 1])
        shadows._keep_scores(offered, Scored(offered.production_scores, np.zeros(2, np.uint8)))
    assert len(journal.records) == 2
    assert shadows._metrics.snapshot()["turnout_shadow_records"] == [
        [["churn", "3", "journaled"], 4],
        [["churn", "3", "dropped"], 2],
    ]
