"""Prints the results of a run as one table at its end: `python -m pytest -p tests.results.table`.

`make attacks`, `make clients` and `make surroundings` do so. A row has the result, the seconds, the
file, the test in words, and what it counted or why it is not green. An attack's row has its
finding in place of the file, and the first line of its docstring, which says what was tried.
"""

from collections.abc import Sequence
from typing import NamedTuple

import pytest

RESULTS = {
    "passed": "green",
    "failed": "FAILED",
    "error": "ERROR",
    "skipped": "skipped",
    "xfailed": "xfailed",
    "xpassed": "XPASSED",
}
"""Pytest's outcome of a test -> its word in the table."""
REASON_CHARS_MAX = 300
"""A longer reason is cut: the whole of it is above the table."""


class ResultRow(NamedTuple):
    """One line of the table."""

    group: str
    text: str
    result: str
    seconds: float
    notes: str


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the finding of each attack, and the first line of its docstring, for its row."""
    for item in items:
        mark = item.get_closest_marker("attack")
        if mark is not None and isinstance(item, pytest.Function):
            text = (item.function.__doc__ or "").strip().splitlines()[0]
            item.user_properties.append(("attack", (mark.args[0], text)))


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table: a test that failed in its set-up or was skipped has a row, too."""
    rows = sorted(
        row_of(report, RESULTS[outcome])
        for outcome in RESULTS
        for report in terminalreporter.getreports(outcome)
        if isinstance(report, pytest.TestReport)
    )
    if rows:
        terminalreporter.section("results")
        for line in table_lines(rows):
            terminalreporter.write_line(line)


def row_of(report: pytest.TestReport, result: str) -> ResultRow:
    """Return the row of one test."""
    properties = dict(report.user_properties)
    file, _, name = report.nodeid.rpartition("/")[2].partition("::")
    name, _, parameters = name.removesuffix("]").partition("[")
    group = file.removeprefix("test_").removesuffix(".py").replace("_", " ")
    text = name.removeprefix("test_").replace("_", " ")
    group, text = properties.get("attack", (group, text))
    calls = properties.get("calls", {})
    notes = [f"{count:,} {status}" for status, count in sorted(calls.items())]
    if not report.passed:
        notes.append(reason_of(report))
    return ResultRow(
        str(group),
        f"{text}: {parameters}" if parameters else text,
        result,
        report.duration,
        ", ".join(notes),
    )


def reason_of(report: pytest.TestReport) -> str:
    """Return one line that says why a test failed or was skipped."""
    if isinstance(report.longrepr, tuple):
        return report.longrepr[2].removeprefix("Skipped: ")
    crash = getattr(report.longrepr, "reprcrash", None)
    text = str(report.longrepr if crash is None else crash.message).strip()
    return text.splitlines()[0][:REASON_CHARS_MAX] if text else "no reason"


def table_lines(rows: Sequence[ResultRow]) -> list[str]:
    """Return the lines of the table, and one that counts the results."""
    group_width = max(len(row.group) for row in rows)
    text_width = max(len(row.text) for row in rows)
    lines = [
        f"{row.result:<8}{row.seconds:7.1f} s  {row.group:<{group_width}}  "
        f"{row.text:<{text_width}}  {row.notes}".rstrip()
        for row in rows
    ]
    counts = {word: sum(row.result == word for row in rows) for word in RESULTS.values()}
    return [*lines, ", ".join(f"{count} {word}" for word, count in counts.items() if count)]
