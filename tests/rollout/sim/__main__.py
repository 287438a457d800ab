"""Play seeds by hand: python -m tests.rollout.sim --seed 17 --count 1."""

import argparse
import logging
import sys
import time

from tests.rollout.sim.promises import broken_promises
from tests.rollout.sim.simulated_world import simulate_world


def main() -> None:
    """Play, print every write of a lone seed, and every promise broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=1)
    asked = parser.parse_args()
    logging.disable(logging.CRITICAL)
    failed, began = 0, time.perf_counter()
    for seed in range(asked.seed, asked.seed + asked.count):
        told = simulate_world(seed)
        wrong = broken_promises(told)
        failed += bool(wrong)
        if wrong or asked.count == 1:
            assert told.registry is not None
            lines = [f"seed {seed}, {told.kind}, {told.policy}, {told.duration_s:.1f} s", *wrong]
            lines += told.events
            lines += [
                f"{one.at_s:6.2f} s  revision {one.deployment.revision} (lease {one.lease_token}): "
                f"{one.deployment.production} {one.deployment.canary}:{one.deployment.canary_bp} "
                f"{one.deployment.why}"
                for one in told.registry.writes
            ]
            sys.stdout.write("\n  ".join(lines) + "\n")
    took = time.perf_counter() - began
    sys.stdout.write(f"{failed} of {asked.count} worlds broke a promise; {took:.1f} s\n")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
