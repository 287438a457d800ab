"""Inputs of a review, for tests without a system."""

from typing import Any

from protos import monitoring_pb2 as mpb
from protos import registry_pb2 as pb
from turnout.review.inputs import ModelInService, MonitoringInputs, ReviewInputs, WeekEntry
from turnout.review.week import ReviewPeriod

DAY_MS = 86_400_000
NOW_MS = 20_787 * DAY_MS
PERIOD = ReviewPeriod(20_780, "2026-W48")


def figure(kind: str, name: str, value: float | None, day: str, **more: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return a figure as turnout.views.figures.figure_json does."""
    return {
        "model": "churn",
        "version": "7",
        "kind": kind,
        "name": name,
        "segment": "",
        "last_day": day,
        "days": 1,
        "value": value,
        "low": None if value is None else value - 0.1,
        "high": None if value is None else value + 0.1,
        "n": 500,
        "lacking": "" if value is not None else "not enough data: 12 of 30 rows needed",
        "details": {},
        **more,
    }


def psi(stream: str, value: float | None, day: str, against: str = "training") -> dict[str, Any]:
    """Return a figure of drift as the daily look stores it."""
    details = {"stream": stream, "against": against, "size": "small"}
    return figure("drift", f"psi {stream} against {against}", value, day, details=details)


def open_page() -> pb.Incident:
    """Return a page that is open, and that nobody owns."""
    return pb.Incident(
        id="5f2a91c0",
        model="churn",
        version="7",
        kind="quality",
        cause="quality/usage",
        severity=pb.Incident.PAGE,
        state=pb.Incident.OPEN,
        title="usage is missing <b>",
        figures_json='{"missing": 0.4}',
        since_unix_ms=NOW_MS - DAY_MS,
        opened_unix_ms=NOW_MS - DAY_MS,
    )


def busy_inputs() -> ReviewInputs:
    """Return a week in which something of everything happened."""
    # An alarm that no incident has.
    waits = mpb.RaisedAlarm(
        model="churn",
        version="7",
        kind="features",
        stream="f0",
        severity=1,
        since_unix_s=NOW_MS // 1_000 - 99,
    )
    # A version that is in production for 20 days, and what was done about it.
    version = pb.Version(model="churn", label="7", created_unix_ms=NOW_MS - 40 * DAY_MS)
    return ReviewInputs(
        period=PERIOD,
        now_ms=NOW_MS,
        incidents=(open_page(),),
        models=(
            ModelInService(
                model="churn",
                owner="churn-team",
                version=version,
                production_unix_ms=NOW_MS - 20 * DAY_MS,
                views=(),
                card={"data": {"as_of_ms": [0, NOW_MS - 50 * DAY_MS]}},
            ),
        ),
        views_unknown="name the online store",
        runs=(pb.Run(id="4f2a91c0", model="churn", state=pb.Run.QUEUED, queued_unix_ms=NOW_MS),),
        entries=(
            WeekEntry(NOW_MS - DAY_MS, "sam", "deploy", "model/churn/deployment", "ok", {}),
            WeekEntry(
                NOW_MS, "mon", "finding", "model/churn/finding/3", "x" * 300, {"kind": "hold"}
            ),
        ),
        # Figures of three kinds; those of fairness were left out.
        monitoring=MonitoringInputs(
            figures=(
                psi("f0", 0.2, "2026-11-27"),
                psi("f0", 0.31, "2026-11-28"),
                psi("f1", 0.01, "2026-11-28"),
                psi("f1", 0.04, "2026-11-28", against="accepted days"),
                psi("score", 0.02, "2026-11-28"),
                psi("score", None, "2026-11-28", against="accepted days"),
                figure("quality", "auc churned", 0.7, "2026-11-29", details={"maturity": "final"}),
                figure("estimate", "auc churned", None, "2026-11-29"),
            ),
            alarms=(waits, mpb.RaisedAlarm(model="churn", version="7", incident_id="5f2a91c0")),
            notes=("figures of fairness are left out, because they are for the role auditor",),
        ),
    )
