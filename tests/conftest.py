"""What is read, and in which order: unit tests without the walks, long-starting walks first."""

import atexit
import gc
import os
import re
import sys
from collections.abc import Generator
from functools import cache
from pathlib import Path

import pytest
from xdist.scheduler import LoadFileScheduling

from tests.shared_systems import end_shared_system

REPOSITORY = Path(__file__).parents[1]

SHARED_SYSTEMS = ("played_demo", "four_models", "running_system", "attacked_system")
"""Session fixtures that start a whole system, the longest first."""

LONG_FILES = tuple(
    f"tests/{file}.py"
    for file in (
        "walks/project/test_installed_wheel",
        "rollout/sim/test_worlds",
        "walks/calls/test_hostile_surroundings",
        "walks/project/test_first_hour",
        "walks/models/test_judged_outputs",
        "attacks/control/test_registry_port",
        "walks/project/test_runs",
        "walks/wire/test_wire_abuse",
        "training/adoption/test_adopted_estimators",
        "registry/storage/test_proof",
        "project/test_loading",
    )
)
"""Files that take longest without one of those, the longest first."""

FAILURE_CHARS_MAX = 2_000
"""Characters of a failure that are said at once."""

TEXTUAL_MARKS = ("walk", "nightly")
"""Marks that a test has because its file says so."""

FILE_MARK = re.compile(r"^pytestmark = (?:\[[^\]]*)?pytest\.mark\.(walk|nightly)\b", re.MULTILINE)
"""A file all of whose tests have a mark."""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave files unread that `-m` deselects whole: their imports take long."""
    wanted = str(config.option.markexpr)
    if not collection_path.match("test_*.py") or not wanted or " or " in wanted:
        return None
    terms = wanted.split(" and ")
    text = collection_path.read_text(encoding="utf-8")
    if any(f"not {mark}" in terms for mark in FILE_MARK.findall(text)):
        return True
    # Marks are given in the file itself or by a fixture of its folder (tests/house/test_rooms.py).
    fixtures = collection_path.with_name("conftest.py")
    texts = [text, fixtures.read_text(encoding="utf-8")] if fixtures.exists() else [text]
    lacks = [
        mark
        for mark in TEXTUAL_MARKS
        if mark in terms and not any(f"mark.{mark}" in text for text in texts)
    ]
    return True if lacks else None


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


def file_of(item: pytest.Item) -> str:
    """Return the file of a test, from the root of the repository."""
    return item.nodeid.partition("::")[0]


@cache
def shared_system(file: str) -> str | None:
    """Return the first of SHARED_SYSTEMS that a test or fixture of *file* asks for, or None."""
    text = (REPOSITORY / file).read_text(encoding="utf-8")
    return next((name for name in SHARED_SYSTEMS if re.search(rf"\b{name}: ", text)), None)


class LoadFilesWithSystems(LoadFileScheduling):
    """Gives each worker whole files, and those of a shared system to one worker: it starts once."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return shared_system(file) or file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadFilesWithSystems | None:
    """Schedule `--dist loadfile`."""
    if config.getvalue("dist") != "loadfile":
        return None
    return LoadFilesWithSystems(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(
    item: pytest.Item, nextitem: pytest.Item | None
) -> Generator[None, None, None]:
    """End a shared system after its last test: idle, each one takes a fifteenth of a processor."""
    yield
    system = shared_system(file_of(item))
    if system is None or item.config.getoption("dist", "no") not in ("no", "loadfile"):
        return
    if nextitem is None or shared_system(file_of(nextitem)) != system:
        end_shared_system(system)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Say at once what failed: a run that is cut short prints no summary."""
    if report.failed and "PYTEST_XDIST_WORKER" not in os.environ:
        sys.stderr.write(
            f"\n{report.nodeid}: {report.when} failed after {report.duration:.1f} s\n"
            f"{report.longreprtext[-FAILURE_CHARS_MAX:]}\n"
        )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let what takes longest begin, so that it is not left over at the end.

    The order within a file is kept, and `--no-loadscope-reorder` keeps that of the files.
    """
    first = [*SHARED_SYSTEMS, *LONG_FILES]
    ranks = {name: rank for rank, name in enumerate(first)}
    for item in items:
        if item.get_closest_marker("nightly") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(0))

    def rank(item: pytest.Item) -> int:
        file = file_of(item)
        return ranks.get(shared_system(file) or file, len(first))

    items.sort(key=rank)
