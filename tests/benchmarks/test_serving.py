"""The tools against real servers: what they count is what was answered."""

import asyncio
import csv
import json
import shutil
import sys
from pathlib import Path

import grpc
import pytest

from benchmarks.load.generator import run_closed_loop
from benchmarks.load.wire import grpc_message
from benchmarks.serving.workloads import CANNED, GATEWAY, HANDWRITTEN, WORKLOADS
from protos.predict_pb2 import PredictRequest, Row
from registry.types import Deployment
from tests.gateway.gateway_fixture import SALT, gateway_fixture, predict_request
from tests.tiny_models import tiny_files

pytestmark = pytest.mark.walk

LOCUSTFILE = Path("benchmarks/load/locustfile.py")


def test_the_generator_counts_what_grpc_answered_and_what_it_refused() -> None:
    """Every call the server saw is counted, good as good and bad as bad."""
    seen = {"good": 0, "bad": 0}

    async def predict(body: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        if PredictRequest.FromString(body).model == "bad":
            seen["bad"] += 1
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such model")
        seen["good"] += 1
        return b"x" * 100

    async def run() -> tuple[int, int]:
        server = grpc.aio.server()
        handlers = {"Predict": grpc.unary_unary_rpc_method_handler(predict)}
        service = grpc.method_handlers_generic_handler("turnout.v1.Predictor", handlers)
        server.add_generic_rpc_handlers((service,))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        bodies = [
            grpc_message(PredictRequest(model=name, rows=[Row(keys=["S1"])]).SerializeToString())
            for name in ("good", "good", "bad")
        ]
        measured = await run_closed_loop(
            f"127.0.0.1:{port}", bodies, connections=2, streams=8, seconds=1.0, warm_s=0.0
        )
        await server.stop(1.0)
        return measured.calls, measured.failed

    calls, failed = asyncio.run(run())
    # Those still open when the counting ended were answered, and are nobody's.
    assert 0 <= seen["good"] - calls <= 16
    assert 0 <= seen["bad"] - failed <= 16
    assert calls > failed > 0


def test_a_short_comparison_measures_both_and_keeps_every_round(tmp_path: Path) -> None:
    """Equal answers are proved first; the JSON says machine, commit and each round."""
    from benchmarks.serving.bench import main  # it trains its models: seconds of imports

    kept = tmp_path / "result.json"
    line = ["--entities", "2000", "--rounds", "1", "--seconds", "0.3", "--warm", "0.2"]
    main([*line, "--only", "1 row", "--keep", str(kept)])

    report = json.loads(kept.read_text(encoding="utf-8"))
    sides = {(one["side"], one["workload"]) for one in report["rounds"]}
    assert {side for side, _ in sides} == {GATEWAY, HANDWRITTEN, CANNED}
    asked = [one for one in WORKLOADS if "1 row" in one.name]
    if not shutil.which("cargo"):  # then the generator is the one in Python
        asked = [one for one in asked if one.for_python_generator]
    expected = {(side, one.name) for one in asked for side in one.servers}
    assert sides == expected | {(CANNED, CANNED)}
    assert all(one["calls"] > 0 for one in report["rounds"])
    assert report["machine"]["cores"] >= 1
    assert report["commit"]
    assert report["verdicts"][-1] == {"promise": "no call fails", "failed": 0, "held": True}


def test_locust_reports_each_model_version_and_role(tmp_path: Path) -> None:
    """Headless for three seconds, all three kinds of user; nothing fails."""
    deployment = Deployment(
        model="churn",
        revision=1,
        production="1",
        canary="2",
        canary_bp=5_000,
        split_salt=SALT,
        holdout_salt=SALT,
    )
    files = tiny_files()

    async def run() -> tuple[int, str]:
        versions = {"1": files, "2": {**files, "card.json": b'{"model": "churn", "n": 2}'}}
        async with gateway_fixture(versions, deployment) as gateway:
            await gateway.predict(predict_request(0.1, 0.2, 0.3))
            program = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--headless"),
                *("--host", f"127.0.0.1:{gateway.port}", "-u", "14", "-r", "14", "-t", "3s"),
                *("--csv", str(tmp_path / "run"), "--entities", "1000", "--stop-timeout", "2"),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            said, _ = await asyncio.wait_for(program.communicate(), 60.0)
            assert program.returncode is not None
            return program.returncode, said.decode()

    code, said = asyncio.run(run())
    assert code == 0, said
    with (tmp_path / "run_stats.csv").open(encoding="utf-8") as stream:
        rows = {row["Name"]: row for row in csv.DictReader(stream)}
    assert {"churn v1 production", "churn v2 canary"} <= set(rows), said
    assert rows["Aggregated"]["Failure Count"] == "0"
    assert int(rows["Aggregated"]["Request Count"]) > 50
