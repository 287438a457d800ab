"""The look at coverage: which share of the rows of a day was counted from journals.

A gateway may journal a sample of keys on purpose. So the share is compared with the largest one of
the seven days before, and any piece of a journal that was lost is named.
"""

from collections.abc import Mapping
from typing import Any

from host.clock import DAY_S
from monitoring.jobs.grouping import MonitoringAlarm
from monitoring.looks.day_looks import DayOfVersion
from monitoring.store.look_store import LookOutcome, LookStore, StoredFigure
from monitoring.store.monitoring_store import MonitoringStore
from stats.figure import no_figure, wilson_figure

COVERAGE = "coverage"
ROWS_SHARE = "rows counted of rows scored"
DAYS_BEFORE = 7
LOST_SHARE = 0.1
"""An alarm needs a share that is lower by this part than it was."""
DAY_HOURS = 24


class CoverageLook:
    """Looks at what was counted of a day."""

    name = COVERAGE
    after_service = False

    def __init__(self, store: MonitoringStore, looks: LookStore) -> None:
        self._store = store
        self._looks = looks

    def look(self, day: DayOfVersion, state: Mapping[str, Any]) -> LookOutcome:
        """Return the share of a day, and an alarm where traffic was not seen."""
        # What was counted, and what gateways say.
        facts, hour = day.facts, day.day * DAY_HOURS
        found = [
            item
            for item in self._store.coverage(hour, hour + DAY_HOURS)
            if (item.model, item.version) == (facts.model, facts.version)
        ]
        rows = found[0].rows if found else 0
        scored = found[0].window_rows if found else 0
        # Late windows make the share larger than 1.
        figure = wilson_figure(min(rows, scored), scored, of="rows in windows")
        if not scored:
            figure = no_figure(rows, "gateways sent no windows of this day")
        lost = self._store.lost_window_batches(hour, hour + DAY_HOURS)
        stored = StoredFigure(
            model=facts.model,
            version=facts.version,
            kind=COVERAGE,
            name=ROWS_SHARE,
            last_day=day.day,
            days=1,
            figure=figure,
            details={"counted": rows, "scored": scored, "lost_window_batches": lost},
        )
        # What was usual before, and what was lost of journals on this day.
        usual = self._usual_share(day)
        damages = self._store.damages_found(day.day * DAY_S, (day.day + 1) * DAY_S)
        unseen = figure.high is not None and figure.high < (1.0 - LOST_SHARE) * usual
        if not unseen and not damages:
            return LookOutcome(figures=(stored,), state=dict(state))
        hosts = {item.gateway for item in damages}
        alarm = MonitoringAlarm(
            model=facts.model,
            version=facts.version,
            kind=COVERAGE,
            stream=ROWS_SHARE,
            at=(day.day + 1) * DAY_S,
            since=day.day * DAY_S,
            host=hosts.pop() if len(hosts) == 1 else "",
            shadow=day.shadow,
        )
        details = {
            "share": figure.definition(),
            "usual_share": usual,
            "damages": [f"{item.gateway} {item.segment}: {item.kind}" for item in damages[:5]],
        }
        return LookOutcome(
            figures=(stored,), alarms=(alarm,), state=dict(state), details={alarm: details}
        )

    def _usual_share(self, day: DayOfVersion) -> float:
        """Return the largest share of the days before; 0 where there is none."""
        shares = [
            item.figure.value
            for item in self._looks.read_figures(
                day.day - DAYS_BEFORE, day.day, model=day.facts.model, kind=COVERAGE
            )
            if item.version == day.facts.version and item.figure.value is not None
        ]
        return max(shares, default=0.0)
