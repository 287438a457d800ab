"""The order of the folders inside each room that has folders.

`make fix` draws the table into docs/house.md.

A room is a list of floors, the lowest first. A floor lists folders of the room, as paths below
it, and files at the top of the room, by their names without `.py`. Each may import what lies on
lower floors. Files of the lowest and of the highest floor may import each other too: the lowest
is what everything stands on, the highest are the entry points.
"""

import re

from tests.house.sources import REPOSITORY

Floor = tuple[str, ...]

FOLDER_ORDER: dict[str, tuple[Floor, ...]] = {
    "features": (
        (
            "canonical",
            "contract",
            "encode",
            "entity_ids",
            "errors",
            "materialise",
            "offline",
            "offline_sql",
            "pushed",
            "rows",
            "staleness",
            "views",
        ),
        ("online", "sources"),
    ),
    "registry": (
        ("bundle", "client", "folders", "golden", "history", "manifest", "status", "types"),
        ("rules",),
        ("storage",),
        ("api",),
        ("__main__",),
    ),
    "training": (
        ("errors", "fit", "labels", "recipe", "split"),
        ("recipes", "export", "artifacts"),
        ("evaluation",),
        ("drills",),
        ("champion", "train", "__main__"),
    ),
    "gateway": (
        (
            "batch_keys",
            "clock",
            "columns",
            "errors",
            "fault_log",
            "ingress_choice",
            "native_library",
            "rows",
            "settings",
            "status",
        ),
        ("transport",),
        ("transport/grpcio", "transport/native"),
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
    "turnout": (
        ("errors",),
        ("views", "processes"),
        ("cli",),
        ("commands",),
        ("demo",),
        ("control", "store", "__main__"),
    ),
}

UPWARD: dict[tuple[str, str], str] = {}
"""(importing, imported) -> why this arrow may point upwards. At most two in the project."""

COMING = {"gateway/batch", "gateway/build"}
"""Files in the table that are not written yet."""

PAGE = REPOSITORY / "docs" / "house.md"
DRAWING = re.compile(r"(?<=<!-- folders -->\n)```\n.*?```\n", re.DOTALL)
"""The drawing on the page, between its fences."""


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
