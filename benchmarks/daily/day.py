"""Measures the work of monitoring for one day of thirty models with 10 million predictions each.

    python -m benchmarks.monitoring --only day

Readers push counts every five minutes: two roles, with and without the holdout, four segments, 20
inputs. 200,000 kept rows a model become Parquet files. Then the day is looked at, a Sunday with its
week, and hours that are 35 days old are rolled up. The store has five weeks of counts, outcomes and
person-looks, and the rows of six weeks.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.daily.day_history import write_history
from benchmarks.daily.day_versions import day_versions
from benchmarks.daily.day_work import COMPACT, LOOK, PUSH, ROLL_UP
from benchmarks.monitoring.bars import MeasuredBar, MonitoringOptions
from monitoring.api.component import COMPACT_S

MODELS = 30
ROWS_A_DAY = 10_000_000
KEYS_A_DAY = 200_000
QUICK_MODELS = 2
QUICK_KEYS_A_DAY = 3_000
TURNS = round(86_400 / COMPACT_S)
"""Times a day at which files are written."""
QUICK_TURNS = 24
SUNDAY = 20_800
"""The Unix day that is measured."""
DAYS_WORK = (COMPACT, LOOK, ROLL_UP)
"""What the bar is about. Pushes come all day long, and their cost is shown beside it."""
MINUTES_MAX = 10.0
MEMORY_MB_MAX = 2_048.0


def main(options: MonitoringOptions) -> list[MeasuredBar]:
    """Return the bars of time and memory, and what each kind of work took."""
    # What is asked for.
    models = options.rounds or (QUICK_MODELS if options.quick else MODELS)
    keys, turns = KEYS_A_DAY, TURNS
    if options.quick:
        keys, turns = QUICK_KEYS_A_DAY, QUICK_TURNS
    # The history is written here, and the work is done in a process of its own.
    with tempfile.TemporaryDirectory(prefix="turnout-day-") as folder:
        write_history(Path(folder), day_versions(models), SUNDAY, ROWS_A_DAY, keys)
        measured = _work_in_child(Path(folder), models, keys, turns)
    subject = f"{models} models, {ROWS_A_DAY:,} predictions and {keys:,} kept rows each"
    # A small day shows that the work is done; its time says nothing about a whole one.
    whole = models >= MODELS and keys >= KEYS_A_DAY
    minutes = sum(measured["wall_s"][kind] for kind in DAYS_WORK) / 60
    bars = [
        MeasuredBar(
            subject=f"{subject}: time",
            measured=f"{minutes:.1f} minutes",
            promised=f"<= {MINUTES_MAX:g} minutes",
            passed=minutes <= MINUTES_MAX if whole else None,
            numbers=measured,
        ),
        MeasuredBar(
            subject=f"{subject}: most memory of the process",
            measured=f"{measured['peak_mb']:,.0f} MB",
            promised=f"<= {MEMORY_MB_MAX:,.0f} MB",
            passed=measured["peak_mb"] <= MEMORY_MB_MAX if whole else None,
            numbers={"peak_mb": measured["peak_mb"]},
        ),
    ]
    for kind in (*DAYS_WORK, PUSH):
        wall, cpu = measured["wall_s"][kind], measured["cpu_s"][kind]
        bars.append(
            MeasuredBar(
                subject=kind,
                measured=f"{wall:.1f} s, {cpu:.1f} s of processor time",
                numbers={"wall_s": wall, "cpu_s": cpu},
            )
        )
    return bars


def _work_in_child(folder: Path, models: int, keys: int, turns: int) -> dict[str, Any]:
    """Do the day's work in a process of its own, so that its memory is its own; return its cost."""
    numbers = [SUNDAY, models, ROWS_A_DAY, keys, turns]
    command = [sys.executable, "-m", "benchmarks.daily.day_work", str(folder)]
    done = subprocess.run(
        [*command, *map(str, numbers)], check=True, stdout=subprocess.PIPE, text=True
    )
    result: dict[str, Any] = json.loads(done.stdout)
    return result
