"""What is watched of a version: its scores and inputs, and the days that they are compared with."""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from monitoring.cells.cell import CellCounts, feature_column
from monitoring.jobs.look import WatchedValue, WatchedVersion, values_of_reference
from monitoring.store.look_store import PersonLooks
from monitoring.watch.day_looks import DayOfVersion, SealedFacts
from monitoring.watch.person_looks import PREDICTED
from stats.alarms.budget import FEATURES, SCORE
from stats.alarms.weekdays import SettledReference, UnsettledError, settle_reference
from stats.drift.figures import ValueCounts

Counts = NDArray[np.int64]

SCORE_STREAM = "score"
"""The stream of all outputs together: the bins of the predicted output of a row."""
THURSDAY = 3
"""Weekday of Unix day 0, 0 is Monday."""


def watched_version(
    day: DayOfVersion, days: Sequence[PersonLooks] = (), weeks: Sequence[PersonLooks] = ()
) -> WatchedVersion:
    """Return a version with its scores, inputs and references.

    days   person-looks of the accepted days; empty: none were accepted.
    weeks  those of the weeks that end in the accepted days.
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
        alarms_a_quarter=day.policy.budget,
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
    features = {
        name: (group, counts)
        for name, (group, counts) in values_of_reference(facts.reference).items()
        if group == FEATURES
    }
    outputs = facts.reference.get("outputs") or [facts.reference["score"]]
    # Outputs without bins of their own share the last one.
    bins = np.zeros(facts.scale.size, dtype=np.int64)
    for first, output in zip(facts.scale.first_bins.tolist(), outputs, strict=True):
        own = output["counts"] if output.get("edges") is not None else [output["rows"]]
        bins[first : first + len(own)] += np.array(own, dtype=np.int64)
    return {SCORE_STREAM: (SCORE, ValueCounts(bins)), **features}


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
    )


def _settled(daily: Sequence[Counts], days: Sequence[int]) -> SettledReference | None:
    """Return the reference of the accepted days; None: there are too few of them."""
    if not daily:
        return None
    try:
        return settle_reference(np.array(daily), [(day + THURSDAY) % 7 for day in days])
    except UnsettledError:
        return None
