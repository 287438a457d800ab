"""The load generator in Rust (benchmarks/loadgen), where cargo is there to build it.

`python -m benchmarks.load.rust_generator` builds it and prints where it is.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CRATE = Path(__file__).parents[1] / "loadgen"
BINARY = CRATE / "target" / "release" / "turnout-loadgen"
TIMEOUT_MS = 10_000


def cargo_works() -> bool:
    """Whether there is a cargo, and a toolchain behind it."""
    if shutil.which("cargo") is None:
        return False
    return subprocess.run(["cargo", "--version"], capture_output=True, check=False).returncode == 0


def build_generator() -> Path | None:
    """Build the generator, seconds where nothing changed; None where there is no cargo."""
    if not cargo_works():
        return None
    done = subprocess.run(
        ["cargo", "build", "--release", "--quiet"],
        cwd=CRATE,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"the load generator does not build:\n{done.stderr[-4000:]}")
    return BINARY


def generator_command(target: str, bodies: Path, options: Sequence[object]) -> list[str]:
    """Return the command that asks *target* with the messages in *bodies* and prints JSON."""
    fixed = ["--bodies", bodies, "--timeout-ms", TIMEOUT_MS, "--allow", "all", "--json", "--quiet"]
    return [str(word) for word in (BINARY, target, *fixed, *options)]


def parse_figures(output: str) -> dict[str, Any]:
    """Return a run's figures by the names benchmarks.load.generator gives them, and some more."""
    told: dict[str, Any] = json.loads(output)
    times = told["latency_ms"]
    if times is None:
        raise ConnectionError(f"no call was answered in {told['seconds']} s: {told['statuses']}")
    return {
        "seconds": told["seconds"],
        "calls": told["statuses"]["OK"],
        "failed": told["failed"] or sum(told["statuses"].values()) - told["statuses"]["OK"],
        "refused_streams": told["sent_again"],
        "calls_per_s": told["calls_per_s"],
        "p50_ms": times["p50"],
        "p99_ms": times["p99"],
        "max_ms": times["max"],
        "generator_us_per_call": told["generator_us_per_call"],
        "statuses": told["statuses"],
        "first_words": told["first_words"],
        "rows_flagged": told["rows_flagged"],
    }


@contextmanager
def null_server(command_prefix: Sequence[str] = ()) -> Iterator[tuple[str, int]]:
    """Run the server of constant bytes; its address and process id.

    before  words before the command, as taskset's.
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
    """Build it and say where it is; 1 where it cannot be."""
    found = build_generator()
    if found is None:
        print("cargo is not there; rustup.rs installs it", file=sys.stderr)
        return 1
    print(found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
