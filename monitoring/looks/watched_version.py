"""What is watched of a version: its scores and inputs, and the days that they are compared with."""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from monitoring.cells.cell import CellCounts, feature_column
from monitoring.jobs.look import (
    WatchedShare,
    WatchedValue,
    WatchedVersion,
)
from monitoring.looks.day_looks import DayOfVersion, SealedFacts
from monitoring.looks.person_looks import PREDICTED
from monitoring.store.look_store import PersonLooks
from protos import predict_pb2
from stats.alarms.budget import FEATURES, SCORE, DetectorSettings
from stats.alarms.weekdays import SettledReference, UnsettledError, settle_reference
from stats.drift.figures import ValueCounts

Counts = NDArray[np.int64]

SCORE_STREAM = "score"
"""The stream of all outputs together: the bins of the predicted output of a row."""
FLAGS = {
    "rows without stored features": predict_pb2.MISSING,
    "rows with stale features": predict_pb2.STALE,
    "rows with a default": predict_pb2.DEFAULTED,
    "rows while the feature store did not answer": predict_pb2.DEGRADED,
}
"""Share of rows -> the flag of a row. They are of the version; no flag names a view."""
SILENT_SHARE = "minutes without a call"
THURSDAY = 3
"""Weekday of Unix day 0, 0 is Monday."""


def watched_version(
    day: DayOfVersion,
    days: Sequence[PersonLooks] = (),
    weeks: Sequence[PersonLooks] = (),
    others: Sequence[DetectorSettings] = (),
) -> WatchedVersion:
    """Return a version with its scores, inputs and references.

    days   person-looks of the accepted days; empty: none were accepted.
    weeks  those of the weeks that end in the accepted days.
    others  detectors of outcomes and groups of people.
    """
    facts = day.facts
    return WatchedVersion(
        model=facts.model,
        version=facts.version,
        shadow=day.shadow,
        values=tuple(
            _watched_value(facts, name, group, reference, days, weeks)
            for name, (group, reference) in _references(facts).items()
        ),
        shares=share_names_of(facts),
        alarms_a_quarter=day.policy.budget,
        other_detectors=tuple(others),
    )


def share_names_of(facts: SealedFacts) -> tuple[WatchedShare, ...]:
    """Return the shares of rows and minutes that are looked at, without their references.

    The budget counts them. The look of five minutes adds the references.
    """
    features = facts.bins.features
    names = [
        *FLAGS,
        SILENT_SHARE,
        *(missing_share(item.name) for item in features),
        *(unknown_share(item.name) for item in features if item.categories),
    ]
    return tuple(
        WatchedShare(name=name, kind="quality", reference_hits=0, reference_rows=0, reference_id="")
        for name in names
    )


def values_of_looks(facts: SealedFacts, looks: PersonLooks) -> dict[str, ValueCounts]:
    """Return stream -> its values in person-looks of the version."""
    values = {SCORE_STREAM: _score_values(facts, looks.counts)}
    for feature in facts.bins.features:
        column = looks.counts.counts(feature_column(feature.name), feature.size)
        values[feature.name] = ValueCounts(
            column[: feature.missing_index],
            int(column[feature.missing_index]),
            int(column[feature.unknown_index]),
        )
    return values


def _score_values(facts: SealedFacts, counts: CellCounts) -> ValueCounts:
    """Return the bins of the predicted outputs; NaN and the infinities are missing."""
    bins = facts.scale.size
    column = counts.counts(PREDICTED, bins + 3)
    return ValueCounts(column[:bins], int(column[bins:].sum()))


def _references(facts: SealedFacts) -> dict[str, tuple[str, ValueCounts]]:
    """Return stream -> (group, counts of training). The score has those of all outputs."""
    references = {SCORE_STREAM: (SCORE, ValueCounts(_score_reference(facts)))}
    for bins, feature in zip(facts.bins.features, facts.reference["features"], strict=True):
        counts = np.zeros(bins.missing_index, dtype=np.int64)
        counts[:] = feature.get("counts", 0)
        references[bins.name] = FEATURES, ValueCounts(counts, int(feature.get("missing", 0)))
    return references


def _score_reference(facts: SealedFacts) -> Counts:
    """Return the training rows by bin of their predicted output.

    A version of a release that stored edges only has no counts, and so no detector.
    """
    bins = np.zeros(facts.scale.size, dtype=np.int64)
    outputs = facts.reference.get("outputs") or [facts.reference["score"]]
    # Outputs without bins of their own share the last one.
    for first, output in zip(facts.scale.first_bins.tolist(), outputs, strict=True):
        own = output.get("counts") or [output.get("rows", 0)]
        bins[first : first + len(own)] += np.array(own, dtype=np.int64)
    return bins


def _watched_value(
    facts: SealedFacts,
    name: str,
    group: str,
    reference: ValueCounts,
    days: Sequence[PersonLooks],
    weeks: Sequence[PersonLooks],
) -> WatchedValue:
    daily = [values_of_looks(facts, looks)[name].counts for looks in days]
    settled = _settled(daily, [looks.last_day for looks in days])
    weekly = [values_of_looks(facts, looks)[name].counts for looks in weeks]
    compared = [reference.counts, *daily, *weekly]
    digest = hashlib.blake2b(b"".join(item.tobytes() for item in compared), digest_size=8)
    return WatchedValue(
        name=name,
        group=group,
        reference=reference,
        reference_id=digest.hexdigest(),
        settled=settled,
        settled_weeks=np.sum(weekly, axis=0) if weekly and settled is not None else None,
        view=facts.views.get(name, ""),
        importance=facts.importances.get(name, 1.0),
    )


def _settled(daily: Sequence[Counts], days: Sequence[int]) -> SettledReference | None:
    """Return the reference of the accepted days; None: there are too few of them."""
    if not daily:
        return None
    try:
        return settle_reference(np.array(daily), [(day + THURSDAY) % 7 for day in days])
    except UnsettledError:
        return None


def missing_share(feature: str) -> str:
    """Return the name of the share of rows without a value of a feature."""
    return f"missing {feature}"


def unknown_share(feature: str) -> str:
    """Return the name of the share of rows with an unknown category of a feature."""
    return f"unknown {feature}"
