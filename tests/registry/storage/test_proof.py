"""Tests that a registry proves its state: every edit is named, and no honest state is accused."""

import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry.storage import proof
from registry.storage.store import RegistryStore
from registry.types import RegistryError, VersionRefusedError
from tests.registry.honest_registry import HonestRegistry
from tests.registry.registry_edits import make_random_edit

pytestmark = pytest.mark.walk

SNAPSHOT_EVERY = 40
"""Entries between two snapshots in these tests, so that a short history has some."""


@pytest.fixture
def fast_folder() -> Iterator[Path]:
    """A folder in memory, where the system has one: what a disk would keep is not tested here."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


@pytest.fixture(autouse=True)
def _frequent_snapshots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof, "SNAPSHOT_EVERY", SNAPSHOT_EVERY)


def make_honest(folder: Path, seed: int, operations: int) -> None:
    """Make a registry by random legal operations, in three runs of its process."""
    generator = random.Random(seed)
    for _ in range(3):
        registry = HonestRegistry(folder, generator)
        registry.operate(operations // 3)
        assert registry.store.stopped_reason == ""
        registry.store.close()


def found_problem(folder: Path) -> str:
    """What a start, the check of older entries, and a fetch of every version say; "" if nothing."""
    try:
        store = RegistryStore(folder, lambda: 1)
    except RegistryError as error:
        return str(error)
    try:
        for _ in store.older_entries():
            pass
        if store.stopped_reason:
            return store.stopped_reason
        for model in store.list_models():
            for version in store.list_versions(model.model):
                try:
                    store.fetch(model.model, version.digest)
                except VersionRefusedError as error:
                    return f"version {version.digest}: {error}"
        return ""
    finally:
        store.close()


def try_edits(folder: Path, seeds: range, operations: int) -> dict[str, list[int]]:
    """Try one random edit for each seed; return kind -> [made, without effect], all named.

    Every hundredth edit begins from another honest registry.
    """
    counts: dict[str, list[int]] = {}
    unnamed: list[str] = []
    for seed in seeds:
        honest = folder / f"honest-{seed // 100}"
        if not honest.exists():
            make_honest(honest, seed // 100, operations)
            assert found_problem(honest) == "", seed
        edited = folder / "edited"
        shutil.copytree(honest, edited)
        kind, name = make_random_edit(random.Random(seed), edited)
        problem = found_problem(edited)
        made = counts.setdefault(kind, [0, 0])
        made[0 if name else 1] += 1
        if (name and name not in problem) or (not name and problem):
            unnamed.append(f"seed {seed}: {kind} must be named {name!r}: {problem!r}")
        shutil.rmtree(edited)
    assert not unnamed, f"{len(unnamed)} of {len(seeds)}:\n" + "\n".join(unnamed[:20])
    return counts


def test_every_random_edit_is_named(fast_folder: Path) -> None:
    """Bar 3 of issue 12, a small share of it."""
    counts = try_edits(fast_folder, range(150), 150)

    assert sum(made for made, _ in counts.values()) > 100


@pytest.mark.nightly
def test_each_of_10000_random_edits_is_named(fast_folder: Path) -> None:
    """Bar 3 of issue 12: 10,000 single edits of database, files, keys and history."""
    counts = try_edits(fast_folder, range(1_000, 12_000), 200)

    assert sum(made for made, _ in counts.values()) >= 10_000
    print(counts)  # noqa: T201  the numbers of the run


@pytest.mark.parametrize("seed", range(3))
def test_no_honest_registry_is_accused(seed: int, fast_folder: Path) -> None:
    """Three runs of legal operations each, with a proof at each start."""
    make_honest(fast_folder, seed, 300)

    assert found_problem(fast_folder) == ""
