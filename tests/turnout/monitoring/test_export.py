"""What an export refuses, and that the page has its columns."""

import re

import pytest

from tests.house.sources import REPOSITORY
from turnout.errors import UsageError
from turnout.monitoring.export import ExportDays, export_days
from turnout.monitoring.export_tables import TABLES, moment

TODAY = 20_787  # 2026-11-30
PAGE = (REPOSITORY / "docs" / "review.md").read_text(encoding="utf-8")


def test_days_end_today_and_are_a_quarter() -> None:
    """Unless they are given."""
    assert export_days("", "", TODAY) == ExportDays(TODAY - 90, TODAY)
    assert export_days("2026-11-01", "2026-11-14", TODAY) == ExportDays(20_758, 20_771)
    assert export_days("", "2026-11-14", TODAY) == ExportDays(20_771 - 90, 20_771)


@pytest.mark.parametrize(
    ("since", "until", "message"),
    [
        ("2026-11-15", "2026-11-14", "give a --since that is not after --until"),
        ("soon", "", "--since 'soon' is no date"),
        ("", "2026-13-01", "--until '2026-13-01' is no date"),
    ],
)
def test_other_days_are_refused(since: str, until: str, message: str) -> None:
    """With the way out."""
    with pytest.raises(UsageError, match=message):
        export_days(since, until, TODAY)


def test_moment_is_utc_or_nothing() -> None:
    """A time that never was is no 1970."""
    assert moment(0) is None
    assert moment(1_796_050_000_500) == "2026-11-30 14:46:40.500000"


def test_page_has_every_column_with_its_type() -> None:
    """The schema page is that of the code."""
    for name, columns in TABLES.items():
        table = PAGE.partition(f"**`{name}.parquet`**")[2].partition("\n\n**")[0]
        rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.+) \|$", table, re.MULTILINE)
        assert rows == [(column, kind, text) for column, (kind, text) in columns.items()]
