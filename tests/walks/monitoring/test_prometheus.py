"""A real Prometheus scrapes a running system and runs every query of the alerts and boards."""

import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from protos.predict_pb2 import OutcomeRequest, PredictRequest, Row
from protos.predict_pb2_grpc import PredictorStub
from tests.prometheus_files import RULES, alert_queries, board_queries
from tests.walks.conftest import MODEL
from tests.walks.monitoring.looked_at import store_a_week
from tests.walks.running_system import RunningSystem, poll_system_until

pytestmark = pytest.mark.walk

SCRAPES = 5
WITH_DATA = {
    "Calls a second, by model and role",
    "Latency of production",
    "Rows of a batch, mean",
    "Rows by bin of their score, a second",
    "Bytes of the journal",
    "Days left of the journal",
    "Registry connection and alarms",
    "Revision of each deployment",
    "Workers by state",
    "Lag of the event loop",
    "Rows inside",
    "Memory of workers",
    "Descriptors and tasks of workers",
    "Open incidents by severity",
    "Share of the traffic that was counted",
    "Drift: psi of scores and of the worst feature",
    "Accuracy",
    "Business: effect and money of acting",
    "Coverage of the newest day",
    "Lag of looks",
    "Lag of journal readers",
    "Journal that is not read yet",
    "Outcomes by entity that wait",
    "Age of the oldest outcome by entity that waits",
    "Age of these numbers",
}
"""Panels that show something of a small healthy system."""


class Prometheus:
    """A running Prometheus."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"

    def get(self, path: str, **parameters: str) -> Any:  # noqa: ANN401  any JSON
        """Return the data of an answer; AssertionError with its text when it is an error."""
        url = f"{self._url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode()}") from error

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the present vector of an expression."""
        return list(self.get("query", query=expression)["result"])

    def answers(self) -> bool:
        """Whether it answers yet."""
        try:
            with urllib.request.urlopen(f"{self._url}/-/ready", timeout=10) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def running_prometheus(folder: Path, control: str, *targets: str) -> Iterator[Prometheus]:
    """Run a Prometheus with the rules, that scrapes *control* and *targets* each second."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("prometheus is not installed")
    config = folder / "prometheus.yml"
    # Gateways and control are two jobs, as in deploy/prometheus/prometheus.yml.
    jobs = {"turnout": targets, "turnout-control": [control]}
    # JSON is YAML, so that no writer of YAML is needed.
    config.write_text(
        json.dumps(
            {
                "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
                "rule_files": [str(RULES)],
                "scrape_configs": [
                    {"job_name": name, "static_configs": [{"targets": found}]}
                    for name, found in jobs.items()
                ],
            }
        )
    )
    port = free_port()
    options = [f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}"]
    options += [f"--web.listen-address=127.0.0.1:{port}"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program, *options], stdout=log, stderr=log)
        try:
            prometheus = Prometheus(port)
            poll_system_until(prometheus.answers, 30.0, "Prometheus answers")
            yield prometheus
        finally:
            process.terminate()
            process.wait(20)


def test_every_query_of_alerts_and_boards_runs_on_a_running_system(
    running_system: RunningSystem, tmp_path: Path
) -> None:
    """The system is healthy, so one alert is due: a second gateway is not there."""
    running_system.wait_settled()
    target = urllib.parse.urlsplit(running_system.addresses.metrics).netloc
    control = urllib.parse.urlsplit(running_system.addresses.control_metrics).netloc
    store_a_week(running_system)
    gone = f"127.0.0.1:{free_port()}"
    request = PredictRequest(model=MODEL, rows=[Row(keys=["S1"], inputs=[1, 2, 3])])
    outcome = OutcomeRequest(
        model=MODEL,
        keys=["S1"],
        name="churned",
        value=1.0,
        event_time_ms=time.time_ns() // 1_000_000,
    )
    with (
        running_prometheus(tmp_path, control, target, gone) as prometheus,
        grpc.insecure_channel(running_system.addresses.gateway) as channel,
    ):
        predict = channel.unary_unary("/turnout.v1.Predictor/Predict")

        # Its prediction is looked for ten minutes later.
        PredictorStub(channel).ReportOutcome(outcome, timeout=20)  # type: ignore[no-untyped-call]

        # Call until Prometheus has seen the counts grow over some scrapes.
        def scraped_often() -> bool:
            predict(request.SerializeToString(), timeout=5.0)
            seen = prometheus.query(f'count_over_time(up{{instance="{target}"}}[1m])')
            grown = prometheus.query("sum(rate(turnout_calls_total[30s])) > 0")
            read = prometheus.query('turnout_figure{kind="quality"}')
            counted = prometheus.query("turnout_coverage_share > 0")
            waiting = prometheus.query("turnout_waiting_outcomes > 0")
            often = bool(waiting and seen and float(seen[0]["value"][1]) >= SCRAPES)
            return bool(often and grown and read and counted)

        poll_system_until(scraped_often, 60.0, "some scrapes")
        # Every query of the boards runs, and the panels of a healthy system show something.
        shown = {query.source for query in board_queries() if prometheus.query(query.expression)}
        assert shown >= WITH_DATA
        # Every rule is healthy, and nothing is wrong but the gateway that is not there.
        groups = prometheus.get("rules")["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        assert {rule["name"] for rule in rules} == {query.source for query in alert_queries()}
        assert {(rule["health"], rule.get("lastError", "")) for rule in rules} == {("ok", "")}

        # A loop may lag for a moment on a busy machine; the alert is for one that lags for long.
        def due() -> set[str]:
            found = (query for query in alert_queries() if prometheus.query(query.expression))
            return {query.source for query in found} - {"TurnoutJournalSpace"}  # disks may be small

        poll_system_until(lambda: due() == {"TurnoutDown"}, 60.0, f"one alert and not {due()}")
