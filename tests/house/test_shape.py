"""What a file, a function and a name look like."""

import ast
import re

from tests.house.sources import (
    CLIENT_FOLDER,
    REPOSITORY,
    ROOMS,
    fail_on_breaches,
    location,
    parsed,
    sources,
    statements,
)

FILE_LINES_MAX = 700
FUNCTION_LINES_MAX = 60
EVERYWHERE = (*ROOMS, CLIENT_FOLDER, "tests", "benchmarks")

BANNED = {"util", "helper", "manager", "data", "info", "common", "misc"}
"""Words that name nothing. Plurals are banned with them."""

HERE = re.compile("|".join(["/" + "work/", "/" + "root/", r"/" + r"home/\w", "/" + "tmp/briefs"]))
"""Paths of somebody's machine. Written apart, so that this file does not trip over itself."""

UNWEIGHED = re.compile(r"^(?!@examples\().*\n@given\(", re.MULTILINE)
"""A property without a number of examples."""


def test_a_file_fits_the_eye() -> None:
    """A file has at most 700 lines."""
    fail_on_breaches(
        [
            f"{location(path)}: {lines} lines, {FILE_LINES_MAX} at most"
            for _, path in sources(*EVERYWHERE)
            if (lines := path.read_text(encoding="utf-8").count("\n")) > FILE_LINES_MAX
        ]
    )


def test_a_function_fits_the_eye() -> None:
    """60 lines a function, from its first line to its last."""
    fail_on_breaches(
        [
            f"{location(path, node.lineno)}: {node.name}: {lines} lines, {FUNCTION_LINES_MAX} at "
            "most"
            for _, path in sources(*EVERYWHERE)
            for node in statements(path)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            and (lines := (node.end_lineno or 0) - node.lineno + 1) > FUNCTION_LINES_MAX
        ]
    )


def test_no_file_or_class_has_a_name_that_names_nothing() -> None:
    """A thing called helper is a thing whose noun was not found."""
    classes = re.compile(r"(Util|Helper|Manager)s?$")
    fail_on_breaches(
        [
            location(path)
            for _, path in sources(*EVERYWHERE)
            if not BANNED.isdisjoint({path.stem, path.stem.removesuffix("s")})
        ]
    )
    fail_on_breaches(
        [
            f"{location(path, node.lineno)}: {node.name}"
            for _, path in sources(*EVERYWHERE)
            for node in statements(path)
            if isinstance(node, ast.ClassDef) and classes.search(node.name)
        ]
    )


def test_a_property_says_what_it_is_worth() -> None:
    """@examples above @given: else an example has a deadline of .2 s, which a busy host misses."""
    fail_on_breaches(
        [
            f"{location(path, text.count(chr(10), 0, found.end()) + 1)}: @given without @examples"
            for _, path in sources("tests")
            for text in [path.read_text(encoding="utf-8")]
            for found in UNWEIGHED.finditer(text)
        ]
    )


def test_every_exception_says_that_it_is_one() -> None:
    """A class that derives from an exception ends in Error."""
    raised = re.compile(r"(Error|Exception)$")
    fail_on_breaches(
        [
            f"{location(path, node.lineno)}: {node.name}"
            for _, path in sources(*EVERYWHERE)
            for node in statements(path)
            if isinstance(node, ast.ClassDef)
            and any(raised.search(ast.unparse(base)) for base in node.bases)
            and not node.name.endswith("Error")
        ]
    )


def test_a_room_hands_nothing_on() -> None:
    """__init__.py is a docstring and no more: a name has one home, and imports show it.

    The client is a library for others, so its __init__.py names what they may use.
    """
    fail_on_breaches(
        [
            f"{location(path)}: more than a docstring"
            for _, path in sources(*EVERYWHERE)
            if path.name == "__init__.py"
            and path != REPOSITORY / CLIENT_FOLDER / "__init__.py"
            and (len(parsed(path).body) != 1 or ast.get_docstring(parsed(path)) is None)
        ]
    )


def test_no_file_knows_the_machine_it_was_written_on() -> None:
    """Paths of a person's machine help nobody else."""
    kinds = ("*.py", "*.rs", "*.md", "*.toml", "*.proto", "*.sh", "*.json", "*.txt", "*.lock")
    folders = [REPOSITORY / name for name in (*EVERYWHERE, "clients", "docs", "deploy", ".ci")]
    files = [path for folder in folders for kind in kinds for path in folder.rglob(kind)]
    files += [path for kind in kinds for path in REPOSITORY.glob(kind)]
    fail_on_breaches(
        [
            f"{location(path, number)}: {line.strip()[:80]}"
            for path in [*files, REPOSITORY / "Makefile"]
            if "target" not in path.relative_to(REPOSITORY).parts  # what cargo builds
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
            if HERE.search(line)
        ]
    )
