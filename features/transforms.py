"""Checks that a transform is one query over `source` that gives the same rows on every host.

DuckDB parses the text, so that no spelling escapes the check. Nothing is executed.
"""

import json
import re
from collections.abc import Iterator
from functools import cache, lru_cache
from typing import Any

from features.errors import ViewError

SOURCE = "source"
"""The only table that a transform may name, besides those of its own WITH clauses."""

TABLE_FUNCTIONS = frozenset({"range", "generate_series", "unnest", "json_each", "json_tree"})
"""The table functions that read neither files nor the state of the database."""

UNSTABLE_FUNCTIONS = frozenset(
    {
        "getenv",
        "version",
        "current_user",
        "session_user",
        "current_localtime",
        "current_localtimestamp",
        "reservoir_quantile",
    }
)
"""Functions that depend on host, clock or chance, although DuckDB calls them consistent."""

CLOCK_NAMES = frozenset(
    {
        "current_date",
        "current_time",
        "current_timestamp",
        "localtime",
        "localtimestamp",
        "current_user",
        "session_user",
    }
)
"""Names that SQL reads as the present instant or the host's user when they stand alone."""

STABLE_FUNCTIONS = frozenset({"error"})
"""DuckDB calls it volatile so that it is not moved. Its effect is the same everywhere."""

_NOT_ONLY_SELECT = "it is no SELECT; a transform is one SELECT over the table source"


@lru_cache(maxsize=1_024)
def check_transform(sql: str) -> None:
    """Refuse *sql* unless it is one SELECT over `source` with the same result on every host.

    Refused are other statements (COPY, ATTACH, INSTALL, SET), other tables and files, functions
    that read files or the host, the present instant, random numbers and samples.

    Raises ViewError. The message names what was found and the way out.
    """
    # Parse. DuckDB writes only SELECT statements as JSON.
    parsed = json.loads(_rows("SELECT json_serialize_sql(?)", sql)[0][0])
    if parsed["error"]:
        only_select = parsed["error_type"] == "not implemented"
        raise _refusal(_NOT_ONLY_SELECT if only_select else parsed["error_message"])
    if len(parsed["statements"]) != 1:
        raise _refusal(f"it has {len(parsed['statements'])} statements; write one SELECT")
    # Look at every node of the tree. WITH clauses name tables of their own.
    nodes = list(_nodes(parsed["statements"]))
    tables = {SOURCE} | {
        entry["key"].lower() for node in nodes if "cte_map" in node for entry in _entries(node)
    }
    for node in nodes:
        problem = _problem(node, tables)
        if problem:
            raise _refusal(problem)


def _refusal(problem: str) -> ViewError:
    return ViewError(f"the transform cannot be used: {problem}")


def _nodes(value: Any) -> Iterator[dict[str, Any]]:  # noqa: ANN401  any JSON value
    """Yield every object in a JSON value, the outer ones first."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            yield item
        if isinstance(item, dict | list):
            waiting += item.values() if isinstance(item, dict) else item


def _entries(node: dict[str, Any]) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = node["cte_map"]["map"]
    return entries


def _problem(node: dict[str, Any], tables: set[str]) -> str | None:
    """Return what is wrong with one node of the tree, or None."""
    kind = node.get("type")
    if node.get("sample"):
        return "it takes a random sample; choose rows by a hash of the entity instead"
    if kind == "BASE_TABLE" and (
        node.get("schema_name") or node["table_name"].lower() not in tables
    ):
        return (
            f"it reads {node['table_name']!r}; the table source is the only one, and files are "
            "declared as the view's source"
        )
    if kind == "TABLE_FUNCTION":
        name = node["function"]["function_name"].lower()
        if name not in TABLE_FUNCTIONS:
            return f"it reads the table function {name}(); declare files as the view's source"
    if kind == "COLUMN_REF" and node["column_names"][-1].lower() in CLOCK_NAMES:
        return _unstable(node["column_names"][-1].lower())
    if kind == "VALUE_PARAMETER":
        return "it has a parameter ($1 or ?); write the value into the text"
    name = str(node.get("function_name") or "").lower()
    from_clock = name == "age" and len(node["arguments"]) == 1
    if name and (from_clock or name in _unstable_functions()):
        return _unstable(name)
    return None


def _unstable(name: str) -> str:
    return (
        f"{name} gives another value in another run or on another host; a transform depends on its "
        "source alone. Compute with the columns of the source, such as the row's event time"
    )


@cache
def _unstable_functions() -> frozenset[str]:
    """Return the functions that are not pure, and the macros that call such a function."""
    rows = _rows(
        "SELECT lower(function_name), stability, lower(macro_definition) FROM duckdb_functions()"
    )
    impure = {name for name, stability, _ in rows if stability not in {None, "CONSISTENT"}}
    impure = (impure | UNSTABLE_FUNCTIONS) - STABLE_FUNCTIONS
    macros = {
        name
        for name, _, definition in rows
        if definition and not (impure | CLOCK_NAMES).isdisjoint(re.findall(r"\w+", definition))
    }
    return frozenset(impure | macros)


def _rows(sql: str, *parameters: str) -> list[tuple[Any, ...]]:
    """Run *sql* in a new database. DuckDB is imported here, because gateways do not have it."""
    import duckdb

    with duckdb.connect(config={"autoinstall_known_extensions": "false"}) as connection:
        rows: list[tuple[Any, ...]] = connection.execute(sql, parameters).fetchall()
    return rows
