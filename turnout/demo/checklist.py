"""The checklist of a demo: its steps, what each promises to show, and the result."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

StepState = Literal["waiting", "running", "passed", "failed"]


class StepFailedError(Exception):
    """A step did not show what it promised. The text says what was seen instead."""


@dataclass(slots=True)
class Step:
    """One step of the demo: an act and what it promises to show."""

    name: str
    """What the step shows, in a few words."""
    promise: str = ""
    """What the step promises to show; displayed while it waits."""
    state: StepState = "waiting"
    note: str = ""
    """While the step runs, what it is doing; after that, what was measured or why it failed."""
    progress: float = 0.0
    """0 to 1; stays 0 where there is no measure of progress."""
    began: float = 0.0
    """Monotonic, s."""
    took_s: float = 0.0


@dataclass(slots=True)
class Checklist:
    """The steps in their order, and lines of text about events."""

    steps: list[Step]
    lines: list[str] = field(default_factory=list)
    """What happened, newest last; displayed below the steps."""

    def step(self, name: str) -> Step:
        """Return the step called *name*; KeyError when there is none."""
        for step in self.steps:
            if step.name == name:
                return step
        raise KeyError(name)

    @contextmanager
    def timed(self, name: str) -> Iterator[Step]:
        """Run the body as the step *name*, and time it; the step passes unless the body raises."""
        step = self.step(name)
        step.state, step.began = "running", time.monotonic()
        try:
            yield step
        except BaseException:
            step.state = "failed"
            raise
        else:
            step.state, step.progress = "passed", 1.0
        finally:
            step.took_s = time.monotonic() - step.began

    @property
    def passed(self) -> bool:
        """Whether every step has passed."""
        return all(step.state == "passed" for step in self.steps)


def require(condition: bool, message: str) -> None:
    """Raise StepFailedError with *message* unless *condition* is true."""
    if not condition:
        raise StepFailedError(message)
