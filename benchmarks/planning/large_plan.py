"""Measures how long the plan of a large project takes.

    python -m benchmarks.planning.large_plan

It writes a project of 100 views of 20 features, 60 recipes and 30 models to a temporary folder,
plans its first apply, changes the default of one feature, lays out another view anew, and plans
again beside 240 versions that read the views. Output: seconds of each plan (files loaded in a child
process, everything compared, costs counted), of the first plan with a sample of the rows of all 100
views, and what the plan says. The calls to a registry are not in it. The goal is at most 5 s
without the sample.
"""

import asyncio
import json
import os
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb

from project.folder import open_project
from project.loading.loader import load_project
from project.plan.fleet import FleetSnapshot, FleetVersion
from project.plan.plan import Plan, make_plan
from project.plan.sample import SampleSettings

VIEWS, RECIPES, MODELS, FEATURES = 100, 60, 30, 20
VERSIONS_OF_A_MODEL = 4
ROUNDS = 5
SAMPLE_ROWS = 10_000
SOURCE_ROWS = 200_000
"""Rows in the source of each view."""

FEATURE_LINES = "\n".join(f'        Feature(name="f{n}", default={n}.0),' for n in range(FEATURES))
COLUMNS = ", ".join(f"f{n}" for n in range(FEATURES))

VIEW = f"""
from turnout.define import Feature, Source, View

view = View(
    name="view_NUMBER",
    entities=("customer",),
    features=(
{FEATURE_LINES}
    ),
    ttl_ms=86_400_000,
    transform="SELECT customer, event_time_ms, {COLUMNS} FROM source",
    source=Source.files("data/view_NUMBER.parquet", time="at"),
)
"""

RECIPE = """
from labels.churned import churned
from turnout.define import Learner, Recipe, ViewUse
from views.view_FIRST import view as first
from views.view_SECOND import view as second

recipe = Recipe(
    model="model_MODEL",
    setting="s_NUMBER",
    features=(
        ViewUse(view=first, features=("f0", "f1", "f2")),
        ViewUse(view=second, features=("f3", "f4")),
    ),
    label="churned",
    labels=churned,
    learner=Learner(kind="boosting"),
)
"""

LABELS = """
from turnout.define import Labels, Source

churned = Labels(
    name="churned",
    entities=("customer",),
    source=Source.files("data/churned.parquet", time="at"),
    value="churned",
)
"""

MODEL = 'owner = "bench"\npurpose = "Speed."\nscore_meaning = "P(churn)"\nholdout_bp = 100\n'


def write_project(root: Path) -> None:
    """Write the project's files."""
    files = {
        "turnout.toml": '[project]\nname = "large"\nformat = 1\n',
        "labels/churned.py": LABELS,
        **{f"views/view_{n}.py": VIEW.replace("NUMBER", str(n)) for n in range(VIEWS)},
        **{f"models/model_{n}.toml": MODEL for n in range(MODELS)},
    }
    for number in range(RECIPES):
        text = RECIPE.replace("NUMBER", str(number)).replace("MODEL", str(number % MODELS))
        text = text.replace("FIRST", str(number)).replace("SECOND", str(VIEWS - 1 - number))
        files[f"recipes/recipe_{number}.py"] = text
    for file, text in files.items():
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def write_sources(root: Path) -> None:
    """Write one Parquet file of SOURCE_ROWS rows, under the name of each view's source."""
    (root / "data").mkdir()
    first = root / "data" / "view_0.parquet"
    columns = ", ".join(f"(i * {n + 1} % 97)::DOUBLE AS f{n}" for n in range(FEATURES))
    with duckdb.connect() as connection:
        connection.execute(
            f"COPY (SELECT 'C' || i AS customer, now() - to_minutes(i % 1_000) AS at, {columns} "
            f"FROM range({SOURCE_ROWS}) AS rows(i)) TO '{first}'"
        )
    for number in range(1, VIEWS):
        os.link(first, first.with_name(f"view_{number}.parquet"))


def plan_once(root: Path, applied: Plan | None, sample_rows: int = 0) -> tuple[Plan, float]:
    """Load the files and plan against *applied*; return the plan and the seconds."""
    began = time.perf_counter()
    local = asyncio.run(load_project(open_project(root))).required()
    before = None if applied is None else applied.definitions
    fleet = FleetSnapshot() if before is None else FleetSnapshot(versions=_versions(before.recipes))
    sample = SampleSettings(
        rows=sample_rows, root=root, offline=root / "offline", connection=str, places={}
    )
    made = make_plan(
        "bench",
        before,
        1 if applied else 0,
        local,
        fleet,
        root=root,
        offline=root / "offline",
        sample=sample,
    )
    return made, time.perf_counter() - began


def _versions(recipes: Mapping[str, Mapping[str, Any]]) -> tuple[FleetVersion, ...]:
    """Return versions that were trained from each recipe."""
    return tuple(
        FleetVersion(
            recipe["model"],
            f"{number}.{copy}",
            "staging",
            "production" if copy == 0 else "",
            False,
            tuple((use["view"], use["view_hash"]) for use in recipe["features"]),
        )
        for number, recipe in enumerate(recipes.values())
        for copy in range(VERSIONS_OF_A_MODEL)
    )


def main() -> None:
    """Print one line of JSON with the seconds of each round."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_project(root)
        write_sources(root)
        sampled, sampled_s = plan_once(root, None, SAMPLE_ROWS)
        assert not sampled.problems
        assert len(sampled.samples) == VIEWS
        first, first_s = plan_once(root, None)
        # One default changes the values of a view, and one line break changes nothing.
        path = root / "views" / "view_7.py"
        path.write_text(path.read_text().replace("default=3.0", "default=4.0"))
        path = root / "views" / "view_8.py"
        path.write_text(path.read_text().replace("customer, event", "customer,\\n event"))
        rounds = [plan_once(root, first) for _ in range(ROUNDS)]
    # The spread shows how busy the machine was.
    made, seconds = rounds[-1][0], [took for _, took in rounds]
    print(
        json.dumps(
            {
                "first_plan_s": round(first_s, 2),
                "first_plan_with_sample_s": round(sampled_s, 2),
                "views_looked_at": sum(item.sample is not None for item in sampled.samples),
                "median_s": round(statistics.median(seconds), 2),
                "lowest_s": round(min(seconds), 2),
                "highest_s": round(max(seconds), 2),
                "changes": [
                    (item.change.section, item.change.name, item.change.impact)
                    for item in made.changes
                ],
                "versions_touched": sorted(
                    effect.name
                    for item in made.changes
                    for effect in item.effects
                    if effect.kind == "version"
                ),
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
