"""Python's garbage collector, paused while millions of objects are made that all stay."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collector_paused() -> Iterator[None]:
    """Run the block without collections, which would visit every object again and again.

    For the whole process, so only for seconds. What has no reference any more is freed all the
    same, except cycles.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
