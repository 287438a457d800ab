"""Measures each promise of monitoring, with fixed seeds.

    python -m benchmarks.monitoring                        # every benchmark, in full
    python -m benchmarks.monitoring --only quiet --json quiet.json
    python -m benchmarks.monitoring --only finds --rounds 100

Each benchmark is a module beside this one. Its `main` takes MonitoringOptions and returns its bars.
It is loaded when it is asked for, since each needs other libraries. Exit code 1: a bar was missed.
Exit code 2: the command line asks for what does not exist.
"""

import argparse
import importlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console

from benchmarks.monitoring.bars import MeasuredBar, MonitoringOptions, bars_as_table

BENCHMARKS = {
    "quiet": "false alarms in 1,000 model-quarters without a relevant change",
    "finds": "how soon a change is found",
    "estimates": "accuracy without labels, intervals of uplift, and false verdicts of fairness",
    "fold": "rows a second of the journal's reader, and what kills lose",
    "day": "one day's work of thirty models",
    "attribution": "outcomes by entity that find their predictions",
    "explain": "time and exactness of explanations",
    "acts": "from a finding to traffic that moved",
}
"""Name -> what is measured. Its module is in MODULES."""

MODULES = {
    "quiet": "benchmarks.monitoring.quiet",
    "finds": "benchmarks.monitoring.finds",
    "estimates": "benchmarks.monitoring.estimates",
    "fold": "benchmarks.monitoring.fold",
    "day": "benchmarks.daily.day",
    "attribution": "benchmarks.daily.attribution",
    "explain": "benchmarks.monitoring.explain",
    "acts": "benchmarks.monitoring.acts",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks that were asked for; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.monitoring",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", choices=BENCHMARKS, help="one benchmark; without it, all")
    parser.add_argument("--rounds", type=int, help="worlds, kills or repetitions")
    parser.add_argument("--quick", action="store_true", help="a small version, for tests")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write every number there")
    # What was asked for, and whether it can be.
    asked = parser.parse_args(arguments)
    if asked.rounds is not None and asked.rounds < 1:
        parser.error(f"--rounds {asked.rounds}: ask for one round or more")
    names = [asked.only] if asked.only else [name for name in BENCHMARKS if _exists(name)]
    if asked.only and not _exists(asked.only):
        parser.error(
            f"--only {asked.only}: this checkout has no benchmarks/monitoring/{asked.only}.py"
        )
    # Run each, and show its bars as soon as they are there.
    options = MonitoringOptions(rounds=asked.rounds, quick=asked.quick, seed=asked.seed)
    console = Console()
    results: dict[str, list[MeasuredBar]] = {}
    for name in names:
        module = importlib.import_module(MODULES[name])
        results[name] = list(module.main(options))
        console.print(bars_as_table(f"{name}: {BENCHMARKS[name]}", results[name]), "")
    if asked.json is not None:
        content = {name: [asdict(bar) for bar in bars] for name, bars in results.items()}
        asked.json.write_text(json.dumps(content, indent=1), encoding="utf-8")
    missed = any(bar.passed is False for bars in results.values() for bar in bars)
    return 1 if missed else 0


def _exists(name: str) -> bool:
    return find_spec(MODULES[name]) is not None


if __name__ == "__main__":
    sys.exit(main())
