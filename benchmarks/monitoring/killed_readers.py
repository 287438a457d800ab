"""Kills the journal's reader and monitoring at random moments, and compares what was counted.

Real processes, real gRPC, a real database and a real journal that grows meanwhile. A process is a
fork of this one, which has imported everything and opened nothing of gRPC, so that a kill comes
after milliseconds of work and not in the middle of imports.
"""

import argparse
import asyncio
import json
import logging
import os
import random
import select
import signal
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from journal.prediction_id import hash_model_name, write_prediction_id
from journal.score_code import ScoreRule
from journal.segment import JournalKind
from journal.tape import SegmentWriter
from monitoring.api import reader_policies
from monitoring.api.component import MonitoringComponent, database_url
from monitoring.api.server import serve_monitoring
from monitoring.cells.cell import CellCounts, CellKey
from monitoring.cells.counting import CellCounter
from monitoring.cells.version_bins import FeatureBins, OutputBins, VersionBins
from monitoring.fold.id_fields import IdFields
from monitoring.fold.sink_client import CellSinkClient, JournalReaderLoop
from monitoring.store.cell_rows import sum_of_cells
from monitoring.store.database import MonitoringDatabase
from monitoring.store.monitoring_store import MonitoringStore
from protos import monitoring_pb2 as pb
from protos.journal_pb2 import OutcomeRecord, ServedBatch
from stats.score_grid import score_grid_edges
from turnout.processes.port_checks import free_tcp_port

GATEWAY = "gateway-1"
KEY = bytes(range(32))
RULE = ScoreRule(True, 0.5)
DIGEST8 = int.from_bytes(b"version7", "little")
START_MS = 1_790_000_000_000
WIDTH = 20
LIVE_S_MAX = 0.5
PUSHING_SHARE = 0.7
"""So many of the kills come while the reader pushes."""
PUSH_S_MAX = 0.03
PUSH_WAIT_S_MAX = 5.0
SERVER_SHARE = 0.2
"""A process is killed at a random moment up to this long after its start."""
FOREVER = 10**9
FINISH_S_MAX = 120.0
Result = TypeVar("Result")


@dataclass(frozen=True)
class KilledRun:
    """What a run with kills gave."""

    reader_kills: int
    server_kills: int
    rows: int
    """Rows that the journal has."""
    counted_rows: int
    outcomes: int
    counted_outcomes: int
    batches: int
    """Pushes that the store took."""
    equal: bool
    """Whether every cell is equal, column by column."""


class KillHarness:
    """A journal, a database, and forked processes of a reader and of monitoring.

    port  on which monitoring listens.
    seed  of the moments and the choice of the killed.
    """

    def __init__(self, folder: Path, port: int, seed: int) -> None:
        # What the processes share.
        self._pushing = os.pipe()
        self._journal = folder / "journal"
        self._data = folder / "monitoring"
        self._data.mkdir(parents=True)
        self._address = f"127.0.0.1:{port}"
        self._random = random.Random(seed)
        self._number = 0
        self._outcomes = 0
        self._id_fields = IdFields(lambda: KEY)
        self._expected = CellCounter(lambda *_: journal_bins(), self._id_fields.holdout_of)
        # Three workers write at the same time, each a segment of each kind.
        kinds = (JournalKind.SERVED, JournalKind.OUTCOMES)
        self._writers = [
            [SegmentWriter(self._journal, kind, 200_000, time.time_ns, boot) for kind in kinds]
            for boot in (1, 2, 3)
        ]
        for writers in self._writers:
            for writer in writers:
                writer.roll()
        self._with_store(lambda store: store.save_version(journal_bins()))

    def _wait_for_push(self) -> None:
        """Return when a reader is about to push, or after a while."""
        pushing, _, _ = select.select([self._pushing[0]], [], [], PUSH_WAIT_S_MAX)
        if pushing:
            os.read(self._pushing[0], 1_024)

    def write(self, records: int) -> None:
        """Append served batches with their outcomes, and count them for the comparison."""
        for _ in range(records):
            batch, outcomes = journal_records(self._number)
            served_to, outcomes_to = self._writers[self._number % len(self._writers)]
            served_to.write_records([batch.SerializeToString()])
            if outcomes:
                outcomes_to.write_records([outcome.SerializeToString() for outcome in outcomes])
            self._expected.add(batch)
            self._outcomes += len(outcomes)
            self._number += 1

    def run(self, kills: int, records_between: int) -> KilledRun:
        """Kill *kills* processes, one of five of them monitoring, then let both finish."""
        self.write(records_between)
        server, server_kills, reader_kills = self._start_server(), 0, 0
        for _ in range(kills):
            # A reader works. The kill comes at a random instant, near a push or anywhere.
            self.write(records_between)
            reader = self._start_reader(once=False)
            if self._random.random() < PUSHING_SHARE:
                self._wait_for_push()
                time.sleep(self._random.uniform(0, PUSH_S_MAX))
            else:
                time.sleep(self._random.uniform(0, LIVE_S_MAX))
            # Either it is killed, or monitoring is while it pushes.
            if self._random.random() < SERVER_SHARE:
                _kill(server)
                server, server_kills = self._start_server(), server_kills + 1
            else:
                reader_kills += 1
            _kill(reader)
        # Whatever was left undone is done now.
        for writers in self._writers:
            for writer in writers:
                writer.close()
        _wait(self._start_reader(once=True))
        _kill(server)
        return self._with_store(lambda store: self._compare(store, reader_kills, server_kills))

    def _compare(self, store: MonitoringStore, reader_kills: int, server_kills: int) -> KilledRun:
        stored = store.read_cells(-FOREVER, FOREVER)
        expected = self._expected.take_cells()
        counted = {item.key: _without_outcomes(item.counts) for item in stored}
        total = sum_of_cells(stored)
        events = [f"outcome:{name}:events" for name in ("churned",)]
        return KilledRun(
            reader_kills,
            server_kills,
            sum(counts.rows for counts in expected.values()),
            total.rows,
            self._outcomes,
            sum(int(total.counts(name).sum()) for name in events),
            store.open_reader(pb.JournalName(gateway=GATEWAY)).sequence,
            _all_equal(expected, counted),
        )

    def _with_store(self, work: Callable[[MonitoringStore], Result]) -> Result:
        database = MonitoringDatabase(database_url(self._data, ""))
        try:
            return work(MonitoringStore(database, lambda: 0))
        finally:
            database.close()

    def _start_server(self) -> int:
        return _fork(lambda: asyncio.run(self._serve()))

    async def _serve(self) -> None:
        # No registry answers there, and none is needed: the store has the version's bins, and
        # readers do not wait for policies.
        reader_policies.READY_S = 0.0
        component = MonitoringComponent(self._data, "", "127.0.0.1:1", decisions=0)
        server = await serve_monitoring(component, self._address)
        await asyncio.Event().wait()
        await server.stop()

    def _start_reader(self, *, once: bool) -> int:
        return _fork(lambda: asyncio.run(self._read(once=once)))

    async def _read(self, *, once: bool) -> None:
        client = _NotingClient(self._address, self._pushing[1])
        loop = JournalReaderLoop(self._journal, client, self._id_fields)
        await loop.run(asyncio.Event(), once=once)
        await client.close()


class _NotingClient(CellSinkClient):
    """Says over a pipe that it is about to push, so that the kill can meet the push."""

    def __init__(self, address: str, pipe: int) -> None:
        super().__init__(address, pb.JournalName(gateway=GATEWAY), None, None)
        self._pipe = pipe

    async def push(self, batch: pb.CellBatch) -> pb.ReaderState:
        """Push as the client does."""
        os.write(self._pipe, b"p")
        return await super().push(batch)


def _without_outcomes(counts: CellCounts) -> CellCounts:
    return CellCounts(
        {name: column for name, column in counts.columns.items() if not name.startswith("outcome:")}
    )


def _all_equal(expected: dict[CellKey, CellCounts], counted: dict[CellKey, CellCounts]) -> bool:
    return all(
        expected.get(key, CellCounts()) == counted.get(key, CellCounts())
        for key in {*expected, *counted}
    )


def _fork(work: Callable[[], None]) -> int:
    """Run *work* in a child process and return its id."""
    pid = os.fork()
    if pid:
        return pid
    try:
        work()
        os._exit(0)
    except BaseException:  # noqa: BLE001  the child must never go on as this process
        os._exit(1)


def _kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def _wait(pid: int) -> None:
    """Return when the process has ended well. AssertionError otherwise, or after FINISH_S_MAX."""
    until_s = time.monotonic() + FINISH_S_MAX
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            assert status == 0, f"the reader ended with status {status}"
            return
        if time.monotonic() > until_s:
            _kill(pid)
            raise AssertionError(f"the reader did not finish within {FINISH_S_MAX} s")
        time.sleep(0.01)  # there is no wait with a time limit for a process id


def journal_bins() -> VersionBins:
    """Return the bins of version 7 of churn, which the journal is about."""
    edges = np.array([-1.0, -0.5, 0.0, 0.5, 1.0], dtype=np.float32)
    features = tuple(FeatureBins(f"usage:f{number}", edges) for number in range(WIDTH))
    output = OutputBins("churned", score_grid_edges(), probability=True)
    return VersionBins("churn", "7", DIGEST8, (output,), features)


def journal_records(
    number: int, calls: int = 8, width: int = WIDTH
) -> tuple[ServedBatch, list[OutcomeRecord]]:
    """Return the served batch with this number, and 0 to 2 equal reports about its first call."""
    rng = np.random.default_rng(number)
    at_ms = START_MS + number % 3 * 3_600_000
    key_hash = rng.integers(0, 2**63, calls).astype("<u8")
    scores = rng.random(calls).astype("<f4")
    ids = [
        write_prediction_id(
            KEY,
            role=1,
            slot=0,
            sequence=calls * number + call,
            model_hash=hash_model_name("churn"),
            version=DIGEST8.to_bytes(8, "little"),
            revision=1,
            at_ms=at_ms,
            key_hash=int(key_hash[call]),
            boot_id=1,
            rows=1,
            score=float(scores[call]),
            rule=RULE,
        )
        for call in range(calls)
    ]
    # Some inputs are missing.
    vectors = rng.standard_normal((calls, width)).astype("<f4")
    vectors[rng.random((calls, width)) < 0.05] = np.nan
    # The batch as a gateway writes it.
    batch = ServedBatch(
        model="churn",
        version="7",
        version_digest=DIGEST8,
        at_unix_ns=np.full(calls, at_ms * 1_000_000, "<i8").tobytes(),
        role=bytes([1]) * calls,
        row_count=np.ones(calls, "<u4").tobytes(),
        prediction_ids=b"".join(ids),
        key_hash=key_hash.tobytes(),
        row_flags=rng.integers(0, 4, calls).astype("<u4").tobytes(),
        width=width,
        vectors=vectors.tobytes(),
        outputs=1,
        scores=scores.tobytes(),
        entity_ids=[f"customer-{calls * number + call}" for call in range(calls)],
    )
    # The report about its first call.
    outcome = OutcomeRecord(
        prediction_id=ids[0],
        name="churned",
        value=float(number % 2),
        received_unix_ns=(at_ms + 1) * 1_000_000,
    )
    return batch, [outcome] * (number % 3)


def main() -> None:
    """Run as a program, which has used no gRPC before its forks, and print the result as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.monitoring.killed_readers")
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--records", type=int, default=5, help="written between two kills")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory(prefix="turnout-kills-") as folder:
        harness = KillHarness(Path(folder), free_tcp_port(), options.seed)
        print(json.dumps(asdict(harness.run(options.kills, options.records))))


if __name__ == "__main__":
    main()
