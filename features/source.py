"""Declares where a view's rows come from. Nothing is read here; `features.ingest` reads it."""

import zoneinfo
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Literal, TypeAlias

from features.errors import ViewError

Kind: TypeAlias = Literal["files", "table", "frame"]
Format: TypeAlias = Literal["parquet", "csv", "jsonl"]
Unit: TypeAlias = Literal["s", "ms", "us", "ns"]

FORMATS: dict[str, Format] = {
    ".parquet": "parquet",
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}
"""Suffix of a file, without `.gz` -> its format."""

UNITS = ("s", "ms", "us", "ns")


@dataclass(frozen=True, kw_only=True)
class Source:
    """A table outside Turnout, and which of its columns is the time.

    Use `Source.files`, `Source.table` or `Source.frame`. The transform reads the rows as the table
    `source`. It has the columns of the data, and beside them `event_time_ms` made from *time* and,
    if *created* is given, `created_ms` made from *created*: both BIGINT, Unix milliseconds in UTC.

    time     the column of the instant at which a row became true. None: the transform returns
             event_time_ms by itself.
    created  the column of the instant at which a row became known.
    zone     the time zone (IANA name) of dates and of timestamps that have none themselves.
    unit     the unit of a time column that holds numbers, counted from 1970 in UTC.

    A source is no part of the view hash: the same rows may come from another place.
    Raises ViewError when these contradict each other.
    """

    kind: Kind
    time: str | None
    location: str = ""
    """A path or glob of files, or the name of a table; empty for a frame."""
    connection: str = ""
    """The name of a table's connection in the environment."""
    format: Format | None = None
    created: str | None = None
    zone: str | None = None
    unit: Unit | None = None

    def __post_init__(self) -> None:
        if "" in {self.time, self.created} or (self.time is None and self.created is not None):
            raise ViewError(
                f"a source has time={self.time!r} and created={self.created!r}; give the name of "
                "the time column, and of the other one if there is one"
            )
        if self.unit is not None and self.unit not in UNITS:
            raise ViewError(f"unit {self.unit!r} is not known; it is one of {', '.join(UNITS)}")
        if self.zone is not None:
            _check_zone(self.zone)
        if self.kind != "frame" and not self.location:
            raise ViewError(f"a source of kind {self.kind!r} needs a name or a path; it is empty")
        if self.kind == "table":
            _check_table(self.location, self.connection)

    @staticmethod
    def files(
        pattern: str,
        *,
        time: str | None,
        created: str | None = None,
        zone: str | None = None,
        unit: Unit | None = None,
        format: Format | None = None,  # noqa: A002  the word that users know from DuckDB
    ) -> "Source":
        """Return the files that *pattern* names: one path, or a glob with `*`, `?`, `[]` and `**`.

        pattern  relative to the project's folder, or absolute. A path that exists is taken as it
                 is, so that a name may contain brackets. Folders such as `day=2026-11-01` give a
                 column `day`.
        format   "parquet", "csv" (with a header line) or "jsonl". None: from the suffix.

        Raises ViewError when the format is unknown or the pattern is a web address.
        """
        # A web address would look like a path that is not there.
        if "://" in pattern:
            raise ViewError(
                f"{pattern.split('://')[0]}:// is not read; a source of files is a local path"
            )
        # The suffix says the format, unless it is given.
        name = PurePath(pattern.removesuffix(".gz"))
        chosen = format or FORMATS.get(name.suffix.lower())
        if chosen not in set(FORMATS.values()):
            raise ViewError(
                f"the format of {pattern!r} is {format or 'not known from its suffix'}; give "
                'format="parquet", "csv" or "jsonl"'
            )
        return Source(
            kind="files",
            location=pattern,
            format=chosen,
            time=time,
            created=created,
            zone=zone,
            unit=unit,
        )

    @staticmethod
    def table(
        name: str,
        *,
        time: str | None,
        connection: str,
        created: str | None = None,
        zone: str | None = None,
        unit: Unit | None = None,
    ) -> "Source":
        """Return a PostgreSQL table or view, `name` or `schema.name`, as the database spells it.

        connection  the name under which the environment has the database's address.
        """
        return Source(
            kind="table",
            location=name,
            connection=connection,
            time=time,
            created=created,
            zone=zone,
            unit=unit,
        )

    @staticmethod
    def frame(
        *,
        time: str | None,
        created: str | None = None,
        zone: str | None = None,
        unit: Unit | None = None,
    ) -> "Source":
        """Return a pandas, polars or Arrow frame that is given when rows are ingested."""
        return Source(kind="frame", time=time, created=created, zone=zone, unit=unit)

    def definition(self) -> dict[str, Any]:
        """Return the source as JSON values, for the project's definitions."""
        return {
            "kind": self.kind,
            "location": self.location,
            "connection": self.connection,
            "format": self.format,
            "time": self.time,
            "created": self.created,
            "zone": self.zone,
            "unit": self.unit,
        }

    @staticmethod
    def from_definition(definition: dict[str, Any]) -> "Source":
        """Rebuild a source from the return value of `definition`, or from its JSON.

        Raises ViewError when a field is missing, unknown, or contradicts another field.
        """
        try:
            return Source(**definition)
        except TypeError as error:
            raise ViewError(f"not a definition of a source: {error}") from error


def _check_zone(zone: str) -> None:
    try:
        zoneinfo.ZoneInfo(zone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        # A host without a time zone database cannot check the name. DuckDB has a database.
        if zoneinfo.available_timezones():
            raise ViewError(
                f"zone {zone!r} is not a time zone; give an IANA name such as Europe/Berlin or UTC"
            ) from error


def _check_table(name: str, connection: str) -> None:
    parts = name.split(".")
    if len(parts) > 2 or not all(part and len(part) <= 63 and part.isprintable() for part in parts):
        raise ViewError(f"table {name!r} is not a name; write name or schema.name")
    if not connection:
        raise ViewError(
            f"table {name!r} has no connection; give connection= with a name that the environment "
            "declares under [sources]"
        )
