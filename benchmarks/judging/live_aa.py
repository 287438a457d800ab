"""Measures, live, whether a healthy candidate is ever rolled back: production against itself.

    python -m benchmarks.judging.live_aa --rollouts 20 --json live_aa.json

`turnout up` runs a gateway with two workers, a registry and a controller, each in its own process.
It serves a tiny ONNX model. The callers use ever new keys and send the next call as soon as one is
answered, so the machine is saturated and batches are large. Again and again the same files are
registered as another version, approved and rolled out by the real controller: a canary of 20 %,
then of 50 %, then the watch with 5 % left on the old version. All metrics judge every second.

An hour's equivalent is 18,000 keys: what a candidate with a share of 5 % gets in an hour at 100
calls/s. Every rollout here gets at least that many keys times `--hours`, whatever the machine's
pace: it is paused in the watch until then, where faults still roll back. That takes a minute or
two, with some 90 looks instead of 3,600. Evidence comes from keys, not from looks; only an
e-value's highest point between two looks is missed. `benchmarks.judging.judge_bench --only aa` has
the 3,600 looks.

Exit code 1: a rollout was not promoted, or its candidate had fewer keys.
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
"""Keys of the candidate that make an hour's equivalent."""
PAUSED_S_MAX = 1_200.0
"""A rollout is paused no longer than this for the rest of its keys."""
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
    """The end of one rollout, and how near it came to being rolled back."""

    version: str
    stage: str
    seconds: float
    looks: int
    candidate_keys: int
    """Keys of the candidate, counted anew in each stage, the watch included."""
    nearest: str
    """The metric that came nearest to a rollback."""
    nearness: float
    """The metric's largest ln e over the threshold's logarithm."""
    reason: str


def main() -> int:
    """Run every rollout, print its result, and return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rollouts", type=int, default=20)
    parser.add_argument("--scale", type=float, default=1.0, help="of each stage's 40, 25, 20 s")
    parser.add_argument(
        "--hours", type=float, default=1.0, help="of keys that a rollout gets, at least"
    )
    parser.add_argument("--ingress", choices=INGRESSES, default="auto", help="of the gateway")
    parser.add_argument("--callers", type=int, default=32, help="calls open at once")
    for hidden, default in (("--call", ""), ("--model", MODEL), ("--customers", 0)):
        parser.add_argument(hidden, default=default, type=type(default), help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    if arguments.call:
        uvloop.run(
            call_until_stopped(
                arguments.call, arguments.callers, arguments.model, arguments.customers
            )
        )
    # Run the rollouts.
    twins = []
    with tempfile.TemporaryDirectory(prefix="turnout-live-aa-") as name:
        for twin in run_twin_rollouts(Path(name), arguments):
            twins.append(twin)
            print(json.dumps(asdict(twin)), flush=True)
    # Sum them up.
    refused = sum(twin.stage != "DONE" for twin in twins)
    hours = sum(twin.candidate_keys for twin in twins) / HOUR_KEYS
    short = sum(twin.candidate_keys < arguments.hours * HOUR_KEYS for twin in twins)
    nearest = max(twins, key=lambda twin: twin.nearness)
    print(
        f"{len(twins)} rollouts of production's own bytes, ingress {arguments.ingress}: {refused} "
        f"not promoted; as many keys as {hours:.1f} hours give, {short} rollouts had fewer than "
        f"{arguments.hours:g} hours give; nearest to a false rollback: {nearest.nearest} at "
        f"{nearest.nearness:.0%} of its threshold"
    )
    # Keep the results.
    if arguments.json is not None:
        report = {
            "ingress": arguments.ingress,
            "hours": hours,
            "short": short,
            "load_1_5_15": os.getloadavg(),
            "twins": [asdict(twin) for twin in twins],
        }
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")
    return 1 if refused or short else 0


def policies_in(folder: Path, scale: float) -> Path:
    """Write the policy `twins`, each stage *scale* times as long; return the policies' folder."""
    policies = folder / "policies"
    policies.mkdir()
    stage_times_s = {"first_s": 40 * scale, "second_s": 25 * scale, "watch_s": 20 * scale}
    (policies / "twins.toml").write_text(POLICY.format(**stage_times_s))
    return policies


def run_twin_rollouts(folder: Path, arguments: argparse.Namespace) -> Iterator[TwinRollout]:
    """Yield the result of each rollout."""
    policies, keys = policies_in(folder, arguments.scale), round(arguments.hours * HOUR_KEYS)
    with turnout_up(
        folder / "state", "--policies", str(policies), "--ingress", arguments.ingress
    ) as system:
        label = system.register(MODEL, folder / "files")
        system.approve(MODEL, label, "initial")
        system.deploy(MODEL, label)
        with running_callers(system.addresses.gateway, arguments.callers, MODEL):
            for _ in range(arguments.rollouts):
                yield run_rollout(system, MODEL, folder / "files", "the same bytes", keys)


@contextmanager
def running_callers(gateway: str, callers: int, model: str, customers: int = 0) -> Iterator[None]:
    """Call as fast as the gateway answers while the block lasts, from a process of its own.

    callers    calls open at once.
    customers  number of customers with stored rows, who are called in turns; 0: ever new keys
               with three inputs.
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
    """Call until the process is ended. A failed call is printed, and the next one follows."""
    numbers = itertools.count()
    async with grpc.aio.insecure_channel(gateway) as channel:
        predict = channel.unary_unary("/turnout.v1.Predictor/Predict")

        async def caller() -> None:
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

        await asyncio.gather(*(caller() for _ in range(callers)))


def new_customer_row(number: int) -> Row:
    """Return the row of a new customer, with three inputs between 0 and 1."""
    inputs = [(number * step % 1_009) / 1_009 for step in (1, 7, 31)]
    return Row(keys=[f"K{number}"], inputs=inputs)


def run_rollout(
    system: RunningSystem, model: str, files: Path, reason: str, keys_min: int = 0
) -> TwinRollout:
    """Register, approve and roll out *files*; wait for the end, and return it.

    keys_min  the rollout is paused in the watch until its candidate had so many keys.
    """
    # Register, approve and start.
    registered = retry_while_busy(
        lambda: system.turnout("versions", "register", model, str(files), actor="dana")
    )
    label = registered["label"]
    retry_while_busy(lambda: system.approve(model, label, "twins"))
    began_s = time.monotonic()
    line = ("rollout", "start", model, label, "--policy", "twins", "--reason", reason)
    retry_while_busy(lambda: system.turnout(*line))
    # Wait for the end, and pause in the watch while keys are missing.
    paused_s = 0.0
    while True:
        status = retry_while_busy(lambda: system.turnout("rollout", "status", model))
        if status["stage"] in FINAL_STAGE_NAMES:
            break
        lacking = _candidate_keys(status) < keys_min
        if status["stage"] == "WATCH" and lacking and not paused_s:
            retry_while_busy(
                lambda: system.turnout("rollout", "pause", model, "--reason", "more keys")
            )
            paused_s = time.monotonic()
        elif status.get("paused") and (not lacking or time.monotonic() - paused_s > PAUSED_S_MAX):
            retry_while_busy(
                lambda: system.turnout("rollout", "resume", model, "--reason", "enough")
            )
        time.sleep(1.0)
    return _twin_rollout(status, label, time.monotonic() - began_s)


def _candidate_keys(status: dict[str, Any]) -> int:
    """Return how many keys the candidate has had so far."""
    return max(int(row.get("canary_keys", 0)) for row in status["evidence"])


def retry_while_busy(command: Callable[[], Any]) -> Any:  # noqa: ANN401  the command's result
    """Run *command*, again if it timed out: the machine is saturated on purpose."""
    for _ in range(TRIES_MAX - 1):
        try:
            return command()
        except AssertionError as error:
            if "exit code 3" not in str(error):
                raise
            time.sleep(1.0)
    return command()


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
