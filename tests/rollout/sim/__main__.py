"""Plays worlds by their seeds: python -m tests.rollout.sim --seed 17 --count 1."""

import argparse
import logging
import sys
import time

from tests.rollout.sim.promises import broken_promises
from tests.rollout.sim.simulated_registry import DeploymentWrite
from tests.rollout.sim.simulated_world import simulate_world


def main() -> None:
    """Play the seeds. Print every broken promise, and every write if there is one seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=1)
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    failed, began = 0, time.perf_counter()
    for seed in range(arguments.seed, arguments.seed + arguments.count):
        result = simulate_world(seed)
        wrong = broken_promises(result)
        failed += bool(wrong)
        if wrong or arguments.count == 1:
            assert result.registry is not None
            lines = [
                f"seed {seed}, {result.kind}, {result.policy}, {result.duration_s:.1f} s",
                *wrong,
            ]
            lines += result.events
            lines += [_write_text(write) for write in result.registry.writes]
            sys.stdout.write("\n  ".join(lines) + "\n")
    took = time.perf_counter() - began
    sys.stdout.write(f"{failed} of {arguments.count} worlds broke a promise; {took:.1f} s\n")
    sys.exit(failed > 0)


def _write_text(write: DeploymentWrite) -> str:
    deployment = write.deployment
    return (
        f"{write.at_s:6.2f} s  revision {deployment.revision} (lease {write.lease_token}): "
        f"{deployment.production} {deployment.canary}:{deployment.canary_bp} {deployment.why}"
    )


if __name__ == "__main__":
    main()
