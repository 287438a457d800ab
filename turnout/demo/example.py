"""The project that the demo plays: where it is, what it declares, and how its tables are made."""

import subprocess
import sys
from pathlib import Path

from project.definitions import ProjectDefinitions
from project.folder import open_project
from project.loading.loader import load_project
from turnout.demo.checklist import StepFailedError

REAL_ROWS = 7_043
"""Customers in IBM's Telco table, of which the subscribers are clones."""
HISTORY_ROWS = 20_000
"""Subscribers with an older row as well."""


def example_folder() -> Path:
    """Return the folder of the project: examples/telco of a checkout, or its copy in the wheel."""
    packed = Path(__file__).with_name("telco")
    return packed if packed.is_dir() else Path(__file__).parents[2] / "examples" / "telco"


async def load_example() -> ProjectDefinitions:
    """Return what the project declares. Raises ProjectError when a file is broken."""
    return (await load_project(open_project(example_folder()))).required()


def make_tables(root: Path, *, subscribers: int, now_ms: int) -> None:
    """Write the tables of the churn model to `data/` below *root*, by the project's own script.

    Raises StepFailedError with what the script says, such as that the `data` extra is missing.
    """
    script = example_folder() / "make_data.py"
    options = [f"--out={root / 'data'}", f"--subscribers={subscribers}", f"--now-ms={now_ms}"]
    finished = subprocess.run(
        [sys.executable, "-B", str(script), "churn", *options, f"--history-rows={HISTORY_ROWS}"],
        capture_output=True,
        text=True,
        check=False,
    )
    if finished.returncode != 0:
        raise StepFailedError(
            finished.stderr.strip() or f"{script} ended with {finished.returncode}"
        )


def subscriber_id(number: int) -> str:
    """Return the id of a subscriber; number 0 is S0000001."""
    return f"S{number + 1:07d}"
