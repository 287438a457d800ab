"""Looks at a sample of rows of each view that a plan adds or changes.

The plan's digest does not cover what is found here: it depends on the data of the moment.
"""

import datetime as dt
import importlib.util
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from features.errors import EntityIdError, SourceError
from features.source import Source
from features.views import View
from project.definitions import ProjectDefinitions
from project.errors import Problem, ProjectError
from project.plan.differences import Change

if TYPE_CHECKING:
    from features.ingest.sample import SourceSample, StoredSample

VIEW_S_MAX = 10.0
"""Time for the transform of one view over its sample."""
ALL_S_MAX = 60.0
"""Views whose turn comes later are not looked at."""


FEATURE_COLUMNS = (
    "feature",
    "missing (last)",
    "unknown (last): newest",
    "out of bounds",
    "not exact",
)
"""Columns of the table of features. "last" is the share in the newest ingest."""

FEATURES_SHOWN = 20
"""Features of one view that people are shown. --json has all of them."""


@dataclass(frozen=True, slots=True)
class SampledView:
    """What was found in the rows of one view."""

    view: str
    sample: "SourceSample | None"
    last: "StoredSample | None"
    """The newest ingest of the applied edition; None: there is none."""
    not_looked_at: str = ""
    """Why there is no sample, although nothing is known to be wrong."""

    @property
    def texts(self) -> list[str]:
        """What people are told of the rows as a whole, a sentence each."""
        found = self.sample
        if found is None:
            return [f"{self.view}: no rows were looked at: {self.not_looked_at}"]
        span = " to ".join(
            _day(instant) for instant in (found.first_event_ms, found.last_event_ms) if instant
        )
        counts = (
            (found.duplicates, "with the entity and time of another"),
            (found.future, "of the future"),
            (found.ancient, "older than two TTLs"),
            (found.stale, "older than the TTL"),
        )
        odd = ", ".join(f"{count:,} {what}" for count, what in counts if count)
        odd = odd or "no doubles, and every event time fits"
        # Shares beside those of the last ingest show what a change does to the values.
        beside = f"; beside {self.last.rows:,} of the last ingest" if self.last else ""
        return [
            f"{self.view}: {found.source_rows:,} rows of the source gave {found.rows:,}"
            f"{f' from {span}' if span else ''}: {odd}{beside}",
            *(f"{self.view}: {warning}" for warning in found.warnings),
        ]

    @property
    def feature_rows(self) -> list[tuple[str, str, str, str, str]]:
        """One row for each feature with something odd, under FEATURE_COLUMNS."""
        found = self.sample
        if found is None or not found.rows:
            return []
        rows = []
        for item in found.features:
            last_missing = self.last.missing.get(item.name) if self.last else None
            last_unknown = self.last.unknown.get(item.name) if self.last else None
            unknown = item.unknown.rows if item.unknown else 0
            odd = item.missing, unknown, item.out_of_bounds, item.inexact
            if not any((*odd, last_missing, last_unknown)):
                continue
            newest = ", ".join(map(repr, item.unknown.newest)) if item.unknown else ""
            shares = [
                _share(count / found.rows, last)
                for count, last in ((item.missing, last_missing), (unknown, last_unknown))
            ]
            rows.append(
                (
                    f"{self.view}.{item.name}",
                    shares[0],
                    shares[1] + (f": {newest}" if newest else ""),
                    f"{item.out_of_bounds:,}" if item.out_of_bounds else "-",
                    f"{item.inexact:,}" if item.inexact else "-",
                )
            )
        return rows


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleSettings:
    """Where the rows of views are, and how many are looked at.

    rows        rows of each source; 0: none, and no source is opened.
    root        the project's folder.
    offline     folder of the offline store.
    connection  gives the address of a PostgreSQL database by its name in the environment, and
                raises ProjectError.
    places      (section, name) -> (file, line) of what the files declare.
    """

    rows: int
    root: Path
    offline: Path
    connection: Callable[[str], str]
    places: Mapping[tuple[str, str], tuple[str, int]]


def sample_views(
    changes: Sequence[Change],
    applied: ProjectDefinitions | None,
    target: ProjectDefinitions,
    settings: SampleSettings,
) -> tuple[tuple[SampledView, ...], tuple[Problem, ...]]:
    """Return what the sources of added and changed views have, and the sources with a problem."""
    sampled: list[SampledView] = []
    problems: list[Problem] = []
    end = time.monotonic() + ALL_S_MAX
    for change in changes:
        is_wanted = change.section == "views" and change.kind != "removed"
        if not settings.rows or not is_wanted or change.impact == "formatting":
            continue
        view = target.view(change.name)
        reason = _why_not(view, time.monotonic() > end)
        if reason:
            sampled.append(SampledView(view.name, None, None, reason))
            continue
        # What cannot be read is a problem of the file that declares it.
        try:
            sampled.append(_sampled(view, change, applied, settings))
        except TimeoutError as error:
            sampled.append(SampledView(view.name, None, None, str(error)))
        except (SourceError, EntityIdError, ProjectError) as error:
            file, line = settings.places.get(("views", view.name), ("views", 0))
            text = f"{error} (--sample 0 plans without looking at rows)"
            problems.append(Problem(file, line, text))
    return tuple(sampled), tuple(problems)


def _why_not(view: View, is_late: bool) -> str:
    """Return why the rows of *view* are not looked at, or nothing."""
    if view.source is None:
        return "the view declares no source"
    if view.source.kind == "frame":
        return "its source is a frame, which is given when rows are ingested"
    if not importlib.util.find_spec("duckdb"):
        return "DuckDB is not installed: pip install 'turnout[training]'"
    return f"the views before it took {ALL_S_MAX:g} s" if is_late else ""


def _sampled(
    view: View, change: Change, applied: ProjectDefinitions | None, settings: SampleSettings
) -> SampledView:
    from features.ingest.sample import sample_source, sample_stored

    # The address of a database may be a secret, which is read for the views that need it only.
    source = view.source
    assert source is not None
    sample = sample_source(
        view,
        rows_max=settings.rows,
        seconds_max=VIEW_S_MAX,
        root=settings.root,
        connections=_connections(source, settings),
    )
    # The last rows were stored by the definition that is applied.
    last = None
    if applied is not None and change.old_hash:
        folder = settings.offline / f"{view.name}@{change.old_hash[:16]}"
        last = sample_stored(applied.view(view.name), folder, rows_max=settings.rows)
    return SampledView(view.name, sample, last)


def _connections(source: Source, settings: SampleSettings) -> dict[str, str]:
    if source.kind != "table":
        return {}
    return {source.connection: settings.connection(source.connection)}


def _share(share: float, last: float | None) -> str:
    """Return a share beside that of the last ingest, such as "3.1% (2.9%)"."""
    shown = f"{share:.1%}" if share else "-"
    return shown if last is None else f"{shown} ({last:.1%})"


def _day(unix_ms: int) -> str:
    """Return the day of an instant in UTC, or the number itself when no calendar has it."""
    try:
        return dt.datetime.fromtimestamp(unix_ms / 1_000, tz=dt.UTC).date().isoformat()
    except (OverflowError, ValueError, OSError):
        return str(unix_ms)
