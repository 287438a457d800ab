"""Detectors that look cohort by cohort, with their state as JSON values. No input or output."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stats.alarms.change_test import QUALITY_CLUSTER, ChangeTest, share_test
from stats.alarms.shiryaev_roberts import AlarmState, look_at, start_detector, state_from_json

Counts = NDArray[np.int64]

SETTLED_COHORTS = 14
SETTLED_ROWS = 500
"""Cohorts and rows from which on a share has a reference of its own."""
USUAL_PART = 0.9
"""The part of the outcomes that are reported within the usual delay."""


def step_detector(
    test: ChangeTest,
    saved: Mapping[str, Any] | None,
    reference: str,
    counts: Counts,
    look: int,
    log_threshold: float,
) -> tuple[AlarmState, int | None]:
    """Return the state after a look, and since which look there is a change; None: there is none.

    A state that was saved with another reference or other bets is replaced by a new one.
    """
    state = start_detector(test, reference)
    if (
        saved is not None
        and saved.get("reference") == reference
        and len(saved.get("log_m", ())) == len(test.log_weights)
    ):
        state = state_from_json(saved, test, reference)
    after, change = look_at(test, state, counts, look, log_threshold)
    return after, None if change is None else change.since


def look_at_own_share(
    saved: Mapping[str, Any] | None,
    counts: Counts,
    look: int,
    log_threshold: float,
    cluster: int = QUALITY_CLUSTER,
) -> tuple[dict[str, Any], int | None]:
    """Return the state after a look at a share, and since which look it grew; None: it did not.

    counts  (2,) rows without and with a hit: the reference is what the first cohorts had, 14 at
            least; or (D,) outcomes by days of delay, where an outcome is a hit that comes later
            than nine of ten did at first.

    cluster  rows that may have one cause, as those of one customer have.

    After an alarm a new reference is settled, so a growth that stays is one alarm.
    """
    state = dict(saved or {"cohorts": 0, "first": []})
    if state["cohorts"] < SETTLED_COHORTS or sum(state["first"]) < SETTLED_ROWS:
        # Still settling the reference.
        if counts.any():
            first = np.zeros(max(len(counts), len(state["first"])), dtype=np.int64)
            first[: len(state["first"])] = state["first"]
            first[: len(counts)] += counts
            state = {"cohorts": state["cohorts"] + 1, "first": first.tolist()}
        return state, None
    first = np.array(state["first"], dtype=np.int64)
    # What a hit is follows from the reference.
    begin = 1
    if len(first) > 2:
        begin = int(np.searchsorted(np.cumsum(first), USUAL_PART * first.sum())) + 1
    reference, hits = int(first.sum()), int(first[begin:].sum())
    test = share_test(hits, reference, cluster=max(cluster, QUALITY_CLUSTER))
    looked = np.array([counts[:begin].sum(), counts[begin:].sum()], dtype=np.int64)
    after, since = step_detector(
        test, state.get("detector"), f"{hits}/{reference}/{begin}", looked, look, log_threshold
    )
    if since is not None:
        return {"cohorts": 0, "first": []}, since
    return {**state, "detector": after.to_json()}, None
