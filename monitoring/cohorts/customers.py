"""Customers of a period from decisions: each at the first look, with what became of the customer.

A customer is the first entity of a row, by which the holdout is drawn; of a model without entities,
the key. Outcomes may be reported about a later prediction of the same customer, also by another
version, so they are found by the customer's rows and by the key.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from monitoring.cells.decision_rows import DecisionRows
from monitoring.cells.outcome_columns import id_digest
from monitoring.cohorts.labelled_rows import DayRowSource
from monitoring.cohorts.outcome_cells import EVERYBODY
from monitoring.store.cohort_store import CohortStore, ReportedOutcome
from registry.watching.policy import OutcomePolicy

DAY_NS = 86_400 * 10**9
NS_PER_MS = 1_000_000
MS_PER_S = 1_000


@dataclass(frozen=True, eq=False, slots=True)
class SeenCustomers:
    """N customers of one version and period, in the order of their first looks.

    names     of the customers, as the model's calls name them.
    scores    (N,) float64, the first output at the first look.
    vectors   (N, F) float32, the inputs at the first look.
    holdout   (N,) bool, at the first look. first_days  (N,) int64, Unix days of the first looks.
    outcomes  (N,) float64: 1 or 0 for what happened or not, NaN where it is not known.
    acts      (N,) int64, reported acts.
    moved     customers that were seen in the holdout and out of it.
    acts_reported  whether anybody reports acts.
    """

    names: tuple[str, ...]
    scores: NDArray[np.float64]
    vectors: NDArray[np.float32]
    holdout: NDArray[np.bool_]
    first_days: NDArray[np.int64]
    outcomes: NDArray[np.float64]
    acts: NDArray[np.int64]
    moved: int
    acts_reported: bool

    def __len__(self) -> int:
        """Return N, the number of customers."""
        return len(self.scores)


@dataclass(slots=True)
class _Gathered:
    """The first looks so far."""

    positions: dict[str, int] = field(default_factory=dict)
    at_ms: list[int] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    vectors: list[NDArray[np.float32]] = field(default_factory=list)
    holdout: list[bool] = field(default_factory=list)
    moved: set[int] = field(default_factory=set)
    by_digest: dict[bytes, int] = field(default_factory=dict)
    """Digest of an id that somebody reported about -> the customer."""
    by_key: dict[int, int] = field(default_factory=dict)


def read_customers(
    source: DayRowSource,
    store: CohortStore,
    model: str,
    version: str,
    days: tuple[int, int],
    outcome: str,
    policy: OutcomePolicy,
    acted: str,
) -> SeenCustomers | None:
    """Return the customers whom a version answered in [first, last] of *days*; None: none.

    acted  name of the outcome that reports acts.

    Outcomes are those reported within horizon and grace of the first look. Looks whose score is NaN
    or infinite are left out.
    """
    # Reports come first: only the ids that they name need a digest that is remembered.
    last = days[1] - (-policy.final_s // 86_400)
    reports = store.reported(model, days[0], last, [outcome, acted])
    named = {item.id_digest for item in reports}
    # The first look of each customer.
    found = _Gathered()
    for day in range(days[0], days[1] + 1):
        for label, rows in source.day_rows(model, day):
            if label == version and len(rows):
                _gather(rows, named, found)
    if not found.scores:
        return None
    # What was reported of each customer.
    size = len(found.scores)
    outcomes = np.full(size, 0.0 if policy.absent == "negative" else np.nan)
    acts = np.zeros(size, dtype=np.int64)
    for customer, item in _reports_of_customers(found, reports, policy.final_s * MS_PER_S):
        if item.name == acted:
            acts[customer] += item.value > 0
        elif not outcomes[customer] > 0:
            outcomes[customer] = float(policy.is_positive(item.value))
    return SeenCustomers(
        tuple(found.positions),
        np.array(found.scores),
        np.stack(found.vectors),
        np.array(found.holdout, dtype=np.bool_),
        np.array(found.at_ms, dtype=np.int64) * NS_PER_MS // DAY_NS,
        outcomes,
        acts,
        len(found.moved),
        any(item.name == acted for item in reports),
    )


def _gather(rows: DecisionRows, named: set[bytes], found: _Gathered) -> None:
    """Add the rows of one day, by time, to the first looks."""
    usable = np.isin(rows.role, list(EVERYBODY.roles)) & np.isfinite(rows.scores[:, 0])
    entities = len(rows.entity_ids) // len(rows)
    order = np.argsort(rows.at_unix_ns, kind="stable")
    for row in order[usable[order]].tolist():
        key = int(rows.key_hash[row])
        name = rows.entity_ids[row * entities] if entities else f"{key:016x}"
        holdout = bool(rows.holdout[row])
        customer = found.positions.setdefault(name, len(found.positions))
        # The first look of a customer, or a later one.
        if customer == len(found.scores):
            found.at_ms.append(int(rows.at_unix_ns[row]) // NS_PER_MS)
            found.scores.append(float(rows.scores[row, 0]))
            found.vectors.append(rows.vectors[row])
            found.holdout.append(holdout)
        elif found.holdout[customer] != holdout:
            found.moved.add(customer)
        found.by_key.setdefault(key, customer)
        digest = id_digest(rows.prediction_id[row].tobytes())
        if digest in named:
            found.by_digest[digest] = customer


def _reports_of_customers(
    found: _Gathered, reports: Iterable[ReportedOutcome], window_ms: int
) -> Iterable[tuple[int, ReportedOutcome]]:
    """Yield (customer, report) of what arrived within *window_ms* of the first look."""
    for item in reports:
        customer = found.by_digest.get(item.id_digest, found.by_key.get(item.key_hash, -1))
        if customer < 0:
            continue
        since = found.at_ms[customer]
        if since <= item.predicted_unix_ms and item.received_unix_ms <= since + window_ms:
            yield customer, item
