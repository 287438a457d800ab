"""Which figures are metrics: few for each version in service, so that their number is bounded."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from monitoring.store.look_store import StoredFigure

METRIC_OF_OUTCOME = re.compile(r"(\w+) ([^\s,]+)")
"""Name of a figure of one outcome, such as "auc churned"."""
HEADLINES: Mapping[str, tuple[str, ...]] = {
    "quality": ("auc", "brier", "calibration_slope"),
    "estimate": ("auc",),
    "uplift": ("effect", "money"),
}
"""Kind -> the metrics of an outcome that are shown."""
DRIFT, COVERAGE = "drift", "coverage"
KINDS = (DRIFT, COVERAGE, *HEADLINES)
"""Kinds that are shown. Figures of fairness are for auditors, and a metrics page has none."""
SCORE, WORST_FEATURE = "psi score", "psi worst feature"
AGAINST = ("training", "accepted days")
"""References of drift, the better one last."""


@dataclass(frozen=True, slots=True)
class Headline:
    """One figure as a gauge."""

    model: str
    version: str
    kind: str
    name: str
    value: float


def headlines(
    figures: Iterable[StoredFigure], outputs: Mapping[tuple[str, str], frozenset[str]]
) -> list[Headline]:
    """Return the headlines among *figures*, of versions in service.

    outputs  (model, version) in service -> the names of its scores.

    Figures of segments and figures without a number are left out.
    """
    # The newest period wins, and of two that end on one day the longer.
    found: dict[tuple[str, str, str, str], float] = {}
    drift: dict[tuple[str, str], dict[str, StoredFigure]] = {}
    for item in sorted(figures, key=lambda item: (item.last_day, item.days)):
        key = item.model, item.version
        if key not in outputs or item.segment or item.figure.value is None:
            continue
        if item.kind == DRIFT:
            drift.setdefault(key, {})[item.name] = item
        elif name := _name(item):
            found[*key, item.kind, name] = item.figure.value
    # Drift has two numbers a version.
    for key, named in drift.items():
        for name, value in _drift(named.values(), outputs[key]).items():
            found[*key, DRIFT, name] = value
    return [Headline(*key, value) for key, value in found.items()]


def _name(item: StoredFigure) -> str:
    """Return the headline's name; empty: it is none."""
    if item.kind == COVERAGE:
        return COVERAGE
    parts = METRIC_OF_OUTCOME.fullmatch(item.name)
    known = parts is not None and parts[1] in HEADLINES.get(item.kind, ())
    return item.name if known else ""


def _drift(figures: Iterable[StoredFigure], scores: frozenset[str]) -> dict[str, float]:
    """Return the largest psi of the scores and of the features, each against its best reference."""
    chosen: dict[str, StoredFigure] = {}
    for item in figures:
        stream, against = item.details.get("stream"), item.details.get("against")
        if not isinstance(stream, str) or against not in AGAINST:
            continue
        before = chosen.get(stream)
        rank = AGAINST.index(against), item.last_day, item.days
        if before is None or rank >= _rank(before):
            chosen[stream] = item
    found: dict[str, float] = {}
    for stream, item in chosen.items():
        assert item.figure.value is not None
        name = SCORE if stream in scores else WORST_FEATURE
        found[name] = max(found.get(name, item.figure.value), item.figure.value)
    return found


def _rank(item: StoredFigure) -> tuple[int, int, int]:
    return AGAINST.index(str(item.details["against"])), item.last_day, item.days
