"""The table that `make clients` prints: each test of an example, its result and its calls."""

import pytest

TABLE_FILES = ("test_go.py", "test_java.py", "test_node.py")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print a line for each test of TABLE_FILES that ran or was skipped."""
    rows = [
        (report.nodeid.split("/")[-1], outcome, report.duration, dict(report.user_properties))
        for outcome in ("passed", "failed", "error", "skipped", "xfailed", "xpassed")
        for report in terminalreporter.getreports(outcome)
        if report.nodeid.split("::")[0].endswith(TABLE_FILES)
    ]
    if rows:
        terminalreporter.section("clients")
    for name, outcome, seconds, properties in sorted(rows, key=lambda row: row[0]):
        calls = properties.get("calls", {})
        ended = ", ".join(f"{count:,} {status}" for status, count in sorted(calls.items()))
        terminalreporter.write_line(f"{outcome:<8} {seconds:6.1f} s  {name}  {ended}")
