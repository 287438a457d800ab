"""Measures the CPU time of a controller with many gateways and many rollouts.

    python -m benchmarks.judging.fleet_cost --gateways 100 --models 30

Each gateway sends one batch a second with the windows of every model's production, canary and
shadow. Batches are parsed, received, closed, judged and saved as in production. The registry only
counts bytes, and gRPC's transport (one message a gateway and second) is not included. The command
prints the CPU seconds of one core for each second of traffic, by part, and the megabytes of one
round of checkpoints.
"""

import argparse
import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from statistics import median
from types import SimpleNamespace
from typing import Any

from protos import registry_pb2, window_pb2
from registry.types import Deployment, NotFoundError
from rollout.checkpoint.codec import to_state
from rollout.controller.controller import Controller
from rollout.lifecycle.clock import ClockReading
from rollout.lifecycle.deploy import RolloutSpec, deployment_at
from rollout.lifecycle.rollout import Rollout
from rollout.policy.policy import STANDARD
from rollout.policy.stages import Stage, StagePosition

NS = 1_000_000_000
START_UNIX_S = 1_700_000_000
POLICY = replace(STANDARD, name="fleet", canary=(replace(STANDARD.canary[0], bake_s=1e6),))
ARMS = (("ARM_PRODUCTION", "1", 0.95), ("ARM_CANARY", "2", 0.05), ("ARM_SHADOW", "3", 0.0))


@dataclass
class CountingRegistry:
    """A registry that knows the running rollouts, and counts the bytes of saved checkpoints."""

    states: dict[str, registry_pb2.Checkpoint] = field(default_factory=dict)
    deployments: dict[str, Deployment] = field(default_factory=dict)
    saved_bytes: int = 0

    async def list_models(self) -> list[Any]:
        """Return the models that have a deployment."""
        return [SimpleNamespace(model=model) for model in self.deployments]

    async def deployment(self, model: str) -> Deployment:
        """Return the deployment of *model*."""
        return self.deployments[model]

    async def save_checkpoint(self, checkpoint: registry_pb2.Checkpoint) -> None:
        """Add the bytes that the checkpoint has on the wire."""
        self.saved_bytes += len(checkpoint.SerializeToString())

    async def findings(self, after: int = 0) -> AsyncIterator[registry_pb2.Finding]:
        """Yield nothing: there are no findings."""
        del after
        return
        yield

    async def load_checkpoint(self, rollout_id: str) -> registry_pb2.Checkpoint:
        """Return the checkpoint with which a rollout began; NotFoundError for an unknown one."""
        if rollout_id not in self.states:
            raise NotFoundError(rollout_id)
        return self.states[rollout_id]


@dataclass
class FixedClock:
    """A clock that stands still until its `ns` is set."""

    ns: int = START_UNIX_S * NS

    def now(self) -> ClockReading:
        """Return `ns` as both the wall clock and the monotonic clock."""
        return ClockReading(self.ns, self.ns)


def registry_with_rollouts(models: int) -> CountingRegistry:
    """Return a registry with one rollout for each model, in the canary stage."""
    registry, now = CountingRegistry(), ClockReading(START_UNIX_S * NS, START_UNIX_S * NS)
    for number in range(models):
        spec = RolloutSpec(
            rollout_id=f"r{number}", model=f"m{number}", version="2", baseline="1", policy=POLICY,
            approval_id="a", split_salt=bytes(16),
        )  # fmt: skip
        rollout = Rollout(spec=spec, started_unix_ms=START_UNIX_S * 1_000)
        rollout.enter_position(StagePosition(Stage.CANARY), 1, now, "made")
        state = to_state(rollout).SerializeToString()
        registry.states[spec.rollout_id] = registry_pb2.Checkpoint(
            rollout_id=spec.rollout_id, sequence=1, state=state
        )
        bare = Deployment(model=spec.model, production="1", revision=1, shadows=(("3", 10_000),))
        registry.deployments[spec.model] = replace(
            deployment_at(rollout.position, bare, spec, "made"),
            rollout_id=spec.rollout_id,
            revision=1,
        )
    return registry


def gateway_second(gateway: int, models: int, second: int, calls: int, rng: random.Random) -> bytes:
    """Return the WindowBatch of one gateway and second, serialized."""
    source = window_pb2.Source(gateway=f"g{gateway}", slot=0, boot_id=7)
    batch = window_pb2.WindowBatch(
        source=source, sequence=second + 1, sent_unix_ns=(START_UNIX_S + second + 1) * NS
    )
    for model in range(models):
        for arm, version, share in ARMS:
            window = batch.windows.add(
                model=f"m{model}", version=version, arm=arm, revision=1,
                second=START_UNIX_S + second, sampled_of_65536=65_536, rows=calls,
            )  # fmt: skip
            window.calls.answered = calls
            # Each call has a key of its own; the arm sees its share of them.
            keys = [rng.getrandbits(64) for _ in range(calls) if rng.random() < share]
            bins = [rng.randrange(20) for _ in keys]
            latency_bins = [rng.randrange(150, 250) for _ in keys]
            if keys:
                window.records.add(
                    metric="METRIC_SCORE", key_hash=keys, bin=bins,
                    production_bin=bins if arm == "ARM_CANARY" else [],
                )  # fmt: skip
                window.records.add(
                    metric="METRIC_LATENCY",
                    key_hash=keys,
                    bin=latency_bins,
                    batch_calls=[3] * len(keys),
                )
    return batch.SerializeToString()


@contextmanager
def count_cpu(spent: Counter[str], part: str) -> Iterator[None]:
    """Add the CPU seconds of the block to *spent* under the name *part*."""
    began = time.process_time()
    yield
    spent[part] += time.process_time() - began


async def run_fleet(
    gateways: int, models: int, seconds: int, calls: int
) -> tuple[list[Counter[str]], int]:
    """Return CPU seconds by part of each second, and the bytes of the last round of checkpoints."""
    registry, clock, rng = registry_with_rollouts(models), FixedClock(), random.Random(1)
    controller = Controller(registry, clock, {POLICY.name: POLICY})  # type: ignore[arg-type]
    await controller.start_leading(1)
    clock.ns += 4 * NS
    by_second, saved = [], 0
    for second in range(5, 5 + seconds):
        batches = [
            gateway_second(gateway, models, second, calls, rng) for gateway in range(gateways)
        ]
        spent: Counter[str] = Counter()
        clock.ns = (START_UNIX_S + second + 1) * NS
        with count_cpu(spent, "received"):
            for batch in batches:
                controller.receive(window_pb2.WindowBatch.FromString(batch))
        clock.ns += NS * 6 // 10
        with count_cpu(spent, "judged"):
            controller.act()
        saved = registry.saved_bytes
        with count_cpu(spent, "saved once"):
            await controller.save()
        saved = registry.saved_bytes - saved
        by_second.append(spent)
    return by_second, saved


def main() -> None:
    """Measure, and print the result as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gateways", type=int, default=100)
    parser.add_argument("--models", type=int, default=30)
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--calls", type=int, default=10, help="a model, gateway and second")
    arguments = parser.parse_args()
    by_second, saved = asyncio.run(
        run_fleet(arguments.gateways, arguments.models, arguments.seconds, arguments.calls)
    )
    later = by_second[len(by_second) // 4 :]
    parts = {part: round(median(spent[part] for spent in later), 3) for part in later[0]}
    parts["received and judged"] = round(
        median(spent["received"] + spent["judged"] for spent in later), 3
    )
    print(json.dumps({**vars(arguments), "cpu_s_a_second": parts, "checkpoints_mb": saved / 1e6}))


if __name__ == "__main__":
    main()
