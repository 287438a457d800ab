"""Tests of applied projects through real gRPC and SQLite, with clients that act at once."""

import asyncio
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from features.canonical import canonical_json, sha256_hex
from protos import registry_pb2 as pb
from registry.client import RegistryClient
from registry.storage.store import RegistryStore
from registry.types import (
    BadRequestError,
    GateError,
    NotAllowedError,
    ProjectRevision,
    RegistryUnavailableError,
    RevisionConflictError,
)
from tests.access.identity_files import write_identities
from tests.registry.project_definitions import PLAN, definitions_of, tiny_view
from tests.registry.registry_fixture import RegistryProcess, registry_fixture, run_walk

pytestmark = pytest.mark.walk

USAGE, BILLS = tiny_view("usage"), tiny_view("bills")


async def apply(
    client: RegistryClient,
    definitions: bytes,
    revision: int = 0,
    *,
    name: str = "shop",
    effects: Sequence[str] = ("view usage is new",),
) -> ProjectRevision:
    """Apply *definitions* over *revision*."""
    return await client.apply_project(
        name,
        expected_revision=revision,
        plan_digest=PLAN,
        definitions=definitions,
        effects=effects,
        commit="4f2a",
        dirty=False,
        reason="as planned",
    )


def test_applied_project_is_read_back_and_listed_with_its_history(tmp_path: Path) -> None:
    """One history entry has author, commit, digest and effects. The audit proves the rows."""

    async def scenario() -> None:
        async with registry_fixture(tmp_path) as registry:
            assert await registry.ann.get_project("shop") is None
            first, second = definitions_of(views=[USAGE]), definitions_of(views=[USAGE, BILLS])
            applied = await apply(registry.cleo, first)
            assert (applied.revision, applied.digest) == (1, sha256_hex(first))
            assert (applied.author, applied.commit, applied.dirty) == ("cleo", "4f2a", False)
            assert applied.definitions == b""
            await apply(registry.bob, second, 1, effects=["view bills is new", "x" * 600])
            await apply(registry.cleo, definitions_of("crm"), name="crm")

            # The definitions come back byte by byte, the newest or an older revision.
            newest = await registry.ann.get_project("shop")
            assert newest is not None
            assert (newest.revision, newest.definitions) == (2, second)
            assert await registry.ann.get_project("shop", 3) is None
            older = await registry.ann.get_project("shop", 1)
            assert older is not None
            assert older == replace(applied, definitions=first)
            # Lists: the newest revision of each project, or all of one.
            listed = await registry.ann.list_projects()
            assert [(item.name, item.revision) for item in listed] == [("crm", 1), ("shop", 2)]
            revisions = await registry.ann.list_projects("shop")
            assert revisions == [replace(newest, definitions=b""), applied]
            assert await registry.ann.list_projects("shop", limit=1) == revisions[:1]

            # History and audit.
            entries = (await registry.bob.history(object_prefix="project/shop")).entries
            assert [entry.action for entry in entries] == ["apply project"] * 2
            after = json.loads(entries[1].after)
            assert (entries[1].actor, after["commit_id"]) == ("bob", "4f2a")
            assert after["effects"][0] == "view bills is new"
            assert len(after["effects"][1]) == 512
            assert json.loads(entries[1].before)["digest"] == sha256_hex(first)
            report = await registry.bob.audit()
            assert report.intact, report

    run_walk(scenario())


def test_two_applies_at_once_leave_one_aborted(tmp_path: Path) -> None:
    """Both were planned from revision 1. The loser's message says who was faster."""

    async def scenario() -> None:
        async with registry_fixture(tmp_path) as registry:
            await apply(registry.cleo, definitions_of(views=[USAGE]))
            results = await asyncio.gather(
                apply(registry.bob, definitions_of(views=[USAGE, BILLS]), 1),
                apply(registry.cleo, definitions_of(views=[USAGE, tiny_view("calls")]), 1),
                return_exceptions=True,
            )
            (lost,) = [item for item in results if isinstance(item, RevisionConflictError)]
            (won,) = [item for item in results if isinstance(item, ProjectRevision)]
            assert won.revision == 2
            assert f"is at revision 2 (by {won.author!r}" in str(lost)
            with pytest.raises(RevisionConflictError, match="made from revision 0"):
                await apply(registry.cleo, definitions_of())
            newest = await registry.cleo.get_project("shop")
            assert newest is not None
            assert newest.digest == won.digest
            assert (await registry.bob.audit()).intact

    run_walk(scenario())


def test_same_apply_once_more_returns_the_revision_that_it_wrote(tmp_path: Path) -> None:
    """A caller who lost the reply repeats it. Another person's or another plan's is ABORTED."""

    async def scenario() -> None:
        async with registry_fixture(tmp_path) as registry:
            definitions = definitions_of(views=[USAGE])
            first = await apply(registry.cleo, definitions)
            assert await apply(registry.cleo, definitions) == first
            with pytest.raises(RevisionConflictError):
                await apply(registry.bob, definitions)
            with pytest.raises(RevisionConflictError):
                await apply(registry.cleo, definitions_of())
            await apply(registry.cleo, definitions_of(), 1)
            with pytest.raises(RevisionConflictError):
                await apply(registry.cleo, definitions)
            assert len((await registry.cleo.history(object_prefix="project/")).entries) == 2

    run_walk(scenario())


def test_project_rolls_back_by_applying_older_definitions(tmp_path: Path) -> None:
    """The older definitions become a new revision with the same digest."""

    async def scenario() -> None:
        async with registry_fixture(tmp_path) as registry:
            first = await apply(registry.cleo, definitions_of(views=[USAGE]))
            await apply(registry.cleo, definitions_of(views=[USAGE, BILLS]), 1)
            older = await registry.cleo.get_project("shop", 1)
            assert older is not None
            back = await apply(registry.cleo, older.definitions, 2)
            assert (back.revision, back.digest) == (3, first.digest)

    run_walk(scenario())


@pytest.mark.parametrize(
    ("definitions", "problem"),
    [
        (b"{", "not JSON"),
        (b'{"name":"shop", "format":1}', "not canonical"),
        (b"[" * 100_000, "not JSON"),
        (b'{"format":1,"name":"shop","note":"\\ud800"}', "not JSON"),
        (b'{"format":1,"name":"shop","note":NaN}', "not JSON"),
        (b'{"format":1,"name":"shop","name":"shop"}', "not canonical"),
        (b'{"format":1,"name":"other"}', "not canonical JSON with format 1 and this name"),
        (b'{"format":1,"name":"shop","views":[]}', "views of 'shop' is no table"),
        (b'{"format":1,"name":"shop","views":{"a b":{}}}', "'a b' is no plain name"),
        (
            b'{"format":1,"name":"shop","views":{"usage":{"canonical":{"name":"usage"},"hash":""}}}',
            "has the hash ''; its canonical definition has",
        ),
        (definitions_of(models={"churn": {"holdout_bp": 10_001}}), "holdout_bp 10001"),
        (definitions_of(models={"churn": {"owner": "a\x1b[31m"}}), "owner of model 'churn' is no"),
        (definitions_of(models={"churn": {"purpose": 7}}), "purpose of model 'churn' is no text"),
        (definitions_of(models={"churn": {"serving": {"speed": 1}}}), "its fields are deadline_ms"),
        (
            definitions_of(models={"churn": {"serving": {"default_score": "NaN"}}}),
            "must be finite",
        ),
    ],
)
def test_definitions_that_contradict_themselves_are_refused(
    definitions: bytes, problem: str, tmp_path: Path
) -> None:
    """Nothing is written."""

    async def scenario() -> None:
        async with registry_fixture(tmp_path) as registry:
            with pytest.raises(BadRequestError, match=problem):
                await apply(registry.cleo, definitions)
            assert await registry.cleo.list_projects() == []

    run_walk(scenario())


def test_name_belongs_to_one_project(tmp_path: Path) -> None:
    """Views, models and policies. A name that its project gives up is free."""

    async def scenario() -> None:
        async with registry_fixture(tmp_path) as registry:
            parts: dict[str, dict[str, Any]] = {
                "view 'usage'": {"views": [USAGE]},
                "model 'churn'": {"models": {"churn": {}}},
                "policy 'careful'": {"policies": {"careful": {"base": "standard"}}},
            }
            everything = {key: value for part in parts.values() for key, value in part.items()}
            await apply(registry.cleo, definitions_of(**everything))
            for named, part in parts.items():
                with pytest.raises(GateError, match=f"{named} belongs to project 'shop'"):
                    await apply(registry.cleo, definitions_of("crm", **part), name="crm")
            await apply(registry.cleo, definitions_of(), 1)
            await apply(registry.cleo, definitions_of("crm", **everything), name="crm")

    run_walk(scenario())


@pytest.mark.parametrize(("megabytes", "refused"), [(12, False), (16, True)])
def test_definitions_may_be_larger_than_a_message(
    megabytes: int, refused: bool, tmp_path: Path
) -> None:
    """They travel in chunks, in both directions, up to a bound for the whole request."""
    value = json.loads(definitions_of(views=[USAGE]))
    value["views"]["usage"]["note"] = "x" * (megabytes * 2**20)
    definitions = canonical_json(value)

    async def scenario() -> None:
        async with registry_fixture(tmp_path) as registry:
            if refused:
                with pytest.raises(BadRequestError, match="more than 16777216 bytes"):
                    await apply(registry.cleo, definitions)
                return
            await apply(registry.cleo, definitions)
            kept = await registry.cleo.get_project("shop")
            assert kept is not None
            assert kept.definitions == definitions

    run_walk(scenario())


WORKERS = 3
ROUNDS = 3


async def apply_until_killed(address: str, acknowledged: list[int], enough: asyncio.Event) -> None:
    """Apply one revision after the other, each with another view. *enough* is set after ten."""
    async with RegistryClient(address, "cleo") as client:
        with suppress(RegistryUnavailableError):
            while True:
                newest = await client.get_project("shop")
                revision = 0 if newest is None else newest.revision
                views = [tiny_view(f"view_{n}") for n in range(revision % 5)]
                models = {"churn": {"holdout_bp": revision + 1}}
                definitions = definitions_of(views=views, models=models)
                with suppress(RevisionConflictError):
                    acknowledged.append((await apply(client, definitions, revision)).revision)
                if len(acknowledged) >= 10:
                    enough.set()


def test_registry_that_is_killed_midway_leaves_nothing_half_done(tmp_path: Path) -> None:
    """No acknowledged revision is lost, and history and tables agree."""

    # Each apply also writes the settings of a deployment.
    async def preload() -> None:
        async with registry_fixture(tmp_path) as registry:
            await registry.register()
            current = await registry.cleo.deployment("churn")
            await registry.cleo.deploy(replace(current, preload=("1",), why="load it"))

    # Several clients write at once when the registry is killed.
    async def kill_once() -> list[int]:
        registry = RegistryProcess(tmp_path)
        acknowledged: list[int] = []
        enough = asyncio.Event()
        try:
            tasks = [
                asyncio.create_task(apply_until_killed(registry.address, acknowledged, enough))
                for _ in range(WORKERS)
            ]
            await asyncio.wait_for(enough.wait(), 20)
            registry.kill()
            await asyncio.wait_for(asyncio.gather(*tasks), 10)
        finally:
            registry.close()
        return acknowledged

    # The next start proves the tables, and finds whole revisions with their deployments only.
    asyncio.run(preload())
    for _ in range(ROUNDS):
        acknowledged = asyncio.run(kill_once())
        store = RegistryStore(tmp_path, lambda: 1)
        try:
            assert store.stopped_reason == ""
            listed = store.list_projects(pb.ListProjectsRequest(name="shop")).revisions
            newest = listed[0].revision
            assert newest >= max(acknowledged)
            assert [item.revision for item in listed] == list(range(newest, 0, -1))
            kept = store.get_project("shop", 0)
            assert sha256_hex(kept.definitions) == kept.digest
            assert store.deployment("churn").holdout_bp == newest
        finally:
            store.close()


def test_author_changes_no_models_and_no_policies(tmp_path: Path) -> None:
    """Views, labels and recipes are the author's; an approver applies nothing."""
    folder = tmp_path / "registry"
    identities = write_identities(
        tmp_path / "i.json", ann=["author"], bob=["approver"], olga=["operator"]
    )

    async def scenario() -> None:
        async with (
            registry_fixture(folder, identities=(identities,)) as registry,
            registry.client("ann", "ann-token") as ann,
            registry.client("bob", "bob-token") as bob,
            registry.client("olga", "olga-token") as olga,
        ):
            await apply(ann, definitions_of(views=[USAGE]))
            with pytest.raises(NotAllowedError, match="ApplyProject needs author or operator"):
                await apply(bob, definitions_of(), 1)
            assert len(await bob.list_projects()) == 1
            policies = {"careful": {"base": "standard"}}
            for part in ({"policies": policies}, {"models": {"churn": {}}}):
                whole = definitions_of(views=[USAGE], **part)
                with pytest.raises(NotAllowedError, match="which only an operator does"):
                    await apply(ann, whole, 1)
            await apply(olga, definitions_of(views=[USAGE], policies=policies), 1)
            # The author goes on beside the operator's policies.
            both = definitions_of(views=[USAGE, BILLS], policies=policies)
            assert (await apply(ann, both, 2)).revision == 3

    run_walk(scenario())
