"""`turnout debug workers`, with a page in place of the supervisor's."""

import io
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from host.processes import start_ticks
from turnout.__main__ import main
from turnout.commands.debug import statistics_table
from turnout.processes.system_file import SystemAddresses, write_system_file

SNAPSHOTS: list[dict[str, Any]] = [
    {
        "slot": 0,
        "pid": 101,
        "statistics": {
            "pipeline": {"batches": 12_345, "in_flight": 2, "models": {"churn": {"rows": 7}}},
            "recorder": {"waiting": 0, "cost_us": 1.23456, "behind": False},
        },
    },
    {"slot": None, "pid": 102, "statistics": {"pipeline": {"batches": 0, "last": None}}},
]


@contextmanager
def supervisor_page(status: int, snapshots: list[dict[str, Any]]) -> Iterator[str]:
    """Serve *snapshots* as /statistics on a port of its own; yield the URL of /metrics there."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/statistics" else 404)
            self.end_headers()
            self.wfile.write(json.dumps(snapshots).encode())

        def log_message(self, *_: object) -> None:
            """Print no line for a request."""

    with HTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/metrics"
        finally:
            server.shutdown()


def run_debug(
    folder: Path, metrics: str, capsys: pytest.CaptureFixture[str], *options: str
) -> tuple[int, str, str]:
    """Run `turnout debug workers` beside a system with this page: (exit code, stdout, stderr)."""
    addresses = SystemAddresses(
        pid=os.getpid(),
        pid_started=start_ticks(os.getpid()) or 0,
        store="",
        registry="",
        gateway="",
        metrics=metrics,
        registry_certificate="",
    )
    write_system_file(folder, addresses)
    with pytest.raises(SystemExit) as exit_info:
        main(["debug", "workers", "--folder", str(folder), *options])
    printed = capsys.readouterr()
    return int(exit_info.value.code or 0), printed.out, printed.err


def test_debug_workers_prints_the_snapshots_as_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With --json, the value is the supervisor's page."""
    with supervisor_page(200, SNAPSHOTS) as metrics:
        code, out, _ = run_debug(tmp_path, metrics, capsys, "--json")
    assert code == 0
    assert json.loads(out) == SNAPSHOTS


def test_debug_workers_prints_one_slot_and_one_part(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """--slot and --part leave out the rest; an unknown slot or part is an error."""
    with supervisor_page(200, SNAPSHOTS) as metrics:
        line = ("--slot", "0", "--part", "recorder", "--json")
        code, out, _ = run_debug(tmp_path, metrics, capsys, *line)
        assert (code, json.loads(out)) == (
            0,
            [{**SNAPSHOTS[0], "statistics": {"recorder": SNAPSHOTS[0]["statistics"]["recorder"]}}],
        )
        code, _, err = run_debug(tmp_path, metrics, capsys, "--slot", "0", "--part", "engine")
        assert (code, "it has pipeline, recorder" in err) == (1, True)
        code, _, err = run_debug(tmp_path, metrics, capsys, "--slot", "5")
        assert (code, "no worker in slot 5" in err) == (1, True)


def test_statistics_table_has_a_row_for_each_value_and_a_column_for_each_worker() -> None:
    """Nested names are joined by dots; a value that a worker lacks is `-`."""
    console = Console(file=io.StringIO(), width=120)
    console.print(statistics_table(SNAPSHOTS))
    assert isinstance(console.file, io.StringIO)
    lines = [line.split() for line in console.file.getvalue().splitlines()]
    assert lines[0] == ["value", "slot", "0", "(pid", "101)", "spare", "(pid", "102)"]
    assert lines[1:] == [
        ["pipeline.batches", "12,345", "0"],
        ["pipeline.in_flight", "2", "-"],
        ["pipeline.models.churn.rows", "7", "-"],
        ["recorder.waiting", "0", "-"],
        ["recorder.cost_us", "1.235", "-"],
        ["recorder.behind", "False", "-"],
        ["pipeline.last", "-", "-"],
    ]


def test_debug_workers_says_why_there_are_no_snapshots(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No snapshot yet, a supervisor without the page, and a supervisor that does not answer."""
    with supervisor_page(200, []) as metrics:
        code, _, err = run_debug(tmp_path, metrics, capsys)
        assert (code, "no worker has sent a snapshot yet" in err) == (1, True)
    with supervisor_page(404, []) as metrics:
        code, _, err = run_debug(tmp_path, metrics, capsys)
        assert (code, "answers" in err, "404" in err) == (1, True, True)
    code, _, err = run_debug(tmp_path, metrics, capsys)
    assert (code, "does not answer" in err) == (3, True)
