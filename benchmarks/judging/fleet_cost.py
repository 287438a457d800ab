"""What a controller costs: many gateways, many models in rollout, a second at a time.

    python -m benchmarks.judging.fleet_cost --gateways 100 --models 30

Each gateway sends one batch a second with the windows of every model's production, canary and
shadow. Batches are parsed, received, closed, judged and kept as in production; the registry is one
that only counts, and gRPC's own transport (one message a gateway and second) is not in it. Told:
CPU seconds of one core a second of traffic, by part, and what a round of checkpoints weighs.
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
    """A registry that knows the rollouts under way, and counts what it is given to keep."""

    states: dict[str, registry_pb2.Checkpoint] = field(default_factory=dict)
    deployments: dict[str, Deployment] = field(default_factory=dict)
    saved_bytes: int = 0

    async def list_models(self) -> list[Any]:
        """Those with a deployment."""
        return [SimpleNamespace(model=model) for model in self.deployments]

    async def deployment(self, model: str) -> Deployment:
        """The one there is."""
        return self.deployments[model]

    async def save_checkpoint(self, checkpoint: registry_pb2.Checkpoint) -> None:
        """Count it, as it would go over the wire."""
        self.saved_bytes += len(checkpoint.SerializeToString())

    async def findings(self, after: int = 0) -> AsyncIterator[registry_pb2.Finding]:
        """None."""
        del after
        return
        yield

    async def load_checkpoint(self, rollout_id: str) -> registry_pb2.Checkpoint:
        """What a rollout began with."""
        if rollout_id not in self.states:
            raise NotFoundError(rollout_id)
        return self.states[rollout_id]


@dataclass
class FixedClock:
    """Stands still until it is moved."""

    ns: int = START_UNIX_S * NS

    def now(self) -> ClockReading:
        """Where it was put."""
        return ClockReading(self.ns, self.ns)


def registry_with_rollouts(models: int) -> CountingRegistry:
    """Return a registry with one rollout a model, in its canary."""
    registry, now = CountingRegistry(), ClockReading(START_UNIX_S * NS, START_UNIX_S * NS)
    for number in range(models):
        terms = RolloutSpec(
            rollout_id=f"r{number}", model=f"m{number}", version="2", baseline="1", policy=POLICY,
            approval_id="a", split_salt=bytes(16),
        )  # fmt: skip
        trial = Rollout(spec=terms, started_unix_ms=START_UNIX_S * 1_000)
        trial.enter_position(StagePosition(Stage.CANARY), 1, now, "made")
        state = to_state(trial).SerializeToString()
        registry.states[terms.rollout_id] = registry_pb2.Checkpoint(
            rollout_id=terms.rollout_id, sequence=1, state=state
        )
        bare = Deployment(model=terms.model, production="1", revision=1, shadows=(("3", 10_000),))
        registry.deployments[terms.model] = replace(
            deployment_at(trial.position, bare, terms, "made"),
            rollout_id=terms.rollout_id,
            revision=1,
        )
    return registry


def gateway_second(
    gateway: int, models: int, second: int, calls: int, chance: random.Random
) -> bytes:
    """One gateway's second, as it comes over the wire."""
    source = window_pb2.Source(gateway=f"g{gateway}", slot=0, boot_id=7)
    made = window_pb2.WindowBatch(
        source=source, sequence=second + 1, sent_unix_ns=(START_UNIX_S + second + 1) * NS
    )
    for model in range(models):
        for arm, version, share in ARMS:
            window = made.windows.add(
                model=f"m{model}", version=version, arm=arm, revision=1,
                second=START_UNIX_S + second, sampled_of_65536=65_536, rows=calls,
            )  # fmt: skip
            window.calls.answered = calls
            keys = [chance.getrandbits(64) for _ in range(calls) if chance.random() < share]
            bins = [chance.randrange(20) for _ in keys]
            slow = [chance.randrange(150, 250) for _ in keys]
            if keys:
                window.records.add(
                    metric="METRIC_SCORE", key_hash=keys, bin=bins,
                    production_bin=bins if arm == "ARM_CANARY" else [],
                )  # fmt: skip
                window.records.add(
                    metric="METRIC_LATENCY", key_hash=keys, bin=slow, batch_calls=[3] * len(keys)
                )
    return made.SerializeToString()


@contextmanager
def count_cpu(spent: Counter[str], part: str) -> Iterator[None]:
    """Add the CPU seconds of the block."""
    began = time.process_time()
    yield
    spent[part] += time.process_time() - began


async def run_fleet(
    gateways: int, models: int, seconds: int, calls: int
) -> tuple[list[Counter[str]], int]:
    """Return CPU seconds by part of each second, and the bytes of the last round of checkpoints."""
    registry, clock, chance = registry_with_rollouts(models), FixedClock(), random.Random(1)
    controller = Controller(registry, clock, {POLICY.name: POLICY})  # type: ignore[arg-type]
    await controller.start_leading(1)
    clock.ns += 4 * NS
    told, saved = [], 0
    for second in range(5, 5 + seconds):
        sent = [
            gateway_second(gateway, models, second, calls, chance) for gateway in range(gateways)
        ]
        spent: Counter[str] = Counter()
        clock.ns = (START_UNIX_S + second + 1) * NS
        with count_cpu(spent, "received"):
            for one in sent:
                controller.receive(window_pb2.WindowBatch.FromString(one))
        clock.ns += NS * 6 // 10
        with count_cpu(spent, "judged"):
            controller.act()
        saved = registry.saved_bytes
        with count_cpu(spent, "kept once"):
            await controller.save()
        saved = registry.saved_bytes - saved
        told.append(spent)
    return told, saved


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gateways", type=int, default=100)
    parser.add_argument("--models", type=int, default=30)
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--calls", type=int, default=10, help="a model, gateway and second")
    asked = parser.parse_args()
    told, saved = asyncio.run(run_fleet(asked.gateways, asked.models, asked.seconds, asked.calls))
    later = told[len(told) // 4 :]
    parts = {part: round(median(one[part] for one in later), 3) for part in later[0]}
    parts["received and judged"] = round(
        median(one["received"] + one["judged"] for one in later), 3
    )
    print(json.dumps({**vars(asked), "cpu_s_a_second": parts, "checkpoints_mb": saved / 1e6}))


if __name__ == "__main__":
    main()
