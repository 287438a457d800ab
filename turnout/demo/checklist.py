"""The checklist of a demo: what it promises to show, and what came of each promise."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

StepState = Literal["waiting", "running", "held", "failed"]


class StepFailedError(Exception):
    """A step did not show what it promised; the text has what was seen."""


@dataclass(slots=True)
class Step:
    """One promise of the demo."""

    name: str
    """What is shown, in a few words."""
    promise: str = ""
    """What it is going to show; read while it waits."""
    state: StepState = "waiting"
    note: str = ""
    """What is going on, then what was measured."""
    progress: float = 0.0
    """0 to 1, where progress can be told."""
    began: float = 0.0
    took_s: float = 0.0


@dataclass(slots=True)
class Checklist:
    """The steps in order, and the lines worth keeping."""

    steps: list[Step]
    lines: list[str] = field(default_factory=list)
    """What happened, newest last; shown below the steps."""

    def step(self, name: str) -> Step:
        """Return the step called *name*; KeyError when there is none."""
        for step in self.steps:
            if step.name == name:
                return step
        raise KeyError(name)

    @contextmanager
    def timed(self, name: str) -> Iterator[Step]:
        """Time one step; it holds unless the body raises."""
        step = self.step(name)
        step.state, step.began = "running", time.monotonic()
        try:
            yield step
        except BaseException:
            step.state = "failed"
            raise
        else:
            step.state, step.progress = "held", 1.0
        finally:
            step.took_s = time.monotonic() - step.began

    @property
    def passed(self) -> bool:
        """Whether every step held."""
        return all(step.state == "held" for step in self.steps)


def require(condition: bool, message: str) -> None:
    """StepFailedError with what was *seen*, unless *condition*."""
    if not condition:
        raise StepFailedError(message)
