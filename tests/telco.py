"""The project examples/telco: what it declares, and its tables in a real offline store."""

import asyncio
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

from features.ingest.load import ingest
from features.offline import OfflineStore
from features.views import View
from project.definitions import ProjectDefinitions
from project.folder import open_project
from project.loading.loader import load_project
from training.label_reader import read_labels
from training.labelled_rows import LabelledRows
from training.recipe import Recipe

EXAMPLE = Path(__file__).parents[1] / "examples" / "telco"
NOW_MS = 1_790_000_000_000
SUBSCRIBERS = 7_043
"""As many as there are real customers in the Telco table, the largest of the public tables."""

MODELS = ("churn", "propensity", "credit", "nba")
OFFER_IDS = [f"O{number + 1:03d}" for number in range(20)]


def subscriber_ids(count: int, first: int = 0) -> list[str]:
    """Return the ids of *count* subscribers from number *first* on. Number 0 is S0000001."""
    return [f"S{number + 1:07d}" for number in range(first, first + count)]


@cache
def telco() -> ProjectDefinitions:
    """Load the project, once a test run. No event loop may run in this thread."""
    return asyncio.run(load_project(open_project(EXAMPLE))).required()


@cache
def recipe_of(model: str, setting: str = "candidate") -> Recipe:
    """Return a recipe of the project."""
    return telco().recipe(model, setting)


def views_of(model: str) -> list[View]:
    """Return the views that the model's candidate reads."""
    return [use.view for use in recipe_of(model).features]


def make_tables(
    root: Path,
    *models: str,
    now_ms: int = NOW_MS,
    subscribers: int = SUBSCRIBERS,
    history_rows: int = 0,
) -> str:
    """Write the tables of these models to `data/` below *root*; return what the script printed."""
    options = {
        "out": root / "data",
        "now-ms": now_ms,
        "subscribers": subscribers,
        "history-rows": history_rows,
    }
    line = [sys.executable, str(EXAMPLE / "make_data.py"), *models]
    line += [f"--{name}={value}" for name, value in options.items()]
    finished = subprocess.run(line, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def telco_store(
    root: Path, *models: str, now_ms: int = NOW_MS, history_rows: int = 0
) -> OfflineStore:
    """Write these models' tables below *root* and ingest them."""
    make_tables(root, *models, now_ms=now_ms, history_rows=history_rows)
    store = OfflineStore(root / "offline")
    for view in (view for model in models for view in views_of(model)):
        ingest(view, store, root=root, now_ms=now_ms)
    return store


def copied_project(tables: Path, root: Path) -> Path:
    """Copy the project to *root*, with the tables in `data/` below *tables*; return *root*."""
    shutil.copytree(EXAMPLE, root, ignore=shutil.ignore_patterns("data", ".turnout", "__pycache__"))
    shutil.copytree(tables / "data", root / "data")
    return root


def labels_of(model: str, root: Path) -> LabelledRows:
    """Return the labels of a model whose tables are in `data/` below *root*."""
    declared = recipe_of(model).labels
    assert declared is not None
    return read_labels(declared, root=root)
