"""Lets parts of a system's processes fail, by a `sitecustomize` and a file with a part's name."""

import os
from collections.abc import Mapping
from pathlib import Path

SITE = """
import asyncio, functools, importlib, inspect, os, sys

FOLDER = {folder!r}

def check(part):
    # One process removes the file, and is the one that fails.
    try:
        os.unlink(os.path.join(FOLDER, part))
    except FileNotFoundError:
        return
    raise RuntimeError("injected into " + part)

def fail(part, place, process):
    if process not in sys.orig_argv:
        return
    module, _, path = place.partition(":")
    *owners, name = path.split(".")
    owner = functools.reduce(getattr, owners, importlib.import_module(module))
    whole = getattr(owner, name)

    def failing(*args, **options):
        check(part)
        return whole(*args, **options)

    async def failing_soon(*args, **options):
        running = asyncio.ensure_future(whole(*args, **options))
        try:
            while not running.done():
                check(part)
                await asyncio.wait({running}, timeout=0.02)
            return running.result()
        finally:
            running.cancel()

    failing = failing_soon if inspect.iscoroutinefunction(whole) else failing
    setattr(owner, name, functools.wraps(whole)(failing))

"""


class FailingParts:
    """Makes parts fail: a coroutine within 20 ms, a function when it is called next."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir()
        self._lines = [SITE.replace("{folder!r}", repr(str(folder)))]

    def add(self, process: str, places: Mapping[str, str]) -> None:
        """Let parts of the processes of one module fail later.

        places  name of a part -> module:function, which the part calls again and again, or is.
        """
        self._lines += [f"fail({part!r}, {place!r}, {process!r})" for part, place in places.items()]

    def environment(self) -> dict[str, str]:
        """Return the environment of processes whose parts can fail."""
        site = self._folder / "site"
        site.mkdir()
        (site / "sitecustomize.py").write_text("\n".join(self._lines) + "\n", encoding="utf-8")
        return {**os.environ, "PYTHONPATH": str(site)}

    def fail(self, part: str) -> None:
        """Let *part* fail once, in the first process that comes to it."""
        (self._folder / part).touch()
