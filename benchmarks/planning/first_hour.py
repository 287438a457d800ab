"""Measures how long a file that Turnout has never seen takes to its first prediction.

    python -m benchmarks.planning.first_hour --rows 100000

It writes a Parquet file of 30 columns to a new folder outside of the repository: numbers, shares,
categories in several spellings, booleans, dates as dates and as texts, a column without a value,
ids with leading zeros, and names with blanks, quotes and capitals. The same seed gives the same
file. Then it runs the commands that a user types, prints the seconds of each, and compares the
prediction with the score of the offline row, bit for bit. Exit code 1: they differ, or it took
longer than --seconds.
"""

import argparse
import asyncio
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from features.offline import OfflineStore, Spine
from features.storage.database import open_duckdb
from registry.bundle import verify_bundle
from registry.client import RegistryClient
from registry.scoring import load_session
from turnout.processes.system_file import read_system_file

TURNOUT = (sys.executable, "-m", "turnout")
SECONDS_MAX = 90.0
ENTITY, LABEL = "Subscriber No", "Left?"

NUMBERS = tuple(f"hash(i * 31 + {k} + {{seed}}) % 100_000 / {10**k}" for k in range(5))
COLUMNS = {
    ENTITY: "lpad(i::VARCHAR, 9, '0')",
    "Snapshot At": "now()::TIMESTAMP - INTERVAL 1 DAY",
    LABEL: "CASE WHEN score + (hash(i + 5) % 1_000) / 1_000.0 > 1.3 THEN 'Yes' ELSE 'No' END",
    # Numbers of several types, some with gaps, of which the first two say something.
    "tenure (months)": "(score * 70)::INT",
    'Bill "gross"': "CASE WHEN hash(i + 3) % 9 = 0 THEN NULL ELSE 90 - 60 * score END",
    **{f"Amount {k}": f"{sql}" for k, sql in enumerate(NUMBERS)},
    "balance": "(hash(i + 11) % 20_000)::INT - 10_000",
    "share_of_data": "(hash(i + 12) % 1_000) / 1_000.0",
    "CallsIn": "(hash(i + 13) % 40)::SMALLINT",
    "CallsOut": "(hash(i + 14) % 40)::BIGINT",
    "roaming fee": "((hash(i + 15) % 9_000) / 100.0)::DECIMAL(9, 2)",
    # Texts: categories, other spellings of the same, many different ones, and dates as texts.
    "Plan": "['Prepaid', 'postpaid ', 'PREPAID', 'family'][1 + (hash(i + 16) % 4)::INT]",
    "region": "'region ' || (hash(i + 17) % 16)",
    "it's handset": "['A-1', 'B\"2', 'C\\3'][1 + (hash(i + 18) % 3)::INT]",
    "segment": "CASE WHEN hash(i + 19) % 5 > 0 THEN 'S' || (hash(i + 20) % 5) END",
    "note": "'note ' || hash(i + 21)",
    "last bill on": "(DATE '2026-01-01' + (hash(i + 22) % 300)::INT)::VARCHAR",
    "order": "(hash(i + 23) % 12)::VARCHAR",
    # Truth values, dates, an empty column, a constant and another id.
    "IS_ACTIVE": "hash(i + 24) % 2 = 0",
    "has_roaming": "CASE WHEN hash(i + 25) % 7 > 0 THEN hash(i + 26) % 3 = 0 END",
    "signed up": "DATE '2019-01-01' + (hash(i + 27) % 2_000)::INT",
    "empty": "NULL::VARCHAR",
    "country": "'XX'",
    "household_id": "'H' || lpad(hash(i + 28)::VARCHAR, 20, '0')",
    "RECHARGES_30D": "(hash(i + 29) % 15)::UTINYINT",
    "avg gb / day": "['NaN'::FLOAT, hash(i + 30) % 100 / 10, 0, 1.5][1 + (hash(i + 31) % 4)::INT]",
}
"""Column -> SQL of its value in row i; `score` is a number from 0 to 1 that says who leaves."""


def make_table(path: Path, rows: int, seed: int) -> None:
    """Write the file."""
    named = ", ".join(
        f'{sql.replace("{seed}", str(seed))} AS "{name.replace(chr(34), chr(34) * 2)}"'
        for name, sql in COLUMNS.items()
    )
    score = f"(hash(i * 7 + {seed}) % 1_000) / 1_000.0"
    with open_duckdb() as connection:
        connection.execute(
            f"COPY (SELECT {named} FROM (SELECT i, {score} AS score FROM range({rows}) r(i))) "
            f"TO '{path}' (FORMAT parquet)"
        ).fetchall()


def run_command(folder: Path, *line: str) -> dict[str, Any]:
    """Run a command of Turnout, print its seconds, and return its JSON value."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    command = [*TURNOUT, *line, "--json", "--as", "dana"]
    finished = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, check=True)
    seconds, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"turnout {line[0]:6} {seconds:6.1f} s, {cpu:5.1f} s CPU of this command")
    value: dict[str, Any] = json.loads(finished.stdout)
    return value


def offline_score(folder: Path, model: str, label: str, keys: Sequence[str]) -> np.float32:
    """Return the score that a version gives the offline row of *keys* now.

    folder  that of the running system.
    """
    addresses = read_system_file(folder)
    assert addresses is not None, f"no system runs in {folder}"

    async def fetch() -> dict[str, bytes]:
        certificate = addresses.certificate
        async with RegistryClient(addresses.registry, "bench", certificate=certificate) as client:
            return await client.fetch(model, label)

    bundle = verify_bundle(asyncio.run(fetch()), trusted_key=None)
    contract = bundle.contract
    ids = {entity: [key] for entity, key in zip(contract.entities, keys, strict=True)}
    as_of_ms = np.array([time.time_ns() // 1_000_000])
    joined = OfflineStore(folder / "offline").training_set(
        contract, Spine(ids=ids, as_of_ms=as_of_ms)
    )
    score: np.float32 = load_session(bundle).run(joined.values)[0, 0]
    return score


def main() -> None:
    """Make the file, run the commands, and compare the scores."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=SECONDS_MAX, help="the promise")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="turnout-bench-") as name:
        folder = Path(name)
        make_table(folder / "Subscribers 2026.parquet", options.rows, options.seed)
        print(f"{options.rows:,} rows of {len(COLUMNS)} columns")
        # What a user types: init, cd, try.
        began = time.monotonic()
        columns = ("--entity", ENTITY, "--time", "Snapshot At", "--label", LABEL)
        made = run_command(folder, "init", "shop", "--from", "Subscribers 2026.parquet", *columns)
        tried = run_command(folder / "shop", "try")
        seconds = time.monotonic() - began
        # The system that was started goes on running, so it is stopped here.
        try:
            score = np.float32(tried["prediction"]["scores"][0][0])
            system = folder / "shop" / ".turnout"
            offline = offline_score(system, tried["model"], tried["version"], tried["keys"])
        finally:
            os.kill(tried["started_pid"], signal.SIGTERM)
            _wait_for(tried["started_pid"])
    left_out = ", ".join(item["column"] for item in made["left_out"])
    print(f"left out: {left_out}")
    print(f"from the file to the prediction: {seconds:.1f} s; the promise is {options.seconds:g} s")
    print(f"online {score!r}, offline {offline!r}")
    sys.exit(0 if score == offline and seconds <= options.seconds else 1)


def _wait_for(pid: int) -> None:
    """Return when a process has ended, so that it writes nothing more into its folder."""
    give_up = time.monotonic() + 60.0
    while time.monotonic() < give_up:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)


if __name__ == "__main__":
    main()
