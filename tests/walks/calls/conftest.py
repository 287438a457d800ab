"""The table that `make surroundings` prints: each surrounding, and green or the reason why not."""

import pytest

TABLE_FILES = (
    "test_hostile_surroundings.py",
    "test_surroundings.py",
    "test_addresses.py",
    "test_handshake_refusals.py",
    "test_parts_that_fail.py",
    "test_surroundings_page.py",
)
OUTCOMES = ("passed", "failed", "error", "skipped")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print a line for each test of TABLE_FILES that ran or was skipped."""
    rows = sorted(
        (report.nodeid.split("/")[-1].removesuffix("]"), outcome, report)
        for outcome in OUTCOMES
        for report in terminalreporter.getreports(outcome)
        if report.nodeid.split("::")[0].endswith(TABLE_FILES)
    )
    if rows:
        terminalreporter.section("surroundings")
    for name, outcome, report in rows:
        result = "green" if outcome == "passed" else f"{outcome}: {_reason(report)}"
        _, _, test = name.partition("::")
        shown = test.removeprefix("test_").replace("_", " ").replace("[", ": ")
        terminalreporter.write_line(f"{shown:<75} {report.duration:6.1f} s  {result}")


def _reason(report: pytest.TestReport) -> str:
    """Return one line that says why a test failed or was skipped."""
    if isinstance(report.longrepr, tuple):
        return report.longrepr[2].removeprefix("Skipped: ")
    crash = getattr(report.longrepr, "reprcrash", None)
    text = str(report.longrepr if crash is None else crash.message)
    return text.splitlines()[0] if text else "no reason"
