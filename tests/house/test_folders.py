"""Folders: which may import which, how many files one has, and files that are too small.

`make fix` draws the table of folders into docs/house.md. A room is a list of floors, the lowest
first. A floor lists folders of the room, as paths below it, and files at the top of the room, by
their names without `.py`. Each may import what lies on lower floors. Files of the lowest and of
the highest floor may import each other too: the lowest is what everything stands on, the highest
are the entry points.
"""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator

from tests.house.known import LOWER, Breach, fail_on_new_breaches
from tests.house.sources import (
    EVERYWHERE,
    REPOSITORY,
    ROOMS,
    RUST_FILES,
    SourceFile,
    fail_on_breaches,
    imported_modules,
    source_files,
)

Floor = tuple[str, ...]

FOLDER_ORDER: dict[str, tuple[Floor, ...]] = {
    "host": (
        (
            "addresses",
            "child_process",
            "clock",
            "collector",
            "files",
            "freeze_windows",
            "git",
            "onnx_runtime",
            "probe",
            "processes",
            "retry",
            "sockets",
            "text",
            "unix_sockets",
        ),
        ("sandbox",),
    ),
    "stats": (
        (
            "betting",
            "departure",
            "detector",
            "figure",
            "latency",
            "rate",
            "ratio",
            "score_grid",
            "score_scale",
            "tilt",
            "tree_shapley",
        ),
        ("accuracy", "drift"),
        ("alarms", "estimates", "fairness", "uplift"),
    ),
    "features": (
        (
            "canonical",
            "contract",
            "encode",
            "entity_ids",
            "errors",
            "expectations",
            "pushed",
            "rows",
            "source",
            "staleness",
            "transforms",
            "views",
        ),
        ("storage",),
        ("offline", "writes"),
        ("materialise",),
        ("ingest", "online", "replay"),
        ("push",),
    ),
    "registry": (
        (
            "bundle",
            "chunks",
            "folders",
            "golden",
            "keys",
            "manifest",
            "scoring",
            "signed",
            "status",
            "types",
            "version_proof",
        ),
        ("explanation", "history", "schedules", "watching"),
        ("client", "rules"),
        ("storage",),
        ("runs",),
        ("incidents",),
        ("api",),
        ("probe", "__main__"),
    ),
    "training": (
        (
            "errors",
            "label_reader",
            "labelled_rows",
            "labels",
            "learner",
            "on_demand",
            "recipe",
            "request_inputs",
            "split",
        ),
        ("export", "artifacts"),
        ("adoption/graph",),
        ("adoption", "evaluation"),
        ("adopted", "adoption/convert", "drills"),
        ("audit", "champion", "joined", "learners"),
        ("tasks",),
        ("retrain",),
        ("certify", "train"),
    ),
    "gateway": (
        (
            "caller",
            "columns",
            "errors",
            "ingress_choice",
            "internal_error_log",
            "key_column",
            "native_library",
            "settings",
            "status",
            "worker_identity",
        ),
        ("callers",),
        ("transport",),
        ("transport/grpcio", "transport/native"),
        ("models/steps",),
        ("models",),
        ("isolation", "batch"),
        ("telemetry",),
        ("shadow", "methods", "supervision"),
        ("predict",),
        ("build", "worker", "__main__"),
    ),
    "rollout": (
        ("errors",),
        ("policy",),
        ("evidence",),
        ("judge",),
        ("lifecycle",),
        ("checkpoint", "simulation"),
        ("controller",),
        ("api",),
        ("__main__",),
    ),
    "monitoring": (
        ("client", "errors"),
        ("cells", "jobs"),
        ("store", "store/migrations", "store/migrations/versions"),
        ("decisions",),
        ("cohorts",),
        ("looks",),
        ("fold", "explain", "incidents"),
        ("metrics", "watch"),
        ("api",),
        ("__main__",),
    ),
    "project": (
        (
            "definitions",
            "environment",
            "errors",
            "folder",
            "model_settings",
            "notice_targets",
            "policies",
            "schedules",
        ),
        ("loading", "plan", "guess"),
        ("new_project",),
    ),
    "turnout": (
        ("define", "errors", "library_errors"),
        ("views", "processes"),
        ("cli",),
        ("notices",),
        (
            "adoption",
            "calls",
            "explaining",
            "forgetting",
            "incidents",
            "monitoring",
            "policy_suggestion",
            "pushing",
            "report",
            "training_runs",
        ),
        ("retraining", "review"),
        ("commands", "commands/projects"),
        ("demo",),
        ("control", "store", "__main__"),
    ),
}

UPWARD: dict[tuple[str, str], str] = {}
"""(importing, imported) -> why this arrow may point upwards. At most two in the project."""

COMING: set[str] = set()
"""Files in the table that are not written yet."""

PAGE = REPOSITORY / "docs" / "house.md"
DRAWING = re.compile(r"(?<=<!-- folders -->\n)```\n.*?```\n", re.DOTALL)
"""The drawing on the page, between its fences."""

MODULES_MAX = 14
"""Modules in one folder."""

SMALL_LINES = 40
"""A module below this with a single importer belongs into its importer."""

SMALL_ON_PURPOSE = {"errors", "__init__", "__main__", "conftest"}

SMALL_MODULES = {
    "training/champion.py": "data scientists call it from their own scripts (docs/training.md)",
}
"""Small modules with one importer, and why each stays a module."""


def unit(file: SourceFile) -> tuple[str, str]:
    """Return (room, unit): the folder of *file* below its room, or the file at the room's top."""
    room, *folders, _ = file.shown.split("/")
    return room, "/".join(folders) or file.path.stem


def test_folders_import_in_one_direction() -> None:
    """Compares every import inside a room with FOLDER_ORDER."""
    fail_on_new_breaches("upward imports", _upward_imports())


def _upward_imports() -> Iterator[Breach]:
    """Yield one breach for each arrow between two units that does not point downwards."""
    for (room, importer, imported), where in _arrows().items():
        # Number the floors of the room from the lowest, which is 0.
        floors = FOLDER_ORDER[room]
        floor_of = {name: number for number, floor in enumerate(floors) for name in floor}
        floor, own_floor = floor_of.get(imported, -1), floor_of.get(importer, -1)
        # Files of the lowest and of the highest floor may import each other.
        beside = floor in {0, len(floors) - 1} and _are_files(room, importer, imported)
        downward = floor < own_floor or (floor == own_floor and beside)
        if not downward and (f"{room}/{importer}", f"{room}/{imported}") not in UPWARD:
            yield Breach(
                f"{room}: {importer} -> {imported}",
                f"{where}: {importer} may not import {imported}, which is not below it "
                f"(docs/house.md). Move what both need further down, or let {importer} state a "
                f"Protocol that {imported} implements",
            )


def _arrows() -> dict[tuple[str, str, str], str]:
    """Return (room, importing unit, imported unit) -> the first file and line of each arrow."""
    arrows: dict[tuple[str, str, str], str] = {}
    for room in FOLDER_ORDER:
        for file in source_files(room):
            _, importer = unit(file)
            for line, other in imported_modules(file):
                other_room, imported = unit(other)
                within = other_room == room and importer != imported
                if within and "__init__" not in {importer, imported, other.path.stem}:
                    arrows.setdefault((room, importer, imported), f"{file.shown}:{line}")
    return arrows


def _are_files(room: str, *units: str) -> bool:
    return not any((REPOSITORY / room / name).is_dir() for name in units)


def test_table_of_folders_names_what_exists() -> None:
    """A folder that is gone leaves the table, and COMING names only what is not there yet."""
    listed = {
        f"{room}/{name}"
        for room, floors in FOLDER_ORDER.items()
        for floor in floors
        for name in floor
    }
    present = {
        "/".join(unit(file)) for file in source_files(*ROOMS) if file.path.name != "__init__.py"
    }
    fail_on_breaches(
        [f"{name} is in FOLDER_ORDER and does not exist" for name in listed - present - COMING]
    )
    rooms = tuple(FOLDER_ORDER)
    fail_on_breaches(
        [
            f"{name} is not in FOLDER_ORDER: put it on a floor"
            for name in sorted(present - listed)
            if name.startswith(rooms)
        ]
    )
    fail_on_breaches([f"{name} exists now: take it out of COMING" for name in present & COMING])
    with_folders = {name.split("/")[0] for name in present if (REPOSITORY / name).is_dir()}
    fail_on_breaches([f"FOLDER_ORDER needs {room}" for room in with_folders - set(FOLDER_ORDER)])
    assert len(UPWARD) <= 2
    arrows = {
        (f"{room}/{importer}", f"{room}/{imported}") for room, importer, imported in _arrows()
    }
    fail_on_breaches([f"{arrow} is cut: take it out of UPWARD" for arrow in UPWARD.keys() - arrows])


def drawing() -> str:
    """Return the table as a fenced block: for each room its floors, the lowest first."""
    lines = [
        f"{room:<9} "
        + " < ".join(", ".join(_shown(room, unit) for unit in floor) for floor in floors)
        for room, floors in FOLDER_ORDER.items()
    ]
    return "\n".join(["```", *lines, "```\n"])


def _shown(room: str, unit: str) -> str:
    """Folders are shown with a slash at their end."""
    return f"{unit}/" if (REPOSITORY / room / unit).is_dir() else unit


def test_drawing_of_folders_matches_the_table() -> None:
    """`make fix` draws it anew."""
    page = PAGE.read_text(encoding="utf-8")
    assert DRAWING.search(page), "docs/house.md lost its drawing below <!-- folders -->"
    drawn = DRAWING.sub(lambda _: drawing(), page)
    if os.environ.get(LOWER):
        PAGE.write_text(drawn, encoding="utf-8")
    assert drawn == PAGE.read_text(encoding="utf-8"), "run `make fix`: the table has changed"


def test_folder_has_at_most_14_modules() -> None:
    """Counts Python and Rust files by folder; more than 14 names are not read, but searched."""
    python = [file.path for file in source_files(*EVERYWHERE) if file.path.stem != "__init__"]
    counts = Counter(path.parent for path in [*python, *RUST_FILES])
    fail_on_new_breaches(
        "modules in a folder",
        (
            Breach(name, f"{name}/: {count} modules, {MODULES_MAX} at most; make a folder of some")
            for folder, count in counts.items()
            for name in [folder.relative_to(REPOSITORY).as_posix()]
            if count > MODULES_MAX
            for _ in range(count - MODULES_MAX)
        ),
    )


def test_small_module_has_several_importers() -> None:
    """A short module that one other module imports is read together with it, so it belongs there.

    Entry points and modules of errors are excepted, and so are the files in SMALL_MODULES.
    """
    importers = defaultdict(set)
    for file in source_files(*ROOMS):
        for _, imported in imported_modules(file):
            importers[imported.shown].add(file.shown)
    fail_on_new_breaches(
        "small modules",
        (
            Breach(
                file.shown,
                f"{file.shown}: {len(file.lines)} lines, imported by {importer} alone; "
                "move it there",
            )
            for file in source_files(*ROOMS)
            if len(file.lines) < SMALL_LINES and file.path.stem not in SMALL_ON_PURPOSE
            if file.shown not in SMALL_MODULES
            if len(importers[file.shown]) == 1
            for importer in importers[file.shown]
        ),
    )
