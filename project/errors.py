"""Errors of a project: what is wrong in which file."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """Something that is wrong in one file of a project."""

    file: str
    """Path below the project's root, with slashes."""
    line: int
    """The line, from 1; 0 when the whole file is meant."""
    text: str

    def __str__(self) -> str:
        return f"{self.file}{f':{self.line}' if self.line else ''}: {self.text}"


class ProjectError(Exception):
    """A project cannot be used as it is. The text names files and says the way out."""

    def __init__(self, text: str, problems: Sequence[Problem] = ()) -> None:
        super().__init__("\n".join([text, *(f"  {problem}" for problem in problems)]))
        self.problems = tuple(problems)
