"""Measures what it costs a call that the gateway finds out whose token it has.

    python -m benchmarks.micro.identity_cost        # the last line of make bench

The native server is measured by ingress/benches/identity.rs, the grpcio server by the directory
that it asks for each call. Both know a thousand callers. The command prints nanoseconds of one
call in the fastest round, and ends with 1 when one of them is above 1,000. A JWT costs the same
once it is verified.
"""

import hashlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.load.rust_generator import cargo_works
from gateway.callers.directory import CallerDirectory
from host.clock import SystemClock

REPOSITORY = Path(__file__).parents[2]
CALLERS, CALLS, ROUNDS = 1_000, 2_000, 99
COST_NS_MAX = 1_000.0


def token(number: int) -> str:
    """Return the token of one caller."""
    return f"{number:064x}"


def directory_cost_ns() -> float:
    """Return what the directory of the grpcio server takes for a call of one of two callers."""
    tables = [
        f'[[callers]]\nname = "c{number}"\n'
        f'token_sha256 = ["{hashlib.sha256(token(number).encode()).hexdigest()}"]\n'
        for number in range(CALLERS)
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "callers.toml"
        path.write_text("".join(tables))
        directory = CallerDirectory(path, SystemClock(), lambda *_: None)
    headers = [[f"Bearer {token(number)}"] for number in (3, 700)]
    rounds = []
    for _ in range(ROUNDS):
        began = time.perf_counter_ns()
        for call in range(CALLS):
            directory.identify(headers[call % 2], ())
        rounds.append((time.perf_counter_ns() - began) / CALLS)
    # Whatever else runs on the machine only makes a round slower.
    return min(rounds)


def native_cost_ns() -> dict[str, float]:
    """Return the costs at the native server by case; empty without cargo.

    Raises CalledProcessError when the benchmark does not build.
    """
    if not cargo_works():
        return {}
    subprocess.run(["make", "--silent", "ingress/Cargo.lock"], cwd=REPOSITORY, check=True)
    done = subprocess.run(
        [
            *("cargo", "bench", "--locked", "--quiet", "--no-default-features"),
            *("--bench", "identity", "--target-dir", str(REPOSITORY / "target" / "ingress")),
        ],
        cwd=REPOSITORY / "ingress",
        stdout=subprocess.PIPE,
        check=True,
    )
    costs: dict[str, float] = json.loads(done.stdout)
    return costs


def main() -> int:
    """Measure and print; return the exit code."""
    costs = {f"native, {case} token": cost for case, cost in native_cost_ns().items()}
    costs["grpcio"] = directory_cost_ns()
    line = "; ".join(f"{name}: {cost:,.0f} ns" for name, cost in costs.items())
    kept = max(costs.values()) <= COST_NS_MAX
    sys.stdout.write(f"identity of a call: {line} (at most {COST_NS_MAX:,.0f}: {kept})\n")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
