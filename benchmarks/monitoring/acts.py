"""How fast findings act, with real processes: `python -m benchmarks.monitoring --only acts`.

`turnout up` runs store, control and a gateway of two workers. Callers call all the time, without
retries. In each round a finding is written, as monitoring writes one:

    held   a rollout under way is held. Bar: p99 of finding -> held is at most 1 s.
    moved  production goes back to the archived version before it, which the workers load first.
           Bar: p99 of finding -> traffic moved on every worker is at most 12 s, no failed call.

The times are those of the history: the finding's entry, and the controller's finding "acted". Each
model is rolled back by a finding once a day, so a round of `moved` has a model of its own.

A p99 of n rounds is stated as the largest value, with the confidence 1 - .99^n that the true p99 is
not above it: 95 % needs 299 rounds.
"""

import asyncio
import json
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.progress import track

from benchmarks.monitoring.bars import MeasuredBar, MonitoringOptions
from protos import registry_pb2 as pb
from registry.client import RegistryClient
from registry.types import Deployment, GateError
from tests.tiny_models import linear_weights, tiny_files
from tests.walks.running_system import RunningSystem, turnout_up
from turnout.demo.deploy_acts import wait_until_applied
from turnout_client import PredictClient, PredictError

HELD_ROUNDS, MOVED_ROUNDS = 300, 100
QUICK_ROUNDS = 3
HELD_BAR_S, MOVED_BAR_S = 1.0, 12.0
ROUND_S = 60.0
"""A round that takes longer ends the benchmark."""
CALLS_OPEN = 4
DIRECT_POLICY = "ab" * 32
"""Digest of a policy, as the approval of a direct deployment names one."""
PAUSED_MODEL = "paused"
PROCESSES = 3
"""Two workers and the spare."""
Item = TypeVar("Item")


def times_bar(subject: str, seconds: Sequence[float], bar_s: float) -> MeasuredBar:
    """Return the bar of one kind of round: its longest time must be within *bar_s*."""
    ordered = sorted(seconds)
    count = len(ordered)
    numbers = {
        "rounds": count,
        "p50_s": ordered[count // 2],
        "p90_s": ordered[min(count - 1, int(0.9 * count))],
        "max_s": ordered[-1],
        "p99_below_max_confidence": 1 - 0.99**count,
    }
    return MeasuredBar(
        subject=subject,
        measured=f"{count} rounds: p50 {numbers['p50_s']:.3f} s, p90 {numbers['p90_s']:.3f} s, "
        f"longest {numbers['max_s']:.3f} s (p99 is at most that with confidence "
        f"{numbers['p99_below_max_confidence']:.1%})",
        promised=f"p99 <= {bar_s:g} s",
        passed=ordered[-1] <= bar_s,
        numbers=numbers,
    )


def calls_bar(calls: Counter[str]) -> MeasuredBar:
    """Return the bar of the callers, which make no second attempt: no call may fail."""
    failed = {name: count for name, count in calls.items() if name != "answered"}
    return MeasuredBar(
        subject="calls meanwhile, without retries",
        measured=f"{calls['answered']:,} answered, {sum(failed.values())} failed",
        promised="0 failed",
        passed=not failed and calls["answered"] > 0,
        numbers=dict(calls),
    )


class ActsBenchmark:
    """One running system, its people, and its callers."""

    def __init__(self, system: RunningSystem, people: Sequence[RegistryClient]) -> None:
        self._system = system
        self._ann, self._bob, self._cleo = people
        self.calls: Counter[str] = Counter()
        self._called: list[str] = []
        """Models that are called."""

    async def run(self, held_rounds: int, moved_rounds: int) -> list[MeasuredBar]:
        """Prepare the models, then measure."""
        models = [f"m{number:03}" for number in range(moved_rounds)]
        for model in _shown(models, "models"):
            await self._put_in_production(model, versions=2)
        await self._put_in_production(PAUSED_MODEL, versions=1)
        # Callers call every model while findings act. Workers and spare serve each before that.
        for model in (*models, PAUSED_MODEL):
            await wait_until_applied(self._cleo, await self._cleo.deployment(model), PROCESSES)
        async with self._callers([*models, PAUSED_MODEL]):
            held = await self._hold(held_rounds)
            moved = [await self._move(model) for model in _shown(models, "moved")]
        return [
            times_bar("finding to rollout held", held, HELD_BAR_S),
            times_bar("finding to traffic moved", moved, MOVED_BAR_S),
            calls_bar(self.calls),
        ]

    async def _put_in_production(self, model: str, versions: int) -> None:
        """Deploy versions one after the other; those before the last are archived."""
        for number in range(1, versions + 1):
            files = tiny_files(model, weights=linear_weights(3) * number)
            label = (await self._ann.register(model, files)).label
            policy, digest = ("initial", "") if number == 1 else ("careful", DIRECT_POLICY)
            approval = await self._bob.approve(
                model, label, policy, digest, "", "benchmark", direct=number > 1
            )
            current = await self._cleo.deployment(model)
            loaded = await self._cleo.deploy(
                replace(current, preload=(label,), why="benchmark: load it")
            )
            await self._when_ready(
                replace(
                    loaded,
                    production=label,
                    preload=(),
                    approval_id=approval.id,
                    why="benchmark: deploy it",
                ),
                digest,
            )
        self._called.append(model)

    async def _when_ready(self, deployment: Deployment, policy_digest: str) -> None:
        """Deploy once the workers have loaded the version."""
        async with asyncio.timeout(ROUND_S):
            async for _ in self._cleo.watch_states():
                try:
                    await self._cleo.deploy(deployment, policy_digest=policy_digest)
                except GateError:
                    continue
                return

    async def _hold(self, rounds: int) -> list[float]:
        """Hold a rollout and let it go on, again and again; return the times."""
        # A rollout that stays at its first stages: there are few calls.
        files = tiny_files(PAUSED_MODEL, weights=linear_weights(3) * 2)
        label = (await self._ann.register(PAUSED_MODEL, files)).label
        line = ("versions", "approve", PAUSED_MODEL, label, "--policy", "standard", "--yes")
        await asyncio.to_thread(self._system.turnout, *line, actor="bob")
        start = ("rollout", "start", PAUSED_MODEL, label, "--policy", "standard", "--reason", "b")
        await asyncio.to_thread(self._system.turnout, *start)
        # Each round has its own text, so that the reason of the hold tells which one it is.
        times = []
        for number in _shown(range(rounds), "held"):
            text = f"benchmark, round {number}"
            finding = await self._write("hold", PAUSED_MODEL, "", text)
            times.append(await self._acted_s(finding, "hold"))
            await self._write("clear", PAUSED_MODEL, "", text)
        await asyncio.to_thread(
            self._system.turnout, "rollout", "abort", PAUSED_MODEL, "--reason", "benchmark"
        )
        return times

    async def _move(self, model: str) -> float:
        """Roll a model's production back; return the time until traffic had moved."""
        finding = await self._write("rollback", model, "2", "benchmark")
        seconds = await self._acted_s(finding, "rollback")
        deployment = await self._cleo.deployment(model)
        if deployment.production != "1":
            raise RuntimeError(f"{model} has production {deployment.production} after its rollback")
        return seconds

    async def _write(self, kind: str, model: str, version: str, text: str) -> pb.Finding:
        return await self._cleo.write_finding(
            pb.Finding(model=model, version=version, kind=kind, text=text)
        )

    async def _acted_s(self, finding: pb.Finding, act: str) -> float:
        """Return the seconds from a finding until it acted, by the controller's own finding."""
        async with asyncio.timeout(ROUND_S):
            async for written in self._cleo.watch_findings(finding.sequence):
                value = json.loads(written.text) if written.kind == "acted" else {}
                if value.get("finding") != finding.sequence:
                    continue
                if value["act"] != act or not value["acted_unix_ms"]:
                    raise RuntimeError(f"finding {finding.sequence}: {written.text}")
                took_ms = int(value["acted_unix_ms"]) - int(value["finding_unix_ms"])
                return max(0, took_ms) / 1_000
        raise RuntimeError("the watch of findings has ended")

    @asynccontextmanager
    async def _callers(self, models: Sequence[str]) -> AsyncIterator[None]:
        """Call the models one after the other with some calls open, while the block runs."""
        async with PredictClient(self._system.addresses.gateway) as client:

            async def call(first: int) -> None:
                number = first
                while True:
                    number += CALLS_OPEN
                    model = models[number % len(models)]
                    try:
                        await client.predict(model, keys=[f"S{number}"], inputs=[1.0, 0.0, 0.0])
                        self.calls["answered"] += 1
                    except PredictError as error:
                        self.calls[f"failed: {error}"[:120]] += 1
                    await asyncio.sleep(0.005)

            tasks = [asyncio.ensure_future(call(first)) for first in range(CALLS_OPEN)]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)


def main(options: MonitoringOptions) -> Sequence[MeasuredBar]:
    """Run the benchmark; `rounds` is the number of rounds of each kind, at most 100 of `moved`."""
    rounds = QUICK_ROUNDS if options.quick else options.rounds
    with tempfile.TemporaryDirectory() as folder, turnout_up(Path(folder) / "state") as system:
        return asyncio.run(
            _measure(system, rounds or HELD_ROUNDS, min(rounds or MOVED_ROUNDS, MOVED_ROUNDS))
        )


async def _measure(
    system: RunningSystem, held_rounds: int, moved_rounds: int
) -> Sequence[MeasuredBar]:
    async with (
        system.registry_client("ann") as ann,
        system.registry_client("bob") as bob,
        system.registry_client("cleo") as cleo,
    ):
        return await ActsBenchmark(system, (ann, bob, cleo)).run(held_rounds, moved_rounds)


def _shown(items: Iterable[Item], what: str) -> Iterable[Item]:
    return track(items, what, console=Console(stderr=True), transient=True)
