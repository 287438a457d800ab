"""What is read, and in which order: unit tests without the walks, long-starting walks first."""

import atexit
import gc
import os
import re
import sys
from collections.abc import Generator
from pathlib import Path

import pytest
from xdist.scheduler import LoadFileScheduling

SHARED_FIXTURES = ("played_demo", "four_models", "running_system")
"""Session fixtures that take long to build, the longest first."""

DEMO_FILES = frozenset(
    f"tests/walks/{file}"
    for file in (
        "clients/test_pages.py",
        "system/test_demo_story.py",
        "system/test_simulate_journal.py",
        "system/test_store_dies.py",
    )
)
"""Files that use the fixture `played_demo`, which takes a minute."""

FAILURE_CHARS_MAX = 2_000
"""Characters of a failure that are said at once."""

FILE_MARK = re.compile(r"^pytestmark = (?:\[[^\]]*)?pytest\.mark\.(walk|nightly)\b", re.MULTILINE)
"""A file all of whose tests have a mark."""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave files unread that `-m "... and not walk"` deselects whole: their imports take long."""
    wanted = str(config.option.markexpr)
    if collection_path.suffix != ".py" or "not " not in wanted or " or " in wanted:
        return None
    marks = FILE_MARK.findall(collection_path.read_text(encoding="utf-8"))
    unwanted = any(f"not {mark}" in wanted.split(" and ") for mark in marks)
    return True if unwanted else None


def pytest_collection_finish(session: pytest.Session) -> None:
    """Keep grpc.aio's poller for the whole run, in a process whose tests use it.

    Otherwise the garbage collector ends it with the last channel of an event loop that is closed,
    and waits for ever if a call of that loop has not ended: a run stood still in that wait.
    """
    del session
    if "grpc.aio" in sys.modules:
        sys.modules["grpc.aio"].init_grpc_aio()


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Spare the garbage collector what was imported: it stays, and is most of the heap."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        atexit.register(gc.unfreeze)  # C extensions count what outlives the interpreter
        gc.enable()


class LoadFileWithDemoTogether(LoadFileScheduling):
    """Gives each worker whole files, and the files of the demo to one worker: it plays once."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return "files of the demo" if file in DEMO_FILES else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(
    config: pytest.Config, log: object
) -> LoadFileWithDemoTogether | None:
    """Schedule `--dist loadfile`."""
    if config.getvalue("dist") != "loadfile":
        return None
    return LoadFileWithDemoTogether(config, log)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Say at once what failed: a run that is cut short prints no summary."""
    if report.failed and "PYTEST_XDIST_WORKER" not in os.environ:
        sys.stderr.write(
            f"\n{report.nodeid}: {report.when} failed after {report.duration:.1f} s\n"
            f"{report.longreprtext[-FAILURE_CHARS_MAX:]}\n"
        )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let their files begin, so that none of them is left over at the end; order is kept within."""
    ranks: dict[object, int] = {}
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        rank = next(
            (n for n, name in enumerate(SHARED_FIXTURES) if name in fixtures), len(SHARED_FIXTURES)
        )
        ranks[item.path] = min(rank, ranks.get(item.path, rank))
        if item.get_closest_marker("nightly") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(0))
    items.sort(key=lambda item: ranks[item.path])
