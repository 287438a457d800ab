"""The serving benchmark and the Locust file against real servers."""

import asyncio
import csv
import json
import sys
from pathlib import Path

import pytest

from benchmarks.load.rust_generator import cargo_works
from benchmarks.serving.workloads import (
    CANNED,
    FOREST,
    LOGISTIC,
    NETWORK,
    PIPELINE,
    WORKLOADS,
    picked_workloads,
)
from registry.types import Deployment
from tests.gateway.gateway_fixture import SALT, gateway_fixture, predict_request
from tests.tiny_models import tiny_files

pytestmark = pytest.mark.walk

NEEDS_CARGO = pytest.mark.skipif(not cargo_works(), reason="cargo is not there")
LOCUSTFILE = Path("benchmarks/load/locustfile.py")


@NEEDS_CARGO
def test_bench_measures_both_servers_and_writes_every_round(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A quick run of six models prints and writes machine, commit, verdicts and each round."""
    from benchmarks.serving.bench import main  # it trains its models: seconds of imports

    result_file = tmp_path / "result.json"
    code = main(["--quick", "--only", "alone", "--json", "--keep", str(result_file)])

    report = json.loads(result_file.read_text(encoding="utf-8"))
    assert json.loads(capsys.readouterr().out) == report
    sides = {(timed["side"], timed["workload"]) for timed in report["rounds"]}
    workloads = picked_workloads("alone")
    assert {workload.model for workload in workloads} >= {FOREST, LOGISTIC, NETWORK, PIPELINE}
    expected = {(side, workload.name) for workload in workloads for side in workload.servers}
    assert sides == expected | {(CANNED, CANNED)}
    assert all(timed["calls"] > 0 for timed in report["rounds"])
    assert report["machine"]["cores"] >= 1
    assert report["commit"]
    assert report["verdicts"][-1] == {"promise": "no call fails", "failed": 0, "held": True}
    assert code == int(not all(row["held"] for row in report["verdicts"] + report["targets"]))


@NEEDS_CARGO
def test_workers_are_measured_in_each_arrangement_with_a_model_of_a_host(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One short round: every new connection is found, each worker has two to the store."""
    from benchmarks.serving import workers

    assert workers.main(["--rounds", "1", "--seconds", "0.2", "--warm", "0.1", "--json"]) == 0

    report = json.loads(capsys.readouterr().out)
    parts = [timed for timed in report["rounds"] if timed["workload"] == workers.PARTS]
    assert [timed["arrangement"] for timed in parts] == [a.name for a in workers.ARRANGEMENTS]
    assert [len(timed["connections_by_worker"]) for timed in parts] == [1, 2, 2]
    assert all(sum(timed["connections_by_worker"]) == workers.ACCEPTED for timed in parts)
    assert all(timed["store_connections_by_worker"] == 2 for timed in parts)
    assert report["figures"]["private_mb"] > 10
    assert 1 < report["figures"]["report_us"] < 10_000


def test_bench_names_its_workloads_when_none_is_picked(capsys: pytest.CaptureFixture[str]) -> None:
    """The exit code is 2, and nothing is measured."""
    from benchmarks.serving.bench import main

    assert main(["--only", "no such workload"]) == 2
    assert WORKLOADS[0].name in capsys.readouterr().err


def test_bench_without_cargo_names_the_way_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The exit code is 2, and nothing is measured."""
    from benchmarks.serving.bench import main

    monkeypatch.setenv("PATH", "")
    assert main(["--keep", "nowhere"]) == 2
    assert "rustup.rs" in capsys.readouterr().err


def test_locustfile_reports_each_model_version_and_role(tmp_path: Path) -> None:
    """A headless run of three seconds with all three kinds of user fails no call."""
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
            # Locust runs in a process of its own.
            program = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--headless"),
                *("--host", f"127.0.0.1:{gateway.port}", "-u", "14", "-r", "14", "-t", "3s"),
                *("--csv", str(tmp_path / "run"), "--entities", "1000", "--stop-timeout", "2"),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            output, _ = await asyncio.wait_for(program.communicate(), 60.0)
            assert program.returncode is not None
            return program.returncode, output.decode()

    code, output = asyncio.run(run())
    assert code == 0, output
    # Its statistics have a row for each version and role.
    with (tmp_path / "run_stats.csv").open(encoding="utf-8") as stream:
        rows = {row["Name"]: row for row in csv.DictReader(stream)}
    assert {"churn v1 production", "churn v2 canary"} <= set(rows), output
    assert rows["Aggregated"]["Failure Count"] == "0"
    assert int(rows["Aggregated"]["Request Count"]) > 50
