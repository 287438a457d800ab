"""Alerts and boards ask for metrics and labels that gateways and control export."""

import re

import pytest

from gateway.supervision.exposition import HOST_FAMILIES, SUPERVISOR_FAMILIES
from gateway.telemetry.metrics import FAMILIES, Family
from monitoring.metrics.exposition import CONTROL_FAMILIES, ControlFamily
from tests.prometheus_files import RULES, Query, alert_queries, board_queries

QUERIES = [*alert_queries(), *board_queries()]
OF_PROMETHEUS = {"instance", "job", "le"}
SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}


WITHOUT_WORKER = {*HOST_FAMILIES, *CONTROL_FAMILIES}
"""Families without the label `worker`."""


def families() -> dict[str, Family | ControlFamily]:
    """Return every family of both pages."""
    return {**FAMILIES, **SUPERVISOR_FAMILIES, **HOST_FAMILIES, **CONTROL_FAMILIES}


def exported() -> dict[str, tuple[str, Family | ControlFamily]]:
    """Return each name on a metrics page, with the family's name and the family."""
    return {
        name + suffix: (name, family)
        for name, family in families().items()
        for suffix in SUFFIXES[family.kind]
    }


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.source)
def test_query_names_metrics_and_labels_that_are_exported(query: Query) -> None:
    """A renamed metric or label would make an alert that never fires."""
    names, labels = exported(), set(OF_PROMETHEUS)
    used = set(re.findall(r"\bturnout_\w+", query.expression)) - {"turnout"}
    assert used <= names.keys()
    assert used or "up{" in query.expression
    for name in used:
        family, definition = names[name]
        labels |= {*definition.labels} | ({"worker"} if family not in WITHOUT_WORKER else set())
    by = ", ".join(re.findall(r"by \(([^)]*)\)", query.expression)).split(", ")
    matched = re.findall(r"[{,](\w+)[!=]", query.expression)
    assert {label for label in [*by, *matched] if label} <= labels


def test_every_metric_is_on_a_board() -> None:
    """So a new metric gets its panel, or a reason to have none."""
    shown = " ".join(query.expression for query in board_queries())
    assert [name for name in families() if not re.search(rf"\b{name}(_\w+)?\b", shown)] == []


def test_every_alert_says_who_acts_and_how() -> None:
    """A page wakes somebody, who needs the next step."""
    text = RULES.read_text(encoding="utf-8")
    alerts = re.split(r"- alert: ", text)[1:]
    for alert in alerts:
        name = alert.split("\n", 1)[0]
        assert re.search(r"severity: (page|ticket)\}", alert), name
        assert re.search(r'summary: ".+"', alert), name
        assert re.search(r'action: ".+"', alert), name
    assert len({alert.split("\n", 1)[0] for alert in alerts}) == len(alerts)
