"""The queries in the files that Turnout offers for Prometheus and Grafana."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

DEPLOY = Path(__file__).parents[1] / "deploy"
RULES = DEPLOY / "prometheus" / "turnout.rules.yml"
BOARDS = sorted((DEPLOY / "grafana").glob("*.json"))


class Query(NamedTuple):
    """A query and where it stands."""

    source: str
    """The alert or the panel that has it."""
    expression: str


def alert_queries() -> list[Query]:
    """Return the query of each alert; it stands on one line."""
    text = RULES.read_text(encoding="utf-8")
    found = re.findall(r"- alert: (\w+)\n +expr: (.+)\n", text)
    assert len(found) == text.count("- alert:"), "an alert has no expression on one line"
    return [Query(name, expression) for name, expression in found]


def board_queries() -> list[Query]:
    """Return the queries of each panel, as Grafana sends them with everything chosen."""
    return [query for board in BOARDS for query in _queries_of(json.loads(board.read_bytes()))]


def _queries_of(board: dict[str, object]) -> Iterator[Query]:
    panels = board["panels"]
    assert isinstance(panels, list)
    for panel in panels:
        for target in panel.get("targets", []):
            expression = target["expr"].replace("$__rate_interval", "30s")
            for variable in ("$instance", "$model"):
                expression = expression.replace(f'"{variable}"', '".*"')
            assert "$" not in expression, f"{panel['title']}: an unknown variable in {expression}"
            yield Query(panel["title"], expression)
