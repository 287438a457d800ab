"""Projects in temporary folders, for tests."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

import duckdb

from host.child_process import ResourceLimits
from project.folder import ProjectFolder, open_project
from project.loading.loader import LoadedProject, LoadLimits, load_project

TURNOUT_TOML = '[project]\nname = "shop"\nformat = 1\nowner = "network-ds"\n'

USAGE = """
from turnout.define import Feature, Source, View

usage = View(
    name="usage",
    entities=("customer",),
    features=(Feature(name="minutes"), Feature(name="topups", default=1.0)),
    ttl_ms=86_400_000,
    transform="SELECT customer, event_time_ms, minutes, topups FROM source",
    source=Source.files("data/usage.parquet", time="at"),
)
"""

CHURNED = """
from turnout.define import Labels, Source

churned = Labels(
    name="churned",
    entities=("customer",),
    source=Source.files("data/churned.parquet", time="at"),
    value="churned",
)
"""

RECIPE = """
from labels.churned import churned
from turnout.define import Learner, Recipe, ViewUse
from views.usage import usage

candidate = Recipe(
    model="churn",
    setting="candidate",
    features=(ViewUse(view=usage, features=("minutes", "topups")),),
    label="churned",
    labels=churned,
    learner=Learner(kind="boosting", parameters={"max_iter": 20}),
)
"""

MODEL = """
owner = "network-ds"
purpose = "Whom the retention team calls first."
score_meaning = "Probability that the customer leaves within 30 days."
holdout_bp = 500
default_policy = "careful"

[serving]
deadline_ms_default = 80
default_score = 0.5
"""

CAREFUL = 'name = "careful"\nbase = "standard"\nwatch_s = 7200.0\n'

FILES: dict[str, str] = {
    "turnout.toml": TURNOUT_TOML,
    "views/usage.py": USAGE,
    "labels/churned.py": CHURNED,
    "recipes/churn.py": RECIPE,
    "models/churn.toml": MODEL,
    "policies/careful.toml": CAREFUL,
    "environments/dev.toml": 'mode = "development"\n',
}
"""A small project without a problem."""

USAGE_ROWS = """
    SELECT 'C' || (i % 50) AS customer, now() - to_hours(i) AS at, i::DOUBLE AS minutes,
           (i % 3)::DOUBLE AS topups
    FROM range(20) AS rows(i)
"""
"""Good rows for the view `usage`: the newest is of now, and the oldest is younger than the TTL."""


def write_rows(root: Path, sql: str = USAGE_ROWS, file: str = "data/usage.parquet") -> None:
    """Write the rows of a SELECT to a file below *root*; its suffix says the format."""
    path = root / file
    path.parent.mkdir(parents=True, exist_ok=True)
    with duckdb.connect() as connection:
        connection.execute(f"COPY ({sql}) TO '{path}' (FORMAT {path.suffix[1:]})")


FAST = LoadLimits(resources=ResourceLimits(memory_mb=2_048, cpu_s=20), file_s=5.0)
"""Limits for files that wait for ever. A busy machine may need longer for good ones."""

LITTLE_CPU = LoadLimits(file_cpu_s=1.0)
"""Limits for files that compute for ever."""


def write_project(root: Path, changes: Mapping[str, str | None] | None = None) -> ProjectFolder:
    """Write FILES with *changes* below *root*; None leaves a file out."""
    for name, text in {**FILES, **(changes or {})}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if text is not None:
            path.write_text(text)
    return open_project(root)


def loaded(
    root: Path,
    changes: Mapping[str, str | None] | None = None,
    limits: LoadLimits | None = None,
) -> LoadedProject:
    """Write the project and load it, by default with the limits of a user."""
    return asyncio.run(load_project(write_project(root, changes), limits))
