"""Figures and alarms as looks store them, for tests of what is read of them."""

from collections.abc import Mapping

from monitoring.jobs.grouping import MonitoringAlarm
from monitoring.store.look_store import StoredFigure
from stats.figure import Figure, no_figure

DAY = 20_780
AT_S = DAY * 86_400


def stored_figure(
    name: str = "psi score",
    value: float | None = 0.2,
    *,
    model: str = "churn",
    version: str = "7",
    kind: str = "drift",
    last_day: int = DAY,
    days: int = 1,
    segment: str = "",
    details: Mapping[str, object] | None = None,
) -> StoredFigure:
    """Return a figure; without a value it says that rows are lacking."""
    number = no_figure(12, "not enough data: 12 of 30 rows needed")
    if value is not None:
        number = Figure(value, value - 0.1, value + 0.1, 500)
    return StoredFigure(
        model=model,
        version=version,
        kind=kind,
        name=name,
        segment=segment,
        last_day=last_day,
        days=days,
        figure=number,
        details=details or {},
    )


def raised_alarm(
    stream: str = "usage:data_gb",
    *,
    kind: str = "features",
    model: str = "churn",
    version: str = "7",
    at: int = AT_S,
) -> MonitoringAlarm:
    """Return an alarm."""
    return MonitoringAlarm(
        model=model,
        version=version,
        kind=kind,
        stream=stream,
        at=at,
        since=at - 86_400,
        view="usage",
    )
