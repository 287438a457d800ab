"""What `turnout features materialise` says of rows that are old already."""

import pytest

from features.materialise import WriteSummary
from tests.features.small_views import plan_view
from turnout.commands.features import report_materialised
from turnout.errors import OperatorError
from turnout.views.terminal import terminal


def printed(capsys: pytest.CaptureFixture[str], summary: WriteSummary) -> str:
    """Return what is printed for a materialise of one view, as one line."""
    report_materialised(terminal(False), "plan", [plan_view()], [summary], 1.0)
    streams = capsys.readouterr()
    return " ".join(f"{streams.out} {streams.err}".split())


def test_rows_older_than_the_ttl_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    """They are answered by defaults, so a person must know how many there are."""
    old = WriteSummary(5_000, 0, stale=3_000, forgotten=20, is_readable=True)
    text = printed(capsys, old)
    assert "3,000 rows are older than its TTL of" in text
    assert "and 20 older than two TTLs; gateways answer these entities with defaults" in text
    assert "TTL" not in printed(capsys, WriteSummary(5_000, 0, is_readable=True))


def test_view_without_a_row_that_is_used_is_an_error() -> None:
    """Whatever was written, no call would get a feature."""
    old = WriteSummary(5, 0, stale=5)
    with pytest.raises(OperatorError, match=r"can use none of the rows of plan.*5 rows are older"):
        report_materialised(terminal(False), "plan", [plan_view()], [old], 1.0)
