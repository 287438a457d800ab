"""The journal's reader: rows a second of a core, what kills lose, and what a gateway pays for it.

python -m benchmarks.monitoring --only fold
python -m benchmarks.monitoring.fold --quick            # without the table
"""

import asyncio
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.monitoring.bars import MeasuredBar, MonitoringOptions
from benchmarks.monitoring.killed_readers import KEY, journal_bins, journal_records
from host.processes import cpu_seconds
from journal.segment import JournalKind
from journal.tape import SegmentWriter
from monitoring.api.decision_policy import day_of_id
from monitoring.cells.decision_rows import SAMPLE_ALL, sample_decisions
from monitoring.decisions.decision_store import DecisionStore
from monitoring.fold.id_fields import IdFields
from monitoring.fold.journal_fold import JournalFold
from monitoring.store.database import MonitoringDatabase
from monitoring.store.monitoring_store import MonitoringStore
from protos import monitoring_pb2 as pb

ROWS_S_MIN = 500_000
CALLS_A_BATCH = 64
"""Calls in one journal record. A busy gateway has more in each."""
KILLS = 500
KILL_S_MAX = 1_500
LOOKUP_MS_MAX = 30.0
LOOKUP_ROWS = 10_000_000
LOOKUPS = 200
GATEWAY_SHARE_MAX = 1.05
TURN_S = 4.0
NAME = pb.JournalName(gateway="gateway-1")


def main(options: MonitoringOptions) -> Sequence[MeasuredBar]:
    """Measure all of it; `quick` measures little of each, and states no bar that it cannot."""
    quick = options.quick
    with tempfile.TemporaryDirectory(prefix="turnout-fold-") as folder:
        bars = [measure_rate(Path(folder) / "rate", 100_000 if quick else 1_000_000)]
        bars.append(measure_kills(options.rounds or (20 if quick else KILLS), options.seed))
        bars.append(measure_lookup(Path(folder) / "lookup", 40_000 if quick else LOOKUP_ROWS))
        bars.append(asyncio.run(measure_gateway(Path(folder) / "system", 2 if quick else 8)))
    return bars


def measure_rate(folder: Path, rows: int) -> MeasuredBar:
    """Count a journal of *rows* rows with 20 inputs, from the files to the message."""
    # Write the journal. The records repeat, since making them takes longer than counting them.
    writer = SegmentWriter(folder, JournalKind.SERVED, 64 << 20, time.time_ns, 1)
    writer.roll()
    payloads = [
        journal_records(number, CALLS_A_BATCH)[0].SerializeToString() for number in range(64)
    ]
    for _ in range(rows // (64 * CALLS_A_BATCH) + 1):
        writer.write_records(payloads)
    writer.close()
    # Fold it, by processor time: other work on the machine does not count.
    bins = journal_bins()
    fold = JournalFold(folder, NAME, pb.ReaderState(), IdFields(lambda: KEY))
    counted, message_bytes = 0, 0
    started_s = time.process_time()
    while content := fold.read():
        if not content.rows:
            break
        batch = fold.batch_of(content, dict.fromkeys(content.versions, bins))
        message_bytes += len(batch.SerializeToString())
        counted += content.rows
        fold.note_stored(pb.ReaderState(sequence=batch.sequence))
    rate = counted / (time.process_time() - started_s)
    return MeasuredBar(
        subject=f"rows/s of a core, 20 inputs, {CALLS_A_BATCH} rows a record",
        measured=f"{rate:,.0f}",
        promised=f">= {ROWS_S_MIN:,}",
        passed=rate >= ROWS_S_MIN,
        numbers={"rows_s": rate, "rows": counted, "message_bytes": message_bytes},
    )


def measure_kills(kills: int, seed: int) -> MeasuredBar:
    """Kill readers and monitoring in a program of its own, which forks."""
    program = [sys.executable, "-m", "benchmarks.monitoring.killed_readers"]
    done = subprocess.run(
        [*program, "--kills", str(kills), "--seed", str(seed)],
        capture_output=True,
        check=True,
        text=True,
        timeout=KILL_S_MAX,
    )
    run = json.loads(done.stdout.splitlines()[-1])
    lost = run["rows"] - run["counted_rows"]
    return MeasuredBar(
        subject=f"{kills} kills of reader ({run['reader_kills']}) and monitoring",
        measured=f"{lost} of {run['rows']:,} rows lost or doubled, {run['batches']} batches, "
        f"cells {'equal' if run['equal'] else 'differ'}",
        promised="0, equal",
        passed=run["equal"] and lost == 0 and run["outcomes"] == run["counted_outcomes"],
        numbers=run,
    )


def measure_lookup(folder: Path, rows: int) -> MeasuredBar:
    """Look decisions up by their prediction id, among *rows* rows of one model and day."""
    # Store blocks of random ids, and let them become files.
    folder.mkdir()
    database = MonitoringDatabase(f"sqlite:///{folder}/monitoring.sqlite")
    decisions = DecisionStore(folder / "decisions", database, day_of_id)
    store = MonitoringStore(database, lambda: 0, decisions.add_batch)
    template, _ = journal_records(0, 20_000)
    ids: list[bytes] = []
    for sequence in range(1, rows // 20_000 + 1):
        content = np.frombuffer(template.prediction_ids, np.uint8).reshape(-1, 64).copy()
        content[:, 40:] = np.frombuffer(
            secrets.token_bytes(content[:, 40:].size), np.uint8
        ).reshape(-1, 24)
        template.prediction_ids = content.tobytes()
        ids.append(template.prediction_ids[: 64 * 10])
        holdout = np.zeros(20_000, dtype=np.bool_)
        blocks = list(sample_decisions(template, holdout, SAMPLE_ALL))
        store.push(pb.CellBatch(journal=NAME, sequence=sequence, decisions=blocks))
        if sequence % 25 == 0:
            decisions.compact()
    decisions.compact()
    # Look some up. The first look-up reads the footers of the files.
    known = b"".join(ids)
    times_ms = []
    for number in range(LOOKUPS):
        at = 64 * (number * 7919 % (len(known) // 64))
        started_s = time.perf_counter()
        assert decisions.find_decisions(known[at : at + 64])
        times_ms.append((time.perf_counter() - started_s) * 1e3)
    store.close()
    p50, p99 = np.quantile(times_ms[1:], (0.5, 0.99)).tolist()
    return MeasuredBar(
        subject=f"look-up by prediction id in {rows:,} rows",
        measured=f"p50 {p50:.1f} ms, p99 {p99:.1f} ms, first {times_ms[0]:.0f} ms",
        promised=f"p50 <= {LOOKUP_MS_MAX:g} ms",
        passed=p50 <= LOOKUP_MS_MAX,
        numbers={"p50_ms": p50, "p99_ms": p99, "first_ms": times_ms[0], "rows": rows},
    )


async def measure_gateway(folder: Path, turns: int) -> MeasuredBar:
    """Compare the CPU a call of gateway and reader with that of the gateway alone, by turns."""
    from tests.walks.system.test_parts_gone import INPUTS, MODEL, system_without_restart
    from turnout_client import PredictClient

    # A real system, whose reader is stopped and goes on by turns.
    with_reader, without, reader_share = [], [], []
    async with (
        system_without_restart(folder) as (system, parts),
        PredictClient(system.addresses.gateway) as client,
    ):
        workers = [row["pid"] for row in system.workers() if row["state"] == "serving"]
        reader = parts["journal-reader"].pid

        async def turn() -> tuple[float, float]:
            """Return CPU seconds a call of the gateway's workers, and of the reader."""
            before, reader_before, calls = sum(map(cpu_seconds, workers)), cpu_seconds(reader), 0
            end_s = time.monotonic() + TURN_S
            while time.monotonic() < end_s:
                await asyncio.gather(
                    *(
                        client.predict(MODEL, keys=f"S{number}", inputs=INPUTS, timeout_s=5)
                        for number in range(64)
                    )
                )
                calls += 64
            gateway = (sum(map(cpu_seconds, workers)) - before) / calls
            return gateway, (cpu_seconds(reader) - reader_before) / calls

        # The first turn warms both up.
        await turn()
        for _ in range(turns):
            own, of_reader = await turn()
            with_reader.append(own + of_reader)
            reader_share.append(of_reader / own)
            os.kill(reader, signal.SIGSTOP)
            without.append((await turn())[0])
            os.kill(reader, signal.SIGCONT)
    # Medians, because other work on the machine disturbs single turns.
    ratio = median(with_reader) / median(without)
    return MeasuredBar(
        subject="CPU a call: gateway and reader / gateway without it, by turns",
        measured=f"{ratio:.3f}; the reader takes {median(reader_share):.1%} of the gateway's CPU",
        promised=f"<= {GATEWAY_SHARE_MAX:g}",
        passed=ratio <= GATEWAY_SHARE_MAX,
        numbers={
            "ratio": ratio,
            "with_us": [value * 1e6 for value in with_reader],
            "without_us": [value * 1e6 for value in without],
            "reader_share": reader_share,
        },
    )


if __name__ == "__main__":
    for bar in main(MonitoringOptions(quick="--quick" in sys.argv)):
        print(f"{bar.subject}: {bar.measured} ({bar.promised})", flush=True)
