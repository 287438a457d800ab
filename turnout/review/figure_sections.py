"""The sections of figures: drift, accuracy, estimates, business and fairness. No I/O."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from turnout.review.inputs import ReviewInputs
from turnout.review.section import ReviewSection
from turnout.views.figures import figure_text

SMALL_PSI, LARGE_PSI = 0.1, 0.25
SAID_BY_SERVER = "figures of fairness"


class FigureKind(NamedTuple):
    """A kind of figures and its section."""

    kind: str
    title: str
    wanted: str
    """What makes such figures."""


KINDS = (
    FigureKind("drift", "Drift", "a daily look compares scores and features with the reference"),
    FigureKind("quality", "Accuracy", "outcomes have arrived and [monitoring.outcomes] names them"),
    FigureKind("estimate", "Expected accuracy, without outcomes", "scores are calibrated"),
    FigureKind("uplift", "Business: uplift and money", "a holdout is kept and outcomes arrive"),
    FigureKind("fairness", "Fairness", "[monitoring] names sensitive views with groups"),
)


def figure_sections(inputs: ReviewInputs) -> list[ReviewSection]:
    """Return a section for each kind, with the newest figure of each name in the period."""
    return [_section(kind, inputs) for kind in KINDS]


def _section(kind: FigureKind, inputs: ReviewInputs) -> ReviewSection:
    monitoring = inputs.monitoring
    # The newest of each name: later ones take the place of earlier ones.
    newest: dict[tuple[object, ...], dict[str, Any]] = {}
    for figure in monitoring.figures:
        if figure["kind"] == kind.kind:
            names = ("model", "version", "segment", "name", "days")
            newest[tuple(figure[name] for name in names)] = figure
    rows = [_row(figure) for figure in newest.values()]
    rows.sort(key=_order)
    # Why there is none: monitoring is not there, the caller may not see it, or nothing was found.
    hidden = [note for note in monitoring.notes if note.startswith(SAID_BY_SERVER)]
    about = tuple(hidden) if kind.kind == "fairness" else ()
    empty = monitoring.problem or (
        f"not shown: {hidden[0]}"
        if about
        else f"not enough data: no figure of this kind in this week; there are some once "
        f"{kind.wanted}"
    )
    columns = ("model", "version", "figure", "segment", "number", "state", "n", "until")
    return ReviewSection(kind.kind, kind.title, columns, tuple(rows), empty)


def _row(figure: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "model": figure["model"],
        "version": figure["version"],
        "figure": figure["name"],
        "segment": figure["segment"],
        "number": figure_text(dict(figure)),
        "state": _state(figure),
        "n": figure["n"],
        "until": figure["last_day"],
        "days": figure["days"],
        **{name: figure[name] for name in ("value", "low", "high", "lacking")},
    }


def _state(figure: Mapping[str, Any]) -> str:
    """Return final or provisional as the look says it, and for a PSI how large it is."""
    if maturity := figure["details"].get("maturity"):
        return str(maturity)
    if figure["name"].startswith("psi") and figure["value"] is not None:
        value = figure["value"]
        return "small" if value < SMALL_PSI else "medium" if value <= LARGE_PSI else "large"
    return ""


def _order(row: Mapping[str, Any]) -> tuple[object, ...]:
    """Sort by model and version; there, a PSI of scores is first, then the largest numbers."""
    value = row["value"]
    name = row["figure"]
    return (
        row["model"],
        row["version"],
        value is None,
        name != "psi score",
        -value if value is not None and name.startswith("psi") else 0.0,
        name,
        row["segment"],
    )
