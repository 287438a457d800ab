"""Docstrings say something, and their examples run."""

import doctest
import importlib
import re

from tests.house.known import Breach, fail_on_new_breaches
from tests.house.sources import EVERYWHERE, ROOMS, docstring_fault, fail_on_breaches, source_files


def test_docstring_says_something() -> None:
    """Holds docstrings of modules, classes, functions, constants and fields to docstring_fault."""
    fail_on_new_breaches(
        "docstrings",
        (
            Breach(file.area, f"{file.shown}:{line}: {text[:60]!r}: {fault}")
            for file in source_files(*EVERYWHERE)
            for line, text in file.docstrings
            if (fault := docstring_fault(text))
        ),
    )


def test_examples_in_docstrings_run() -> None:
    """Runs the lines after `>>>` in the rooms and in tests/house with doctest.

    The client's examples need a gateway; tests/clients/test_examples.py runs them.
    """
    examples = [
        (file, example)
        for file in source_files(*ROOMS, "tests/house")
        if re.search(r"^ *>>> ", file.text, re.MULTILINE)
        for example in doctest.DocTestFinder().find(importlib.import_module(file.module))
    ]
    reports: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for _, example in examples:
        runner.run(example, out=reports.append)
    fail_on_breaches(reports)
