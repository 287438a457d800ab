"""How large files and functions are, and that long functions are commented."""

import re

from tests.house.known import Breach, fail_on_new_breaches
from tests.house.sources import (
    CLIENT_FOLDER,
    EVERYWHERE,
    REPOSITORY,
    RUST_FILES,
    fail_on_breaches,
    source_files,
)

FILE_LINES_MAX = 700
FILE_LINES = 400
"""A longer file needs its reason in LONG_FILES."""

FUNCTION_LINES_MAX = 60
COMMENTED_LINES = 30
LINES_A_COMMENT = 15

LONG_FILES = {
    "features/online/reader.py": "one connection's read, its deadlines and its breaker",
    "tests/features/online/test_reader.py": "the reader's cases, beside one store server",
    "gateway/transport/grpcio/server.py": "one server: its options, methods, batches and end",
    "gateway/predict/dispatch.py": "every way in which a batch is answered, in one table of cases",
    "gateway/settings.py": "one field for each setting, and what contradicts what",
    "registry/storage/store.py": "one method for each transaction of the registry",
    "registry/api/service.py": "one method for each RPC of the registry",
    "registry/types.py": "the types and errors that the registry shares with other rooms",
    "registry/client.py": "one method for each RPC of the registry",
    "features/offline.py": "one method for each act on the offline store",
    "turnout/processes/local_system.py": "one local system: its processes and addresses",
    "turnout/commands/versions.py": "one command for each act on a version",
    "training/recipe.py": "one field for each setting of a recipe, and what contradicts what",
    "rollout/controller/controller.py": "one loop over all rollouts of a leader",
    "ingress/src/calls/infer.rs": "parsing and checking ModelInfer share one set of types",
    "ingress/src/http2/stream_events.rs": "every callback of a stream in one place",
}
"""Files above 400 lines, and why each is still one concern."""

MACHINE_PATH = re.compile(
    "|".join(["/" + "work/", "/" + "root/", r"/" + r"home/\w", "/" + "tmp/briefs"])
)
"""Paths of somebody's machine, written in parts so that this file does not match itself."""


def test_file_has_at_most_700_lines() -> None:
    """Above 400 lines a file of Python or Rust needs a reason in LONG_FILES."""
    # Count the lines of every file of both languages.
    lines = {file.shown: len(file.lines) for file in source_files(*EVERYWHERE)} | {
        path.relative_to(REPOSITORY).as_posix(): path.read_text(encoding="utf-8").count("\n")
        for path in RUST_FILES
    }
    fail_on_breaches(
        [
            f"{name}: {count} lines, {FILE_LINES_MAX} at most; split it by concern"
            for name, count in lines.items()
            if count > FILE_LINES_MAX
        ]
    )
    # Between 400 and 700 lines a reason is enough, as long as it is needed.
    fail_on_new_breaches(
        "files above 400 lines without a reason",
        (
            Breach(
                name,
                f"{name}: {count} lines; above {FILE_LINES} split it, or say in LONG_FILES "
                "(tests/house/test_shape.py) why it is one concern",
            )
            for name, count in lines.items()
            if count > FILE_LINES and name not in LONG_FILES
        ),
    )
    fail_on_breaches(
        [
            f"{name} has at most {FILE_LINES} lines: take it out of LONG_FILES"
            for name in LONG_FILES
            if lines.get(name, 0) <= FILE_LINES
        ]
    )


def test_function_has_at_most_60_lines() -> None:
    """Counted from `def` to the last line."""
    fail_on_new_breaches(
        "functions above 60 lines",
        (
            Breach(
                file.shown,
                f"{file.shown}:{function.first_line}: {function.name}: {lines} lines, "
                f"{FUNCTION_LINES_MAX} at most; give each step a function of its own",
            )
            for file in source_files(*EVERYWHERE)
            for function in file.definitions
            if not function.is_class
            and (lines := function.last_line - function.first_line + 1) > FUNCTION_LINES_MAX
        ),
    )


def test_long_function_has_a_comment_before_each_step() -> None:
    """A function over 30 lines has a line with `#` for every 15 lines, at least."""
    fail_on_new_breaches(
        "long functions without comments",
        (
            Breach(
                file.area,
                f"{file.shown}:{function.first_line}: {function.name}: {lines} lines and "
                f"{file.comments(function)} comments; put a short sentence before each step, "
                f"{lines // LINES_A_COMMENT} at least",
            )
            for file in source_files(*EVERYWHERE)
            for function in file.definitions
            if not function.is_class
            and (lines := function.last_line - function.first_line + 1) > COMMENTED_LINES
            and file.comments(function) < lines // LINES_A_COMMENT
        ),
    )


def test_package_hands_nothing_on() -> None:
    """__init__.py is a docstring and no more: a name has one home, and imports show it.

    The client is a library for others, so its __init__.py names what they may use.
    """
    fail_on_breaches(
        [
            f"{file.shown}: leave a docstring only, and import names from where they are defined"
            for file in source_files(*EVERYWHERE)
            if file.path.name == "__init__.py"
            and file.path != REPOSITORY / CLIENT_FOLDER / "__init__.py"
            and (file.statements != 1 or not file.docstrings)
        ]
    )


def test_no_file_names_the_machine_it_was_written_on() -> None:
    """A path of one machine does not exist on another."""
    kinds = ("*.py", "*.rs", "*.md", "*.toml", "*.proto", "*.sh", "*.json", "*.txt", "*.lock")
    folders = [REPOSITORY / name for name in (*EVERYWHERE, "clients", "docs", "deploy", ".ci")]
    files = {path for folder in folders for kind in kinds for path in folder.rglob(kind)}
    files |= {path for kind in kinds for path in REPOSITORY.glob(kind)}
    fail_on_breaches(
        [
            f"{path.relative_to(REPOSITORY)}:{number}: {line.strip()[:80]}"
            for path in [*sorted(files), REPOSITORY / "Makefile"]
            # What cargo and npm write.
            if not {"target", "node_modules"} & set(path.relative_to(REPOSITORY).parts)
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
            if MACHINE_PATH.search(line)
        ]
    )
