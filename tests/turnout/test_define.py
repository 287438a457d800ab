"""The signatures of `turnout.define`, on which every project depends."""

import inspect
import os
from collections.abc import Callable
from pathlib import Path

from tests.house.known import LOWER
from turnout import define

SIGNATURES = Path(__file__).with_name("define_signatures.txt")


def signatures() -> str:
    """Return the signature of everything public, a line each."""
    lines = []
    for name in define.__all__:
        item = getattr(define, name)
        lines.append(name + _parameters(item))
        lines += [
            f"{name}.{method}{_parameters(getattr(item, method))}"
            for method, value in vars(item).items()
            if isinstance(value, staticmethod) and method != "from_definition"
        ]
    return "\n".join(lines) + "\n"


def _parameters(function: Callable[..., object]) -> str:
    """Return names, order and defaults. Types are left out: each Python writes them its own way."""
    signature = inspect.signature(function)
    bare = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in signature.parameters.values()
    ]
    return str(inspect.Signature(bare))


def test_signatures_are_the_committed_ones() -> None:
    """A changed line is a change for every project: say so in CHANGELOG.md, and run `make fix`."""
    if os.environ.get(LOWER):
        SIGNATURES.write_text(signatures(), encoding="utf-8")
    assert signatures() == SIGNATURES.read_text(encoding="utf-8")


def test_define_exports_what_it_imports() -> None:
    """A name that projects use must not disappear by accident."""
    assert set(define.__all__) == {name for name in vars(define) if name[0].isupper()}
