"""Finds features that give the label away, as far as declarations show it. No I/O.

A label's outcome becomes known after the label's instant; otherwise nothing would be predicted. So
a feature leaks if it is made of the outcome's columns in rows that the view declares to be known at
the label's instant already: in the same table, with no other time than that of the labels. Rows
that become known by another column, such as when they were loaded, are left to the join of
training, which gives a label no row of later.
"""

import importlib.util
from collections.abc import Iterator, Mapping
from typing import Any

from project.definitions import ProjectDefinitions
from project.errors import Problem

TABLE_KEYS = ("kind", "location", "connection")
"""Fields of a source that say which table it is."""


def leaks(
    definitions: ProjectDefinitions,
    files: Mapping[tuple[str, str], str],
    lines: Mapping[tuple[str, str], int],
) -> list[Problem]:
    """Return a problem for each feature of a recipe that is made of the recipe's outcome.

    files, lines  (section, name) -> where it is declared.
    """
    views = {view["hash"]: view for view in definitions.views.values()}
    problems = []
    # Labels without an outcome have nothing that could leak.
    for name, recipe in definitions.recipes.items():
        labels = definitions.labels.get(recipe["labels"] or "")
        for use in recipe["features"]:
            view = views.get(use["view_hash"])
            if labels is None or view is None or not labels["value"]:
                continue
            if not _known_at_the_label(view, labels):
                continue
            # SQLGlot takes .5 s to import, and few recipes read the table of their labels.
            for feature, column in _outcome_features(view, use["features"], labels):
                text = (
                    f"recipe {name}: feature {use['view']}:{feature} is made of column {column!r} "
                    f"of {labels['source']['location']}, and so is the outcome of the labels "
                    f"{labels['name']!r}. The view says that it is known at "
                    f"{labels['source']['time']!r}, the instant of the label, before the "
                    "outcome is known. Leave the feature out, or declare created= of the view's "
                    "source with the column of when the outcome became known"
                )
                place = ("recipes", name)
                problems.append(Problem(files[place], lines.get(place, 0), text))
    return problems


def _known_at_the_label(view: Mapping[str, Any], labels: Mapping[str, Any]) -> bool:
    """Whether view and labels read one table, and the view's rows have the labels' time only."""
    source, other = view["source"], labels["source"]
    if source is None or source["kind"] == "frame" or source["time"] is None:
        return False
    if any(source[key] != other[key] for key in TABLE_KEYS):
        return False
    times = {str(source[key]).lower() for key in ("time", "created") if source[key] is not None}
    return times == {str(other["time"]).lower()}


def _outcome_features(
    view: Mapping[str, Any], features: list[str], labels: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
    """Yield each feature that is made of a column of the outcome, with the column."""
    if not importlib.util.find_spec("sqlglot"):
        return
    canonical, source = view["canonical"], labels["source"]
    # Ids and times are in every row, whatever the outcome is.
    ordinary = {*canonical["entities"], *labels["entities"], "event_time_ms", "created_ms"}
    ordinary |= {str(source["time"]).lower()}
    outcome = source_columns(labels["value"], labels["transform"]) - ordinary
    for feature in features:
        shared = sorted(outcome & source_columns(feature, canonical["transform"]))
        if shared:
            yield feature, shared[0]


def source_columns(column: str, sql: str) -> set[str]:
    """Return the columns of the table `source`, in lower case, that *column* of *sql* is made of.

    A query that SQLGlot cannot follow gives none.
    """
    import sqlglot
    from sqlglot import exp
    from sqlglot.errors import SqlglotError
    from sqlglot.lineage import lineage

    try:
        node = lineage(column, sql, {}, dialect="duckdb")
    except SqlglotError:
        # A star has the columns of the source under their own names.
        try:
            query = sqlglot.parse_one(sql, read="duckdb")
        except SqlglotError:
            return set()
        stars, name = list(query.find_all(exp.Star)), column.lower()
        made = [
            {part.name.lower() for part in alias.this.find_all(exp.Column)}
            for star in stars
            for key in ("rename", "replace")
            for alias in star.args.get(key) or ()
            if alias.alias.lower() == name
        ]
        return set().union(*made) if made else {name} if stars else set()
    # The leaves of the lineage are the columns of tables.
    assert not isinstance(node, dict)
    return {
        leaf.name.rpartition(".")[2].strip('"').lower()
        for leaf in node.walk()
        if isinstance(leaf.expression, exp.Table) and leaf.expression.name.lower() == "source"
    }
