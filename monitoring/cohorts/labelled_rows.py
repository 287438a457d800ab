"""Decisions joined with outcomes: scored rows of a version, each with what became of it.

Decisions are those of a sample of keys, so figures of them are of fewer rows than those of cells.
They know what cells do not: the inputs, every output, the customer, and a shadow's rows.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from monitoring.cells.decision_rows import DecisionRows
from monitoring.cells.outcome_columns import id_digest
from monitoring.cells.version_bins import OutputBins
from monitoring.cohorts.outcome_cells import EVERYBODY, SHADOW
from monitoring.jobs.quality import OutcomeCohort
from monitoring.store.cohort_store import CohortStore
from registry.watching.policy import OutcomePolicy, Segmentation
from stats.score_grid import bins_by_edges, score_grid_values

Flags = NDArray[np.bool_]
Floats = NDArray[np.float64]

NO_DECISIONS = (
    "not enough data: no scored rows of these days are kept (`--decisions` of control, "
    "docs/monitoring.md)"
)


class DayRowSource(Protocol):
    """Where the scored rows of a day are read; monitoring.decisions.DecisionStore is one."""

    def day_rows(self, model: str, day: int) -> Iterable[tuple[str, DecisionRows]]:
        """Yield (label of the version, rows) of the calls of one Unix day, in any order."""
        ...


@dataclass(frozen=True, eq=False, slots=True)
class LabelledDecisions:
    """R scored rows of one version, and what was reported of them.

    scores    (R, K) float32. vectors  (R, F) float32.
    reported  (R,) bool. values  (R,) float64, NaN where nothing was reported.
    holdout   (R,) bool. days  (R,) int64, Unix days of the calls.
    calls     (R,) int64: rows of one call have the same number.
    customers the first entity id of each row; empty texts where a model has none.
    """

    scores: NDArray[np.float32]
    vectors: NDArray[np.float32]
    reported: Flags
    values: Floats
    holdout: Flags
    days: NDArray[np.int64]
    calls: NDArray[np.int64]
    customers: tuple[str, ...]

    def __len__(self) -> int:
        """Return R, the number of rows."""
        return len(self.values)

    def positive(self, policy: OutcomePolicy) -> Flags:
        """Return which rows have the outcome, (R,)."""
        return np.array(
            [
                bool(known) and policy.is_positive(value)
                for known, value in zip(self.reported, self.values.tolist(), strict=True)
            ],
            dtype=np.bool_,
        )

    def cohort(
        self, chosen: Flags, policy: OutcomePolicy, output: OutputBins, age_days: int
    ) -> OutcomeCohort:
        """Return the counts of the *chosen* (R,) rows by the bins of a probability."""
        bins = len(output.edges) + 1
        placed = bins_by_edges(np.ascontiguousarray(self.scores[:, 0]), output.edges)
        inside = chosen & (placed < bins)
        positive = self.positive(policy)
        counts = [
            np.bincount(placed[rows], minlength=bins).astype(np.int64)
            for rows in (
                inside,
                inside & positive,
                inside & self.reported & ~positive,
            )
        ]
        unplaced = int((chosen & ~inside & self.reported).sum())
        return OutcomeCohort(
            score_grid_values(), counts[0], counts[1], counts[2], age_days, unplaced
        )


def read_labelled(
    source: DayRowSource | None,
    store: CohortStore,
    model: str,
    version: str,
    days: tuple[int, int],
    outcome: str,
    *,
    shadow: bool = False,
) -> LabelledDecisions | None:
    """Return the rows of a version of the days from the first to the last; None: there are none.

    shadow  rows that it scored as a shadow, else those that it answered with and nobody pinned.
    """
    if source is None:
        return None
    # What was reported of each row, whatever version answered: a shadow's rows have the ids of
    # the answers.
    reports = {
        (item.id_digest, item.row): item.value for item in store.reported(model, *days, [outcome])
    }
    parts: list[LabelledDecisions] = []
    calls: dict[bytes, int] = {}
    for day in range(days[0], days[1] + 1):
        for label, rows in source.day_rows(model, day):
            if label == version and len(rows):
                part = _labelled(rows, reports, calls, shadow=shadow)
                parts += [part] if len(part) else []
    return join_labelled(parts)


def join_labelled(parts: list[LabelledDecisions]) -> LabelledDecisions | None:
    """Return the rows of all *parts*; None if there are none."""
    if not parts:
        return None
    return LabelledDecisions(
        np.concatenate([part.scores for part in parts]),
        np.concatenate([part.vectors for part in parts]),
        np.concatenate([part.reported for part in parts]),
        np.concatenate([part.values for part in parts]),
        np.concatenate([part.holdout for part in parts]),
        np.concatenate([part.days for part in parts]),
        np.concatenate([part.calls for part in parts]),
        tuple(customer for part in parts for customer in part.customers),
    )


def _labelled(
    rows: DecisionRows,
    reports: Mapping[tuple[bytes, int], float],
    calls: dict[bytes, int],
    *,
    shadow: bool,
) -> LabelledDecisions:
    # The rows that are asked for, each with the value of its report.
    chosen = np.flatnonzero(is_of_scope(rows, shadow=shadow))
    digests = [id_digest(rows.prediction_id[row].tobytes()) for row in chosen.tolist()]
    values = np.array(
        [
            reports.get((digest, int(rows.row[row])), np.nan)
            for digest, row in zip(digests, chosen.tolist(), strict=True)
        ],
        dtype=np.float64,
    )
    # The first entity is the customer, by which the holdout is drawn.
    entities = len(rows.entity_ids) // max(len(rows), 1)
    customers = tuple(
        rows.entity_ids[row * entities] if entities else "" for row in chosen.tolist()
    )
    return LabelledDecisions(
        rows.scores[chosen],
        rows.vectors[chosen],
        ~np.isnan(values),
        values,
        rows.holdout[chosen].astype(np.bool_),
        rows.at_unix_ns[chosen] // (86_400 * 10**9),
        np.array([calls.setdefault(digest, len(calls)) for digest in digests], dtype=np.int64),
        customers,
    )


def is_of_scope(rows: DecisionRows, *, shadow: bool) -> Flags:
    """Return which rows were scored as a shadow, or answered without a pin, (R,)."""
    scope = SHADOW if shadow else EVERYBODY
    return np.isin(rows.role, list(scope.roles))


def sample_vectors(
    source: DayRowSource,
    model: str,
    version: str,
    days: tuple[int, int],
    rows_max: int,
    rng: np.random.Generator,
    *,
    shadow: bool = False,
) -> Floats:
    """Return inputs of a version's rows of the days, equally many of each day, (N, F) float64."""
    parts: list[Floats] = []
    rows_a_day = max(rows_max // (days[1] - days[0] + 1), 1)
    for day in range(days[0], days[1] + 1):
        of_day = [
            rows.vectors[is_of_scope(rows, shadow=shadow)].astype(np.float64)
            for label, rows in source.day_rows(model, day)
            if label == version and len(rows)
        ]
        if of_day:
            vectors = np.concatenate(of_day)
            parts.append(vectors[rng.permutation(len(vectors))[:rows_a_day]])
    return np.concatenate(parts) if parts else np.zeros((0, 0))


def segment_masks(
    segments: Mapping[str, Segmentation],
    names: tuple[str, ...],
    dictionaries: Mapping[str, tuple[str, ...]],
    vectors: NDArray[np.float32],
) -> dict[str, Flags]:
    """Return "segmentation=part" -> which of the (R, F) rows are in it; "other" is a part too.

    names         of the inputs. dictionaries  input -> the texts of its codes, of a category.

    A segmentation by an input that the version does not have, or by categories whose dictionary
    is not known, has no parts.
    """
    masks: dict[str, Flags] = {}
    for name, segmentation in segments.items():
        column = column_of(segmentation.feature, names)
        if column is None or (segmentation.categories and names[column] not in dictionaries):
            continue
        texts = dictionaries.get(names[column], ()) if segmentation.categories else ()
        parts = np.array([_part(segmentation, value, texts) for value in vectors[:, column]])
        for part in (*segmentation.parts, "other"):
            masks[f"{name}={part}"] = np.asarray(parts == part, dtype=np.bool_)
    return masks


def column_of(feature: str, names: tuple[str, ...]) -> int | None:
    """Return the position of a feature among inputs, which have the names of their views."""
    for position, name in enumerate(names):
        if name == feature or name.endswith(f":{feature}"):
            return position
    return None


def _part(segmentation: Segmentation, value: float, texts: tuple[str, ...]) -> str:
    if not segmentation.categories:
        return segmentation.part_of(float(value))
    known = np.isfinite(value) and 0 <= int(value) < len(texts)
    return segmentation.part_of(texts[int(value)]) if known else "other"
