"""Detects that something has changed: the Shiryaev-Roberts procedure over e-values.

Each alternative g of a test has M_g <- (1 + M_g) e_g, where 1 + M_g is what an unknown day of the
change is worth. M is the weighted mean of all M_g. At M >= A there is an alarm, and all start again
at 0 (Shin, Ramdas and Rinaldo, E-detectors, NEJSDS 2, 2024).

Under the null hypothesis the mean of e_g, given the looks before, is at most 1, so M grows by at
most 1 a look on average. An alarm takes at least A away. So after T looks with N alarms

    A E[N] + E[M] <= T        and        E[N] <= T / A

for any dependence between looks and between detectors, and for any rule of starting again.
The means of M_g are taken after all looks, not inside each: a change that lasts then pays once for
the unknown alternative, and not in every look.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stats.alarms.change_test import ChangeTest

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]


class AlarmStateError(ValueError):
    """A saved state is not one of this detector."""


@dataclass(frozen=True, slots=True)
class AlarmState:
    """What a detector remembers between two looks."""

    log_m: tuple[float, ...]
    """(G,) ln M_g; -inf at the start and after an alarm."""
    reference: str
    """The id of the reference: a state is of no use with another one."""
    look: int | None = None
    """The number of the newest look, such as a day's ordinal. None: there was none."""
    since: int | None = None
    """The look since which M is above 1, which is when a change may have begun. None: it is not."""
    alarms: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return JSON values, of which `state_from_json` makes the equal state."""
        return {
            "log_m": [None if value == -math.inf else value for value in self.log_m],
            "reference": self.reference,
            "look": self.look,
            "since": self.since,
            "alarms": self.alarms,
        }


@dataclass(frozen=True, slots=True)
class DetectedChange:
    """An alarm: a change that is more than the tolerance."""

    look: int
    since: int
    """The look since which there is evidence without a break."""
    log_m: float
    log_threshold: float


def start_detector(test: ChangeTest, reference: str) -> AlarmState:
    """Return the state before the first look. *reference* names what the test compares with."""
    return AlarmState((-math.inf,) * len(test.log_weights), reference)


def state_from_json(content: Mapping[str, Any], test: ChangeTest, reference: str) -> AlarmState:
    """Return the saved state, to be used with *test* and *reference*.

    Raises AlarmStateError if it is damaged, or was made with another reference or other bins.
    """
    try:
        state = AlarmState(
            log_m=tuple(-math.inf if value is None else float(value) for value in content["log_m"]),
            reference=content["reference"],
            look=content["look"],
            since=content["since"],
            alarms=content["alarms"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise AlarmStateError(f"the saved state of a detector is damaged: {error!r}") from error
    if state.reference != reference or len(state.log_m) != len(test.log_weights):
        raise AlarmStateError(
            f"the saved state is of reference {state.reference!r} with {len(state.log_m)} "
            f"alternatives, and the detector of {reference!r} with {len(test.log_weights)}; start "
            "the detector anew after a reference was accepted"
        )
    if any(math.isnan(value) or value == math.inf for value in state.log_m):
        raise AlarmStateError("the saved state of a detector is damaged: it is not finite")
    return state


def look_at(
    test: ChangeTest, state: AlarmState, counts: Counts, look: int, log_threshold: float
) -> tuple[AlarmState, DetectedChange | None]:
    """Return the state after a look at (J,) *counts*, and the alarm if there is one.

    look           its number. A look that is not newer than the newest one changes nothing, so that
                   a job may repeat its looks after a crash.
    log_threshold  ln A, from the budget.

    A look without person-looks is none: it changes only the number. Raises ValueError for counts of
    other bins and for negative ones.
    """
    if counts.shape != (test.log_gains.shape[1],) or counts.min() < 0:
        raise ValueError(
            f"counts of shape {counts.shape} from {counts.min() if counts.size else 0}: this "
            f"detector looks at {test.log_gains.shape[1]} bins, and counts are not negative"
        )
    # A repeated look, and one without person-looks.
    if state.look is not None and look <= state.look:
        return state, None
    if not counts.any():
        return replace(state, look=look), None
    # M after this look.
    log_m = advance(np.array(state.log_m), test.gains(counts))
    total = float(mean_evidence(log_m, test.log_weights))
    # The change is dated by the look since which M is above 1.
    since = (look if state.since is None else state.since) if total > 0.0 else None
    if total >= log_threshold:
        restarted = replace(
            start_detector(test, state.reference), look=look, alarms=state.alarms + 1
        )
        return restarted, DetectedChange(
            look=look,
            since=look if since is None else since,
            log_m=total,
            log_threshold=log_threshold,
        )
    return replace(state, log_m=tuple(log_m.tolist()), look=look, since=since), None


def advance(log_m: Floats, gains: Floats) -> Floats:
    """Return ln((1 + M) e) for (..., G) ln M and (..., G) ln e, of any number of detectors."""
    return np.asarray(np.logaddexp(log_m, 0.0) + gains)


def mean_evidence(log_m: Floats, log_weights: Floats) -> Floats:
    """Return (...) the logarithm of the weighted mean of M over the last axis of (..., G)."""
    weighted = log_m + log_weights
    high = np.max(weighted, axis=-1, keepdims=True)
    finite = np.where(np.isfinite(high), high, 0.0)
    with np.errstate(divide="ignore"):
        mean = np.log(np.sum(np.exp(weighted - finite), axis=-1)) + finite[..., 0]
    return np.asarray(mean)
