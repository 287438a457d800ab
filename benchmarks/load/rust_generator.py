"""Builds and runs the load generator in Rust (benchmarks/loadgen).

`python -m benchmarks.load.rust_generator` builds it and prints the path of the program.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
CRATE = REPOSITORY / "benchmarks" / "loadgen"
BINARY = CRATE / "target" / "release" / "turnout-loadgen"
TIMEOUT_MS = 10_000


def cargo_works() -> bool:
    """Return whether cargo is installed and has a toolchain."""
    if shutil.which("cargo") is None:
        return False
    return subprocess.run(["cargo", "--version"], capture_output=True, check=False).returncode == 0


def build_generator() -> Path | None:
    """Build the load generator from the crates in crates.lock, and return the path of the program.

    Returns None without cargo. Raises RuntimeError with the compiler's output if the build fails.
    """
    if not cargo_works():
        return None
    lock_file = str((CRATE / "Cargo.lock").relative_to(REPOSITORY))
    for command, folder in (
        (["make", "--silent", lock_file], REPOSITORY),
        (["cargo", "build", "--locked", "--release", "--quiet"], CRATE),
    ):
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"the load generator does not build:\n{done.stderr[-4000:]}")
    return BINARY


def generator_command(target: str, bodies: Path, options: Sequence[object]) -> list[str]:
    """Return the command that sends the messages in *bodies* to *target* and prints JSON.

    bodies   a file of PredictRequests, each after its length (4 bytes, little-endian).
    options  more options of the program, as its `--help` lists them.

    No status counts as a failure for the exit code: `parse_figures` returns how many calls failed.
    """
    fixed = ["--bodies", bodies, "--timeout-ms", TIMEOUT_MS, "--allow", "all", "--json"]
    return [str(word) for word in (BINARY, target, *fixed, *options)]


def parse_figures(output: str) -> dict[str, Any]:
    """Return the figures of a run from the JSON that it printed.

    The names are those of benchmarks.load.generator.
    Raises ConnectionError if no call was answered.
    """
    report: dict[str, Any] = json.loads(output)
    latency_ms, statuses = report["latency_ms"], report["statuses"]
    if latency_ms is None:
        raise ConnectionError(f"no call was answered in {report['seconds']} s: {statuses}")
    return {
        "seconds": report["seconds"],
        "calls": statuses["OK"],
        "failed": sum(statuses.values()) - statuses["OK"],
        "refused_streams": report["transparent_retries"],
        "calls_per_s": report["calls_per_s"],
        "p50_ms": latency_ms["p50"],
        "p99_ms": latency_ms["p99"],
        "max_ms": latency_ms["max"],
        "generator_us_per_call": report["generator_us_per_call"],
        "statuses": statuses,
        "first_messages": report["first_messages"],
        "rows_flagged": report["rows_flagged"],
    }


@contextmanager
def null_server(command_prefix: Sequence[str] = ()) -> Iterator[tuple[str, int]]:
    """Run the server that answers every call with the same bytes.

    command_prefix  words before the command, for example `["taskset", "-c", "0"]`.

    Yields the server's address as host:port, and its process id.
    """
    program = subprocess.Popen(
        [*command_prefix, str(BINARY), "null"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert program.stdout is not None
        yield program.stdout.readline().strip(), program.pid
    finally:
        program.kill()
        program.wait()
        if program.stdout is not None:
            program.stdout.close()


def main() -> int:
    """Build the load generator and print its path. Returns 1 without cargo."""
    found = build_generator()
    if found is None:
        print("cargo is not there; rustup.rs installs it", file=sys.stderr)
        return 1
    print(found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
