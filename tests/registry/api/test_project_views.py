"""Tests of views in applied projects: which versions read them, and which may go."""

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from protos import registry_pb2 as pb
from registry.types import GateError
from tests.registry.api.test_projects import BILLS, USAGE, apply
from tests.registry.old_registry import forget_fields
from tests.registry.project_definitions import definitions_of, files_reading, tiny_view
from tests.registry.registry_fixture import registry_fixture, run_walk

pytestmark = pytest.mark.walk


def test_view_that_a_version_reads_is_not_removed(tmp_path: Path) -> None:
    """A staged version holds it, a version in development does not. Another edition is allowed."""

    async def scenario() -> None:
        async with registry_fixture(tmp_path) as registry:
            version = await registry.ann.register("churn", files_reading(USAGE))
            assert [(view.name, view.hash) for view in version.views] == [
                ("usage", USAGE.view_hash)
            ]
            await apply(registry.cleo, definitions_of(views=[USAGE, BILLS]))
            await apply(registry.cleo, definitions_of(views=[BILLS]), 1)
            await apply(registry.cleo, definitions_of(views=[USAGE]), 2)
            # From its staging on, the version holds the view.
            await registry.ann.set_status("churn", "1", pb.STAGING, "it was tried")
            removed = "view 'usage' cannot be removed: version 1 of 'churn'"
            with pytest.raises(GateError, match=rf"{removed} \(staging\) reads it, edition"):
                await apply(registry.cleo, definitions_of(), 3)
            current = await registry.cleo.deployment("churn")
            await registry.cleo.deploy(replace(current, preload=("1",), why="load it"))
            with pytest.raises(GateError, match=rf"{removed} \(preload\)"):
                await apply(registry.cleo, definitions_of(), 3)
            await apply(registry.cleo, definitions_of(views=[tiny_view("usage", 1.0)]), 3)

    run_walk(scenario())


def test_views_of_versions_of_earlier_releases_are_read_from_their_files(tmp_path: Path) -> None:
    """Their rows and entries do not have views. The audit accuses nobody."""

    # Register a version, and forget what an earlier release did not write.
    async def register(folder: Path) -> None:
        async with registry_fixture(folder) as registry:
            await registry.ann.register("churn", files_reading(USAGE))
            await registry.ann.set_status("churn", "1", pb.STAGING, "it was tried")

    async def scenario() -> None:
        async with registry_fixture(tmp_path) as registry:
            (listed,) = await registry.ann.list_versions("churn")
            for version in (listed, await registry.ann.get_version("churn", "1")):
                assert [view.hash for view in version.views] == [USAGE.view_hash]
            await apply(registry.cleo, definitions_of(views=[USAGE]))
            with pytest.raises(GateError, match="reads it"):
                await apply(registry.cleo, definitions_of(), 1)
            assert (await registry.bob.audit()).intact
            # Without its contract nobody knows what the version reads.
            contract = tmp_path / "versions" / listed.digest / "contract.json"
            contract.chmod(0o600)
            contract.unlink()

    async def without_contract() -> None:
        async with registry_fixture(tmp_path) as registry:
            assert (await registry.ann.get_version("churn", "1")).views_unknown
            with pytest.raises(GateError, match=r"contract\.json cannot be read"):
                await apply(registry.cleo, definitions_of(), 1)

    run_walk(register(tmp_path))
    forget_views(tmp_path)
    run_walk(scenario())
    run_walk(without_contract())


def forget_views(folder: Path) -> None:
    """Make the registry in *folder* as a release wrote it that kept no views and no projects."""
    forget_fields(folder, {"register": {"views"}})
    with closing(sqlite3.connect(folder / "registry.sqlite")) as connection:
        connection.execute("ALTER TABLE versions DROP COLUMN views")
        connection.execute("DROP TABLE projects")
