"""Systems that the tests of several files share, each until the last of these tests."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from typing import TypeVar

System = TypeVar("System")
_running: dict[str, ExitStack] = {}
"""By the name of its fixture."""


def share_system(name: str, system: AbstractContextManager[System]) -> Iterator[System]:
    """Yield what *system* gives, as a session fixture called *name* does.

    It ends with the session, or sooner when `end_shared_system` is called.
    """
    with ExitStack() as stack:
        _running[name] = stack
        yield stack.enter_context(system)


def end_shared_system(name: str) -> None:
    """End the system of the fixture called *name*, if it runs. No later test may ask for it."""
    if name in _running:
        _running.pop(name).close()
