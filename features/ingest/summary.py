"""What one ingest read, stored and noticed."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class UnknownCategories:
    """Categories of one feature that are not in its dictionary."""

    rows: int
    newest: tuple[str, ...]
    """At most NEWEST_MAX different spellings, those of the newest rows first."""


@dataclass(frozen=True, slots=True)
class ExpectationBreach:
    """An expectation of the view that a load does not meet."""

    what: str
    """One sentence with the numbers seen and expected."""
    action: str
    """What was done: "warn", "quarantine" or "stop"."""


@dataclass(frozen=True, kw_only=True, slots=True)
class IngestSummary:
    """What one ingest read, stored and noticed. Counts are rows."""

    view: str
    source: str
    """The path, table or kind of frame."""
    path: Path | None
    """The folder of the new files; None if no row was stored."""
    digest: str
    """SHA-256 (hex) over the new files; empty if no row was stored."""
    source_rows: int
    rows: int
    """Rows stored: those of the transform without the quarantined ones."""
    missing: Mapping[str, int]
    """Feature -> rows in which it is missing. Features without such rows are left out."""
    unknown: Mapping[str, UnknownCategories]
    """Feature -> categories that its dictionary lacks. They are valid and are stored as unknown."""
    inexact: Mapping[str, int]
    """Feature -> rows with a whole number that float32 cannot hold, and so becomes another."""
    duplicates: int
    """Rows with the entity and the event time of a later row of this load, which replaces them."""
    stale: int
    """Rows older than the view's TTL already. Online they give defaults."""
    forgotten: int
    """Rows older than two TTLs already, not counted in *stale*. Online they count as missing."""
    first_event_ms: int | None
    last_event_ms: int | None
    quarantined: int
    quarantine: Path | None
    """The Parquet file of the rows that were set aside, with the column `turnout_reason`."""
    breaches: tuple[ExpectationBreach, ...]

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a person should read, one sentence each. It is empty after a good load."""
        # What the view expects comes first, then what concerns the rows.
        lines = [breach.what for breach in self.breaches]
        if self.quarantined:
            lines.append(f"{self.quarantined:,} rows were set aside in {self.quarantine}")
        if self.rows == 0:
            lines.append(f"{self.source} gave no rows; nothing was stored")
        if self.duplicates:
            doubled = ""
            if self.rows + self.quarantined > self.source_rows:
                doubled = (
                    f". The transform made {self.rows + self.quarantined:,} rows of "
                    f"{self.source_rows:,}; a join in it doubles rows"
                )
            lines.append(
                f"{self.duplicates:,} rows have the entity and the event time of another row, and "
                f"only the last of them is used{doubled}"
            )
        # What concerns single features.
        lines += [
            f"{name}: {item.rows:,} rows have categories that the dictionary lacks, such as "
            f"{', '.join(map(repr, item.newest))}"
            for name, item in self.unknown.items()
        ]
        lines += [
            f"{name}: {count:,} rows have whole numbers that float32 cannot hold; if it is an id, "
            "make it a category or an entity"
            for name, count in self.inexact.items()
        ]
        # A load that no gateway would read.
        old = self.stale + self.forgotten
        if self.rows and old == self.rows:
            lines.append(
                f"all {self.rows:,} rows are older than the view's TTL, so a gateway would answer "
                "each with defaults"
            )
        return tuple(lines)

    def to_json(self) -> dict[str, Any]:
        """Return the summary as JSON values."""
        value = asdict(self)
        for name in ("path", "quarantine"):
            value[name] = None if value[name] is None else str(value[name])
        return {**value, "warnings": list(self.warnings)}
