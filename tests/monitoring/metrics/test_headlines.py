"""Which figures are gauges."""

from monitoring.metrics.headlines import Headline, headlines
from monitoring.store.look_store import StoredFigure
from tests.monitoring.stored import DAY, stored_figure

IN_SERVICE = {("churn", "7"): frozenset({"score"})}


def psi(
    stream: str, value: float | None, against: str = "training", day: int = DAY
) -> StoredFigure:
    """Return a figure of drift as the daily look stores it."""
    details = {"stream": stream, "against": against}
    return stored_figure(f"psi {stream} against {against}", value, last_day=day, details=details)


def found(*figures: StoredFigure) -> dict[str, float]:
    """Return name -> value of the headlines of version 7."""
    return {item.name: item.value for item in headlines(figures, IN_SERVICE)}


def test_drift_is_that_of_the_scores_and_of_the_worst_feature() -> None:
    """Against the accepted days where there are some, and never against last week."""
    shown = found(
        psi("score", 0.02),
        psi("usage:data_gb", 0.1),
        psi("usage:calls", 0.3),
        psi("usage:calls", 0.05, "accepted days"),
        psi("usage:calls", 0.9, "last week"),
        psi("usage:none", None),
    )
    assert shown == {"psi score": 0.02, "psi worst feature": 0.1}


def test_newest_period_wins_and_then_the_longer_one() -> None:
    """A week that ends on the same day says more than its last day."""
    shown = found(
        stored_figure("auc churned", 0.6, kind="quality", last_day=DAY, days=1),
        stored_figure("auc churned", 0.7, kind="quality", last_day=DAY, days=7),
        stored_figure("auc churned", 0.8, kind="quality", last_day=DAY - 1, days=28),
    )
    assert shown == {"auc churned": 0.7}


def test_number_of_gauges_is_bounded() -> None:
    """Other metrics, segments, versions out of service and figures of fairness are none."""
    shown = headlines(
        [
            stored_figure("recall churned", kind="quality"),
            stored_figure("auc churned, by acting", kind="quality"),
            stored_figure("effect at every look churned", kind="uplift"),
            stored_figure("auc churned", kind="quality", segment="new"),
            stored_figure("auc churned", kind="quality", version="6"),
            stored_figure("selection ratio women", kind="fairness"),
            stored_figure("score", kind="budget"),
            stored_figure("rows counted of rows scored", 0.9, kind="coverage"),
        ],
        IN_SERVICE,
    )
    assert shown == [Headline("churn", "7", "coverage", "coverage", 0.9)]
