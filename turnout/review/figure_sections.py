"""The sections of figures: drift, accuracy, estimates, business and fairness. No I/O."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from turnout.review.inputs import ReviewInputs
from turnout.review.section import ReviewSection
from turnout.views.figures import figure_text

DRIFT = "drift"
FEATURES_SHOWN = 5
"""Features of a version whose drift is shown."""
AGAINST = ("training", "accepted days")
"""References of drift, the better one last."""
ONE_SCORE = frozenset({"score"})
"""Output of versions whose outputs are not known."""
DRIFT_NOTE = (
    f"Of features, the {FEATURES_SHOWN} that are furthest off are shown; turnout monitor figures "
    "MODEL --kind drift has all"
)
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
    shown = list(newest.values())
    if kind.kind == DRIFT:
        shown = telling_drift(shown, _outputs(inputs))
    rows = [_row(figure) for figure in shown]
    if kind.kind != DRIFT:
        rows.sort(key=lambda row: [row[key] for key in ("model", "version", "figure", "segment")])
    # Why there is none: monitoring is not there, the caller may not see it, or nothing was found.
    hidden = [note for note in monitoring.notes if note.startswith(SAID_BY_SERVER)]
    empty = monitoring.problem or (
        f"not shown: {hidden[0]}"
        if hidden and kind.kind == "fairness"
        else f"not enough data: no figure of this kind in this week; there are some once "
        f"{kind.wanted}"
    )
    columns = ("model", "version", "figure", "segment", "number", "state", "n", "until")
    notes = (DRIFT_NOTE,) if kind.kind == DRIFT and rows else ()
    return ReviewSection(kind.kind, kind.title, columns, tuple(rows), empty, notes)


def telling_drift(
    figures: Sequence[dict[str, Any]], outputs: Mapping[tuple[str, str], frozenset[str]]
) -> list[dict[str, Any]]:
    """Return the psi of each score, and of the features that are furthest off, by version.

    outputs  (model, version) -> the names of its scores.

    The accepted days are the reference where there are some, and else the training data.
    """
    # One reference for each stream: the later one in AGAINST replaces the earlier.
    chosen: dict[tuple[object, ...], dict[str, Any]] = {}
    for against in AGAINST:
        for figure in figures:
            details = figure["details"]
            if details.get("against") == against and figure["name"].startswith("psi "):
                key = figure["model"], figure["version"], figure["days"], details.get("stream")
                if figure["value"] is not None or key not in chosen:
                    chosen[key] = figure
    # The scores first, then the features by their distance.
    scores: dict[tuple[object, ...], list[dict[str, Any]]] = {}
    features: dict[tuple[object, ...], list[dict[str, Any]]] = {}
    for (model, version, days, stream), figure in chosen.items():
        is_score = stream in outputs.get((str(model), str(version)), ONE_SCORE)
        group = scores if is_score else features
        group.setdefault((model, version, days), []).append(figure)
    found: list[dict[str, Any]] = []
    for version_key in sorted({*scores, *features}, key=str):
        known = [item for item in features.get(version_key, ()) if item["value"] is not None]
        known.sort(key=lambda item: -item["value"])
        found += [*scores.get(version_key, ()), *known[:FEATURES_SHOWN]]
    return found


def _outputs(inputs: ReviewInputs) -> dict[tuple[str, str], frozenset[str]]:
    return {
        (item.model, item.version.label): frozenset(out.name for out in item.version.outputs)
        for item in inputs.models
        if item.version is not None and item.version.outputs
    }


def _row(figure: Mapping[str, Any]) -> dict[str, Any]:
    details = figure["details"]
    return {
        "model": figure["model"],
        "version": figure["version"],
        "figure": figure["name"],
        "segment": figure["segment"],
        "number": figure_text(dict(figure)),
        "state": str(details.get("maturity") or details.get("size") or ""),
        "n": figure["n"],
        "until": figure["last_day"],
        "days": figure["days"],
        **{name: figure[name] for name in ("value", "low", "high", "lacking")},
    }
