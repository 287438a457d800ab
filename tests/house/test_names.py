"""Names of files, classes, functions and fields."""

import re
from collections import defaultdict

from tests.house.known import Breach, fail_on_new_breaches
from tests.house.sources import (
    CLIENT_FOLDER,
    EVERYWHERE,
    ROOMS,
    SourceFile,
    fail_on_breaches,
    source_files,
)

BANNED_FILES = {"util", "helper", "manager", "data", "info", "common", "misc"}
"""File names that name nothing. Plurals are banned with them."""

BANNED_CLASSES = re.compile(r"(Util|Helper|Manager)s?$")

REPLACEMENTS = {
    "told": "say what it is: observations, report, message, reason",
    "tell": "report, send, notify or write",
    "held": "loaded, paused, kept_rows, in_flight: the state it is in",
    "kept": "saved, acknowledged, sampled or retained",
    "apart": "isolated, separate or in_child_process",
    "aside": "recorder, background or shadow",
    "alone": "single, exclusive or only",
    "lone": "single",
    "whole": "complete, total or entire",
    "several": "the plural of the thing: versions, windows",
    "theirs": "the owner: canary_calls, peer_rows",
    "mine": "the owner: production_calls, own_rows",
    "place": "index, position, path, slot or stage",
    "thing": "its noun",
    "words": "message, text, tokens or names",
}
"""Vague word -> what to write instead. docs/glossary.md has the project's words."""

FIELD_TERMS = re.compile(r"held_?out", re.IGNORECASE)
"""Terms of machine learning in which a vague word is allowed."""

IN_SENTENCES = {"alone", "apart", "held", "kept", "place", "several", "whole", "words"}
"""Ordinary words in the name of a test, which is a sentence."""

UNIQUE_IN = (*ROOMS, CLIENT_FOLDER, "benchmarks")

SHARED_NAMES = {
    "answer": "what a sandboxed child calls in the module that its task names",
    "main": "the entry point of a process or a program",
    "upgrade": "what Alembic calls in each migration",
}
"""Public names that stand several times, and why."""


def test_no_file_or_class_has_a_name_that_names_nothing() -> None:
    """A name such as helper shows that the noun was not found."""
    fail_on_breaches(
        [
            f"{file.shown}: name what it contains"
            for file in source_files(*EVERYWHERE)
            if not BANNED_FILES.isdisjoint({file.path.stem, file.path.stem.removesuffix("s")})
        ]
    )
    fail_on_breaches(
        [
            f"{file.shown}:{item.first_line}: {item.name}: name what it does"
            for file in source_files(*EVERYWHERE)
            for item in file.definitions
            if item.is_class and BANNED_CLASSES.search(item.name)
        ]
    )


def test_public_name_has_no_vague_word() -> None:
    """Looks at each part of a name between underscores or capitals; `process` is a good word."""
    fail_on_new_breaches(
        "vague names",
        (
            Breach(file.area, f"{file.shown}:{line}: {name}: {word!r}: {REPLACEMENTS[word]}")
            for file in source_files(*EVERYWHERE)
            for line, name in file.names
            for word in vague_parts(name)
        ),
    )


def vague_parts(name: str) -> list[str]:
    """Return the parts of *name* that are in REPLACEMENTS.

    >>> vague_parts("KeptWords"), vague_parts("process_handler"), vague_parts("test_alone_told")
    (['kept', 'words'], [], ['told'])

    Terms of machine learning are allowed.

    >>> vague_parts("held_out_rows"), vague_parts("held_rows")
    ([], ['held'])
    """
    parts = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", FIELD_TERMS.sub("", name))
    allowed = IN_SENTENCES if name.startswith("test_") else set()
    return [part.lower() for part in parts if part.lower() in REPLACEMENTS.keys() - allowed]


def test_public_class_or_function_has_a_name_of_its_own() -> None:
    """A search for a name in rooms, client and benchmarks finds one definition.

    Implementations of one Protocol and functions of the command line (`@app.command`) may share
    a name; so may the names in SHARED_NAMES.
    """
    # Find the Protocols, whose implementations may share a name.
    defined: dict[str, set[str]] = defaultdict(set)
    protocols = {
        item.name
        for file in source_files(*UNIQUE_IN)
        for item in file.definitions
        if "Protocol" in item.bases
    }
    # Collect the files of each public name at the top of a module.
    for file in source_files(*UNIQUE_IN):
        for item in file.definitions:
            implements = protocols.intersection(item.bases)
            command = any(".command(" in decorator for decorator in item.decorators)
            if not (item.owner or item.name.startswith("_") or implements or command):
                defined[item.name].add(file.shown)
    fail_on_new_breaches(
        "names defined twice",
        (
            Breach(
                name,
                f"{name} is defined in {', '.join(sorted(files))}; rename all but one, or "
                "import it",
            )
            for name, files in defined.items()
            if len(files) > 1 and name not in SHARED_NAMES
        ),
    )


def test_exception_is_named_error() -> None:
    """A class that derives from an exception ends in Error."""
    raised = re.compile(r"(Error|Exception)$")
    fail_on_breaches(
        [
            f"{file.shown}:{item.first_line}: {item.name}: call it {item.name}Error"
            for file in source_files(*EVERYWHERE)
            for item in file.definitions
            if item.is_class
            and any(raised.search(base) for base in item.bases)
            and not item.name.endswith("Error")
        ]
    )


UNBOUNDED_PROPERTY = re.compile(r"^(?!@examples\().*\n@given\(", re.MULTILINE)


def test_property_has_a_number_of_examples() -> None:
    """@examples above @given: else an example has a deadline of .2 s, which a busy host misses."""
    fail_on_breaches(
        [
            f"{file.shown}:{_line(file, found.end())}: write @examples(...) above @given"
            for file in source_files("tests")
            for found in UNBOUNDED_PROPERTY.finditer(file.text)
        ]
    )


def _line(file: SourceFile, offset: int) -> int:
    return file.text.count("\n", 0, offset) + 1


def test_days_and_hours_are_defined_once() -> None:
    """host/clock.py has one day and one hour in each unit, and every room may import it."""
    unit = re.compile(r"^_?(?:DAY|HOUR)_(?:S|MS|NS)(?:_\w+)? = ", re.MULTILINE)
    fail_on_breaches(
        [
            f"{file.shown}: import it from host.clock: {found.group().strip()}"
            for room in ROOMS
            for file in source_files(room)
            for found in unit.finditer(file.text)
        ]
    )
