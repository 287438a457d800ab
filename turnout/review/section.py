"""A section of the review: a table with its reason to be empty, and lines to be drawn."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from protos import monitoring_pb2 as pb

LINES_MAX = 6
"""Figures of one section that are drawn."""
ROWS_MAX = 40
"""Rows of one section on a page. --json has all of them."""


@dataclass(frozen=True, slots=True)
class FigureLine:
    """A figure over time, to be drawn."""

    name: str
    points: tuple[tuple[int, float, float | None, float | None], ...]
    """(Unix day, value, low, high), oldest first."""


@dataclass(frozen=True, slots=True)
class ReviewSection:
    """One section, for terminal, HTML, Markdown and JSON alike."""

    key: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[dict[str, Any], ...]
    """Column, and more for JSON -> value."""
    empty: str
    """What is said where there is no row."""
    notes: tuple[str, ...] = ()

    @property
    def shown_rows(self) -> Sequence[dict[str, Any]]:
        """The rows of a page."""
        return self.rows[:ROWS_MAX]

    @property
    def shown_notes(self) -> list[str]:
        """The notes of a page, with how many rows it leaves out."""
        left_out = len(self.rows) - ROWS_MAX
        more = [f"{left_out} more rows: turnout review --json has all"] if left_out > 0 else []
        return [*more, *self.notes]

    def to_json(self) -> dict[str, Any]:
        """Return JSON values. An empty section says why."""
        return {
            "title": self.title,
            "rows": list(self.rows),
            "empty": "" if self.rows else self.empty,
            "notes": list(self.notes),
        }


def drawn_rows(section: ReviewSection) -> list[dict[str, Any]]:
    """Return the rows with figures that are drawn, the most telling first; other sections: none."""
    return [row for row in section.rows if row.get("value") is not None][:LINES_MAX]


def figure_line(figures: "Sequence[pb.FigureOfPeriod]") -> FigureLine | None:
    """Return the line of one figure, oldest first; None for fewer than two numbers."""
    points = tuple(
        (
            item.last_day,
            item.value,
            item.low if item.HasField("low") else None,
            item.high if item.HasField("high") else None,
        )
        for item in figures
        if item.HasField("value")
    )
    if len(points) < 2:
        return None
    first = figures[0]
    segment = f" ({first.segment})" if first.segment else ""
    return FigureLine(f"{first.model} {first.version} {first.name}{segment}", points)


def sentence(text: str) -> str:
    """Return a note as a sentence, without its full stop.

    >>> sentence("none is open")
    'None is open'
    """
    return text[:1].upper() + text[1:]


def cell_text(value: object) -> str:
    """Return a value as a table shows it.

    >>> cell_text(None), cell_text(True), cell_text(0.123456), cell_text("a")
    ('-', 'yes', '0.1235', 'a')
    """
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)
