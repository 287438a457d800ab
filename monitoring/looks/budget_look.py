"""How many false alarms the detectors of a version may raise, and how many alarms there were."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from host.clock import DAY_S
from monitoring.jobs.look import COUNTED, budget_lines
from monitoring.looks.day_looks import DayOfVersion, SealedFacts
from monitoring.looks.watched_version import watched_version
from monitoring.store.look_store import LookOutcome, LookStore, StoredFigure
from registry.watching.policy import MonitoringPolicy
from stats.alarms.budget import (
    DAYS_A_QUARTER,
    FAIRNESS,
    FEATURES,
    QUALITY,
    RISK,
    SCORE,
    UPLIFT,
    DetectorSettings,
)
from stats.figure import Figure

BUDGET = "budget"
GROUP_OF_KIND: Mapping[str, str] = {
    "quality": QUALITY,
    "silence": QUALITY,
    "score": SCORE,
    "features": FEATURES,
    "calibration": RISK,
    "risk": RISK,
    "auc": RISK,
    "outcomes": RISK,
    "fairness": FAIRNESS,
    "uplift": UPLIFT,
    "holdout": UPLIFT,
    "coverage": COUNTED,
}
"""Kind of an alarm -> the group of detectors that spends budget on it. Each kind has one."""
OtherDetectors = Callable[[SealedFacts, MonitoringPolicy], tuple[DetectorSettings, ...]]


class BudgetLook:
    """States the bound of each group of detectors, with the alarms of the last quarter.

    others  each returns detectors of a look: of outcomes, of groups of people, or of business.
    """

    name = BUDGET
    after_service = False

    def __init__(self, looks: LookStore, others: Sequence[OtherDetectors] = ()) -> None:
        self._looks = looks
        self._others = others

    def look(self, day: DayOfVersion, state: Mapping[str, Any]) -> LookOutcome:
        """Return a figure for each group, whose value is the bound of false alarms a quarter."""
        facts = day.facts
        end = (day.day + 1) * DAY_S
        # The alarms of this version, by group.
        seen = Counter(
            GROUP_OF_KIND[item.alarm.kind]
            for item in self._looks.read_alarms(end - DAYS_A_QUARTER * DAY_S, end)
            if (item.alarm.model, item.alarm.version) == (facts.model, facts.version)
        )
        # The bound of each group, by the number of its detectors.
        others = [item for detectors in self._others for item in detectors(facts, day.policy)]
        lines = budget_lines(watched_version(day, others=others), seen)
        figures = tuple(
            StoredFigure(
                model=facts.model,
                version=facts.version,
                kind=BUDGET,
                name=line.group,
                last_day=day.day,
                days=1,
                figure=Figure(line.bound, line.bound, line.bound, line.detectors),
                details={
                    "allowed": line.allowed,
                    "detectors": line.detectors,
                    "seen": line.seen,
                },
            )
            for line in lines
        )
        return LookOutcome(figures=figures, state=dict(state))
