"""Is a healthy candidate ever rolled back? Production's own bytes as the candidate, live.

    python -m benchmarks.judging.live_aa --rollouts 20 --json live_aa.json

`turnout up` (gateway with two workers, registry, controller, all processes of their own) serves a
tiny ONNX model to callers with ever new keys who ask as fast as they are answered: the machine is
saturated, and batches are large. Again and again the same bytes are registered as another version,
approved and rolled out by the real controller: a canary of 20 %, of 50 %, then the watch with 5 %
left on the old version. Every second is judged by all metrics.

An hour's equivalent: at 100 calls a second an hour at a share of 5 % gives a candidate 18,000 keys.
Every rollout here gets at least as many (`--hours`), whatever the machine's pace: it is paused in
the watch until then, where faults still roll back. That takes a minute or two, with some 90 looks
and not 3,600. Evidence comes from keys, not from looks: only an e-value's highest point between two
looks is not seen. `benchmarks.judging.judge_bench --only aa` has the 3,600 looks.

Leaves with 1 when one is not promoted, or had fewer keys.
"""

import argparse
import asyncio
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import grpc
import uvloop

from protos.predict_pb2 import PredictRequest, Row
from tests.walks.running_system import RunningSystem, turnout_up

MODEL = "twins"
INGRESSES = ("auto", "native", "grpcio")
HOUR_KEYS = 18_000
"""Of the candidate: what makes an hour's equivalent."""
PAUSED_S_MAX = 1_200.0
"""For the rest of its keys a rollout waits no longer than this."""
POLICY = """
name = "twins"
base = "demo-direct"
watch_s = {watch_s}
standby_bp = 500
stage_s_max = 3600
looks_max = 3600

[[canary]]
share_bp = 2000
bake_s = {first_s}

[[canary]]
share_bp = 5000
bake_s = {second_s}
"""


@dataclass(frozen=True, slots=True)
class TwinRollout:
    """What became of one rollout."""

    version: str
    stage: str
    seconds: float
    looks: int
    candidate_keys: int
    """Fresh in each stage, the watch's too."""
    nearest: str
    """The metric nearest to rolling back ..."""
    nearness: float
    """... and how far it came: ln e of its threshold."""
    reason: str


def main() -> int:
    """Run, print, judge."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rollouts", type=int, default=20)
    parser.add_argument("--scale", type=float, default=1.0, help="of each stage's 40, 25, 20 s")
    parser.add_argument("--hours", type=float, default=1.0, help="a rollout's equivalent, at least")
    parser.add_argument("--ingress", choices=INGRESSES, default="auto", help="the front door")
    parser.add_argument("--callers", type=int, default=32, help="calls open at once")
    for hidden, default in (("--call", ""), ("--model", MODEL), ("--customers", 0)):
        parser.add_argument(hidden, default=default, type=type(default), help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, default=None)
    asked = parser.parse_args()
    if asked.call:
        uvloop.run(call_until_stopped(asked.call, asked.callers, asked.model, asked.customers))
    twins = []
    with tempfile.TemporaryDirectory(prefix="turnout-live-aa-") as name:
        for twin in run_twin_rollouts(Path(name), asked):
            twins.append(twin)
            print(json.dumps(asdict(twin)), flush=True)
    back = sum(one.stage != "DONE" for one in twins)
    hours = sum(one.candidate_keys for one in twins) / HOUR_KEYS
    short = sum(one.candidate_keys < asked.hours * HOUR_KEYS for one in twins)
    worst = max(twins, key=lambda one: one.nearness)
    print(
        f"{len(twins)} rollouts of production's own bytes, ingress {asked.ingress}: {back} not "
        f"promoted; as many keys as {hours:.1f} hours give, {short} of them had less than "
        f"{asked.hours:g}; nearest to a false rollback: {worst.nearest} at "
        f"{worst.nearness:.0%} of its threshold"
    )
    if asked.json is not None:
        told = {
            "ingress": asked.ingress,
            "hours": hours,
            "short": short,
            "load_1_5_15": os.getloadavg(),
            "twins": [asdict(one) for one in twins],
        }
        asked.json.write_text(json.dumps(told, indent=1) + "\n")
    return 1 if back or short else 0


def policies_in(folder: Path, scale: float) -> Path:
    """Write the twins' policy, its stays *scale* times as long; return the policies' folder."""
    policies = folder / "policies"
    policies.mkdir()
    stays = {"first_s": 40 * scale, "second_s": 25 * scale, "watch_s": 20 * scale}
    (policies / "twins.toml").write_text(POLICY.format(**stays))
    return policies


def run_twin_rollouts(folder: Path, arguments: argparse.Namespace) -> Iterator[TwinRollout]:
    """Yield what becomes of each rollout."""
    policies, keys = policies_in(folder, arguments.scale), round(arguments.hours * HOUR_KEYS)
    with turnout_up(
        folder / "state", "--policies", str(policies), "--ingress", arguments.ingress
    ) as whole:
        label = whole.register(MODEL, folder / "files")
        whole.approve(MODEL, label, "initial")
        whole.deploy(MODEL, label)
        with running_callers(whole.addresses.gateway, arguments.callers, MODEL):
            for _ in range(arguments.rollouts):
                yield run_rollout(whole, MODEL, folder / "files", "the same bytes", keys)


@contextmanager
def running_callers(gateway: str, callers: int, model: str, customers: int = 0) -> Iterator[None]:
    """Ask as fast as it answers while the block lasts.

    customers  whose stored rows are asked for, in turns; 0: ever new keys with three inputs.
    """
    line = [
        "nice",
        "-n",
        "10",
        sys.executable,
        "-m",
        "benchmarks.judging.live_aa",
        "--call",
        gateway,
    ]
    line += ["--callers", str(callers), "--model", model, "--customers", str(customers)]
    with subprocess.Popen(line) as program:
        try:
            yield
            assert program.poll() is None, "the callers ended early"
        finally:
            program.terminate()
            program.wait(20)


async def call_until_stopped(gateway: str, callers: int, model: str, customers: int) -> None:
    """Ask until ended; a call that fails is told, and followed by the next."""
    numbers = itertools.count()
    async with grpc.aio.insecure_channel(gateway) as channel:
        predict = channel.unary_unary("/turnout.v1.Predictor/Predict")

        async def one() -> None:
            for number in numbers:
                row = (
                    Row(keys=[f"S{number * 2_741 % customers + 1:07d}"])
                    if customers
                    else new_customer_row(number)
                )
                request = PredictRequest(model=model, rows=[row])
                try:
                    await predict(request.SerializeToString(), timeout=5.0)
                except grpc.aio.AioRpcError as error:
                    print(f"a call failed: {error.code().name}", file=sys.stderr, flush=True)
                    await asyncio.sleep(0.1)

        await asyncio.gather(*(one() for _ in range(callers)))


def new_customer_row(number: int) -> Row:
    """A new customer."""
    inputs = [(number * step % 1_009) / 1_009 for step in (1, 7, 31)]
    return Row(keys=[f"K{number}"], inputs=inputs)


def run_rollout(
    system: RunningSystem, model: str, files: Path, reason: str, keys_min: int = 0
) -> TwinRollout:
    """Register *files*, approve and start them, and wait for the end.

    keys_min  of the candidate: it stays in the watch until it had so many.
    """
    registered = retry_while_busy(
        lambda: system.turnout("versions", "register", model, str(files), actor="dana")
    )
    label = registered["label"]
    retry_while_busy(lambda: system.approve(model, label, "twins"))
    began_s = time.monotonic()
    line = ("rollout", "start", model, label, "--policy", "twins", "--reason", reason)
    retry_while_busy(lambda: system.turnout(*line))
    paused_s = 0.0
    while True:
        told = retry_while_busy(lambda: system.turnout("rollout", "status", model))
        if told["stage"] in FINAL_STAGE_NAMES:
            break
        lacking = _candidate_keys(told) < keys_min
        if told["stage"] == "WATCH" and lacking and not paused_s:
            retry_while_busy(
                lambda: system.turnout("rollout", "pause", model, "--reason", "more keys")
            )
            paused_s = time.monotonic()
        elif told.get("paused") and (not lacking or time.monotonic() - paused_s > PAUSED_S_MAX):
            retry_while_busy(
                lambda: system.turnout("rollout", "resume", model, "--reason", "enough")
            )
        time.sleep(1.0)
    return _twin_rollout(told, label, time.monotonic() - began_s)


def _candidate_keys(status: dict[str, Any]) -> int:
    """Keys of the candidate so far."""
    return max(int(row.get("canary_keys", 0)) for row in status["evidence"])


def retry_while_busy(ask: Callable[[], Any]) -> Any:  # noqa: ANN401  whatever is asked
    """Ask again where the machine was too busy to answer in time: it is saturated on purpose."""
    for _ in range(TRIES_MAX - 1):
        try:
            return ask()
        except AssertionError as error:
            if "exit code 3" not in str(error):
                raise
            time.sleep(1.0)
    return ask()


TRIES_MAX = 30
FINAL_STAGE_NAMES = ("DONE", "ROLLED_BACK", "REFUSED_STAGE", "REFUSED")


def _twin_rollout(status: dict[str, Any], label: str, seconds: float) -> TwinRollout:
    rows = status["evidence"]
    nearest = max(rows, key=lambda row: float(row.get("log_e_max", 0)) / row["log_threshold"])
    return TwinRollout(
        version=label,
        stage=status["stage"],
        seconds=round(seconds, 1),
        looks=max(int(row.get("windows", 0)) for row in rows),
        candidate_keys=_candidate_keys(status),
        nearest=nearest["metric"],
        nearness=round(float(nearest.get("log_e_max", 0)) / nearest["log_threshold"], 3),
        reason=status["reason"],
    )


if __name__ == "__main__":
    sys.exit(main())
